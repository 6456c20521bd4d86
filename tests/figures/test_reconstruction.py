"""The picture of a reconstruction shows what the student can know, and no more."""

import io
from dataclasses import replace

import pytest
import torch
from mask_structure import get_masked_pixels
from PIL import Image
from tiny_models import GRID, METHODS, STMAE, VIDEOMAE, built, clips

from vidstill.figures.reconstruction import draw_reconstruction, reconstruct_clips
from vidstill.methods.common.targets import compute_pixel_target

SEEDS = torch.tensor([3, 4])
MODELS = {name: built(config) for name, config in METHODS.items()}
MODELS = {name: method for name, method in MODELS.items() if getattr(method, "decoder", None) is not None}
MODELS |= {target: built(replace(VIDEOMAE, target=target)) for target in ("per_patch", "raw", "input")}


def videomae(target="per_channel"):
    return built(replace(VIDEOMAE, target=target))


def hidden(method):
    """Whether a pixel is hidden: (2, 1, t, h, w)."""
    visible = method.config.mask.draw(SEEDS, GRID).visible
    return get_masked_pixels(visible, GRID, method.config.encoder.tubelet)


@pytest.mark.parametrize("method", MODELS.values(), ids=MODELS)
def test_masked_pixels_cannot_reach_the_rebuilt_clip(method):
    other = torch.where(hidden(method), clips(seed=1), clips())
    assert not torch.equal(other, clips())
    one, two = reconstruct_clips(method, clips(), SEEDS), reconstruct_clips(method, other, SEEDS)
    assert torch.equal(one.reconstruction, two.reconstruction)
    assert torch.equal(one.visible, two.visible)


def test_what_the_student_sees_is_shown_as_it_is_and_the_rest_is_one_grey():
    method = videomae()
    away = hidden(method).expand(2, 3, -1, -1, -1)
    result = reconstruct_clips(method, clips(), SEEDS)
    for displayed in (result.visible, result.reconstruction, result.original):
        assert torch.equal(displayed[~away], clips()[~away])
    assert len(result.visible[away].unique()) == 1


@pytest.mark.parametrize("target", ["per_channel", "per_patch", "raw", "input"])
def test_a_perfect_guess_of_a_clip_without_light_and_shade_is_the_clip(target):
    """Where every tubelet has the same mean and deviation, interpolating them is exact."""
    method = videomae(target)
    tile = clips(1, frames=2, rows=4, columns=4)
    clip = tile.repeat(2, 1, GRID.t, GRID.h, GRID.w)
    mask = method.config.mask.draw(SEEDS, GRID)
    perfect = compute_pixel_target(clip, method.config.encoder, mask.masked, target)
    method.decoder.forward = lambda *_: perfect
    torch.testing.assert_close(reconstruct_clips(method, clip, SEEDS).reconstruction, clip, rtol=0, atol=1e-5)


def test_a_frame_that_is_guessed_stands_for_its_tubelet():
    """ST-MAE guesses one frame of each tubelet."""
    method = built(replace(STMAE, target="input"))
    mask = method.config.mask.draw(SEEDS, GRID)
    perfect = method.compute_target(clips(), mask.masked)
    method.decoder.forward = lambda *_: perfect
    away = hidden(method).expand(2, 3, -1, -1, -1)
    first = clips()[:, :, 0::2].repeat_interleave(2, dim=2)
    torch.testing.assert_close(reconstruct_clips(method, clips(), SEEDS).reconstruction[away], first[away])


def test_a_dark_side_stays_darker_than_a_bright_one():
    """Means come from near tubelets: guesses of nothing but grey follow a slope of light."""
    method = videomae()
    method.decoder.forward = lambda tokens, visible, masked, *_: torch.zeros(*masked.shape, 96)
    clip = (torch.linspace(0, 1, 12).expand(2, 3, 4, 16, 12) + 0.1 * clips()) / 1.1
    columns = reconstruct_clips(method, clip, SEEDS).reconstruction.mean(dim=(0, 1, 2, 3))
    assert columns[:4].mean() < columns[8:].mean()


def test_the_picture_has_three_rows_a_clip_and_a_column_a_frame():
    result = reconstruct_clips(videomae(), clips(), SEEDS)
    small, wide = (Image.open(io.BytesIO(draw_reconstruction(result, num_columns=n, frame_size=24))) for n in (2, 4))
    assert small.format == "PNG"
    assert wide.width - small.width == 2 * (24 + 2)  # a frame is 16 × 12 pixels, drawn at twice the size, and a gap
    assert small.height == 2 * 3 * (32 + 2) + 4 * 2 - 2
