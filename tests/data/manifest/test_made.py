"""Drawn clips by address: which datasets they are, that they show what `data make` writes, and who may name them."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from tiny_runs import FINETUNE, TEACHER, run, typed
from tiny_videos import write_video

from vidstill.cli.main import main
from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.decode.reader import VideoReader, iter_frames, read_frames
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.hold_out import hold_out
from vidstill.data.manifest.open import list_splits, open_manifest, open_split_manifests, open_test_manifest
from vidstill.data.storage.fetch import BrokenVideo, fetch_source, parse_path
from vidstill.data.transforms.frame_sampling import TimedSampling
from vidstill.pipelines.infer.videos import find_videos
from vidstill.synthetic import made
from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, SyntheticClipsConfig, make_dataset
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

SPEC = "made:train=20,val=6,frames=8,size=16x24,classes=3,seed=5"
CONFIG = SyntheticClipsConfig(
    train=20, val=6, unlabelled=3, frames=8, size=(16, 24), classes=MOTION_CLASSES[:3], seed=5
)
CLIPS = ClipsConfig(dataset="any", sampling=TimedSampling(num_frames=4, stride=3.0, frame_rate=16.0), size=(16, 16))


def test_a_dataset_has_its_splits_labels_and_facts():
    manifests = open_split_manifests(SPEC)
    assert {name: len(manifest) for name, manifest in manifests.items()} == {"train": 20, "val": 6}
    assert list_splits(SPEC) == ("train", "val")
    for manifest in manifests.values():
        assert manifest.classes == MOTION_CLASSES[:3]
        assert manifest.rows.labels.tolist() == [number % 3 for number in range(len(manifest))]
    row = open_test_manifest(SPEC).rows[4]
    assert row.source == parse_path(f"{SPEC}/val/000004")
    assert row.source == "made://train=20,val=6,size=16x24,seed=5,frames=8,classes=3/val/000004"
    assert (row.name, row.frames, row.frame_rate) == ("val/000004", 8, 8)
    assert len(open_manifest(SPEC)) == 20


def test_clips_without_labels_have_no_splits():
    spec = "made:unlabelled=5,frames=8,size=16x16"
    assert list_splits(spec) == ()
    for manifest in (open_manifest(spec), open_manifest(spec, split="train"), open_test_manifest(spec)):
        assert (len(manifest), manifest.classes, manifest.rows.labels.tolist()) == (5, (), [-1] * 5)


def test_an_address_shows_the_clips_that_the_same_numbers_write_into_files(tmp_path):
    make_dataset(tmp_path, CONFIG, workers=1)
    lists = [(tmp_path, split, SPEC) for split in ("train", "val")]
    lists.append((tmp_path / "unlabelled.txt", None, "made:unlabelled=3,frames=8,size=16x24,classes=3,seed=5"))
    for path, split, spec in lists:
        files, drawn = open_manifest(path, split=split), open_manifest(spec, split=split)
        assert files.classes == drawn.classes
        assert files.rows.labels.tolist() == drawn.rows.labels.tolist()
        assert [row.name for row in files.rows] == [f"{row.name}.mp4" for row in drawn.rows]
        lossy, exact = (
            np.stack([read_frames(row.source, range(8)).astype(int) for row in part.rows]) for part in (files, drawn)
        )
        losses = np.abs(lossy - exact).mean((1, 2, 3, 4))
        assert losses.max() < 0.5 * np.abs(lossy - np.roll(exact, 1, 0)).mean((1, 2, 3, 4)).min()


def test_a_clip_is_that_of_its_seed_and_a_larger_dataset_contains_a_smaller_one():
    rows = [row for manifest in open_split_manifests(SPEC).values() for row in manifest.rows]
    for row in rows:
        frames, number = read_frames(row.source, range(8)), int(row.name[-6:])
        seed = derive_sample_seed(5, SYNTHETIC_SPLITS.index(row.name[:-7]), number)
        alone = draw_clip(MOTION_CLASSES[number % 3], seed, 8, (16, 24))
        assert np.abs(frames.astype(int) - alone).max() <= 1  # sums among others may be rounded otherwise
        larger = row.source.replace("train=20", "train=300")
        np.testing.assert_array_equal(frames, read_frames(larger, range(8)))


def test_a_clip_is_a_video():
    address = f"{SPEC}/val/000004"
    with VideoReader(address) as video:
        assert (video.num_frames, video.frame_rate, video.metadata.duration_seconds) == (8, 8.0, 1.0)
        frames = video.read_frames([7, 0, 0])
    np.testing.assert_array_equal(frames, np.stack(list(iter_frames(address)))[[7, 0, 0]])
    with pytest.raises(BrokenVideo, match="ends early: 8 frames decode and frame 8"):
        read_frames(address, [8])
    manifest = open_manifest(address)
    assert [row.source for row in manifest.rows] == [parse_path(address)]
    selection = find_videos([address, f"{SPEC}/val/000005"])
    assert [str(row.source) for row in selection.manifest.rows] == [parse_path(f"{SPEC}/val/00000{n}") for n in (4, 5)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_draws_each_block_of_clips_once_and_gives_the_same_bits(workers, tmp_path, monkeypatch):
    draw_clips, log = made.draw_clips, tmp_path / "log"

    def record(actions: list[str], *args: object) -> torch.Tensor:
        with log.open("a") as file:
            file.write(f"{len(actions)}\n")
        marks = torch.arange(len(actions), dtype=torch.uint8)  # a clip's bits may depend on what is drawn with it
        return draw_clips(actions, *args) ^ marks[:, None, None, None, None]

    monkeypatch.setattr(made, "draw_clips", record)
    manifest = open_manifest("made:train=40,frames=8,size=32x32,seed=8")

    def train(cache: FrameCache | None) -> tuple[list[bytes], list[int]]:
        made._draw_block.cache_clear()
        log.write_text("")
        batches = iter_train_batches(
            TrainClips(manifest, CLIPS, seed=0, cache=cache),
            videos_per_step=4,
            steps_per_epoch=10,
            total_steps=30,
            workers=workers,
            device=torch.device("cpu"),
        )
        return [batch.clip.numpy().tobytes() for batch in batches], list(map(int, log.read_text().split()))

    cache = FrameCache(manifest.rows, 8 * 32 * 32 * 3)
    batches, drawn = train(cache)
    assert drawn == [16, 16, 16]  # of 40 clips; the last block is whole, for its clips' sake
    assert cache.count_videos() == 40
    uncached, drawn = train(None)
    assert len(drawn) > 20
    assert batches == uncached


def test_a_cache_of_some_rows_finds_those_that_are_drawn_together():
    manifest = open_manifest("made:train=40,frames=8,size=32x32")
    rest, held_out = hold_out(manifest, 0.3)
    for part in (rest, held_out):
        cache = FrameCache(part.rows, 8 * 32 * 32 * 3)
        dataset = TrainClips(part, CLIPS, seed=0, cache=cache)
        arrays = [dataset.load_arrays(0, index, 0, index)[0] for index in range(len(part))]
        plain = TrainClips(part, CLIPS, seed=0)
        for index, array in enumerate(arrays):
            np.testing.assert_array_equal(array, plain.load_arrays(0, index, 0, index)[0])
        assert cache.count_videos() == len(part)


def test_a_fingerprint_is_of_the_address_and_of_how_clips_are_drawn(monkeypatch):
    def fingerprints(spec: str) -> list[str]:
        manifest = open_manifest(spec)
        return [part.fingerprint for part in (manifest, *hold_out(manifest, 0.3))]

    first = fingerprints("made:train=20,size=16x16,seed=1")
    assert first == fingerprints("made://seed=1,val=0,size=16x16,train=20,classes=12")
    assert not set(first) & set(fingerprints("made:train=20,size=16x16,seed=2"))
    monkeypatch.setattr(made, "DRAWING_VERSION", made.DRAWING_VERSION + 1)
    assert not set(first) & set(fingerprints("made:train=20,size=16x16,seed=1"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("made:", "names no clips; give train, val or unlabelled, such as made:train=600"),
        ("made:size=32x32", "names no clips"),
        ("made:train=4,vals=3", "has 'vals=3' in it; did you mean val=…?"),
        ("made:train=4,colour=3", "has 'colour=3' in it; keys are train, val, unlabelled,"),
        ("made:train", "has 'train' in it; did you mean train=…?"),
        ("made:train=four", "has the train 'four'; give a whole number"),
        ("made:train=4,train=5", "states train twice"),
        ("made:train=4,unlabelled=5", "give unlabelled in an address of its own"),
        ("made:train=4,size=32", "has the size '32'; give rows x columns, such as 32x32"),
        ("made:train=4,size=31x32", "clips of 31x32 pixels cannot be made"),
        ("made:train=4,frames=1", "show no motion"),
        ("made:train=4,frames=99999", "has clips of 409,595,904 pixels; draw at most 67,108,864"),
        ("made:train=99999999999", "train is 99999999999; take 0 to 10000000"),
        ("made:train=4,classes=13", "has 13 classes; give 1 to 12"),
        ("made:train=4,classes=lefft+right", "'lefft' is no class that can be drawn; did you mean left?"),
        ("made:train=4/train/000004", "has no clip 'train/000004'; its last one is train/000003"),
        ("made:train=4/x", "has no clip 'x'"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(spec, message):
    with pytest.raises(InputError) as caught:
        open_manifest(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_an_address_does_not_have_is_said():
    with pytest.raises(InputError, match="has no val split; give val=300 too"):
        open_manifest("made:train=4", split="val")
    with pytest.raises(InputError, match="has no train split; give train=300 too"):
        open_manifest("made:val=4")
    with pytest.raises(InputError, match="leave out --root"):
        open_manifest("made:train=4", root=Path("videos"))
    with pytest.raises(InputError, match="has no fold 2"):
        open_manifest("made:train=4", fold=2)
    with pytest.raises(InputError, match=r"is a dataset; give one of its clips, such as made:train=4/train/000000"):
        VideoReader("made:train=4")
    with pytest.raises(InputError, match="is drawn and has no file"):
        fetch_source("made:train=4/train/000000")


@pytest.mark.parametrize("verb", ["scan", "pack", "split", "verify"])
def test_verbs_that_are_about_files_refuse_drawn_clips(verb, tmp_path, capsys):
    out = [] if verb == "verify" else ["--out", str(tmp_path / "out")]
    assert main(["data", verb, "made:train=4", *out]) == 2
    assert "made://train=4 is drawn and has no files; write them first" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["made://train=4/train/000000", "made:train=4/train/000000"])
def test_no_list_and_no_pack_names_drawn_clips(address, tmp_path):
    row = f'{{"path": "{address}"}}'
    is_address = "://" in address
    for name, line in (("list.txt", address), ("list.jsonl", row), ("index.jsonl", row)):
        (tmp_path / name).write_text(f"{line}\n")
        fsspec.filesystem("memory").pipe(f"/lists/{name}", f"{line}\n".encode())
        for path in (tmp_path / name, f"memory://lists/{name}"):
            is_local_list = isinstance(path, Path) and name != "index.jsonl"
            refusal = "line 1 of .* has the scheme 'made', which is not read" if is_local_list else "an address"
            with pytest.raises(InputError, match=refusal if is_address else "are missing"):
                open_manifest(path)


def test_a_file_of_such_a_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = read_frames("made:train=1,frames=8,size=16x16/train/000000", range(8))
    write_video(tmp_path / "made:train=1/clip.mp4", 9)
    (row,) = open_manifest("./made:train=1").rows
    assert len(read_frames(row.source, range(9))) == 9 > len(frames)


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> tuple[Path, str]:
    """A pre-training and a fine-tuning on drawn clips, and the address of the latter's."""
    out, small = tmp_path_factory.mktemp("road"), "frames=8,size=16x24,classes=left+right"
    run(TEACHER, data=f"made:unlabelled=16,{small}", out=out / "teacher", schedule__epochs=2)
    labelled = f"made:train=8,val=6,{small}"
    run(FINETUNE, data=labelled, out=out / "finetune", init=out / "teacher", encoder__depth=3, schedule__epochs=2)
    return out, labelled


def test_every_verb_that_takes_videos_takes_drawn_clips(road, tmp_path, capsys):
    out, data = road
    model = str(out / "finetune")
    for command in (
        ["evaluate", model, "--data", data],
        ["probe", "linear", str(out / "teacher"), "--data", data, "--cache", str(tmp_path / "cache")],
        ["embed", model, data, "--out", str(tmp_path / "features.npz")],
        ["predict", model, f"{data}/val/000001"],
        ["data", "inspect", data, "--contact-sheet", str(tmp_path / "sheet.png")],
        typed(FINETUNE, data=data, out=out / "finetune", init=out / "teacher", encoder__depth=3, schedule__epochs=2),
    ):
        assert main(command) == 0, command
    assert "holds the finished run" in capsys.readouterr().err
    assert sorted(np.load(tmp_path / "features.npz")["names"].tolist())[0] == "train/000000"


def test_features_of_other_drawn_clips_of_the_same_names_are_computed_anew(road, tmp_path):
    out, data = road
    tables = []
    for seed in ("", ",seed=1"):
        assert main(["embed", str(out / "finetune"), data + seed, "--out", str(tmp_path / "features.npz")]) == 0
        tables.append(dict(np.load(tmp_path / "features.npz")))
    assert (tables[0]["names"] == tables[1]["names"]).all()
    assert not np.allclose(tables[0]["final"], tables[1]["final"])


def test_how_much_memory_drawn_clips_take_is_known_before_one_is_drawn(monkeypatch):
    monkeypatch.delattr(made, "draw_clips")
    manifest = open_manifest("made:unlabelled=100,frames=8,size=32x32,seed=77")
    cache, message = open_frame_cache(manifest, workers=0)
    assert message == "cache: 100 videos, about 2.5 MB decoded, are held in memory"
    assert cache is not None
