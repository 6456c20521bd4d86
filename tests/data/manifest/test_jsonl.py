"""Lists in JSON lines, as scans and packs write them: what they state is believed, and nothing else is looked at."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.manifest.open import list_splits, open_manifest, open_test_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import ShardMember
from vidstill.utils.types import InputError


def write(path: Path, *entries: dict) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_a_list_with_sizes_is_a_dataset_whose_files_are_not_opened(tmp_path):
    path = write(
        tmp_path / "videos.jsonl",
        {"path": "b/1.mp4", "label": 1, "class": "run", "frames": 300, "rate": 29.97, "bytes": 12, "codec": "h264"},
        {"path": "/elsewhere/2.mp4", "label": 0, "class": "jump", "bytes": 7, "error": "does not decode: cut"},
        {"path": "s3://bucket/3.mp4", "label": 1, "bytes": 0, "rate": 25},
    )
    manifest = open_manifest(path)
    assert list(manifest.rows) == [
        VideoRow(tmp_path / "b/1.mp4", 1, 300, 29.97, "b/1.mp4"),
        VideoRow(Path("/elsewhere/2.mp4"), 0, None, None, "/elsewhere/2.mp4", "does not decode: cut"),
        VideoRow("s3://bucket/3.mp4", 1, None, 25.0, "s3://bucket/3.mp4"),
    ]
    assert manifest.classes == ("jump", "run")
    assert manifest.description == "videos.jsonl, JSON lines, of whose rows 1 say that they do not decode"


def test_a_folder_that_holds_an_index_is_read_through_it_whatever_else_it_holds(tmp_path):
    member = {"shard": "train-00000.tar", "offset": 512, "bytes": 1000}
    write(
        tmp_path / "index.jsonl",
        {"path": "run/a.mp4", "class": "run", "split": "train", "frames": 16, "rate": 30, **member},
        {"path": "jump/b.mp4", "class": "jump", "split": "val", **member, "shard": "val-00000.tar", "offset": 2048},
    )
    (tmp_path / "train.csv").write_text("other.mp4 0\n")
    (tmp_path / "other.mp4").touch()
    train, val = (open_manifest(tmp_path, split=split) for split in ("train", "val"))
    a, b = (
        ShardMember(tmp_path / "train-00000.tar", 512, 1000, "run/a.mp4"),
        ShardMember(tmp_path / "val-00000.tar", 2048, 1000, "jump/b.mp4"),
    )
    assert list(train.rows) == [VideoRow(a, 1, 16, 30.0, "run/a.mp4")]
    assert list(val.rows) == [VideoRow(b, 0, None, None, "jump/b.mp4")]
    assert train.classes == val.classes == ("jump", "run")
    assert train.description == "packed videos by their index.jsonl, its train split"
    assert list_splits(tmp_path) == ("train", "val")
    assert list(open_test_manifest(tmp_path).rows) == list(val.rows)


def test_numbers_of_frames_are_believed_of_folders_and_where_a_size_is_stated(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "a.mp4").write_text("three")
    entries = [{"path": "frames"}, {"path": "a.mp4"}, {"path": "a.mp4", "bytes": 5}]
    path = write(tmp_path / "list.jsonl", *({**entry, "frames": 9, "rate": 5.0} for entry in entries))
    assert [(row.frames, row.frame_rate) for row in open_manifest(path).rows] == [(9, 5.0), (None, None), (9, 5.0)]


def test_a_stated_size_and_the_size_of_the_file_give_one_fingerprint(tmp_path):
    (tmp_path / "a.mp4").write_text("three")
    expected = open_manifest(write(tmp_path / "list.jsonl", {"path": "a.mp4", "label": 0})).fingerprint
    for size, same in ((5, True), (6, False)):
        path = write(tmp_path / "list.jsonl", {"path": "a.mp4", "label": 0, "bytes": size})
        assert (open_manifest(path).fingerprint == expected) == same


def test_names_come_back_whatever_letters_they_have_in_a_list_without_the_suffix(tmp_path):
    names = ["Grüße.mp4", "日本語/🎬.mp4", "#20_[x];y z.mp4", "not utf-8 \udcff.mp4"]
    manifest = open_manifest(write(tmp_path / "list.txt", *({"path": name, "bytes": 1} for name in names)))
    assert [row.name for row in manifest.rows] == names
    assert manifest.description == "list.txt, JSON lines"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", r"line 2 of .*list.jsonl is no JSON"),
        ("[" * 100_000, r"line 2 of .*list.jsonl is no JSON"),
        ('{"path": "a"} {"path": "b"}', r"line 2 of .*list.jsonl reads .*, which is no object with a `path`"),
        ('["path"]', r"line 2 of .*list.jsonl reads .*, which is no object with a `path`"),
        ('{"label": 1}', r"line 2 of .*list.jsonl reads .*, which is no object with a `path`"),
        ('{"path": "a\\u0000"}', r"line 2 of .*list.jsonl reads"),
        ('{"path": "\\ud800", "label": 0}', r"line 2 of .*list.jsonl has a path that no file can have"),
        ('{"path": 1}', r"line 2 of .*list.jsonl has the path '1'; state a path"),
        ('{"path": "a", "label": "run"}', r"line 2 of .*list.jsonl has the label 'run'; state a number counted from 0"),
        ('{"path": "a", "label": true}', r"line 2 of .*list.jsonl has the label 'True'"),
        ('{"path": "a", "label": -1}', r"line 2 of .*list.jsonl has the label '-1'"),
        ('{"path": "a", "label": 1700000000}', r"line 2 of .*list.jsonl has the label '1700000000'"),
        ('{"path": "a", "label": 0, "frames": 2.5}', r"line 2 of .*list.jsonl has the frames '2.5'"),
        ('{"path": "a", "label": 0, "frames": 3000000000}', r"line 2 of .*list.jsonl has the frames '3000000000'"),
        ('{"path": "a", "label": 0, "rate": NaN}', r"line 2 of .*list.jsonl is no JSON \(NaN is no number\)"),
        ('{"path": "a", "label": 0, "rate": -25}', r"line 2 of .*list.jsonl has the rate '-25'"),
        ('{"path": "a", "label": 0, "bytes": "12"}', r"line 2 of .*list.jsonl has the bytes '12'"),
        ('{"path": "a", "label": 0, "shard": "a.tar"}', r"line 2 of .* names a shard without `offset` and `bytes`"),
        ('{"path": "a"}', r"line 2 of .*list.jsonl has no label; the first has a number for a label"),
        ('{"path": "a", "class": "b"}', r"line 2 of .*list.jsonl has a class; the first has a number for a label"),
        ('{"path": "a", "label": 0, "class": "b"}', r"line 2 of .*list.jsonl calls class 0 'b', before 'a'"),
        ('{"path": "a", "label": 0}', r"1 of its 2 videos are missing, first .*a \(line 2\)"),
        ('{"path": "../a", "label": 0}', r"line 2 of .*list.jsonl names ../a, which is outside"),
        (
            '{"path": "a", "label": 0, "bytes": 1, "offset": 0, "shard": "x/../../a.tar"}',
            r"line 2 of .*list.jsonl names x/../../a.tar, which is outside",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_with_its_number(tmp_path, line, sentence):
    path = write(tmp_path / "list.jsonl", {"path": "a.mp4", "label": 0, "class": "a", "bytes": 1})
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(InputError, match=sentence):
        open_manifest(path)


@pytest.mark.parametrize("text", ['[{"path": "a.mp4"}]', '{\n"path": "a.mp4"\n}', "[\n]"])
def test_json_that_is_not_in_lines_is_refused(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match="is one piece of JSON; give JSON lines"):
        open_manifest(tmp_path / "list.json")


entry_strategy = st.fixed_dictionaries(
    {"path": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1)},
    optional={
        "label": st.integers(0, 399),
        "split": st.sampled_from(["train", "val"]),
        "frames": st.integers(0, 10**6),
        "rate": st.floats(0.5, 240),
        "bytes": st.integers(0, 2**40),
        "error": st.sampled_from(["", "does not decode"]),
        "seconds": st.floats(0, 10),
    },
)


@given(st.lists(entry_strategy, min_size=1))
def test_what_is_written_is_what_is_read(tmp_path_factory, entries):
    entries = [{"label": 0, "bytes": 1, **entry} for entry in entries if entry["path"] not in (".", "..")]
    path = write(tmp_path_factory.getbasetemp() / "list.jsonl", {"path": "a", "bytes": 1, "label": 399}, *entries)
    splits = list_splits(path)
    rows = [row for split in splits or (None,) for row in open_manifest(path, split=split).rows]
    key = lambda row: (row.name, row.label, row.frames or 0, row.frame_rate or 0, row.error)  # noqa: E731
    expected = [
        VideoRow(
            path.parent / e["path"], e["label"], e.get("frames") or None, e.get("rate"), e["path"], e.get("error", "")
        )
        for e in entries
        if not splits or "split" in e
    ]
    if not splits:
        expected.append(VideoRow(path.parent / "a", 399, None, None, "a"))
    assert sorted(rows, key=key) == sorted(expected, key=key)
