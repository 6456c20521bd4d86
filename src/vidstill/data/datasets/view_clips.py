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
        cache: As for `ManifestDataset`.
    """

    batch_type = ViewBatch

    def __init__(self, manifest: Manifest, config: ViewsConfig, *, cache: FrameCache | None = None):
        super().__init__(manifest, config.sampling, clips_per_sample=config.num_views, size=config.size, cache=cache)
        self.config = config

    def load_arrays(self, index: int) -> SampleArrays:
        """Load a row's views, by temporal clip and then by crop, its label, and its index.

        Raises:
            BrokenVideo: The video does not decode.
        """
        temporal_clips = self.config.temporal_clips
        clips, label = self.read_clips(
            index, lambda sampling, frames: sampling.list_view_indices(frames, temporal_clips)
        )
        views = [rearrange(crop, "t h w c -> c t h w") for frames in clips for crop in self.config.crop(frames)]
        return np.stack(views)[None], label[None], np.array([index])
