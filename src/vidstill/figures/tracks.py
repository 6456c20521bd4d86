"""Persons' boxes at moments of a video become tracks: linked by their overlap, and interpolated between moments."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_MIN_IOU = 0.3  # boxes of neighbouring moments that overlap by this much or more may be one person's


@dataclass(frozen=True)
class KeyframeDetections:
    """What the persons in boxes do at a moment.

    Args:
        seconds: from the video's first frame.
        boxes: x1, y1, x2, y2 as fractions of the frame's width and height.
        person_scores: the scores of whoever found the boxes.
        action_scores: of each box's actions.
    """

    seconds: float
    boxes: Float[np.ndarray, "m 4"]
    person_scores: Float[np.ndarray, "m"]
    action_scores: Float[np.ndarray, "m a"]


@dataclass(frozen=True)
class TrackBox:
    """A track's box between two moments, and the moment and box whose actions are told of it: the nearer one's."""

    track_id: int
    box: Float[np.ndarray, "4"]
    keyframe_index: int
    box_index: int


class PersonTracks:
    """Moments in the order of time, with a number for each box: the same one, from 1 on, for the boxes of a person.

    From moment to moment, pairs of boxes are linked by their overlap, the largest first. A box that finds none begins a
    new track; one that is missed at a moment ends.
    """

    def __init__(self, keyframes: Sequence[KeyframeDetections]):
        self.keyframes = keyframes
        self.track_ids = _link_boxes([moment.boxes for moment in keyframes])
        self._seconds = [moment.seconds for moment in keyframes]

    def interpolate_boxes(self, seconds: float) -> list[TrackBox]:
        """The boxes at a time, each on the straight way from its place at the last moment to that at the next one.

        A track begins half way before its first moment and ends half way behind its last one.
        """
        if not self.keyframes:
            return []
        next_one = bisect_right(self._seconds, seconds)
        before, after = max(0, next_one - 1), min(next_one, len(self.keyframes) - 1)
        gap = self._seconds[after] - self._seconds[before]
        way = (seconds - self._seconds[before]) / gap if gap else 0.0
        near = before if way < 0.5 else after
        theirs = {int(track): place for place, track in enumerate(self.track_ids[before])}
        others = {int(track): place for place, track in enumerate(self.track_ids[after])}
        told = theirs if near == before else others
        found = []
        for track in sorted(told):
            place = told[track]
            box = self.keyframes[near].boxes[place]
            if track in theirs and track in others:
                first, last = self.keyframes[before].boxes[theirs[track]], self.keyframes[after].boxes[others[track]]
                box = first + way * (last - first)
            found.append(TrackBox(track, box, near, place))
        return found


def _link_boxes(boxes: Sequence[Float[np.ndarray, "_ 4"]]) -> list[Int[np.ndarray, "_"]]:
    numbers: list[np.ndarray] = []
    begun = 0
    for place, here in enumerate(boxes):
        own = np.zeros(len(here), np.int64)
        if place:
            overlap = _overlaps(boxes[place - 1], here)
            free = set(range(len(overlap)))
            for pair in np.argsort(-overlap, axis=None, kind="stable"):
                one, other = divmod(int(pair), len(here))
                if overlap[one, other] < _MIN_IOU:
                    break
                if one in free and not own[other]:
                    own[other] = numbers[-1][one]
                    free.remove(one)
        new = own == 0
        own[new] = begun + 1 + np.arange(new.sum())
        begun += int(new.sum())
        numbers.append(own)
    return numbers


def _overlaps(some: Float[np.ndarray, "m 4"], others: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "m n"]:
    """Of each two boxes, the share of what they cover together that both cover."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    both = (high - low).clip(min=0).prod(axis=-1)
    areas = [(each[:, 2:] - each[:, :2]).clip(min=0).prod(axis=-1) for each in (some, others)]
    either = areas[0][:, None] + areas[1][None] - both
    return both / np.maximum(either, 1e-12)
