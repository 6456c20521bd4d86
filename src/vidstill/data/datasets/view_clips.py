"""View clips."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import Dataset

from vidstill.data.datasets.lookup import Sampling, _clips_bytes, _label, _read_each, _Videos
from vidstill.data.loader.collate import Parts
from vidstill.data.loader.protocols import ViewBatch, Views
from vidstill.data.manifest.manifest import Listing
from vidstill.data.storage.fetch import name_of
from vidstill.data.transforms.crop import CropRule, Interpolation, view_crops
from vidstill.utils.types import within


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """What is looked at in a test: `views` draws of frames, each in `crops` places.

    Args:
        views: draws of frames from a video.
        crops: places in each of them.
        short_side: pixels that the shorter side is resized to before cropping.
        size: rows and columns of a clip.
        interpolation: how a frame is resized.
        crop_rule: whose places the crops have.
    """

    sampling: Sampling
    views: int
    crops: int
    short_side: int = 224
    size: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bilinear"
    crop_rule: CropRule = "videomae"

    def __post_init__(self) -> None:
        within(1, math.inf, views=self.views, crops=self.crops, short_side=self.short_side)
        for side in self.size:
            within(1, math.inf, size=side)


class ViewClips(Dataset[Views]):
    """Test samples: every view of a video at once, nothing drawn."""

    batch = ViewBatch

    def __init__(self, listing: Listing, config: ViewsConfig):
        self.listing, self.config = listing, config
        self._videos = _Videos(listing, config.sampling)

    @property
    def room(self) -> int:
        config = self.config
        return _clips_bytes(config.views * config.crops, config.sampling.frames, config.size, self.listing)

    def __len__(self) -> int:
        return len(self.listing.rows)

    def name(self, place: int) -> str:
        return name_of(self.listing.rows[place].source)

    def parts(self, index: int) -> Parts:
        clip, label, place = self[index]
        return clip.numpy()[None], np.array([label]), np.array([place])

    def __getitem__(self, index: int) -> Views:
        """
        Raises:
            BrokenVideo: the video does not decode.
        """
        config, row = self.config, self.listing.rows[index]
        total = self._videos.frames(index)
        views = self._videos.sampling(index).views(total, config.views)
        spatial = config.short_side, config.size, config.crops, config.interpolation, config.crop_rule
        crops = [
            rearrange(crop, "t h w c -> c t h w")
            for frames in _read_each(row.source, views)
            for crop in view_crops(frames, *spatial)
        ]
        return Views(torch.from_numpy(np.stack(crops)), _label(self.listing, index, row), index)
