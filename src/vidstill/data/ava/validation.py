"""What is odd about rows of boxes and yet no error, as AVA's own script takes it: counted, and told in sentences."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from vidstill.data.ava.box_table import BoxTable
from vidstill.data.ava.csv_reader import NO_ACTION
from vidstill.data.ava.label_map import LabelMap
from vidstill.utils.text import format_one_line, pluralize

_MAX_NAMED = 4


def list_row_warnings(
    table: BoxTable, *, label_map: LabelMap | None = None, annotated_videos: Collection[str] | None = None
) -> list[str]:
    """A sentence for each kind of doubt, with how many rows and the first of them.

    Args:
        label_map: those that there are; None: any.
        annotated_videos: that have annotations; None: any.
    """
    told = [
        _format_warning(
            table, np.any((table.box < 0) | (table.box > 1), axis=1), "with a box that reaches out of the frame"
        ),
        _format_warning(table, np.any(table.box[:, :2] >= table.box[:, 2:], axis=1), "with a box without area"),
        _format_warning(
            table, _find_duplicate_rows(table), "that an earlier row states in full: a second such box is one too many"
        ),
    ]
    if label_map is not None:
        unknown = ~np.isin(table.action_id, [*label_map.names, NO_ACTION])
        numbers = np.unique(table.action_id[unknown]).tolist()
        told.append(
            _format_warning(
                table, unknown, f"with an action that is not in the list ({_join_first(numbers)}): they are left out"
            )
        )
    if annotated_videos is not None:
        foreign = [place for place, name in enumerate(table.video_names) if name not in annotated_videos]
        names = [format_one_line(table.video_names[place]) for place in foreign]
        told.append(
            _format_warning(
                table, np.isin(table.video_index, foreign), f"of a video without annotations ({_join_first(names)})"
            )
        )
    return [sentence for sentence in told if sentence]


def _format_warning(rows: BoxTable, doubtful: Bool[np.ndarray, "n"], what: str) -> str:
    if not doubtful.any():
        return ""
    return f"{rows.source} has {pluralize(int(doubtful.sum()), 'row')} {what}; the first is line {_first_line_number(rows, doubtful)}"


def _first_line_number(rows: BoxTable, doubtful: Bool[np.ndarray, "n"]) -> int:
    return int(rows.line_number[doubtful.argmax()])


def _join_first(each: Sequence[object]) -> str:
    return ", ".join(map(str, each[:_MAX_NAMED])) + (
        f" and {len(each) - _MAX_NAMED:,} more" if len(each) > _MAX_NAMED else ""
    )


def _find_duplicate_rows(rows: BoxTable) -> Bool[np.ndarray, "n"]:
    """Rows whose key frame, box and action an earlier one has."""
    moment = rows.video_index.astype(np.int64) << 32 | rows.second
    hashed = _mix_hash(moment * 31 + rows.action_id)
    for column in (rows.box + 0.0).view(np.int64).reshape(-1, 4).T:  # + 0.0: -0 is 0
        hashed = _mix_hash(hashed ^ column)
    order = np.argsort(hashed, kind="stable")
    same = np.diff(hashed[order]) == 0
    earlier, later = order[:-1][same], order[1:][same]
    equal = (moment[earlier] == moment[later]) & (rows.action_id[earlier] == rows.action_id[later])
    equal &= (rows.box[earlier] == rows.box[later]).all(axis=1)
    found = np.zeros(len(rows), bool)
    found[later[equal]] = True
    return found


def _mix_hash(values: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    values = (values ^ (values >> 29)) * np.int64(0x1D8AF066EB3B51A5)
    return values ^ (values >> 32)
