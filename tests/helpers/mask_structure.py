"""The structure of masks: of our own, and of those made with the authors' code."""

import torch
from einops import rearrange, repeat
from torch import Tensor

from vidstill.methods.common.masking import Mask
from vidstill.utils.types import Grid, Tubelet


def get_patches(tokens: Tensor, grid: Grid) -> Tensor:
    """Return the patches (b, k) that the tokens have in every time step, which must be the same, none of them twice."""
    by_step = rearrange(tokens, "b (t k) -> b t k", t=grid.t)
    step, patch = by_step // (grid.h * grid.w), by_step % (grid.h * grid.w)
    assert (step == torch.arange(grid.t)[:, None]).all()
    assert (patch == patch[:, :1]).all()
    assert (patch.diff(dim=2) > 0).all()
    return patch[:, 0]


def count_visible_by_step(mask: Mask, grid: Grid) -> Tensor:
    """Return how many tokens (b, t) of every time step are visible."""
    return rearrange(mark_visible(mask, grid), "b t h w -> b t (h w)").sum(dim=2)


def mark_visible(mask: Mask, grid: Grid) -> Tensor:
    """Return which tokens (b, t, h, w) are visible."""
    flat = torch.zeros(len(mask.visible), grid.num_tokens, dtype=torch.bool).scatter(1, mask.visible, True)
    return rearrange(flat, "b (t h w) -> b t h w", t=grid.t, h=grid.h)


def get_masked_pixels(visible: Tensor, grid: Grid, tubelet: Tubelet) -> Tensor:
    """Return which pixels (b, 1, t, h, w) of the clips are in no visible token."""
    masked = torch.ones(len(visible), grid.num_tokens, dtype=torch.bool).scatter(1, visible, False)
    t, h, w = tubelet
    pattern = "b (gt gh gw) -> b 1 (gt t) (gh h) (gw w)"
    return repeat(masked, pattern, gt=grid.t, gh=grid.h, gw=grid.w, t=t, h=h, w=w)


def assert_each_token_once(mask: Mask, grid: Grid) -> None:
    """Check that visible and masked tokens are disjoint, together complete, and ascend."""
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(grid.num_tokens).expand(len(together), -1))
    for tokens in (mask.visible, mask.masked):
        assert (tokens.diff(dim=1) > 0).all()
