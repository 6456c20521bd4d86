"""Rows of boxes become boxes: those that are wanted, each once with all its actions; a detector's ones by overlap."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vidstill.data.ava.box_table import BoxTable
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.csv_reader import NO_ACTION
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.storage.filesystem import base_name
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

EDGE_TOLERANCE = 1e-3
"""So far, in frames, a box may reach over the edge before it is said: files state three decimals."""

_SUFFIXES_WITHOUT_LINES = (
    ".json",
    ".npz",
    ".pickle",
    ".pkl",
)  # suffixes of files whose boxes are counted, as they have no lines

logger = logging.getLogger("vidstill")

KeyframeKeys = Collection[tuple[str, int]]
"""Of videos, by name, the seconds."""


@dataclass(frozen=True)
class BoxColumns:
    """Boxes of key frames as columns.

    Args:
        video_index: a place among the films.
        owner, place: pair by pair, which of the boxes has which action.
    """

    video_index: Int64[np.ndarray, "m"]
    second: Int64[np.ndarray, "m"]
    box: Float64[np.ndarray, "m 4"]
    score: Float64[np.ndarray, "m"]
    label_box_index: Int64[np.ndarray, "p"]
    label_action_index: Int64[np.ndarray, "p"]

    def __len__(self) -> int:
        return len(self.video_index)

    @property
    def keyframe_id(self) -> Int64[np.ndarray, "m"]:
        """One number for each key frame, in the order of films and seconds."""
        return encode_keyframe_ids(self.video_index, self.second)

    def select(self, mask: Bool[np.ndarray, "m"]) -> "BoxColumns":
        """Those that are chosen."""
        kept = mask[self.label_box_index]
        renumbered = np.cumsum(mask) - 1
        return self.take(np.flatnonzero(mask), renumbered[self.label_box_index[kept]], self.label_action_index[kept])

    def take(
        self,
        indices: Int64[np.ndarray, "k"],
        label_box_index: Int64[np.ndarray, "q"],
        label_action_index: Int64[np.ndarray, "q"],
    ) -> "BoxColumns":
        """Some of them with other actions."""
        return BoxColumns(
            self.video_index[indices],
            self.second[indices],
            self.box[indices],
            self.score[indices],
            label_box_index,
            label_action_index,
        )

    def concatenate(self, other: "BoxColumns") -> "BoxColumns":
        """These, and the other ones after them."""
        ours = (self.video_index, self.second, self.box, self.score, self.label_box_index, self.label_action_index)
        theirs = (
            other.video_index,
            other.second,
            other.box,
            other.score,
            other.label_box_index + len(self),
            other.label_action_index,
        )
        return BoxColumns(*(np.concatenate(pair) for pair in zip(ours, theirs, strict=True)))


def encode_keyframe_ids(video_index: Int64[np.ndarray, "m"], second: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
    return (video_index << 32) + second


def format_row_location(table: BoxTable, row: int) -> str:
    """`line 3 of train.csv`, as messages say it."""
    return f"{'box' if base_name(table.source).endswith(_SUFFIXES_WITHOUT_LINES) else 'line'} {table.line_number[row]} of {table.source}"


def select_boxes(
    table: BoxTable,
    videos: Sequence[KeyframeVideo],
    label_map: LabelMap,
    *,
    second_filter: Callable[[Int64[np.ndarray, "n"]], Bool[np.ndarray, "n"]],
    excluded_keyframes: KeyframeKeys,
    min_score: float | None = None,
    require_known_videos: bool = True,
    with_labels: bool = True,
) -> BoxColumns:
    """The rows of films that are there, each as a box of its own. What is wrong with them is counted and logged.

    Args:
        second_filter: of seconds, which are wanted.
        min_score: the score that a row has at least.
        require_known_videos: a video that is not among the films is a mistake; else its rows are left out.
        with_labels: the rows' actions are wanted.

    Raises:
        InputError: such a video; its file and line are named.
    """
    places = {film.name: place for place, film in enumerate(videos)}
    strange = np.array([name not in places for name in table.video_names], bool)[table.video_index]
    chosen = np.ones(len(table), bool) if min_score is None else table.score >= min_score
    if require_known_videos and strange.any():
        row = int(strange.argmax())
        raise InputError(
            f"{format_row_location(table, row)} names the video {table.video_names[table.video_index[row]]!r}, which is not among the data's "
            f"{len(videos)}; add it or take the line out"
        )
    _warn_about_rows(table, strange & chosen, "of videos that the annotations do not name, which are left out")
    film = np.array([places.get(name, len(videos)) for name in table.video_names], np.int64)[table.video_index]
    second = table.second.astype(np.int64)
    chosen &= np.array([*(each.path is not None for each in videos), False])[film] & second_filter(second)
    if excluded_keyframes:
        none = np.array(
            [(places[name], when) for name, when in excluded_keyframes if name in places], np.int64
        ).reshape(-1, 2)
        chosen &= ~np.isin(encode_keyframe_ids(film, second), encode_keyframe_ids(none[:, 0], none[:, 1]))
    chosen &= ~_find_empty_boxes(table, chosen)
    place = _lookup_action_indices(table, label_map, chosen) if with_labels else np.full(len(table), -1)
    pairs = np.flatnonzero(place[chosen] >= 0)
    return BoxColumns(film[chosen], second[chosen], table.box[chosen], table.score[chosen], pairs, place[chosen][pairs])


def merge_duplicate_boxes(boxes: BoxColumns) -> BoxColumns:
    """Boxes of the same coordinates become one with all their actions and the first one's score.

    They come in the order of films and seconds, those of a key frame in the order in which they are first met.
    """
    columns = boxes.keyframe_id, *boxes.box.T
    order = np.lexsort(columns[::-1])  # is stable: of equal ones the first stays first
    new = np.zeros(len(boxes), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[order][1:] != column[order][:-1]
    first = order[new]
    arranged = np.lexsort((first, boxes.keyframe_id[first]))
    rank, whose = np.empty_like(arranged), np.empty_like(order)
    rank[arranged] = np.arange(len(arranged))
    whose[order] = rank[np.cumsum(new) - 1]
    return boxes.take(first[arranged], whose[boxes.label_box_index], boxes.label_action_index)


def assign_labels_by_iou(
    detections: BoxColumns, annotations: BoxColumns, min_iou: float, max_boxes: int | None
) -> BoxColumns:
    """The detected boxes of annotated key frames, with the actions of what they overlap most; both are merged ones.

    Args:
        min_iou: they have actions if their overlap, intersection over union, is so much or more.
        max_boxes: so many of a key frame's that have actions are kept, those of the highest scores; None: all.
    """
    there = annotations.keyframe_id
    detections = detections.select(np.isin(detections.keyframe_id, there))
    start = np.searchsorted(there, detections.keyframe_id, "left")
    which, other = _expand_ranges(start, np.searchsorted(there, detections.keyframe_id, "right") - start)
    overlap = _compute_paired_iou(detections.box[which], annotations.box[other])
    best = np.lexsort((other, -overlap, which))  # of each the one that it overlaps most, of equal ones the first
    best = best[np.unique(which[best], return_index=True)[1]]
    found = overlap[best] >= min_iou
    kept = np.ones(len(detections), bool)
    if max_boxes is not None:
        order = np.lexsort((-detections.score, detections.keyframe_id, ~found))[: found.sum()]
        starts = np.unique(detections.keyframe_id[order], return_index=True)[1]
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        kept[order[place >= max_boxes]] = False
    sorted_pairs = np.argsort(annotations.label_box_index, kind="stable")
    owner, source = annotations.label_box_index[sorted_pairs], other[best]
    start = np.searchsorted(owner, source, "left")
    count = np.where(found, np.searchsorted(owner, source, "right") - start, 0)
    mine, pair = _expand_ranges(start, count)
    everyone = np.arange(len(detections))
    return detections.take(everyone, mine, annotations.label_action_index[sorted_pairs[pair]]).select(kept)


def _expand_ranges(
    start: Int64[np.ndarray, "m"], count: Int64[np.ndarray, "m"]
) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Pairs of each row and every number of its range."""
    which = np.repeat(np.arange(len(start)), count)
    before = np.cumsum(count) - count
    return which, np.arange(len(which)) - before[which] + start[which]


def _compute_paired_iou(one: Float64[np.ndarray, "m 4"], other: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "m"]:
    """Intersection over union."""
    size = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = size.clip(0).prod(1)
    return shared / ((one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared)


def _find_empty_boxes(rows: BoxTable, chosen: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Those that have none inside of the frame; they and those that reach over its edge are said."""
    inside = rows.box.clip(0, 1)
    none = np.any(inside[:, 2:] <= inside[:, :2], axis=1)
    over = np.any(np.abs(rows.box - inside) > EDGE_TOLERANCE, axis=1)
    _warn_about_rows(rows, chosen & none, "with a box without area in the frame, which are left out")
    _warn_about_rows(
        rows, chosen & over & ~none, "with a box that reaches out of the frame, of which what is inside counts"
    )
    return none


def _lookup_action_indices(rows: BoxTable, actions: LabelMap, chosen: Bool[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The actions' places, -1 where a row has none, or one that is not in the list."""
    numbers, which = np.unique(rows.action_id, return_inverse=True)
    place = np.array([actions.id_to_index.get(int(number), -1) for number in numbers], np.int64)[which]
    unknown = chosen & (place < 0) & (rows.action_id != NO_ACTION)
    some = rows.action_id[unknown.argmax()] if unknown.any() else NO_ACTION
    _warn_about_rows(
        rows, unknown, f"with an action that the list of actions lacks, such as {some}; their boxes stay without it"
    )
    return place


def _warn_about_rows(rows: BoxTable, which: Bool[np.ndarray, "n"], what: str) -> None:
    """Warns of rows, by how many there are and the first of them."""
    if count := int(which.sum()):
        first = format_row_location(rows, int(which.argmax()))
        logger.warning("%s has %s %s; the first is %s", rows.source, pluralize(count, "row"), what, first)
