"""View clips."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import Dataset

from vidstill.data.datasets.lookup import (
    FrameSampling,
    _compute_sample_num_bytes,
    _get_label,
    _read_clips,
    _VideoMetadataCache,
)
from vidstill.data.loader.collate import SampleArrays
from vidstill.data.loader.protocols import ViewBatch, ViewSample
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import source_name
from vidstill.data.transforms.crop import CropRule, Interpolation, crop_views
from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """What is looked at in a test: `views` draws of frames, each in `crops` places.

    Args:
        temporal_clips: draws of frames from a video.
        spatial_crops: places in each of them.
        short_side: pixels that the shorter side is resized to before cropping.
        size: rows and columns of a clip.
        interpolation: how a frame is resized.
        crop_rule: whose places the crops have.
    """

    sampling: FrameSampling
    temporal_clips: int
    spatial_crops: int
    short_side: int = 224
    size: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bilinear"
    crop_rule: CropRule = "videomae"

    def __post_init__(self) -> None:
        check_range(1, math.inf, views=self.temporal_clips, crops=self.spatial_crops, short_side=self.short_side)
        for side in self.size:
            check_range(1, math.inf, size=side)


class ViewClips(Dataset[ViewSample]):
    """Test samples: every view of a video at once, nothing drawn."""

    batch_type = ViewBatch

    def __init__(self, manifest: Manifest, config: ViewsConfig):
        self.manifest, self.config = manifest, config
        self._video_metadata = _VideoMetadataCache(manifest, config.sampling)

    @property
    def sample_num_bytes(self) -> int:
        config = self.config
        return _compute_sample_num_bytes(
            config.temporal_clips * config.spatial_crops, config.sampling.num_frames, config.size, self.manifest
        )

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def sample_name(self, index: int) -> str:
        return source_name(self.manifest.rows[index].source)

    def load_arrays(self, index: int) -> SampleArrays:
        clip, label, place = self[index]
        return clip.numpy()[None], np.array([label]), np.array([place])

    def __getitem__(self, index: int) -> ViewSample:
        """
        Raises:
            BrokenVideo: the video does not decode.
        """
        config, row = self.config, self.manifest.rows[index]
        total = self._video_metadata.get_num_frames(index)
        views = self._video_metadata.get_sampling(index).list_view_indices(total, config.temporal_clips)
        spatial = config.short_side, config.size, config.spatial_crops, config.interpolation, config.crop_rule
        crops = [
            rearrange(crop, "t h w c -> c t h w")
            for frames in _read_clips(row.source, views)
            for crop in crop_views(frames, *spatial)
        ]
        return ViewSample(torch.from_numpy(np.stack(crops)), _get_label(self.manifest, index, row), index)
