"""Key frames: the moments of videos at which persons have boxes, and what they do there."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from vidstill.data.ava.box_columns import (
    BoxColumns,
    KeyframeKeys,
    assign_labels_by_iou,
    merge_duplicate_boxes,
    select_boxes,
)
from vidstill.data.ava.box_table import BoxTable
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import base_name
from vidstill.utils.types import InputError, check_range


@dataclass(frozen=True)
class Keyframe:
    """One of them.

    Args:
        boxes: x1, y1, x2, y2 as fractions of the frame's width and height.
        labels: what each person does, by the actions' places.
        scores: of whoever found the boxes; 1 where they are annotated.
    """

    video: KeyframeVideo
    second: int
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]

    @property
    def key(self) -> str:
        """The key by which AVA's files know it."""
        return f"{self.video.name},{self.second:04d}"


@dataclass(frozen=True)
class Keyframes:
    """Key frames in the order of their videos and seconds, as columns.

    Args:
        video_index: whose each is, a place among the films.
        box_offsets: where each one's boxes end among all of them, after a 0.
        description: in words, what the data were taken for.
        fingerprint: of all that is here, and of the films' paths.
    """

    videos: tuple[KeyframeVideo, ...]
    video_index: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box_offsets: Int64[np.ndarray, "n+1"]
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]
    label_map: LabelMap
    source: PathOrUrl
    description: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.video_index)

    def __getitem__(self, index: int) -> Keyframe:
        own = slice(self.box_offsets[index], self.box_offsets[index + 1])
        return Keyframe(
            self.videos[self.video_index[index]],
            int(self.second[index]),
            self.boxes[own],
            self.labels[own],
            self.scores[own],
        )

    @property
    def max_boxes(self) -> int:
        """That one of them has."""
        return int(np.diff(self.box_offsets).max(initial=0))


@dataclass(frozen=True, kw_only=True)
class PersonBoxesConfig:
    """Boxes that a detector found, which join the annotated ones in training.

    Args:
        min_score: those with this score or more.
        min_iou: a box has the actions of the annotated box that it overlaps most, if by this much or more; None: those that
            its file states. One that has no actions is a negative: all of them are to be told as absent.
        max_boxes: of a key frame's boxes that have actions by `iou`, beside the annotated ones; None: all.
    """

    min_score: float = 0.9
    min_iou: float | None = None
    max_boxes: int | None = None

    def __post_init__(self) -> None:
        check_range(0, 1, min_score=self.min_score, min_iou=self.min_iou)
        check_range(0, math.inf, max_boxes=self.max_boxes)


def build_train_keyframes(
    annotations: BoxTable,
    label_map: LabelMap,
    videos: Sequence[KeyframeVideo],
    *,
    person_boxes: BoxTable | None = None,
    config: PersonBoxesConfig | None = None,
    keyframe_seconds: Collection[int] | None = None,
    excluded_keyframes: KeyframeKeys = frozenset(),
    description: str = "boxes",
) -> Keyframes:
    """The key frames that are trained on; those of films that are not there are left out.

    Rows of one key frame with the same coordinates are one box with several actions; one without any is a negative.

    Args:
        persons, config: boxes that a detector found and how they join the annotated ones; without a config none do. A
            key frame that has no annotated boxes is one by what a detector found only where the file states the
            actions.
        keyframe_seconds: those that count; None: all.
        excluded_keyframes: moments that do not.
        description: in words, what the data were taken for.

    Raises:
        InputError: a row names a video that is not among the films, the persons' boxes are missing, or nothing is left.
    """
    keep = _make_second_filter(keyframe_seconds)
    boxes = select_boxes(annotations, videos, label_map, second_filter=keep, excluded_keyframes=excluded_keyframes)
    of = "annotated"
    if config is not None:
        if person_boxes is None:
            raise InputError(
                f"this training joins a detector's boxes to those of {annotations.source}, and no file of them is there; "
                "make one with `vidstill detect boxes`, or train without them: --clips.persons None"
            )
        by_overlap = config.min_iou is not None
        found = select_boxes(
            person_boxes,
            videos,
            label_map,
            second_filter=keep,
            excluded_keyframes=excluded_keyframes,
            min_score=config.min_score,
            require_known_videos=False,
            with_labels=not by_overlap,
        )
        if config.min_iou is not None:
            boxes = merge_duplicate_boxes(boxes)
            found = assign_labels_by_iou(merge_duplicate_boxes(found), boxes, config.min_iou, config.max_boxes)
        boxes = boxes.concatenate(found)
        of = f"annotated, or found by a detector with a score of {config.min_score:g} or more"
    if not len(boxes):
        raise InputError(
            f"none of the {len(annotations):,} rows of {annotations.source} is left to train on; {_EXCLUSION_HINT}"
        )
    return _build_keyframes(merge_duplicate_boxes(boxes), videos, label_map, annotations.source, description, of)


def build_test_keyframes(
    boxes: BoxTable,
    label_map: LabelMap,
    videos: Sequence[KeyframeVideo],
    *,
    min_score: float | None,
    second_stride: int = 1,
    keyframe_seconds: Collection[int] | None = None,
    excluded_keyframes: KeyframeKeys = frozenset(),
    description: str = "boxes",
) -> Keyframes:
    """The boxes that a test asks about; those of films that are not there are left out.

    Args:
        boxes: what a detector of persons found, or the annotated ones.
        min_score: boxes with this score or more are asked about; None: they are annotated ones, and all are.
        second_stride: of the seconds, those that this divides.
        seconds, excluded, kind: as in training.

    Raises:
        InputError: nothing is left to ask about.
    """
    among = _make_second_filter(keyframe_seconds)

    def keep(second: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return among(second) & (second % second_stride == 0)

    asked = select_boxes(
        boxes,
        videos,
        label_map,
        second_filter=keep,
        excluded_keyframes=excluded_keyframes,
        min_score=min_score,
        require_known_videos=min_score is None,
    )
    if not len(asked):
        lacking = (
            f"none has a score of {min_score:g} or more; lower the threshold"
            if min_score is not None and len(boxes) and boxes.score.max() < min_score
            else _EXCLUSION_HINT
        )
        raise InputError(f"none of the {len(boxes):,} rows of {boxes.source} is left to ask about; {lacking}")
    of = "as annotated" if min_score is None else f"found by a detector with a score of {min_score:g} or more"
    return _build_keyframes(merge_duplicate_boxes(asked), videos, label_map, boxes.source, description, of)


_EXCLUSION_HINT = "the videos may be missing, or their seconds be excluded"


def _make_second_filter(seconds: Collection[int] | None) -> Callable[[Int64[np.ndarray, "n"]], Bool[np.ndarray, "n"]]:
    """Whether seconds count."""
    if seconds is None:
        return lambda second: np.ones(len(second), bool)
    known = np.array(sorted(seconds), np.int64)
    return lambda second: np.isin(second, known)


def _build_keyframes(
    boxes: BoxColumns, films: Sequence[KeyframeVideo], actions: LabelMap, source: PathOrUrl, kind: str, of: str
) -> Keyframes:
    """Boxes that are merged, by their key frames."""
    _, starts = np.unique(boxes.keyframe_id, return_index=True)
    labels = np.zeros((len(boxes), len(actions)), bool)
    labels[boxes.label_box_index, boxes.label_action_index] = True
    columns = (
        boxes.video_index[starts].astype(np.int32),
        boxes.second[starts].astype(np.int32),
        np.append(starts, len(boxes)),
        boxes.box,
        labels,
        boxes.score,
    )
    kind = f"{kind}: {len(starts):,} key frames with {len(boxes):,} boxes, {of}"
    return Keyframes(tuple(films), *columns, actions, source, kind, _compute_fingerprint(films, actions, columns))


def _compute_fingerprint(films: Sequence[KeyframeVideo], actions: LabelMap, columns: Sequence[np.ndarray]) -> str:
    paths = [
        (film.name, film.path and base_name(film.path), film.format, film.start_second, film.frame_rate)
        for film in films
    ]
    words = [paths, list(actions.names.items()), sorted(actions.evaluated_ids)]
    digest = hashlib.sha256(json.dumps(words).encode())
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
