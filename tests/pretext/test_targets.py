"""Pixels to rebuild: their order, and their mean and deviation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny_models import clips
from vidstill.pretext.targets import normalised_pixels, pixel_target, pixels

TUBELET = (2, 4, 3)
CLIP = clips(rows=16, columns=12)
PLACES = torch.arange(2 * 4 * 4).expand(2, -1)


def test_pixels_come_frame_by_frame_row_by_row_colours_last():
    rows = pixels(CLIP, TUBELET, PLACES)
    slot, row, column = 1, 2, 3
    number = (slot * 4 + row) * 4 + column
    expected = [
        CLIP[1, colour, 2 * slot + frame, 4 * row + y, 3 * column + x].item()
        for frame in range(2)
        for y in range(4)
        for x in range(3)
        for colour in range(3)
    ]
    assert rows[1, number].tolist() == expected


@given(st.integers(0, 1000))
def test_each_colour_of_a_tubelet_has_zero_mean_and_unit_variance(seed):
    rows = normalised_pixels(clips(rows=16, columns=12, seed=seed), TUBELET, PLACES, per_channel=True)
    colours = rows.view(2, 32, 24, 3).double()
    torch.testing.assert_close(colours.mean(dim=2), torch.zeros(2, 32, 3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(colours.var(dim=2), torch.ones(2, 32, 3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_patch_as_a_whole_has_zero_mean_and_unit_variance_and_keeps_its_colour():
    tinted = CLIP * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1)
    rows = normalised_pixels(tinted, TUBELET, PLACES, per_channel=False).double()
    torch.testing.assert_close(rows.mean(dim=2), torch.zeros(2, 32, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.var(dim=2), torch.ones(2, 32, dtype=torch.float64), rtol=0, atol=1e-3)
    assert (rows.view(2, 32, 24, 3).mean(dim=2).std(dim=-1) > 0.1).all()


@given(st.floats(0.2, 5), st.floats(-1, 1))
def test_brightness_and_contrast_do_not_move_the_normalised_target(contrast, brightness):
    moved = normalised_pixels(contrast * CLIP + brightness, TUBELET, PLACES, per_channel=True)
    torch.testing.assert_close(moved, normalised_pixels(CLIP, TUBELET, PLACES, per_channel=True), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_tubelet_of_one_colour_has_the_target_zero(per_channel):
    grey = torch.full((2, 3, 4, 16, 12), 0.25)
    assert not normalised_pixels(grey, TUBELET, PLACES, per_channel=per_channel).any()


def test_a_kind_of_target_names_its_normalisation():
    places = PLACES[:, [5, 2]]
    assert torch.equal(pixel_target(CLIP, TUBELET, places, "raw"), pixels(CLIP, TUBELET, PLACES)[:, [5, 2]])
    for kind, per_channel in (("per_channel", True), ("per_patch", False)):
        expected = normalised_pixels(CLIP, TUBELET, places, per_channel=per_channel)
        assert torch.equal(pixel_target(CLIP, TUBELET, places, kind), expected)
