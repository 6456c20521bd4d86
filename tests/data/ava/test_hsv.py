"""Hue, saturation and value in bytes: OpenCV's formulas, and one draw for a clip."""

import colorsys

import numpy as np
import pytest

from vidstill.data.ava.hsv_jitter import HSVJitter, shift_hsv
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError

COLOURS = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)


def one(*rgb: int) -> np.ndarray:
    return np.array(rgb, np.uint8).reshape(1, 1, 1, 3)


def opencv_hsv(frames: np.ndarray) -> np.ndarray:
    """Hue (of 180), saturation and value in OpenCV's fixed-point numbers of 12 bits."""
    red, green, blue = np.moveaxis(frames.astype(int), -1, 0)
    value = frames.max(-1).astype(int)
    spread = value - frames.min(-1)
    sixth = np.select([value == red, value == green], [green - blue, blue - red + 2 * spread], red - green + 4 * spread)
    hue_steps = np.rint((180 << 12) / (6 * np.maximum(spread, 1))).astype(int)
    levels = np.rint((255 << 12) / np.maximum(value, 1)).astype(int)
    hue, saturation = ((part + 2048) >> 12 for part in (sixth * hue_steps, spread * levels))
    return np.stack([hue % 180, saturation, value], axis=-1)


@pytest.mark.parametrize(
    ("rgb", "hsv"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (0, 0, 255)),
        ((128, 128, 128), (0, 0, 128)),
        ((255, 0, 0), (0, 255, 255)),
        ((255, 255, 0), (30, 255, 255)),
        ((0, 255, 0), (60, 255, 255)),
        ((0, 255, 255), (90, 255, 255)),
        ((0, 0, 255), (120, 255, 255)),
        ((255, 0, 255), (150, 255, 255)),
        ((255, 0, 1), (0, 255, 255)),  # -0.06 of a half degree
        ((255, 0, 10), (179, 255, 255)),
        ((200, 100, 50), (10, 191, 200)),  # V 200; S 255 * 150 / 200; H 30 * 50 / 150
        ((12, 200, 77), (70, 240, 200)),  # S 239.7; H 60 + 30 * 65 / 188 = 70.37
    ],
)
def test_colours_pass_through_the_hsv_bytes_of_opencvs_formulas(rgb, hsv):
    assert opencv_hsv(one(*rgb)).ravel().tolist() == list(hsv)
    exact = colorsys.hsv_to_rgb(hsv[0] / 180, hsv[1] / 255, hsv[2] / 255)
    assert np.abs(shift_hsv(one(*rgb), (0, 0, 0)).ravel() - 255 * np.array(exact)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("by", [(10, 26, 26), (-10, -26, 5), (90, 0, 0), (0, 255, -80)])
def test_a_jitter_shifts_the_hsv_bytes_and_converts_them_back(by):
    hue, saturation, value = np.moveaxis(opencv_hsv(COLOURS), -1, 0)
    moved = (hue + by[0]) % 180, np.clip(saturation + by[1], 0, 255), np.clip(value + by[2], 0, 255)
    expected = [
        [255 * c for c in colorsys.hsv_to_rgb(h / 180, s / 255, v / 255)]
        for h, s, v in zip(*(each.ravel() for each in moved), strict=True)
    ]
    apart = np.abs(shift_hsv(COLOURS, by).reshape(-1, 3) - np.array(expected))
    assert apart.max() <= 0.5 + 1e-3


def test_a_shift_of_zero_returns_the_colours_up_to_the_rounding_of_hue():
    apart = np.abs(shift_hsv(COLOURS, (0, 0, 0)).astype(int) - COLOURS)
    assert apart.max() <= 6  # half a half degree of 255 levels is 4.25, and the saturation's rounding
    grey = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, None, :, None], (1, 1, 256, 3))
    np.testing.assert_array_equal(shift_hsv(grey, (0, 0, 0)), grey)


def test_all_frames_of_a_clip_have_one_shift_and_draws_reach_both_limits():
    jitter = HSVJitter(hue=2, saturation=1, value=3)
    shifts = np.array([jitter.draw_shift(numpy_rng(seed, "colours")) for seed in range(400)])
    assert shifts.min(0).tolist() == [-2, -1, -3]
    assert shifts.max(0).tolist() == [2, 1, 3]
    twice = np.concatenate([COLOURS[:1], COLOURS[:1]])
    frames = HSVJitter().apply(twice, numpy_rng(3, "colours"))
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames, HSVJitter().apply(twice, numpy_rng(3, "colours")))
    assert (frames != HSVJitter().apply(twice, numpy_rng(4, "colours"))).any()
    assert frames.dtype == np.uint8


def test_a_jitter_of_size_zero_draws_no_shift():
    assert HSVJitter(hue=0, saturation=0, value=0).draw_shift(numpy_rng(0, "colours")) == (0, 0, 0)


@pytest.mark.parametrize("wrong", [{"hue": 91}, {"saturation": -1}, {"value": 256}])
def test_a_jitter_beyond_its_levels_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        HSVJitter(**wrong)
