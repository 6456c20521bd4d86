"""Key frames: the seconds of videos at which persons have boxes, and what these persons do there."""

import hashlib
import json
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, Int64

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, encode_keyframe_id, sort_equal_rows
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import base_name
from vidstill.utils.types import InputError, check_range

_EDGE_TOLERANCE = 1e-3  # a box may reach so far out of the frame without a warning: files have three decimals
_IOU_CHUNK = 64  # detected boxes whose IoU is computed at once
_EXCLUSION_HINT = "the videos may be missing, or their seconds be excluded"

logger = logging.getLogger("vidstill")


@dataclass(frozen=True)
class Keyframe:
    """One of `Keyframes`, with its video, its second in the annotations' time, and its boxes."""

    video: KeyframeVideo
    second: int
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]

    @property
    def key(self) -> str:
        """`video,0902`, as AVA's files write it."""
        return f"{self.video.name},{self.second:04d}"


@dataclass(frozen=True)
class Keyframes:
    """Key frames in the order of their videos and seconds, as columns."""

    videos: tuple[KeyframeVideo, ...]  # those without key frames too
    video_index: Int32[np.ndarray, "n"]  # in `videos`
    second: Int32[np.ndarray, "n"]
    box_offsets: Int64[np.ndarray, "n+1"]  # index of each key frame's first box, and the number of all boxes
    boxes: Float64[np.ndarray, "m 4"]  # x1, y1, x2, y2 as fractions of width and height; a key frame's boxes differ
    labels: Bool[np.ndarray, "m a"]  # one column for each action of the label map
    scores: Float64[np.ndarray, "m"]  # confidence of the person detector; 1 for annotated boxes
    label_map: LabelMap
    source: PathOrUrl  # file that the boxes were read from
    description: str  # one sentence, for logs

    def __len__(self) -> int:
        return len(self.video_index)

    def __getitem__(self, index: int) -> Keyframe:
        own = slice(self.box_offsets[index], self.box_offsets[index + 1])
        video, second = self.videos[self.video_index[index]], int(self.second[index])
        return Keyframe(video, second, self.boxes[own], self.labels[own], self.scores[own])

    @property
    def max_boxes(self) -> int:
        """The largest number of boxes in one key frame."""
        return int(np.diff(self.box_offsets).max(initial=0))

    @property
    def box_keyframe_id(self) -> Int64[np.ndarray, "m"]:
        """One number for each box's video and second, as `encode_keyframe_id` gives it."""
        keyframe_id = encode_keyframe_id(self.video_index.astype(np.int64), self.second)
        return np.repeat(keyframe_id, np.diff(self.box_offsets))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all columns, the actions and the videos; of a path only its last part counts."""
        paths = [
            (video.name, video.path and base_name(video.path), video.format, video.start_second, video.frame_rate)
            for video in self.videos
        ]
        actions = [*self.label_map.names.items()], sorted(self.label_map.evaluated_ids)
        digest = hashlib.sha256(json.dumps([paths, *actions]).encode())
        for column in (self.video_index, self.second, self.box_offsets, self.boxes, self.labels, self.scores):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PersonBoxesConfig:
    """How boxes of a person detector join the annotated ones in training."""

    min_score: float = 0.9  # smallest score of a detected box, 0 to 1
    # a box gets the actions of the annotated box with the highest IoU if that is at least this, and is a negative (no
    # action) otherwise; None: boxes keep the actions that their file states
    min_iou: float | None = None
    max_boxes: int | None = None  # most detected boxes of a key frame that get actions by IoU; None: no limit

    def __post_init__(self) -> None:
        check_range(0, 1, min_score=self.min_score, min_iou=self.min_iou)
        check_range(0, math.inf, max_boxes=self.max_boxes)


@dataclass(frozen=True)
class KeyframeBuilder:
    """Groups rows of boxes into key frames."""

    label_map: LabelMap  # other actions are dropped with a warning, their boxes stay
    videos: Sequence[KeyframeVideo]  # all of the annotations; rows of those without a path are left out
    keyframe_seconds: Collection[int] | None = None  # seconds that have key frames; None: all
    excluded_keyframes: Collection[tuple[str, int]] = ()  # to leave out, by their video's name and their second
    description: str = "boxes"  # of the data, for logs

    def build_train(
        self, annotations: BoxTable, person_boxes: BoxTable | None = None, config: PersonBoxesConfig | None = None
    ) -> Keyframes:
        """Build the training set. A box without any action is a negative.

        Args:
            config: How boxes of a person detector join the annotated ones; None: they do not. A key frame without
                annotated boxes is added only if their file states actions (`min_iou` is None).

        Raises:
            InputError: A row names an unknown video, the person boxes are missing, or no key frame is left.
        """
        keyframes, origin = self.group(annotations), "annotated"
        if config is not None:
            if person_boxes is None:
                raise InputError(
                    f"this recipe adds boxes of a person detector to those of {annotations.source}, and there is no "
                    "file of them; make one with `vidstill detect boxes`, or train without them: "
                    "--clips.person-boxes None"
                )
            if config.min_iou is not None:  # the actions that the file states do not count
                person_boxes = replace(person_boxes, action_id=np.full_like(person_boxes.action_id, NO_ACTION))
            detected = self.group(person_boxes, min_score=config.min_score, require_known_videos=False)
            if config.min_iou is not None:
                detected = self._assign_labels_by_iou(detected, keyframes, config.min_iou, config.max_boxes)
            names = ("box_keyframe_id", "boxes", "labels", "scores")
            columns = (np.concatenate([getattr(each, name) for each in (keyframes, detected)]) for name in names)
            keyframes = self._merge_rows(keyframes.source, *columns)
            origin = f"annotated, or detected with a score of {config.min_score:g} or more"
        if not len(keyframes):
            raise InputError(
                f"none of the {len(annotations):,} rows of {annotations.source} can be used in training; "
                f"{_EXCLUSION_HINT}"
            )
        return self._describe(keyframes, origin)

    def build_test(self, boxes: BoxTable, min_score: float | None) -> Keyframes:
        """Build the boxes that a test scores; an InputError is raised if no key frame is left.

        They are a person detector's with at least the score, or, if that is None, all of the annotated boxes.
        """
        keyframes = self.group(boxes, min_score, require_known_videos=min_score is None)
        if not len(keyframes):
            too_low = min_score is not None and len(boxes) and boxes.score.max() < min_score
            hint = f"none has a score of {min_score:g} or more; lower the threshold" if too_low else _EXCLUSION_HINT
            raise InputError(f"none of the {len(boxes):,} rows of {boxes.source} can be tested; {hint}")
        origin = "as annotated" if min_score is None else f"detected with a score of {min_score:g} or more"
        return self._describe(keyframes, origin)

    def _describe(self, keyframes: Keyframes, origin: str) -> Keyframes:
        counts = f"{len(keyframes):,} key frames with {len(keyframes.boxes):,} boxes"
        return replace(keyframes, description=f"{self.description}: {counts}, {origin}")

    def group(self, table: BoxTable, min_score: float | None = None, *, require_known_videos: bool = True) -> Keyframes:
        """Group rows into key frames and log a warning for each kind of odd row.

        Rows of one key frame with equal coordinates become one box with all their actions and the first row's score.

        Args:
            min_score: Smallest score of a row; None: all rows count.
            require_known_videos: Raise an error for a video that is not in `videos`, instead of leaving its rows out.

        Raises:
            InputError: A row names an unknown video; the file and the line are named.
        """
        indices = {video.name: index for index, video in enumerate(self.videos)}
        video_index = np.array([indices.get(name, -1) for name in table.video_names], np.int64)[table.video_index]
        unknown = video_index < 0
        if require_known_videos and unknown.any():
            row = int(unknown.argmax())
            name = table.video_names[table.video_index[row]]
            raise InputError(
                f"{table.describe_row(row)} names the video {name!r}, which is not among the {len(self.videos)} videos "
                "of the data; add the video or delete the line"
            )
        use = np.ones(len(table), bool) if min_score is None else table.score >= min_score
        _warn(table, unknown & use, "of videos that the annotations do not name, which are left out")
        use &= np.array([*(video.path is not None for video in self.videos), False])[video_index]
        if self.keyframe_seconds is not None:
            use &= np.isin(table.second, sorted(self.keyframe_seconds))
        keyframe_id = encode_keyframe_id(video_index, table.second)
        excluded = [encode_keyframe_id(indices[name], at) for name, at in self.excluded_keyframes if name in indices]
        use &= ~np.isin(keyframe_id, np.array(excluded, np.int64))
        inside = table.box.clip(0, 1)
        empty = (inside[:, 2:] <= inside[:, :2]).any(axis=1)
        outside = (np.abs(table.box - inside) > _EDGE_TOLERANCE).any(axis=1)
        _warn(table, use & empty, "with a box without area in the frame, which are left out")
        _warn(table, use & outside & ~empty, "with a box that reaches out of the frame; the part inside counts")
        use &= ~empty
        action_ids, inverse = np.unique(table.action_id, return_inverse=True)
        action = np.array([self.label_map.id_to_index.get(int(each), -1) for each in action_ids], np.int64)[inverse]
        unlisted = use & (action < 0) & (table.action_id != NO_ACTION)
        if unlisted.any():
            example = table.action_id[unlisted.argmax()]
            _warn(table, unlisted, f"with an action that the label map lacks, such as {example}; their boxes stay")
        labels = action[use, None] == np.arange(len(self.label_map))
        return self._merge_rows(table.source, keyframe_id[use], table.box[use], labels, table.score[use])

    def _merge_rows(
        self,
        source: PathOrUrl,
        keyframe_id: Int64[np.ndarray, "n"],
        boxes: Float64[np.ndarray, "n 4"],
        labels: Bool[np.ndarray, "n a"],
        scores: Float64[np.ndarray, "n"],
    ) -> Keyframes:
        """Sort boxes by key frame and in one by first appearance; equal boxes become one with all actions."""
        order, is_first = sort_equal_rows([keyframe_id, *boxes.T])
        first = order[is_first]
        sequence = np.lexsort((first, keyframe_id[first]))
        box_of_row = np.argsort(sequence)[np.cumsum(is_first) - 1][np.argsort(order)]
        row, action = np.nonzero(labels)
        merged_labels = np.zeros((len(first), len(self.label_map)), bool)
        merged_labels[box_of_row[row], action] = True
        first = first[sequence]
        keyframe, starts = np.unique(keyframe_id[first], return_index=True)
        return Keyframes(
            videos=tuple(self.videos),
            video_index=(keyframe >> 32).astype(np.int32),
            second=(keyframe & 0xFFFFFFFF).astype(np.int32),
            box_offsets=np.append(starts, len(first)),
            boxes=boxes[first],
            labels=merged_labels,
            scores=scores[first],
            label_map=self.label_map,
            source=source,
            description="",
        )

    def _assign_labels_by_iou(
        self, detections: Keyframes, annotations: Keyframes, min_iou: float, max_boxes: int | None
    ) -> Keyframes:
        """Give each detected box the actions of the annotated box of its key frame with which its IoU is highest.

        Detected boxes of key frames without annotations are left out; of those that get actions, so are the ones beyond
        the `max_boxes` with the highest scores.
        """
        from torchvision.ops import box_iou

        keyframe, annotated = detections.box_keyframe_id, annotations.box_keyframe_id
        best, iou = np.zeros(len(keyframe), np.int64), np.full(len(keyframe), -1.0)
        for start in range(0, len(keyframe), _IOU_CHUNK):  # both are sorted by key frame
            own = slice(start, start + _IOU_CHUNK)
            first, end = annotated.searchsorted(keyframe[own][0]), annotated.searchsorted(keyframe[own][-1], "right")
            if first < end:
                boxes = detections.boxes[own], annotations.boxes[first:end]
                pairs = box_iou(*map(torch.from_numpy, boxes)).numpy()
                pairs[keyframe[own, None] != annotated[None, first:end]] = -1
                best[own], iou[own] = first + pairs.argmax(axis=1), pairs.max(axis=1)
        use, positive = iou >= 0, iou >= min_iou
        if max_boxes is not None:
            order = np.lexsort((-detections.scores, keyframe, ~positive))[: positive.sum()]
            starts = np.unique(keyframe[order], return_index=True)[1]
            rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
            use[order[rank >= max_boxes]] = False
        labels = positive[:, None] & annotations.labels[best] if len(annotations) else detections.labels
        columns = keyframe[use], detections.boxes[use], labels[use], detections.scores[use]
        return self._merge_rows(detections.source, *columns)


def _warn(table: BoxTable, rows: Bool[np.ndarray, "n"], reason: str) -> None:
    if sentence := table.describe_rows(rows, reason):
        logger.warning(sentence)
