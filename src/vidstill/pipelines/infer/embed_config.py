"""Which features of a video: views or windows, layers, and how the tokens of a clip are pooled."""

from dataclasses import dataclass, replace
from typing import Literal

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig
from vidstill.utils.types import Grid, InputError

Pooling = Literal["mean", "max", "class", "space", "time", "tokens"]

_POOLINGS = {
    "mean": ("b d", "mean"),
    "max": ("b d", "max"),
    "space": ("b t d", "mean"),
    "time": ("b h w d", "mean"),
    "tokens": ("b t h w d", "mean"),
}


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which features of a video.

    Args:
        layers: Blocks counted from 1, or backwards from -1; none: the final output, after the last norm.
        pool: How the tokens of a clip are pooled: mean, max, the class token, the mean over space or over time, or not.
        temporal_clips: Clips per video; the features are the mean over all views.
        spatial_crops: Crops per clip.
        window: Length of a window in seconds; None: views of the whole video.
        hop: Seconds from the start of a window to the next start; None: the length of a window.
    """

    layers: tuple[int, ...] = ()
    pool: Pooling = "mean"
    temporal_clips: int = 1
    spatial_crops: int = 1
    window: float | None = None
    hop: float | None = None

    def build_views(self, views: ViewsConfig) -> tuple[ViewsConfig, WindowsConfig | None]:
        """Return the views of a video, and its windows if there are any.

        Args:
            views: One view of a video, as in the encoder's training.

        Raises:
            InputError: Views and windows are requested together, or a hop without a window.
        """
        views = replace(views, temporal_clips=self.temporal_clips, spatial_crops=self.spatial_crops)
        if self.window is None:
            if self.hop is not None:
                raise InputError(f"a hop of {self.hop} seconds needs windows; give their length with --window")
            return views, None
        if self.temporal_clips != 1:
            raise InputError(
                f"{self.temporal_clips} views and windows exclude each other; leave out --window or --temporal-clips"
            )
        hop = self.window if self.hop is None else self.hop
        return views, WindowsConfig(window_seconds=self.window, hop_seconds=hop)


def pool_tokens(
    tokens: Float[Tensor, "b n d"], cls_tokens: Float[Tensor, "b k d"], grid: Grid, pool: Pooling
) -> Float[Tensor, "b ..."]:
    """Pool the tokens of a grid.

    Args:
        cls_tokens: The class token, if there is one: k is 0 or 1, and 1 for the pooling `class`.
    """
    if pool == "class":
        return cls_tokens[:, 0]
    shape, reduction = _POOLINGS[pool]
    return reduce(tokens, f"b (t h w) d -> {shape}", reduction, t=grid.t, h=grid.h, w=grid.w)
