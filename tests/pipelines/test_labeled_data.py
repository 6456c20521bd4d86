"""Which videos are trained on, validated on and tested on; a test on training videos is refused."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from vidstill.data.manifest.manifest import Manifest
from vidstill.pipelines.labeled_data import open_labeled_splits
from vidstill.utils.types import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    """`list.csv` of ten clips in two classes; `other.csv` of four others; `split/` with both as its splits."""
    (tmp_path / "clips").mkdir()
    for i in range(14):
        (tmp_path / f"clips/{i}.mp4").write_bytes(b"video" * i)
    (tmp_path / "split").mkdir()
    for name, split, numbers in (("list", "train", range(10)), ("other", "val", range(10, 14))):
        (tmp_path / f"{name}.csv").write_text("".join(f"clips/{i}.mp4 {i % 2}\n" for i in numbers))
        lines = (f"{tmp_path}/clips/{i}.mp4 {i % 2}\n" for i in numbers)
        (tmp_path / f"split/{split}.csv").write_text("".join(lines))
    return tmp_path


def paths(manifest: Manifest) -> set[str]:
    return {Path(row.name).name for row in manifest.rows}


def name(count: range) -> set[str]:
    return {f"{i}.mp4" for i in count}


def test_the_val_split_is_tested_on_and_validated_on(folder):
    train, validation, test = open_labeled_splits(folder / "split")
    assert (paths(train), paths(test)) == (name(range(10)), name(range(10, 14)))
    assert validation is test


def test_val_share_is_validated_on_and_tested_on_where_there_is_nothing_else(folder):
    train, validation, test = open_labeled_splits(folder / "list.csv", val_share=0.4)
    assert validation is test
    assert Counter(test.rows.labels.tolist()) == {0: 2, 1: 2}
    assert paths(train) | paths(test) == name(range(10))
    assert len(train) == 6
    assert open_labeled_splits(folder / "list.csv", val_share=0.4).test.fingerprint == test.fingerprint


@pytest.mark.parametrize("options", [{"data": "split"}, {"data": "list.csv", "test_data": "other.csv"}])
def test_val_share_leaves_the_test_set_as_it_is(folder, options):
    train, validation, test = open_labeled_splits(
        val_share=0.2, **{key: folder / value for key, value in options.items()}
    )
    assert paths(test) == name(range(10, 14))
    assert paths(train) | paths(validation) == name(range(10))
    assert len(validation) == 2


def test_an_own_val_split_is_validated_on_beside_other_test_videos(folder):
    (folder / "third.csv").write_text("clips/10.mp4 0\n")
    train, validation, test = open_labeled_splits(folder / "split", test_data=folder / "third.csv")
    assert (len(train), len(validation), len(test)) == (10, 4, 1)


def test_groups_that_a_table_states_are_held_out_whole(folder):
    rows = (f"clips/{i}.mp4,{i % 2},p{i // 2}\n" for i in range(10))
    (folder / "table.csv").write_text("path,label,group\n" + "".join(rows))
    train, _, test = open_labeled_splits(folder / "table.csv", val_share=0.2)
    (first, second) = sorted(int(Path(path).stem) for path in paths(test))
    assert first // 2 == second // 2
    assert len(train) == 8


def make_class_folders(folder: Path) -> Path:
    for i in range(10):
        (folder / f"folders/{'jump' if i % 2 else 'run'}").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"clips/{i}.mp4", folder / f"folders/{'jump' if i % 2 else 'run'}")
    return folder / "folders"


@pytest.mark.parametrize("kind", ["list", "class folders", "train alone", "official list"])
def test_a_dataset_without_a_val_split_is_refused_and_the_mends_are_named(folder, kind):
    data = folder / "list.csv"
    if kind == "class folders":
        data = make_class_folders(folder)
    elif kind == "train alone":
        (folder / "split/val.csv").unlink()
        data = folder / "split"
    elif kind == "official list":
        data = folder / "annotations/train.csv"
        data.parent.mkdir()
        rows = "".join(f"{'run' if i % 2 else 'jump'},{i},0,10,train\n" for i in range(10))
        data.write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    with pytest.raises(InputError, match=r"--val-share 0\.2") as raised:
        open_labeled_splits(data)
    command = "vidstill data split TABLE --out DIR --by group"  # no group is stated: the dataset's own would be refused
    assert f"list them in a table with a column `group`, then {command}" in str(raised.value)
    open_labeled_splits(data, val_share=0.2)


def test_a_table_with_groups_without_a_val_split_is_refused_with_the_command_that_splits_it(folder):
    rows = (f"clips/{i}.mp4,{i % 2},p{i // 2}\n" for i in range(10))
    (folder / "table.csv").write_text("path,label,group\n" + "".join(rows))
    with pytest.raises(InputError, match=f"vidstill data split {folder / 'table.csv'} --out DIR --by group"):
        open_labeled_splits(folder / "table.csv")


@pytest.mark.parametrize("spelling", ["same", "absolute", "link to the directory", "link to the file", "one row"])
def test_a_test_on_training_videos_is_refused(folder, spelling):
    test = folder / "test.csv"
    if spelling == "same":
        test = folder / "list.csv"
    elif spelling == "absolute":
        test.write_text("".join(f"{folder}/clips/../clips/{i}.mp4 {i % 2}\n" for i in range(10)))
    elif spelling == "link to the directory":
        (folder / "link").symlink_to("clips")
        test.write_text("link/3.mp4 1\n")
    elif spelling == "link to the file":
        (folder / "new.mp4").symlink_to("clips/3.mp4")
        test.write_text("new.mp4 1\n")
    else:
        test.write_text("clips/11.mp4 1\nclips/3.mp4 1\n")
    with pytest.raises(InputError, match=r"are training videos too, first .*--val-share 0\.2.*data split"):
        open_labeled_splits(folder / "list.csv", test_data=test)


def test_a_class_of_one_video_cannot_be_held_out(folder):
    (folder / "list.csv").write_text("clips/0.mp4 0\nclips/1.mp4 1\nclips/2.mp4 0\n")
    with pytest.raises(InputError, match=r"the class '1' .* too few videos .*--test-data"):
        open_labeled_splits(folder / "list.csv", val_share=0.5)


def test_images_are_called_images(folder):
    for i in range(3):
        (folder / f"{i}.png").touch()
    (folder / "list.csv").write_text("0.png 0\n1.png 1\n2.png 0\n")
    with pytest.raises(InputError, match=r"tested on its training images"):
        open_labeled_splits(folder / "list.csv")
