"""Weights of small clips on larger ones: what fills no tubelet, and codes of positions on another grid."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from tiny_models import ENCODER, built, clips

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder, merge_encoder_config
from vidstill.models.position_embeddings import build_sincos_3d
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError

SMALL = Grid(2, 4, 4)  # of 4 frames of 16 × 16, as 16 × 224² are 8 × 14 × 14
LARGER = [Grid(5, 5, 5), Grid(4, 6, 6)]  # as 40 × 312² and 32 × 320² are 20 × 19 × 19 and 16 × 20 × 20
DROPPING = replace(ENCODER, drop_remainder=True)


def clip_of(grid, *, over=0):
    """A clip of a grid's tubelets, and so many more frames (at most 1), rows and columns."""
    return clips(frames=2 * grid.t + min(over, 1), rows=4 * grid.h + over, columns=4 * grid.w + over)


# ---- What is left over ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [0, 1, 2, 3])
def test_what_fills_no_tubelet_is_dropped_as_by_a_convolution_without_padding(over):
    encoder = built(DROPPING)
    grid, clip = Grid(2, 3, 5), clip_of(Grid(2, 3, 5), over=over)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (DROPPING.mean, DROPPING.std))
    kernel = rearrange(encoder.patch_embed.weight, "d (c t h w) -> d c t h w", c=3, t=2, h=4, w=4)
    maps = F.conv3d((clip - mean) / std, kernel, encoder.patch_embed.bias, stride=(2, 4, 4))
    expected = rearrange(maps, "b d t h w -> b (t h w) d") + encoder.positions(grid, clip.device)
    assert encoder.grid(clip) == grid
    torch.testing.assert_close(encoder.embed_tokens(clip), expected)
    named = torch.tensor([[0, 7, 29], [4, 5, 14]])
    torch.testing.assert_close(
        encoder.embed_tokens(clip, named), torch.take_along_dim(expected, named[..., None], dim=1)
    )


def test_312_rows_are_19_tubelets():
    config = replace(ENCODER, tubelet=(2, 16, 16), drop_remainder=True)
    assert config.grid(torch.empty(1, 3, 40, 312, 312, device="meta")) == Grid(20, 19, 19)


def test_what_is_left_over_cannot_be_seen():
    clip = clip_of(Grid(2, 3, 3), over=1)
    poisoned = clip.clone()
    poisoned[:, :, 4:], poisoned[:, :, :, 12:], poisoned[..., 12:] = (float("nan"),) * 3
    encoder = built(DROPPING)
    assert torch.equal(encoder(poisoned).tokens, encoder(clip).tokens)


def test_by_default_what_does_not_divide_is_refused():
    with pytest.raises(InputError, match="18 rows does not divide into tubelets of 4; take 16 rows"):
        built(ENCODER)(clips(rows=18, columns=18))


@pytest.mark.parametrize(("frames", "rows", "said"), [(1, 16, "take 2 frames"), (4, 3, "take 4 rows")])
def test_less_than_a_tubelet_is_refused_all_the_same(frames, rows, said):
    with pytest.raises(InputError, match=said):
        built(DROPPING)(clips(frames=frames, rows=rows))


# ---- Codes of positions ---------------------------------------------------------------------------------------------


def weight(distance):
    """Of a pixel so far away, in Keys' cubic convolution with a = -0.75."""
    far, a = abs(distance), -0.75
    if far < 1:
        return (a + 2) * far**3 - (a + 3) * far**2 + 1
    return a * (far**3 - 5 * far**2 + 8 * far - 4) if far < 2 else 0.0


def bicubic(old, new):
    """What each of `new` places takes of each of `old`: pixel centres at halves, the outermost repeated outwards."""
    taken = np.zeros((new, old))
    for place in range(new):
        centre = (place + 0.5) * old / new - 0.5
        for near in range(math.floor(centre) - 1, math.floor(centre) + 3):
            taken[place, min(max(near, 0), old - 1)] += weight(near - centre)
    return taken


def linear(old, new):
    taken = np.zeros((new, old))
    for place in range(new):
        centre = min(max((place + 0.5) * old / new - 0.5, 0), old - 1)
        before = math.floor(centre)
        taken[place, before] += 1 - (centre - before)
        taken[place, min(before + 1, old - 1)] += centre - before
    return taken


def by_hand(table, old, new):
    cube = table.double().numpy().reshape(old.t, old.h, old.w, -1)
    taken = linear(old.t, new.t), bicubic(old.h, new.h), bicubic(old.w, new.w)
    return torch.from_numpy(np.einsum("at,bh,cw,thwd->abcd", *taken, cube).reshape(new.num_tokens, -1)).float()


def flat(grid):
    """VideoMAE's code, counted on through all tokens, whatever the grid."""
    place, channel = np.arange(grid.num_tokens)[:, None], np.arange(24)[None]
    angle = place / 10000 ** (2 * (channel // 2) / 24)
    return torch.from_numpy(np.where(channel % 2, np.cos(angle), np.sin(angle))).float()


def expected_codes(encoder, grid):
    tables = {name.removeprefix("positions."): table.detach() for name, table in encoder.named_parameters()}
    match encoder.config.positions:
        case "learned":
            return by_hand(tables["joint"], SMALL, grid)
        case "separable":
            place = by_hand(tables["space"], Grid(1, 4, 4), Grid(1, grid.h, grid.w))
            slot = by_hand(tables["time"], Grid(2, 1, 1), Grid(grid.t, 1, 1))
            return (slot[:, None] + place).reshape(grid.num_tokens, -1)
        case "sinusoid":
            return flat(grid)


@pytest.mark.parametrize("grid", LARGER, ids=["40x312", "32x320"])
@pytest.mark.parametrize("kind", ["learned", "separable", "sinusoid"])
def test_weights_of_small_clips_start_a_model_of_larger_ones_whose_codes_are_resized(kind, grid):
    config = replace(ENCODER, positions=kind, learned_grid=None if kind == "sinusoid" else (2, 4, 4), class_token=True)
    trained = built(config, seed=1)
    weights = Checkpoint(
        {f"encoder.{name}": tensor for name, tensor in trained.state_dict().items()}, {"encoder": to_dict(config)}
    )
    asked = merge_encoder_config(weights, replace(config, drop_remainder=True, drop_path=0.1))
    assert (asked.drop_remainder, asked.learned_grid) == (True, config.learned_grid)
    larger = built(asked, seed=2).eval()
    init_encoder(larger, weights, asked)
    over = 2 if grid == LARGER[0] else 0
    torch.testing.assert_close(
        larger.positions(grid, torch.device("cpu")), expected_codes(trained, grid), rtol=1e-5, atol=1e-6
    )
    assert larger(clip_of(grid, over=over)).tokens.shape == (2, grid.num_tokens, 24)
    torch.testing.assert_close(larger(clip_of(SMALL)).tokens, trained(clip_of(SMALL)).tokens)


def test_mvd_s_codes_go_on_along_each_axis():
    encoder = built(replace(ENCODER, dim=32, positions="sincos3d"))
    larger = encoder.positions(LARGER[0], torch.device("cpu")).view(5, 5, 5, 32)
    small = build_sincos_3d(SMALL, 32).float().view(2, 4, 4, 32)
    torch.testing.assert_close(larger[:2, :4, :4], small)


@pytest.mark.parametrize("kind", ["learned", "separable"])
def test_what_is_trained_on_larger_clips_is_the_table_of_the_small_ones(kind):
    encoder = built(replace(ENCODER, positions=kind, learned_grid=(2, 4, 4)))
    encoder(clip_of(LARGER[1])).tokens.square().sum().backward()
    for table in encoder.positions.parameters():
        assert len(table) in (32, 16, 2)  # tokens, places, slots of the small grid
        assert table.grad.abs().sum(dim=1).gt(0).all()
