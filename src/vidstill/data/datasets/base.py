"""What training clips and evaluation views share: a row's video is opened once, for its metadata and its frames."""

import math
from collections.abc import Callable
from itertools import chain

import numpy as np
from jaxtyping import Float32, Int64

from vidstill.data.datasets.frame_cache import CachedVideo, FrameCache
from vidstill.data.decode.frames import Frames
from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, source_name
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.utils.types import InputError

_MAX_SAMPLE_BYTES = 2**32

FrameSampling = SpanSampling | DenseSampling | SegmentSampling | TimedSampling


class ManifestDataset:
    """A manifest's videos and the rule by which their frames are chosen.

    Args:
        clips_per_sample: Clips that one sample holds.
        size: Rows and columns of a clip.
        cache: Where decoded videos are held; samples are the same without it.

    Raises:
        InputError: Clips have several frames and the first row is an image; or a sample takes more than 4 GiB.
    """

    def __init__(
        self,
        manifest: Manifest,
        sampling: FrameSampling,
        *,
        clips_per_sample: int,
        size: tuple[int, int],
        cache: FrameCache | None = None,
    ) -> None:
        self.manifest = manifest
        self._sampling, self._cache = sampling, cache
        if cache is not None:
            cache.users.add(self)
        self._num_frames = np.zeros(len(manifest.rows), np.int32)  # counted in this process; 0: not yet
        label_bytes = 4 * len(manifest.classes) if manifest.multi_label else 0
        clip_bytes = 3 * sampling.num_frames * math.prod(size)
        self.sample_num_bytes = clips_per_sample * (clip_bytes + 128 + label_bytes) + 1024
        if self.sample_num_bytes > _MAX_SAMPLE_BYTES:
            raise InputError(
                f"{clips_per_sample} × {sampling.num_frames} frames of {size[0]} × {size[1]} pixels take more than "
                f"{_MAX_SAMPLE_BYTES / 2**30:.0f} GiB; choose fewer or smaller clips"
            )
        self._check_not_image(manifest.rows[0])

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def sample_name(self, index: int) -> str:
        return source_name(self.manifest.rows[index].source)

    def read_clips(
        self, index: int, choose_indices: Callable[[FrameSampling, int], list[list[int]]]
    ) -> tuple[list[Frames], Int64[np.ndarray, ""] | Float32[np.ndarray, "classes"]]:
        """Read clips of a row's video, which is opened once; frames that they share are decoded once.

        With a cache it is opened and decoded once for all samples.

        Args:
            choose_indices: Returns the frames of each clip, by the sampling rule for the video's frame rate and the
                number of its frames.

        Returns:
            The clips, and the row's class number, -1 if it has none; 0 or 1 for each class where rows may have several.

        Raises:
            BrokenVideo: It does not open, not one frame decodes, or a scan found it broken.
            InputError: It is an image, and clips have several frames.
        """
        row, sampling = self.manifest.rows[index], self._sampling
        if row.error:
            raise BrokenVideo(row.source, row.error)
        self._check_not_image(row)
        with self._open_video(index, row) as video:
            self._num_frames[index] = video.num_frames
            if isinstance(sampling, TimedSampling):  # a video without a frame rate is taken to have the rule's
                sampling = sampling.adapt_to_frame_rate(row.frame_rate or video.frame_rate or sampling.frame_rate)
            clip_indices = choose_indices(sampling, video.num_frames)
            frames = video.read_frames(list(chain(*clip_indices)))
        size = sampling.num_frames
        clips = [frames[start : start + size] for start in range(0, len(frames), size)]
        if self.manifest.multi_label:
            return clips, self.manifest.rows.multi_hot(index, len(self.manifest.classes))
        return clips, np.array(-1 if row.label is None else row.label)

    def _open_video(self, index: int, row: VideoRow) -> VideoReader | CachedVideo:
        num_frames = row.frames or int(self._num_frames[index]) or None
        if self._cache is not None:
            return self._cache.open_video(index, row, num_frames=num_frames)
        return VideoReader(row.source, num_frames=num_frames)

    def _check_not_image(self, row: VideoRow) -> None:
        if self._sampling.num_frames > 1 and is_image_file(row.name):
            raise InputError(
                f"{source_name(row.source)} is an image, a clip of one frame, "
                f"but clips have {self._sampling.num_frames} frames"
            )
