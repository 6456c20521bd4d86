"""Folders and lists become rows; what cannot be used is said with its line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.manifest.open import list_splits, open_manifest, open_test_manifest
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import ShardMember
from vidstill.utils.types import InputError


@pytest.fixture
def folder(tmp_path):
    """Files by the names that a test asks for; what they hold does not matter here."""

    def make(*names: str, **lists: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        for name, text in lists.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        return tmp_path

    return make


def list_rows(manifest) -> list[tuple[str, int | None]]:
    return [(str(row.source.relative_to(manifest.rows.root)), row.label) for row in manifest.rows]


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)


@st.composite
def video_rows(draw):
    name, shard = draw(names), draw(st.none() | st.sampled_from([Path("a.tar"), Path("b.tar")]))
    source = Path("/videos", name)
    if shard:
        source = ShardMember(shard, draw(st.integers(0, 2**50)), draw(st.integers(1, 2**40)), name)
    labels = draw(st.lists(st.integers(0, 9), max_size=4, unique=True))
    return VideoRow(
        source,
        labels[0] if labels else None,
        draw(st.none() | st.integers(1, 10**6)),
        draw(st.none() | st.floats(1, 240)),
        name if shard else str(source),
        draw(st.sampled_from(["", "", "does not decode: cut"])),
        tuple(labels[1:]),
    )


@given(st.lists(video_rows()))
def test_a_table_gives_the_rows_that_it_was_made_of_and_so_does_a_selection(rows):
    table = pickle.loads(pickle.dumps(VideoTable.from_rows(rows)))  # as a worker may get it
    assert list(table) == rows
    assert table[::-2] == rows[::-2]
    assert [table[i - len(rows)] for i in range(len(rows))] == rows
    assert table.labels.tolist() == [-1 if row.label is None else row.label for row in rows]
    pairs = {(i, label) for i, row in enumerate(rows) for label in row.labels}
    assert set(zip(*(column.tolist() for column in table.list_label_pairs()), strict=True)) == pairs
    assert [set(table.multi_hot(i, 10).nonzero()[0].tolist()) for i in range(len(rows))] == [
        set(row.labels) for row in rows
    ]
    assert table.multi_label == any(row.extra_labels for row in rows)
    assert len(table.errors) == sum(bool(row.error) for row in rows)
    mask = np.arange(len(rows)) % 3 != 1
    assert list(table.select(mask)) == [row for row, selected in zip(rows, mask, strict=True) if selected]


def test_a_row_costs_little_more_than_its_letters():
    names = [f"class/video_{i:06d}.mp4" for i in range(10_000)]
    table = VideoTable(Path(), names, {"label": np.arange(10_000) % 400})
    assert len(pickle.dumps(table)) < sum(map(len, names)) + 10_000 * 16


def test_class_folders_are_classes_in_the_order_of_their_names(folder):
    manifest = open_manifest(
        folder("run/b.mp4", "run/a.MP4", "jump/deep/c.avi", "run/notes.txt", ".git/x.mp4", "run/.old/x.mp4", "empty/x")
    )
    assert manifest.classes == ("jump", "run")
    assert list_rows(manifest) == [("jump/deep/c.avi", 0), ("run/a.MP4", 1), ("run/b.mp4", 1)]
    assert "a directory for each class" in manifest.description


def test_a_class_that_one_split_lacks_keeps_its_number_in_the_other(folder):
    path = folder("train/a/1.mp4", "train/b/2.mp4", "train/c/3.mp4", "val/c/4.mp4")
    train, val = (open_manifest(path, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == ("a", "b", "c")
    assert list_rows(val) == [("c/4.mp4", 2)]
    assert list_rows(open_manifest(path)) == list_rows(train)
    assert list_splits(path) == ("train", "val")


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        (["b.mp4", "a.webm", "more/c.mkv", "poster.jpg"], [("a.webm", None), ("b.mp4", None), ("more/c.mkv", None)]),
        (["cat/1.jpg", "dog/2.PNG"], [("cat/1.jpg", 0), ("dog/2.PNG", 1)]),  # images count where there are no videos
    ],
)
def test_a_flat_folder_has_no_labels_and_images_have_classes(folder, files, rows):
    assert list_rows(open_manifest(folder(*files))) == rows
    assert list_rows(open_manifest(folder("b.mp4") / "b.mp4")) == [("b.mp4", None)]


def test_lists_beside_their_classes(folder):
    path = folder(
        "x/a.mp4", "x/b.mp4", train_csv="x/a.mp4 1\n\nx/b.mp4 0\n", val_csv="x/b.mp4 0\n", classes_txt="no\nyes\n"
    )
    assert list_rows(open_manifest(path)) == [("x/a.mp4", 1), ("x/b.mp4", 0)]
    assert list_rows(open_manifest(path, split="val")) == [("x/b.mp4", 0)]
    assert open_manifest(path, split="val").classes == ("no", "yes")


def test_without_names_both_splits_have_as_many_classes_as_the_larger_label(folder):
    path = folder("a.mp4", train_csv="a.mp4 3", val_csv="a.mp4 1")
    assert open_manifest(path).classes == open_manifest(path, split="val").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a b.mp4\nc.mp4\n", [("a b.mp4", None), ("c.mp4", None)]),
        ("a b.mp4 2\nc.mp4   10\n", [("a b.mp4", 2), ("c.mp4", 10)]),
        ("\ufeffc.mp4 0\r\na b.mp4 1\r\n", [("c.mp4", 0), ("a b.mp4", 1)]),
        ("path,label\na b.mp4,1\n", [("a b.mp4", 1)]),
        ("Class,Path\nrun,c.mp4\njump,a b.mp4\n", [("c.mp4", 1), ("a b.mp4", 0)]),
        ('path,group\n"a b.mp4",7\n', [("a b.mp4", None)]),
        ('"path","label"\n"a b.mp4","0"\n', [("a b.mp4", 0)]),
        ("path,label\nc.mp4,run\na b.mp4,jump\n", [("c.mp4", 1), ("a b.mp4", 0)]),
    ],
)
def test_a_list_reads_as_it_is_written(folder, text, rows):
    assert list_rows(open_manifest(folder("a b.mp4", "c.mp4", list_csv=text) / "list.csv")) == rows


def test_three_fields_are_a_folder_of_frames_and_a_bare_name_stands_for_an_mp4(folder):
    rows = open_manifest(folder("v1/img_00001.jpg", list_txt="v1 42 3\n") / "list.txt").rows
    assert list(rows) == [VideoRow(rows.root / "v1", 3, 42, name="v1")]
    assert list_rows(open_manifest(folder("a.mp4", list_txt="a 0") / "list.txt")) == [("a.mp4", 0)]


def test_a_table_with_splits_gives_the_requested_one(folder):
    text = "split,path,label,class\ntrain,a.mp4,1,run\nval,b.mp4,0,jump\n"
    path = folder("a.mp4", "b.mp4", table_csv=text) / "table.csv"
    assert list_rows(open_manifest(path)) == [("a.mp4", 1)]
    assert list_rows(open_manifest(path, split="val")) == [("b.mp4", 0)]
    assert open_manifest(path).classes == open_manifest(path, split="val").classes == ("jump", "run")
    assert list_splits(path) == ("train", "val")


def test_paths_may_start_at_another_root(folder):
    path = folder("videos/a.mp4", list_txt="a.mp4 0")
    assert list_rows(open_manifest(path / "list.txt", root=path / "videos")) == [("a.mp4", 0)]


def test_the_fingerprint_follows_paths_labels_and_sizes(folder):
    path = folder("a.mp4", "b.mp4", list_txt="a.mp4 0\nb.mp4 1\n") / "list.txt"
    fingerprints = {open_manifest(path).fingerprint}
    assert open_manifest(path).fingerprint in fingerprints
    for change in (
        lambda: path.write_text("a.mp4 1\nb.mp4 1\n"),
        lambda: path.write_text("b.mp4 1\na.mp4 1\n"),
        lambda: path.write_text("b.mp4 1\na.mp4 1,0\n"),
        lambda: (path.parent / "a.mp4").write_bytes(b"longer than it was"),
    ):
        change()
        assert open_manifest(path).fingerprint not in fingerprints
        fingerprints.add(open_manifest(path).fingerprint)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.mp4 0\na.mp4 x\n", "line 2 of .*list.csv reads 'a.mp4 x'"),
        ("a.mp4\na.mp4 3\n", "line 2 of .*list.csv reads 'a.mp4 3'"),
        ("a 5 0\na.mp4 0\n", "line 2 of .*list.csv reads 'a.mp4 0'"),
        ("a.mp4 0\n\na.mp4 -1\n", "line 3 of .*list.csv has the label '-1'"),
        ("a.mp4 0\na.mp4 1700000000\n", "line 2 of .*list.csv has the label '1700000000'"),
        ("path,label\na.mp4,0\na.mp4\n", "line 3 of .*list.csv has 1 field, its first line 2"),
        ("path,label\na.mp4,0\na.mp4,run\n", "line 3 of .*list.csv has the label 'run'"),
        ("path,label,class\na.mp4,0,run\na.mp4,0,jump\n", "line 3 of .*list.csv calls class 0 'jump', before 'run'"),
        ("path,frames\n,3\n", "line 2 of .*list.csv"),
        ("path,label\na.mp4,0\ra.mp4,0\n", "line 2 of .*list.csv is no row of a table"),
        ("a.mp4 0\nb.mp4 0\nc.mp4 0\n", r"2 of its 3 videos are missing, first .*b.mp4 \(line 2\)"),
        ("a.mp4 0\n../a.mp4 0\n", "line 2 of .*list.csv names ../a.mp4, which is outside"),
        ("\n\n", "no videos found in .*list.csv"),
        ("a.mp4 0\n\0\n", "line 2 of .*list.csv holds a zero byte"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_line(folder, text, sentence):
    with pytest.raises(InputError, match=sentence):
        open_manifest(folder("a.mp4", list_csv=text) / "list.csv")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"a.mp4 0\n\xff\xfe\n", r"line 2 of .*list.csv is not UTF-8 text"),
        (b"a.mp4 1\na.mp4 2\n", r"line 2 of .*list.csv has the label 2, but .*classes.txt names only 2 classes"),
        (b"a.mp4 0\na.mp4 1,2\n", r"line 2 of .* has the label 2, but .* names only 2 classes"),
        (b"path,class\na.mp4,run\n", r"the class 'run', which is not in .*classes\.txt"),
    ],
)
def test_text_and_labels_that_do_not_suit_the_classes_are_refused(folder, text, sentence):
    path = folder("a.mp4", classes_txt="no\nyes\n") / "list.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=sentence):
        open_manifest(path)


def test_a_place_without_videos_is_refused(folder):
    with pytest.raises(InputError, match="no videos found in"):
        open_manifest(folder("notes.txt", "sub/more.txt"))
    with pytest.raises(InputError, match="does not exist"):
        open_manifest(folder() / "nowhere")


@pytest.mark.parametrize("files", [["a.mp4"], ["x/a.mp4", "y/b.mp4"]])
def test_a_dataset_without_splits_is_tested_on_as_a_whole(folder, files):
    path = folder(*files)
    assert list_rows(open_test_manifest(path)) == list_rows(open_manifest(path))
    path = folder("split/train/a/1.mp4", "split/val/a/2.mp4") / "split"  # of one with splits, the val split
    assert list_rows(open_test_manifest(path)) == [("a/2.mp4", 0)]


@pytest.mark.parametrize("files", [["a.mp4"], ["train/x/a.mp4"], ["x/a.mp4"]])
def test_a_missing_val_split_is_refused(folder, files):
    with pytest.raises(InputError, match="no val split"):
        open_manifest(folder(*files), split="val")


def test_a_dataset_is_of_images_if_every_file_is_one(tmp_path):
    for name in ("a.png", "b.JPG", "c.mp4"):
        (tmp_path / name).touch()
    for text, noun in (("a.png\nb.JPG\n", "image"), ("a.png\nc.mp4\n", "video")):
        (tmp_path / "list.txt").write_text(text)
        assert open_manifest(tmp_path / "list.txt").noun == noun
    (tmp_path / "list.txt").write_text("a.png\nmissing.png\n")
    with pytest.raises(InputError, match="1 of its 2 images are missing"):
        open_manifest(tmp_path / "list.txt")


# ---- Tables without a header ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows", "classes"),
    [
        ("a.mp4,0\nb.mp4,1\n", [("a.mp4", 0), ("b.mp4", 1)], ("0", "1")),
        ("a.mp4, 0\nb.mp4, 1\n", [("a.mp4", 0), ("b.mp4", 1)], ("0", "1")),
        ("a.mp4,30,0\nb.mp4,29,1\n", [("a.mp4", 0), ("b.mp4", 1)], ("0", "1")),
        ("a.mp4,run\nb.mp4,jump high\n", [("a.mp4", 1), ("b.mp4", 0)], ("jump high", "run")),
        ('"c, d.mp4",run\nb.mp4,"jump, high"\n', [("c, d.mp4", 1), ("b.mp4", 0)], ("jump, high", "run")),
        ("e 1.JPG,0\na.mp4,1\n", [("e 1.JPG", 0), ("a.mp4", 1)], ("0", "1")),
    ],
)
def test_a_table_of_paths_and_labels_needs_no_header(tmp_path, text, rows, classes):
    for name in ("a.mp4", "b.mp4", "c, d.mp4", "e 1.JPG"):
        (tmp_path / "videos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / name).touch()
    for name in ("list.csv", "list.txt"):
        (tmp_path / name).write_text(text)
        manifest = open_manifest(tmp_path / name, root=tmp_path / "videos")
        assert list_rows(manifest) == rows
        assert manifest.classes == classes


def test_a_file_whose_name_ends_in_a_comma_and_a_number_is_found(tmp_path):
    for text, rows in (("a.mp4,0\n", [("a.mp4,0", None)]), ("a.mp4,b 1.mp4 3\n", [("a.mp4,b 1.mp4", 3)])):
        (tmp_path / rows[0][0]).touch()
        (tmp_path / "list.txt").write_text(text)
        assert list_rows(open_manifest(tmp_path / "list.txt")) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,run,train\n", "a table without a header; add a first line that names its columns"),
        ("a.mp4,0,1,2\n", "a table without a header"),
        ("file,label\na.mp4,0\n", "line 1 of .* names file, label; call the column of the videos or images `path`"),
        ("a.mp4,0\na.mp4\n", "line 2 of .* has 1 field, its first line 2"),
        ("a.mp4,0\na.mp4,run\n", "line 2 of .* has the label 'run'"),
        ("a.mp4,\n", "line 1 of .* has the label ''"),
    ],
)
def test_a_table_without_a_header_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_manifest(tmp_path / "list.csv")
