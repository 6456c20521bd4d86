"""Rows of boxes: what is read, what is refused and how, what is doubted, and what is written and read back."""

import csv
import re
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidstill.data.ava.box_table import (
    NO_ACTION,
    BoxScores,
    BoxTable,
    format_box_csv,
    read_box_csv,
    read_excluded_timestamps,
    read_included_timestamps,
)
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.ava.validation import list_row_warnings
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

ROW = "film,0902,0.1,0.2,0.3,0.4,5,0.6"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(folder: Path, text: str | bytes, *, scored: bool = True) -> BoxTable:
    return read_box_csv(written(folder, text), has_scores=scored)


def formatted(table: BoxTable | BoxScores, **options) -> bytes:
    return b"".join(format_box_csv(table, **options))


def test_a_row_is_read_as_it_is_written(tmp_path):
    table = rows(tmp_path, "one,0902,0.1,0.2,0.3,0.4,5,0.6\ntwo,907,0,0,1,1,80,1\none,1798,.5,.5,.75,1e0,1,-2.5\n")
    assert table.video_names == ("one", "two")
    assert table.video_index.tolist() == [0, 1, 0]
    assert table.second.tolist() == [902, 907, 1798]
    assert table.box.tolist() == [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0.5, 0.5, 0.75, 1]]
    assert table.action_id.tolist() == [5, 80, 1]
    assert table.score.tolist() == [0.6, 1, -2.5]
    assert table.line_number.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        f"{ROW}\n{ROW}",
        f"{ROW}\r\n{ROW}\r\n",
        f"\ufeff{ROW}\n{ROW}\n",
        f"{ROW}\n \n\n{ROW}\n\n",
        ROW.replace(",", " , ") + f"\n{ROW}",
        f'"film","0902",0.1,0.2,0.3,0.4,"5",0.6\n{ROW}',
        f"{ROW}\n{ROW.replace('0902', '902.0')}",
    ],
    ids=["no end", "windows", "byte order mark", "blank lines", "spaces", "quotes", "a whole number with a point"],
)
def test_every_spelling_gives_the_same_rows(tmp_path, text):
    table = rows(tmp_path, text)
    assert table.video_names == ("film",)
    assert table.second.tolist() == [902, 902]
    assert table.box.tolist() == [[0.1, 0.2, 0.3, 0.4]] * 2
    assert table.action_id.tolist() == [5, 5]
    assert table.score.tolist() == [0.6, 0.6]


@pytest.mark.parametrize(
    ("ends", "has_scores", "actions", "scores"),
    [
        *(((none, "3"), True, [NO_ACTION, 3], [1, 1]) for none in ("", "-1", " ")),
        *(((f"{none},0.5", "3,0.5"), True, [NO_ACTION, 3], [0.5, 0.5]) for none in ("", "-1", " ")),
        (("3", "4,0.5"), True, [3, 4], [1, 0.5]),
        *(((f"3,{person}", "3,2"), False, [3, 3], [1, 1]) for person in ("0", "17", "", "her", "nan")),
    ],
)
def test_an_action_may_be_empty_a_score_missing_and_a_persons_number_is_ignored(
    tmp_path, ends, has_scores, actions, scores
):
    table = rows(tmp_path, "".join(f"film,902,0,0,1,1,{end}\n" for end in ends), scored=has_scores)
    assert table.action_id.tolist() == actions
    assert table.score.tolist() == scores


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", "\n\n \n"])
def test_a_file_without_rows_has_none(tmp_path, text):
    table = rows(tmp_path, text)
    assert len(table) == 0
    assert table.video_names == ()
    assert table.box.shape == (0, 4)


def test_names_may_hold_commas_quotes_and_any_letters_and_have_a_common_prefix(tmp_path):
    table = rows(tmp_path, '"a, ""b""",902,0,0,1,1,3,0.5\n走る é,902,0,0,1,1,3,0.5\n')
    assert table.video_names == ('a, "b"', "走る é")
    names = ["ab", "a", "abc", "ab", "a", "abd", "abd", "b"]
    table = rows(tmp_path, "".join(f"{name},1,0,0,1,1,3,0.5\n" for name in names))
    assert [table.video_names[index] for index in table.video_index] == names


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("film,0902,0.1,0.2,0.3,0.4", "6 fields, not 7 or 8"),
        ("film,0902,0.1,0.2,0.3,0.4,5,0.6,1", "9 fields"),
        ("film", "1 fields"),
        ("film,0902,0.1,0.2,left,0.4,5,0.6", "'left' for x2; write a number"),
        ("film,0902,,0.2,0.3,0.4,5,0.6", "'' for x1"),
        ("film,0902,0.1,0.2,0.3,0.4,5,", "'' for the score"),
        ("film,0902,0.1,0.2,0.3,0.4,5,1_0", "'1_0' for the score"),
        ("film,0902,0.1,nan,0.3,0.4,5,0.6", "nan for y1; write a finite number"),
        ("film,0902,0.1,0.2,0.3,inf,5,0.6", "inf for y2"),
        ("film,0902,0.1,0.2,0.3,0.4,5,NaN", "NaN for the score"),
        ("film,0902,0.1,0.2,0.3,0.4,5,1e999", "1e999 for the score"),
        ("film,902.5,0.1,0.2,0.3,0.4,5,0.6", "the second '902.5'"),
        ("film,-3,0.1,0.2,0.3,0.4,5,0.6", "the second '-3'"),
        ("film,9999999999,0.1,0.2,0.3,0.4,5,0.6", "the second '9999999999'"),
        ("film,soon,0.1,0.2,0.3,0.4,5,0.6", "'soon' for the second"),
        ("film,0902,0.1,0.2,0.3,0.4,2.5,0.6", "the action '2.5'"),
        ("film,0902,0.1,0.2,0.3,0.4,-2,0.6", "the action '-2'"),
        ("film,0902,0.1,0.2,0.3,0.4,walk,0.6", "'walk' for the action"),
        ("film,0902,0.1,0.2,0.3,0.4,1_0,0.6\nfilm,0902,0.1,0.2,0.3,0.4,,0.6", "'1_0' for the action"),
        (",0902,0.1,0.2,0.3,0.4,5,0.6", "names no video"),
    ],
)
@pytest.mark.parametrize("before", [0, 34_000])  # the latter are more than is read at once
def test_a_row_that_cannot_be_read_is_named_by_its_line(tmp_path, bad, message, before):
    path = written(tmp_path, f"{ROW}\n" * before + f"\n{ROW}\n{bad}\n{ROW}\n")
    with pytest.raises(InputError) as refused:
        read_box_csv(path, has_scores=True)
    assert f"line {before + 3} of {path}" in str(refused.value)
    assert message in str(refused.value)


def test_a_header_and_bytes_that_are_not_utf_8_are_named_by_their_line(tmp_path):
    with pytest.raises(InputError, match=r"line 1 of .*, a header; delete it"):
        rows(tmp_path, f"video_id,timestamp,x1,y1,x2,y2,action_id,score\n{ROW}\n")
    with pytest.raises(InputError, match=r"line 3 of .* is not UTF-8 text"):
        rows(tmp_path, f"{ROW}\n{ROW}\n".encode() + b"f\xfflm,1,0,0,1,1,3\n")


def test_a_missing_file_or_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"rows\.csv does not exist"):
        read_box_csv(tmp_path / "rows.csv", has_scores=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_box_csv(tmp_path, has_scores=True)


def test_rows_are_read_from_a_url():
    address = "memory://boxes/rows.csv"
    fsspec.filesystem("memory").pipe("/boxes/rows.csv", f"{ROW}\n".encode())
    assert read_box_csv(address, has_scores=True).score.tolist() == [0.6]
    with pytest.raises(InputError, match="does not exist"):
        read_box_csv("memory://boxes/none.csv", has_scores=True)


numbers = st.floats(-2, 2).map(lambda value: round(value, 4))
entry_strategy = st.tuples(
    st.sampled_from(["a", "bb", "é", "a film"]),
    st.integers(0, 5000),
    st.lists(numbers, min_size=4, max_size=4),
    st.integers(-1, 99),
    numbers,
)


@given(st.lists(entry_strategy, max_size=30), st.booleans())
@settings(max_examples=50, deadline=None)
def test_rows_equal_those_of_pythons_csv_module(tmp_path_factory, entries, padded):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", newline="") as file:
        for name, second, box, action, score in entries:
            second_text = f"{second:04d}" if padded else second
            csv.writer(file).writerow([name, second_text, *box, "" if action < 0 else action, score])
    table = read_box_csv(path, has_scores=True)
    actual = zip(table.video_index, table.second, table.box.tolist(), table.action_id, table.score, strict=True)
    assert [(table.video_names[name], *rest) for name, *rest in actual] == entries


def make_table(count: int, seed: int = 0) -> BoxTable:
    rng = np.random.default_rng(seed)
    video, second, action = (rng.integers(0, top, count).astype(np.int32) for top in (3, 2000, 80))
    box = rng.random((count, 4))
    line = np.arange(1, count + 1, dtype=np.int32)
    return BoxTable(Path("made"), ('a,"', "b", "c"), video, second, box, action, rng.random(count), line)


def test_written_rows_are_read_back_exactly(tmp_path):
    expected = make_table(12_000)
    table = rows(tmp_path, formatted(expected))
    names, expected_names = ([each.video_names[i] for i in each.video_index] for each in (table, expected))
    assert names == expected_names
    for name in ("second", "box", "action_id", "score", "line_number"):
        assert np.array_equal(getattr(table, name), getattr(expected, name)), name


def test_scores_of_boxes_are_written_box_by_box_and_read_back(tmp_path):
    sample = make_table(700)
    scores = np.random.default_rng(1).standard_normal((700, 5)).astype(np.float32)
    box, action_ids = sample.box.astype(np.float32), (1, 4, 7, 9, 60)
    boxes = BoxScores(sample.video_names, sample.video_index, sample.second, box, action_ids, scores)
    table = rows(tmp_path, formatted(boxes, action_ids={4, 60, 7, 99}))
    assert table.action_id.tolist() == [4, 7, 60] * 700
    assert np.array_equal(table.score.astype(np.float32).reshape(700, 3), scores[:, [1, 2, 4]])
    assert np.array_equal(table.box[::3], boxes.box.astype(np.float64))
    assert np.array_equal(table.second[::3], sample.second)


def test_the_number_of_decimals_is_configurable_and_an_action_may_be_empty(tmp_path):
    table = rows(tmp_path, "film,7,0.12345,0,1,1,5,0.98765\n")
    assert formatted(table, decimals=(3, 4)) == b"film,0007,0.123,0.000,1.000,1.000,5,0.9877\n"
    text = b"film,0007,0.25,0.0,1.0,1.0,,0.5\n"
    assert formatted(rows(tmp_path, text)) == text


def test_excluded_key_frames_and_included_seconds_are_read(tmp_path):
    assert read_excluded_timestamps(written(tmp_path, "a,0902\nb,903\na,0902\n")) == {("a", 902), ("b", 903)}
    assert read_excluded_timestamps(written(tmp_path, "")) == set()
    assert read_included_timestamps(written(tmp_path, "0904\n0902\n\n0904\n")) == (902, 904)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_excluded_timestamps, "a,902\nb\n", "line 2 of .* is not a key frame"),
        (read_excluded_timestamps, "a,902\n,3\n", "line 2"),
        (read_excluded_timestamps, "a,902\nb,c\n", "'c' for the second"),
        (read_included_timestamps, "902\n903,4\n", "line 2 of .* has 2 fields"),
        (read_included_timestamps, "0.5\n", r"line 1 of .* the second '0\.5'"),
    ],
)
def test_a_bad_key_frame_or_second_is_named(tmp_path, read, text, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, text))


SOUND = "a,1,0,0,1,1,1,1\na,1,0,0,1,1,2,1\na,2,0,0,1,1,1,1\n"
ACTIONS = LabelMap({1: "walk", 2: "run"}, frozenset({1, 2}))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("a,3,-0.1,0,1,1,1,1\na,4,0,0,1,1.01,1,1\n", "2 rows with a box that reaches out .* line 4"),
        ("a,3,.5,0,.5,1,1,1\na,3,0,.6,1,.5,1,1\n", "2 rows with a box without area; the first is line 4"),
        ("a,3,0,0,1,1,1,1\na,1,0,0,1,1,2,.3\n", "1 row repeating an earlier row"),
        ("a,3,0,0,1,1,7,1\na,4,0,0,1,1,9,1\n", r"2 rows with an action that is not in the label map \(7, 9\)"),
        ("b,3,0,0,1,1,1,1\na,4,0,0,1,1,1,1\n", r"1 row of a video without annotations \(b\); the first is line 4"),
    ],
)
def test_odd_rows_are_counted_and_no_error(tmp_path, more, message):
    table = list_row_warnings(rows(tmp_path, SOUND + more), label_map=ACTIONS, annotated_videos={"a"})
    assert len(table) == 1
    assert re.search(message, table[0])
    assert str(tmp_path) in table[0]


def test_correct_rows_and_empty_actions_give_no_warning(tmp_path):
    for text in ("", SOUND + "a,5,0,0,1,1,,1\n"):
        assert list_row_warnings(rows(tmp_path, text), label_map=ACTIONS, annotated_videos={"a"}) == []
    assert list_row_warnings(rows(tmp_path, SOUND.replace("a,2", "b,2").replace(",2,1\n", ",80,1\n"))) == []


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 6), max_size=12))
@settings(max_examples=50, deadline=None)
def test_duplicate_rows_are_those_that_a_set_removes(entries):
    columns = np.array(entries, np.int32).reshape(-1, 6)
    box = columns[:, 2:] * 0.5
    nothing = np.zeros(len(columns), np.int32)
    table = BoxTable(Path("x"), ("a", "b"), columns[:, 0], nothing, box, columns[:, 1], nothing + 1.0, nothing)
    again = len(entries) - len(set(entries))
    warnings = [sentence for sentence in list_row_warnings(table) if "repeating" in sentence]
    assert bool(warnings) == bool(again)
    assert not again or f"has {again} row" in warnings[0]
