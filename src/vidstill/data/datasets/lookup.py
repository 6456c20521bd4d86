"""Lookup."""

import math

import numpy as np
from jaxtyping import Float32

from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import count_frames, read_frame_rate
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, source_name
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.utils.types import InputError

FrameSampling = SpanSampling | DenseSampling | SegmentSampling | TimedSampling


class _VideoMetadataCache:
    """What has to be known of each video: looked up when first asked for, and kept."""

    def __init__(self, manifest: Manifest, sampling: FrameSampling):
        self._rows, self._sampling = manifest.rows, sampling
        self._num_frames = np.zeros(len(manifest.rows), np.int32)
        self._frame_rates = np.zeros(len(manifest.rows))
        self._check_not_image(self._rows[0])

    def get_num_frames(self, index: int) -> int:
        """How many it has, as a scan counted them, or as they are counted here.

        Raises:
            BrokenVideo: it does not decode, here or when it was scanned.
        """
        if not self._num_frames[index]:
            row = self._rows[index]
            if row.error:
                raise BrokenVideo(f"{source_name(row.source)} {row.error}")
            self._check_not_image(row)
            self._num_frames[index] = row.frames or count_frames(row.source)
        return int(self._num_frames[index])

    def get_sampling(self, index: int) -> FrameSampling:
        """The rule in its own frames; one without a frame rate is taken to have the rule's."""
        if not isinstance(self._sampling, TimedSampling):
            return self._sampling
        if not self._frame_rates[index]:
            row = self._rows[index]
            self._frame_rates[index] = row.frame_rate or read_frame_rate(row.source) or self._sampling.frame_rate
        return self._sampling.adapt_to_frame_rate(float(self._frame_rates[index]))

    def _check_not_image(self, row: VideoRow) -> None:
        if self._sampling.num_frames > 1 and is_image_file(row.name):
            raise InputError(
                f"{source_name(row.source)} is a picture, a clip of one frame, "
                f"and clips of {self._sampling.num_frames} frames are asked for"
            )


def _compute_sample_num_bytes(num_clips: int, num_frames: int, size: tuple[int, int], manifest: Manifest) -> int:
    """The memory that a sample takes: its clips, and a little for its labels and seeds."""
    labels = 4 * len(manifest.classes) if manifest.multi_label else 0
    return num_clips * (3 * num_frames * math.prod(size) + 128 + labels) + 1024


def _get_label(manifest: Manifest, index: int, row: VideoRow) -> int | Float32[np.ndarray, "classes"]:
    if manifest.multi_label:
        return manifest.rows.multi_hot(index, len(manifest.classes))
    return -1 if row.label is None else row.label


def _read_clips(source: VideoSource, clip_indices: list[list[int]]) -> list[Frames]:
    """The frames of several draws, decoded in one go."""
    places = sorted({n for draw in clip_indices for n in draw})
    frames = read_frames(source, places)
    return [frames[np.searchsorted(places, draw)] for draw in clip_indices]
