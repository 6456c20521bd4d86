"""Lookup."""

import math

import numpy as np
from jaxtyping import Float32

from vidstill.data.decode.images import is_picture
from vidstill.data.decode.probe import count_frames, frame_rate
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Source, name_of
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.utils.types import InputError

Sampling = SpanSampling | DenseSampling | SegmentSampling | TimedSampling


class _Videos:
    """What has to be known of each video: looked up when first asked for, and kept."""

    def __init__(self, listing: Listing, sampling: Sampling):
        self._rows, self._sampling = listing.rows, sampling
        self._frames = np.zeros(len(listing.rows), np.int32)
        self._rates = np.zeros(len(listing.rows))
        self._refuse_picture(self._rows[0])

    def frames(self, index: int) -> int:
        """How many it has, as a scan counted them, or as they are counted here.

        Raises:
            BrokenVideo: it does not decode, here or when it was scanned.
        """
        if not self._frames[index]:
            row = self._rows[index]
            if row.wrong:
                raise BrokenVideo(f"{name_of(row.source)} {row.wrong}")
            self._refuse_picture(row)
            self._frames[index] = row.frames or count_frames(row.source)
        return int(self._frames[index])

    def sampling(self, index: int) -> Sampling:
        """The rule in its own frames; one without a frame rate is taken to have the rule's."""
        if not isinstance(self._sampling, TimedSampling):
            return self._sampling
        if not self._rates[index]:
            row = self._rows[index]
            self._rates[index] = row.rate or frame_rate(row.source) or self._sampling.rate
        return self._sampling.at(float(self._rates[index]))

    def _refuse_picture(self, row: Row) -> None:
        if self._sampling.frames > 1 and is_picture(row.name):
            raise InputError(
                f"{name_of(row.source)} is a picture, a clip of one frame, "
                f"and clips of {self._sampling.frames} frames are asked for"
            )


def _clips_bytes(clips: int, frames: int, size: tuple[int, int], listing: Listing) -> int:
    """The memory that a sample takes: its clips, and a little for its labels and seeds."""
    labels = 4 * len(listing.classes) if listing.several else 0
    return clips * (3 * frames * math.prod(size) + 128 + labels) + 1024


def _label(listing: Listing, place: int, row: Row) -> int | Float32[np.ndarray, "classes"]:
    if listing.several:
        return listing.rows.hot(place, len(listing.classes))
    return -1 if row.label is None else row.label


def _read_each(source: Source, draws: list[list[int]]) -> list[Frames]:
    """The frames of several draws, decoded in one go."""
    places = sorted({n for draw in draws for n in draw})
    frames = read_frames(source, places)
    return [frames[np.searchsorted(places, draw)] for draw in draws]
