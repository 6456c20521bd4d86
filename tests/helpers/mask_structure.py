"""What masks have to look like, whoever drew them: for our own and for those made with the authors' code."""

import torch
from einops import rearrange, repeat
from torch import Tensor

from vidstill.methods.common.masking import Mask
from vidstill.utils.types import Grid, Tubelet


def places_in_each_slot(tokens: Tensor, grid: Grid) -> Tensor:
    """The places (b, k) that the tokens have in every slot, which have to be the same, without one twice."""
    slots = rearrange(tokens, "b (t k) -> b t k", t=grid.t)
    slot, position = slots // (grid.h * grid.w), slots % (grid.h * grid.w)
    assert (slot == torch.arange(grid.t)[:, None]).all()
    assert (position == position[:, :1]).all()
    assert (position.diff(dim=2) > 0).all()
    return position[:, 0]


def seen_in_each_slot(mask: Mask, grid: Grid) -> Tensor:
    """How many tokens (b, t) of every slot are seen."""
    return rearrange(mark_visible(mask, grid), "b t h w -> b t (h w)").sum(dim=2)


def mark_visible(mask: Mask, grid: Grid) -> Tensor:
    """Which tokens (b, t, h, w) are seen."""
    flat = torch.zeros(len(mask.visible), grid.num_tokens, dtype=torch.bool).scatter(1, mask.visible, True)
    return rearrange(flat, "b (t h w) -> b t h w", t=grid.t, h=grid.h)


def hidden_pixels(visible: Tensor, grid: Grid, tubelet: Tubelet) -> Tensor:
    """True (b, 1, t, h, w) where a pixel of the clips is in no visible token."""
    hidden = torch.ones(len(visible), grid.num_tokens, dtype=torch.bool).scatter(1, visible, False)
    t, h, w = tubelet
    pattern = "b (gt gh gw) -> b 1 (gt t) (gh h) (gw w)"
    return repeat(hidden, pattern, gt=grid.t, gh=grid.h, gw=grid.w, t=t, h=h, w=w)


def hold_to_every_token_once(mask: Mask, grid: Grid) -> None:
    """Visible and masked are disjoint, together complete, and ascend."""
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(grid.num_tokens).expand(len(together), -1))
    for tokens in (mask.visible, mask.masked):
        assert (tokens.diff(dim=1) > 0).all()
