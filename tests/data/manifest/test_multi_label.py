"""Several labels of one clip: read from every form of list, kept by scans and packs, refused where they are unclear."""

import json
from pathlib import Path

import pytest
import torch
from samples import view_sample
from tiny_videos import write_video

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.open import open_manifest, open_split_manifests
from vidstill.data.tools.inspect import summarize_dataset
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.scan import scan_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.figures.contact_sheet import draw_contact_sheet
from vidstill.utils.types import InputError

CLIPS = ClipsConfig(dataset="own", sampling=DenseSampling(num_frames=4, stride=1), size=(16, 16), repeats=2)
VIEWS = ViewsConfig(sampling=CLIPS.sampling, temporal_clips=1, spatial_crops=1, short_side=16, size=(16, 16))
LABELS = [(0, 3), (1,), (2, 1, 0)]
NAMES = ("bend", "fall", "run", "sit, slowly; twice")


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    return tmp_path


def open_list(path: Path, text: str):
    path.write_text(text)
    return open_manifest(path)


def labels(manifest) -> list[tuple[int, ...]]:
    return [row.labels for row in manifest.rows]


FORMS = {
    "list.txt": "a.mp4 0,3\nb.mp4 1\nc.mp4 2,1,0\n",
    "frames.txt": "a.mp4 9 0,3\nb.mp4 9 1\nc.mp4 9 2,1,0\n",
    "table.csv": "path,labels\na.mp4,0;3\nb.mp4,1\nc.mp4, 2; 1;0\n",
    "list.jsonl": "".join(
        json.dumps({"path": f"{n}.mp4", "label": [*ls]}) + "\n" for n, ls in zip("abc", LABELS, strict=True)
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_list_states_them_by_their_numbers(folder, name):
    manifest = open_list(folder / name, FORMS[name])
    assert labels(manifest) == LABELS
    assert manifest.classes == ("0", "1", "2", "3")
    assert manifest.multi_label
    assert manifest.description.endswith("several labels a clip")


def test_tables_and_json_lines_state_them_by_their_names(folder):
    table = open_list(folder / "table.csv", "path,classes\na.mp4,bend;run\nb.mp4,fall\nc.mp4,run;fall;bend\n")
    assert (table.classes, labels(table)) == (("bend", "fall", "run"), [(0, 2), (1,), (2, 1, 0)])
    entries = [
        {"path": f"{n}.mp4", "class": [NAMES[label] for label in ls]} for n, ls in zip("abc", LABELS, strict=True)
    ]
    lines = open_list(folder / "list.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    assert (lines.classes, labels(lines)) == (NAMES, LABELS)


def test_numbers_and_names_may_stand_side_by_side(folder):
    text = "path,labels,classes\na.mp4,1;0,up;down\nb.mp4,0,down\nc.mp4,1,up\n"
    assert open_list(folder / "table.csv", text).classes == ("down", "up")
    entries = [{"path": "a.mp4", "label": [1, 0], "class": ["up", "down"]}, {"path": "b.mp4", "label": 0}]
    manifest = open_list(folder / "list.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    assert (manifest.classes, labels(manifest)) == (("down", "up"), [(1, 0), (0,)])


def test_a_split_without_any_is_still_of_a_data_set_with_several(folder):
    open_list(folder / "train.csv", "a.mp4 0,3\n")
    (folder / "val.csv").write_text("b.mp4 1\n")
    assert [open_manifest(folder, split=split).multi_label for split in ("train", "val")] == [True, True]
    (folder / "train.csv").write_text("a.mp4 3\n")
    assert not open_manifest(folder, split="val").multi_label


def test_a_semicolon_in_the_name_of_one_class_is_a_letter(folder):
    manifest = open_list(folder / "table.csv", "path,class\na.mp4,stop; look\nb.mp4,go\nc.mp4,go\n")
    assert (manifest.classes, manifest.multi_label) == (("go", "stop; look"), False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "a.mp4 0,0\n", "line 1 .* states one label twice"),
        ("list.txt", "a.mp4 0,-2\n", "line 1 .* the label '-2'"),
        ("list.txt", "a.mp4 0\nb.mp4 1,x\n", "line 2 .* is not `path label`"),
        ("table.csv", "path,labels\na.mp4,0;x\n", "line 2 .* has the labels 'x'; the first has a number"),
        ("table.csv", "path,labels\na.mp4,run;\n", "line 2 .* has the labels ''; state one"),
        ("table.csv", "path,label\na.mp4,1\nb.mp4,0;1\n", "line 3 .* name the column `labels`"),
        ("table.csv", "path,label\na.mp4,0;1\nb.mp4,1;2\n", "reads as 2 labels; .* name the column `labels`"),
        ("table.csv", "path,class\na.mp4,run\nb.mp4,bend;run\nc.mp4,bend\n", "'bend;run', which reads as 2 labels"),
        ("table.csv", "path,labels,classes\na.mp4,0;1,run\n", "line 2 .* has 2 labels and 1 classes"),
        ("list.jsonl", '{"path": "a.mp4", "label": []}\n', "line 1 .* an empty list of labels"),
        ("list.jsonl", '{"path": "a.mp4", "label": [0, "run"]}\n', "line 1 .*names belong in `class`"),
        ("list.jsonl", '{"path": "a.mp4", "label": [0, true]}\n', "line 1 .* has the label"),
        ("list.jsonl", '{"path": "a.mp4", "label": [0, -1]}\n', "line 1 .* has the label"),
        ("list.jsonl", '{"path": "a.mp4", "label": [1, 1]}\n', "line 1 .* states one label twice"),
        ("list.jsonl", '{"path": "a.mp4", "class": ["run", 3]}\n', "line 1 .* has the class '3'; state a name"),
        ("list.jsonl", '{"path": "a.mp4", "label": [0, 1], "class": ["run"]}\n', "has 2 labels and 1 classes"),
        ("list.jsonl", '{"path": "a.mp4", "label": [0, 1], "class": "run"}\n', "has 2 labels and 1 classes"),
    ],
)
def test_an_unclear_label_is_refused_with_its_line(folder, name, text, message):
    with pytest.raises(InputError, match=message):
        open_list(folder / name, text)


@pytest.fixture
def videos(tmp_path):
    """Two splits of three videos, with several labels."""
    for name in "abcdef":
        write_video(tmp_path / f"{name}.mp4", frames=6)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (tmp_path / "train.csv").write_text("a.mp4 0,3\nb.mp4 1\nc.mp4 2,1,0\n")
    (tmp_path / "val.csv").write_text("d.mp4 1\ne.mp4 3\nf.mp4 2\n")
    return tmp_path


def test_scans_packs_summaries_and_sheets_have_every_label(videos, tmp_path):
    manifests = open_split_manifests(videos)
    summary = summarize_dataset(videos, manifests, progress=lambda done, total: None)
    assert summary.splits["train"].class_counts == dict(zip(NAMES, (2, 2, 1, 1), strict=True))
    assert draw_contact_sheet("own", manifests, progress=lambda done, total: None)[:4] == b"\x89PNG"
    report = scan_dataset(videos, out=tmp_path / "videos.scan.jsonl", workers=0)
    pack_dataset(videos, tmp_path / "packs", TranscodeConfig(short_side=16), workers=0)
    for data in (report.manifest_path, tmp_path / "packs"):
        train, val = (open_manifest(data, split=split) for split in ("train", "val"))
        assert (labels(train), labels(val)) == (LABELS, [(1,), (3,), (2,)])
        assert train.multi_label
        assert val.multi_label
        assert train.classes == NAMES


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_says_of_every_class_whether_a_clip_has_it(videos, workers):
    dataset = TrainClips(open_manifest(videos, split="train"), CLIPS, seed=0)
    how = {"videos_per_step": 3, "steps_per_epoch": 1, "total_steps": 1, "workers": workers}
    (batch,) = iter_train_batches(dataset, **how, device=torch.device("cpu"))
    assert batch.label.dtype == torch.float32
    hot = [[float(label in each) for label in range(4)] for each in LABELS for _ in range(2)]
    assert sorted(batch.label.tolist()) == sorted(hot)
    assert view_sample(ViewClips(open_manifest(videos, split="val"), VIEWS), 1).label.tolist() == [0, 0, 0, 1]
