"""Odd rows of a box file that are no errors, as AVA's own script takes them: counted, one sentence for each kind."""

from collections.abc import Collection

import numpy as np

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, sort_equal_rows
from vidstill.data.ava.label_map import LabelMap
from vidstill.utils.text import format_one_line, join_first

_MAX_NAMED = 4


def list_row_warnings(
    table: BoxTable, *, label_map: LabelMap | None = None, annotated_videos: Collection[str] | None = None
) -> list[str]:
    """Return a sentence for each kind of odd row: how many there are, and the first of them.

    Args:
        label_map: Known actions; None: any action is known.
        annotated_videos: Names of the videos that have annotations; None: any video has.
    """
    order, is_first = sort_equal_rows([table.keyframe_id, table.action_id, *table.box.T])
    duplicate = np.zeros(len(table), bool)
    duplicate[order[~is_first]] = True
    outside = np.any((table.box < 0) | (table.box > 1), axis=1)
    empty = np.any(table.box[:, :2] >= table.box[:, 2:], axis=1)
    warnings = [
        table.describe_rows(outside, "with a box that reaches out of the frame"),
        table.describe_rows(empty, "with a box without area"),
        table.describe_rows(duplicate, "repeating an earlier row"),
    ]
    if label_map is not None:
        unknown = ~np.isin(table.action_id, [*label_map.names, NO_ACTION])
        action_ids = join_first(list(map(str, np.unique(table.action_id[unknown]))), _MAX_NAMED)
        reason = f"with an action that is not in the label map ({action_ids}), ignored"
        warnings.append(table.describe_rows(unknown, reason))
    if annotated_videos is not None:
        unannotated = [name for name in table.video_names if name not in annotated_videos]
        rows = np.isin(table.video_index, [table.video_names.index(name) for name in unannotated])
        names = join_first(list(map(format_one_line, unannotated)), _MAX_NAMED)
        warnings.append(table.describe_rows(rows, f"of a video without annotations ({names})"))
    return [sentence for sentence in warnings if sentence]
