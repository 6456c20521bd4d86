"""Evaluation views: a row of a manifest becomes all temporal clips and spatial crops of one video."""

import math
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import UInt8

from vidstill.data.datasets.base import FrameSampling, ManifestDataset
from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.decode.frames import Frames
from vidstill.data.loader.protocols import SampleArrays, ViewBatch
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.transforms.crop import CropRule, Interpolation, crop_views
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The views of a video in evaluation: `temporal_clips` × `spatial_crops`."""

    sampling: FrameSampling  # which frames a temporal clip has
    temporal_clips: int  # clips at different times of the video
    spatial_crops: int  # crops of each temporal clip
    short_side: int = 224  # pixels that the shorter side is resized to before cropping
    size: tuple[int, int] = (224, 224)  # rows and columns of a crop
    interpolation: Interpolation = "bilinear"  # how a frame is resized
    crop_rule: CropRule = "videomae"  # whose code decides where the crops lie

    def __post_init__(self) -> None:
        check_range(1, math.inf, temporal_clips=self.temporal_clips, spatial_crops=self.spatial_crops)
        check_range(1, math.inf, short_side=self.short_side, size=min(self.size))

    @property
    def num_views(self) -> int:
        """Views of a video."""
        return self.temporal_clips * self.spatial_crops

    def crop(self, frames: Frames) -> list[UInt8[np.ndarray, "t rows cols 3"]]:
        """Resize a temporal clip and cut its spatial crops."""
        return crop_views(frames, self.short_side, self.size, self.spatial_crops, self.interpolation, self.crop_rule)


class ViewClips(ManifestDataset):
    """Evaluation samples: all views of a video; nothing is random.

    Args:
        centered: A single temporal clip is the one in the middle of the video, also where the papers' rule takes the
            start.
        cache: As for `ManifestDataset`.
    """

    batch_type = ViewBatch

    def __init__(
        self, manifest: Manifest, config: ViewsConfig, *, centered: bool = False, cache: FrameCache | None = None
    ):
        super().__init__(manifest, config.sampling, clips_per_sample=config.num_views, size=config.size, cache=cache)
        self.config, self._centered = config, centered

    def load_arrays(self, index: int) -> SampleArrays:
        """Load a row's views, by temporal clip and then by crop, its label, and its index.

        Raises:
            BrokenVideo: The video does not decode.
        """
        clips, label = self.read_clips(index, self._choose_indices)
        views = [rearrange(crop, "t h w c -> c t h w") for frames in clips for crop in self.config.crop(frames)]
        return np.stack(views)[None], label[None], np.array([index])

    def _choose_indices(self, sampling: FrameSampling, total_frames: int) -> list[list[int]]:
        temporal_clips = self.config.temporal_clips
        if self._centered and temporal_clips == 1 and not isinstance(sampling, SegmentSampling):
            return [sampling.list_view_indices(total_frames, 3)[1]]
        return sampling.list_view_indices(total_frames, temporal_clips)
