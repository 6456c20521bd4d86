"""Hue, saturation and value in bytes: OpenCV's formulas, and one draw for a clip."""

import colorsys

import numpy as np
import pytest

from vidstill.data.ava.hsv_jitter import HSVJitter, HSVShift, rgb_to_hsv, shift_hsv
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError

COLOURS = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)


def one(*rgb: int) -> np.ndarray:
    return np.array(rgb, np.uint8).reshape(1, 1, 1, 3)


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
def test_hsv_bytes_are_those_of_opencvs_formulas(rgb, hsv):
    assert rgb_to_hsv(one(*rgb)).ravel().tolist() == list(hsv)


def test_any_colour_is_within_a_level_of_the_formulas():
    result = rgb_to_hsv(COLOURS).reshape(-1, 3)
    for (red, green, blue), (hue, saturation, value) in zip(
        COLOURS.reshape(-1, 3) / 255, result.astype(int), strict=True
    ):
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        assert value == round(255 * v)
        assert abs(saturation - 255 * s) <= 0.54  # fractions of 12 bits
        assert min(abs(hue - 180 * h), 180 - abs(hue - 180 * h)) <= 0.66


@pytest.mark.parametrize("by", [HSVShift(10, 26, 26), HSVShift(-10, -26, 5), HSVShift(90, 0, 0), HSVShift(0, 255, -80)])
def test_a_jitter_shifts_the_hsv_bytes_and_converts_them_back(by):
    hue, saturation, value = (each.astype(int) for each in np.moveaxis(rgb_to_hsv(COLOURS), -1, 0))
    moved = (hue + by.hue) % 180, np.clip(saturation + by.saturation, 0, 255), np.clip(value + by.value, 0, 255)
    expected = [
        [255 * c for c in colorsys.hsv_to_rgb(h / 180, s / 255, v / 255)]
        for h, s, v in zip(*(each.ravel() for each in moved), strict=True)
    ]
    apart = np.abs(shift_hsv(COLOURS, by).reshape(-1, 3) - np.array(expected))
    assert apart.max() <= 0.5 + 1e-3


def test_a_shift_of_zero_returns_the_colours_up_to_the_rounding_of_hue():
    apart = np.abs(shift_hsv(COLOURS, HSVShift(0, 0, 0)).astype(int) - COLOURS)
    assert apart.max() <= 6  # half a half degree of 255 levels is 4.25, and the saturation's rounding
    grey = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, None, :, None], (1, 1, 256, 3))
    np.testing.assert_array_equal(shift_hsv(grey, HSVShift(0, 0, 0)), grey)


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
