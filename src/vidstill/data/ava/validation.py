"""What is odd about rows of boxes and yet no error, as AVA's own script takes it: counted, and told in sentences."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from vidstill.data.ava.box_table import BoxRows
from vidstill.data.ava.csv_reader import NO_ACTION
from vidstill.data.ava.label_map import Actions
from vidstill.utils.text import counted, one_line

_NAMED = 4


def doubts(rows: BoxRows, *, actions: Actions | None = None, videos: Collection[str] | None = None) -> list[str]:
    """A sentence for each kind of doubt, with how many rows and the first of them.

    Args:
        actions: those that there are; None: any.
        videos: that have annotations; None: any.
    """
    told = [
        _told(rows, np.any((rows.box < 0) | (rows.box > 1), axis=1), "with a box that reaches out of the frame"),
        _told(rows, np.any(rows.box[:, :2] >= rows.box[:, 2:], axis=1), "with a box without area"),
        _told(rows, _doubled(rows), "that an earlier row states in full: a second such box is one too many"),
    ]
    if actions is not None:
        unknown = ~np.isin(rows.action, [*actions.names, NO_ACTION])
        numbers = np.unique(rows.action[unknown]).tolist()
        told.append(
            _told(rows, unknown, f"with an action that is not in the list ({_some(numbers)}): they are left out")
        )
    if videos is not None:
        foreign = [place for place, name in enumerate(rows.videos) if name not in videos]
        names = [one_line(rows.videos[place]) for place in foreign]
        told.append(_told(rows, np.isin(rows.video, foreign), f"of a video without annotations ({_some(names)})"))
    return [sentence for sentence in told if sentence]


def _told(rows: BoxRows, doubtful: Bool[np.ndarray, "n"], what: str) -> str:
    if not doubtful.any():
        return ""
    return f"{rows.source} has {counted(int(doubtful.sum()), 'row')} {what}; the first is line {_first(rows, doubtful)}"


def _first(rows: BoxRows, doubtful: Bool[np.ndarray, "n"]) -> int:
    return int(rows.line[doubtful.argmax()])


def _some(each: Sequence[object]) -> str:
    return ", ".join(map(str, each[:_NAMED])) + (f" and {len(each) - _NAMED:,} more" if len(each) > _NAMED else "")


def _doubled(rows: BoxRows) -> Bool[np.ndarray, "n"]:
    """Rows whose key frame, box and action an earlier one has."""
    moment = rows.video.astype(np.int64) << 32 | rows.second
    hashed = _mixed(moment * 31 + rows.action)
    for column in (rows.box + 0.0).view(np.int64).reshape(-1, 4).T:  # + 0.0: -0 is 0
        hashed = _mixed(hashed ^ column)
    order = np.argsort(hashed, kind="stable")
    same = np.diff(hashed[order]) == 0
    earlier, later = order[:-1][same], order[1:][same]
    equal = (moment[earlier] == moment[later]) & (rows.action[earlier] == rows.action[later])
    equal &= (rows.box[earlier] == rows.box[later]).all(axis=1)
    found = np.zeros(len(rows), bool)
    found[later[equal]] = True
    return found


def _mixed(values: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    values = (values ^ (values >> 29)) * np.int64(0x1D8AF066EB3B51A5)
    return values ^ (values >> 32)
