"""`data split`: two lists that are a dataset, with whole groups on one side."""

import json
from pathlib import Path

import pytest

from vidstill.cli.main import main
from vidstill.data.manifest.open import open_manifest, open_split_manifests
from vidstill.data.tools.split import SplitReport, split_dataset
from vidstill.utils.types import InputError


@pytest.fixture
def table(tmp_path) -> Path:
    """Five persons who run and jump twice each; a path and a class have commas, quotes and spaces."""
    lines = ["path,label,group"]
    for person in range(5):
        for number in range(4):
            name = f'clips/p{person}, "{number}" .mp4'
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"v" * (person + number))
            quoted = name.replace('"', '""')
            lines.append(f'"{quoted}",{"run" if number % 2 else chr(34) + "jump, high" + chr(34)},p{person}')
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


def split(data: Path, out: Path, **options) -> SplitReport:
    return split_dataset(data, out, **{"val_share": 0.2, **options})


def test_the_lists_are_a_dataset_with_the_same_videos_and_classes(table, tmp_path):
    report = split(table, tmp_path / "out", by="group")
    whole, parts = open_manifest(table), open_split_manifests(tmp_path / "out")
    assert set(parts) == {"train", "val"}
    assert all(part.classes == whole.classes == ("jump, high", "run") for part in parts.values())
    described = {(row.source, row.label) for part in parts.values() for row in part.rows}
    assert described == {(tmp_path / row.name, row.label) for row in whole.rows}
    assert [len(parts["train"]), len(parts["val"])] == [16, 4]
    assert report.groups == {"train": 4, "val": 1}
    assert report.splits["val"].class_counts == {"jump, high": 2, "run": 2}
    assert not report.one_sided_classes
    train, val = (set(parts[name].rows.groups) for name in ("train", "val"))
    assert train | val == {f"p{person}" for person in range(5)}
    assert not train & val


def test_lists_can_be_moved_and_never_lie_among_the_videos(table, tmp_path):
    split(table, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert len(open_manifest(tmp_path / "moved")) == 16
    with pytest.raises(InputError, match="holds something else"):
        split(table, tmp_path / "clips")


def test_several_labels_frames_and_videos_without_labels(tmp_path):
    for i in range(6):
        (tmp_path / f"v{i}").mkdir()
    texts = {
        "several.jsonl": "".join(f'{{"path": "v{i}", "class": ["a;b", "c"], "frames": 7}}\n' for i in range(6)),
        "none.txt": "".join(f"v{i}\n" for i in range(6)),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        split(tmp_path / name, tmp_path / f"{name}.out")
        rows = [row for part in open_split_manifests(tmp_path / f"{name}.out").values() for row in part.rows]
        assert len(rows) == 6
        assert {(row.labels, row.frames) for row in rows} == {((0, 1), 7) if name == "several.jsonl" else ((), None)}
    assert open_manifest(tmp_path / "several.jsonl.out").classes == ("a;b", "c")


def test_the_same_split_is_left_as_it_is_and_another_is_refused(table, tmp_path):
    split(table, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    split(table, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(InputError, match=r"settings\.seed is 0, here it is 1"):
        split(table, tmp_path / "out", seed=1)


def test_the_command_says_what_is_on_each_side_and_warns_of_classes_on_one(table, tmp_path, capsys):
    assert main(["data", "split", str(table), "--out", str(tmp_path / "out"), "--by", "group"]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 groups, 16 videos in 2 classes, 8 each" in printed
    assert "val: 1 group, 4 videos in 2 classes, 2 each" in printed
    assert f"next: vidstill finetune auto --data {tmp_path / 'out'}" in printed
    assert "warning" not in printed
    for name in ("alone", "other/1", "other/2", "many/a/1", "many/a/2", "many/b/1"):
        (tmp_path / f"folders/{name}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"folders/{name}/clip.mp4").touch()
    command = ["data", "split", str(tmp_path / "folders"), "--out", str(tmp_path / "out2"), "--by", "directory"]
    assert main(command) == 0
    assert "warning: no video of alone in val; add others, or split by clip" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["one_sided_classes"] == ["alone"]
    assert report["groups"] == {"train": 4, "val": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-share", "1.5"], "give --val-share between 0 and 1"),
        (["--by", "directory"], "its 1 directory would be on one side; add others, or split by clip"),
        (["--by", "person"], "--by"),
        (["--root", "nowhere"], "are missing"),
    ],
)
def test_what_cannot_be_split(table, tmp_path, capsys, options, message):
    assert main(["data", "split", str(table), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dataset_with_a_val_split_is_refused(table, tmp_path, capsys):
    split(table, tmp_path / "out")
    assert main(["data", "split", str(tmp_path / "out"), "--out", str(tmp_path / "again")]) == 2
    assert "has a val split already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nb.mp4", "\udcff.mp4"])
def test_a_path_that_no_list_can_hold_is_refused(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    for each in (name, "c.mp4", "d.mp4"):
        (folder / each).touch()
    with pytest.raises(InputError, match="cannot stand in a list; rename it"):
        split(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
