"""Weights of small clips on larger ones: pixels that fill no tubelet, and position embeddings of another grid."""

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
from vidstill.utils.types import Grid, InputError, gather_tokens

SMALL = Grid(2, 4, 4)  # of 4 frames of 16 × 16, as 16 × 224² are 8 × 14 × 14
LARGER = [Grid(5, 5, 5), Grid(4, 6, 6)]  # as 40 × 312² and 32 × 320² are 20 × 19 × 19 and 16 × 20 × 20
DROPPING = replace(ENCODER, drop_remainder=True)


def draw_clip(grid, *, over=0):
    """Draw a clip of a grid's tubelets, with this many more frames (at most 1), rows and columns."""
    return clips(frames=2 * grid.t + min(over, 1), rows=4 * grid.h + over, columns=4 * grid.w + over)


@pytest.mark.parametrize("over", [0, 1, 2, 3])
def test_the_remainder_is_dropped_as_by_a_convolution_without_padding(over):
    encoder = built(DROPPING)
    grid, clip = Grid(2, 3, 5), draw_clip(Grid(2, 3, 5), over=over)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (DROPPING.mean, DROPPING.std))
    kernel = rearrange(encoder.patch_embed.weight, "d (c t h w) -> d c t h w", c=3, t=2, h=4, w=4)
    maps = F.conv3d((clip - mean) / std, kernel, encoder.patch_embed.bias, stride=(2, 4, 4))
    expected = rearrange(maps, "b d t h w -> b (t h w) d") + encoder.positions(grid, clip.device)
    assert encoder.grid(clip) == grid
    torch.testing.assert_close(encoder.embed_tokens(clip), expected)
    indices = torch.tensor([[0, 7, 29], [4, 5, 14]])
    torch.testing.assert_close(encoder.embed_tokens(clip, indices), gather_tokens(expected, indices))
    poisoned = clip.clone()
    poisoned[:, :, 4:], poisoned[:, :, :, 12:], poisoned[..., 20:] = (float("nan"),) * 3
    assert torch.equal(encoder(poisoned).tokens, encoder(clip).tokens)


def test_312_rows_are_19_tubelets():
    config = replace(ENCODER, tubelet=(2, 16, 16), drop_remainder=True)
    assert config.grid(torch.empty(1, 3, 40, 312, 312, device="meta")) == Grid(20, 19, 19)


@pytest.mark.parametrize(
    ("config", "frames", "side", "message"),
    [
        (ENCODER, 4, 18, "18 rows does not divide into tubelets of 4; take 16 rows"),
        (DROPPING, 1, 16, "take 2 frames"),
        (DROPPING, 4, 3, "take 4 rows"),
    ],
)
def test_a_remainder_by_default_and_less_than_a_tubelet_always_are_errors(config, frames, side, message):
    with pytest.raises(InputError, match=message):
        built(config)(clips(frames=frames, rows=side, columns=side))


# ---- Position embeddings --------------------------------------------------------------------------------------------


def compute_cubic_weight(distance):
    """Return the weight of a pixel at this distance, in Keys' cubic convolution with a = -0.75."""
    distance, a = abs(distance), -0.75
    if distance < 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


def build_bicubic_matrix(old, new):
    """Return the weights of `old` positions in `new` ones: pixel centres at halves, the edges repeated outwards."""
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        for near in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(near, 0), old - 1)] += compute_cubic_weight(near - centre)
    return matrix


def build_linear_matrix(old, new):
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = min(max((row + 0.5) * old / new - 0.5, 0), old - 1)
        before = math.floor(centre)
        matrix[row, before] += 1 - (centre - before)
        matrix[row, min(before + 1, old - 1)] += centre - before
    return matrix


def resize_by_matrices(table, old, new):
    cube = table.double().numpy().reshape(old.t, old.h, old.w, -1)
    matrices = build_linear_matrix(old.t, new.t), build_bicubic_matrix(old.h, new.h), build_bicubic_matrix(old.w, new.w)
    return torch.from_numpy(np.einsum("at,bh,cw,thwd->abcd", *matrices, cube).reshape(new.num_tokens, -1)).float()


def compute_expected_positions(encoder, grid):
    tables = {name.removeprefix("positions."): table.detach() for name, table in encoder.named_parameters()}
    match encoder.config.positions:
        case "learned":
            return resize_by_matrices(tables["joint"], SMALL, grid)
        case "separable":
            space = resize_by_matrices(tables["space"], Grid(1, 4, 4), Grid(1, grid.h, grid.w))
            time = resize_by_matrices(tables["time"], Grid(2, 1, 1), Grid(grid.t, 1, 1))
            return (time[:, None] + space).reshape(grid.num_tokens, -1)
        case "sinusoid":  # VideoMAE's, counted on through all tokens, whatever the grid
            token, channel = np.arange(grid.num_tokens)[:, None], np.arange(24)[None]
            angle = token / 10000 ** (2 * (channel // 2) / 24)
            return torch.from_numpy(np.where(channel % 2, np.cos(angle), np.sin(angle))).float()


@pytest.mark.parametrize("grid", LARGER, ids=["40x312", "32x320"])
@pytest.mark.parametrize("kind", ["learned", "separable", "sinusoid"])
def test_weights_of_small_clips_initialize_a_model_of_larger_ones_with_resized_positions(kind, grid):
    config = replace(ENCODER, positions=kind, learned_grid=None if kind == "sinusoid" else (2, 4, 4), class_token=True)
    trained = built(config, seed=1)
    tensors = {f"encoder.{name}": tensor for name, tensor in trained.state_dict().items()}
    weights = Checkpoint(tensors, {"encoder": to_dict(config)})
    merged = merge_encoder_config(weights, replace(config, drop_remainder=True, drop_path=0.1))
    assert (merged.drop_remainder, merged.learned_grid) == (True, config.learned_grid)
    larger = built(merged, seed=2).eval()
    init_encoder(larger, weights, merged)
    positions = larger.positions(grid, torch.device("cpu"))
    torch.testing.assert_close(positions, compute_expected_positions(trained, grid), rtol=1e-5, atol=1e-6)
    clip = draw_clip(grid, over=2 if grid == LARGER[0] else 0)
    assert larger(clip).tokens.shape == (2, grid.num_tokens, 24)
    torch.testing.assert_close(larger(draw_clip(SMALL)).tokens, trained(draw_clip(SMALL)).tokens)


def test_mvds_positions_continue_along_each_axis():
    encoder = built(replace(ENCODER, dim=32, positions="sincos3d"))
    larger = encoder.positions(LARGER[0], torch.device("cpu")).view(5, 5, 5, 32)
    small = build_sincos_3d(SMALL, 32).float().view(2, 4, 4, 32)
    torch.testing.assert_close(larger[:2, :4, :4], small)


@pytest.mark.parametrize("kind", ["learned", "separable"])
def test_training_on_larger_clips_trains_the_tables_of_the_small_ones(kind):
    encoder = built(replace(ENCODER, positions=kind, learned_grid=(2, 4, 4)))
    encoder(draw_clip(LARGER[1])).tokens.square().sum().backward()
    for table in encoder.positions.parameters():
        assert len(table) in (32, 16, 2)  # tokens, patches, time steps of the small grid
        assert table.grad.abs().sum(dim=1).gt(0).all()
