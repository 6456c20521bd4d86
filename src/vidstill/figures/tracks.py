"""Tracks of persons: the boxes of consecutive key frames are linked by their overlap, and interpolated between them."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

_MIN_IOU = 0.3  # with a lower one, boxes of consecutive key frames are two persons'


@dataclass(frozen=True)
class KeyframeDetections:
    """What the persons in boxes do at a key frame."""

    seconds: float  # from the video's first frame
    boxes: Float[np.ndarray, "m 4"]  # x1, y1, x2, y2 as fractions of the frame's width and height
    person_scores: Float[np.ndarray, "m"]  # of the person detector
    action_scores: Float[np.ndarray, "m a"]


@dataclass(frozen=True)
class TrackBox:
    """A track's box at some time, and the nearest key frame with the box there, whose actions it has."""

    track_id: int
    box: Float[np.ndarray, "4"]
    keyframe_index: int
    box_index: int


class PersonTracks:
    """Key frames in order, with a track number for each box, from 1.

    Between two key frames, pairs of boxes are linked in the order of their overlap, the largest first. A box without a
    partner begins a new track; a track that has no box at a key frame ends.
    """

    def __init__(self, keyframes: Sequence[KeyframeDetections]):
        self.keyframes = keyframes
        self.track_ids = _link_boxes([keyframe.boxes for keyframe in keyframes])
        self._seconds = [keyframe.seconds for keyframe in keyframes]

    def interpolate_boxes(self, seconds: float) -> list[TrackBox]:
        """Return the boxes at a time, interpolated linearly between the key frames before and after it.

        A track begins halfway before its first key frame and ends halfway after its last.
        """
        if not self.keyframes:
            return []
        following = bisect_right(self._seconds, seconds)
        before, after = max(0, following - 1), min(following, len(self.keyframes) - 1)
        gap = self._seconds[after] - self._seconds[before]
        fraction = (seconds - self._seconds[before]) / gap if gap else 0.0
        nearest = before if fraction < 0.5 else after
        boxes_at: dict[int, dict[int, np.ndarray]] = {
            number: dict(zip(self.track_ids[number].tolist(), self.keyframes[number].boxes, strict=True))
            for number in (before, after)
        }
        result = []
        for index, track in enumerate(self.track_ids[nearest].tolist()):
            first, last = (boxes_at[number].get(track, boxes_at[nearest][track]) for number in (before, after))
            result.append(TrackBox(track, first + fraction * (last - first), nearest, index))
        return sorted(result, key=lambda each: each.track_id)


def _link_boxes(boxes: Sequence[Float[np.ndarray, "_ 4"]]) -> list[Int[np.ndarray, "_"]]:
    from torchvision.ops import box_iou

    track_ids: list[np.ndarray] = []
    num_tracks = 0
    for keyframe, current in enumerate(boxes):
        tracks = np.zeros(len(current), np.int64)
        if keyframe:
            overlap = box_iou(*map(torch.from_numpy, (boxes[keyframe - 1], current))).nan_to_num().numpy()
            unlinked = set(range(len(overlap)))
            for pair in np.argsort(-overlap, axis=None, kind="stable"):
                first, second = divmod(int(pair), len(current))
                if overlap[first, second] < _MIN_IOU:
                    break
                if first in unlinked and not tracks[second]:
                    tracks[second] = track_ids[-1][first]
                    unlinked.remove(first)
        new = tracks == 0
        tracks[new] = num_tracks + 1 + np.arange(new.sum())
        num_tracks += int(new.sum())
        track_ids.append(tracks)
    return track_ids
