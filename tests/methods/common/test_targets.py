"""Pixel targets: their order, mean and variance."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import clips

from vidstill.methods.common.targets import compute_pixel_target, denormalize_input, gather_pixels, normalize_input
from vidstill.models.vit import ViTConfig

TUBELET = (2, 4, 3)
MODEL = ViTConfig(dim=24, depth=1, heads=2, tubelet=TUBELET, mean=(0.25, 0.5, 0.75), std=(0.2, 0.25, 0.3))
NORMALIZED = ("per_channel", "per_patch")
CLIP = clips(rows=16, columns=12)
INDICES = torch.arange(2 * 4 * 4).expand(2, -1)


def test_pixels_are_ordered_by_frame_row_column_and_colour():
    rows = gather_pixels(CLIP, TUBELET, INDICES)
    slot, row, column = 1, 2, 3
    index = (slot * 4 + row) * 4 + column
    expected = [
        CLIP[1, colour, 2 * slot + frame, 4 * row + y, 3 * column + x].item()
        for frame in range(2)
        for y in range(4)
        for x in range(3)
        for colour in range(3)
    ]
    assert rows[1, index].tolist() == expected


@given(st.integers(0, 1000))
def test_each_colour_of_a_tubelet_has_zero_mean_and_unit_variance(seed):
    rows = compute_pixel_target(clips(rows=16, columns=12, seed=seed), MODEL, INDICES, "per_channel")
    colours = rows.view(2, 32, 24, 3).double()
    torch.testing.assert_close(colours.mean(dim=2), torch.zeros(2, 32, 3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(colours.var(dim=2), torch.ones(2, 32, 3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_patch_has_zero_mean_and_unit_variance_and_keeps_its_colour():
    tinted = CLIP * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1)
    rows = compute_pixel_target(tinted, MODEL, INDICES, "per_patch").double()
    torch.testing.assert_close(rows.mean(dim=2), torch.zeros(2, 32, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.var(dim=2), torch.ones(2, 32, dtype=torch.float64), rtol=0, atol=1e-3)
    assert (rows.view(2, 32, 24, 3).mean(dim=2).std(dim=-1) > 0.1).all()


@given(st.floats(0.2, 5), st.floats(-1, 1))
def test_brightness_and_contrast_do_not_change_the_normalized_target(contrast, brightness):
    moved = compute_pixel_target(contrast * CLIP + brightness, MODEL, INDICES, "per_channel")
    torch.testing.assert_close(moved, compute_pixel_target(CLIP, MODEL, INDICES, "per_channel"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", NORMALIZED)
def test_a_tubelet_of_one_colour_has_the_target_zero(kind):
    grey = torch.tensor(MODEL.mean).view(1, 3, 1, 1, 1).expand(2, 3, 4, 16, 12)
    assert not compute_pixel_target(grey, MODEL, INDICES, kind).any()


def test_tokens_are_returned_in_the_order_of_the_indices():
    for kind in (*NORMALIZED, "raw", "input"):
        selected = compute_pixel_target(CLIP, MODEL, INDICES[:, [5, 2]], kind)
        torch.testing.assert_close(selected, compute_pixel_target(CLIP, MODEL, INDICES, kind)[:, [5, 2]])
        assert compute_pixel_target(CLIP, MODEL, INDICES[:, :0], kind).shape == (2, 0, 72)


def test_raw_pixels_are_colours_and_inputs_are_what_enters_the_encoder():
    raw = compute_pixel_target(CLIP, MODEL, INDICES, "raw")
    assert torch.equal(raw, gather_pixels(CLIP, TUBELET, INDICES))
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (MODEL.mean, MODEL.std))
    inputs = compute_pixel_target(CLIP, MODEL, INDICES, "input")
    torch.testing.assert_close(inputs, gather_pixels((CLIP - mean) / std, TUBELET, INDICES))
    torch.testing.assert_close(inputs, normalize_input(raw, MODEL))
    torch.testing.assert_close(denormalize_input(inputs, MODEL), raw)
