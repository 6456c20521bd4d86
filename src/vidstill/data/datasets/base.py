"""What training clips and evaluation views share: a row's video is opened once, for its metadata and its frames."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import Frames, VideoReader
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, source_name
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.utils.types import InputError

FrameSampling = SpanSampling | DenseSampling | SegmentSampling | TimedSampling


class OpenedRow(NamedTuple):
    """A row of a manifest with its opened video, the number of frames, and the sampling rule for its frame rate."""

    row: VideoRow
    video: VideoReader
    num_frames: int
    sampling: FrameSampling

    def read_clips(self, clip_indices: list[list[int]]) -> list[Frames]:
        """Read several clips; frames that they share are decoded once."""
        indices = sorted({index for clip in clip_indices for index in clip})
        frames = self.video.read_frames(indices)
        return [frames[np.searchsorted(indices, clip)] for clip in clip_indices]


class ManifestDataset:
    """A manifest's videos and the rule by which their frames are chosen.

    Args:
        clips_per_sample: Clips that one sample holds.
        size: Rows and columns of a clip.

    Raises:
        InputError: Clips have several frames and the first row is an image.
    """

    def __init__(
        self, manifest: Manifest, sampling: FrameSampling, *, clips_per_sample: int, size: tuple[int, int]
    ) -> None:
        self.manifest = manifest
        self._sampling = sampling
        self._num_frames = np.zeros(len(manifest.rows), np.int32)  # counted in this process; 0: not yet
        label_bytes = 4 * len(manifest.classes) if manifest.multi_label else 0
        self.sample_num_bytes = (
            clips_per_sample * (3 * sampling.num_frames * math.prod(size) + 128 + label_bytes) + 1024
        )
        self._check_not_image(manifest.rows[0])

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def sample_name(self, index: int) -> str:
        return source_name(self.manifest.rows[index].source)

    def get_label(self, index: int, row: VideoRow) -> Int64[np.ndarray, ""] | Float32[np.ndarray, "classes"]:
        """Return the row's class number, -1 if it has none; 0 or 1 for each class where rows may have several."""
        if self.manifest.multi_label:
            return self.manifest.rows.multi_hot(index, len(self.manifest.classes))
        return np.array(-1 if row.label is None else row.label)

    @contextmanager
    def open_row(self, index: int) -> Iterator[OpenedRow]:
        """Open the video of a row, once.

        Raises:
            BrokenVideo: It does not open, not one frame decodes, or a scan found it broken.
            InputError: It is an image, and clips have several frames.
        """
        row = self.manifest.rows[index]
        if row.error:
            raise BrokenVideo(row.source, row.error)
        self._check_not_image(row)
        with VideoReader(row.source, num_frames=row.frames or int(self._num_frames[index]) or None) as video:
            self._num_frames[index] = video.num_frames
            sampling = self._sampling
            if isinstance(sampling, TimedSampling):  # a video without a frame rate is taken to have the rule's
                sampling = sampling.adapt_to_frame_rate(row.frame_rate or video.frame_rate or sampling.frame_rate)
            yield OpenedRow(row, video, video.num_frames, sampling)

    def _check_not_image(self, row: VideoRow) -> None:
        if self._sampling.num_frames > 1 and is_image_file(row.name):
            raise InputError(
                f"{source_name(row.source)} is an image, a clip of one frame, "
                f"but clips have {self._sampling.num_frames} frames"
            )
