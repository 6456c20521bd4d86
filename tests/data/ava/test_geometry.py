"""Boxes go where their frames' pixels go, by the arithmetic of either released code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.ava.transforms import (
    clip_boxes,
    compute_resized_size,
    crop_boxes,
    expand_boxes,
    find_nonempty_boxes,
    hflip_boxes,
    resize_boxes,
    to_pixel_boxes,
)

RULES = pytest.mark.parametrize("rule", ["videomae", "slowfast"])
sides = st.integers(16, 500)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def near(actual: np.ndarray, *rows: tuple[float, ...], within: float = 1e-6) -> None:
    np.testing.assert_allclose(actual, boxes(*rows), rtol=0, atol=within)


def test_the_values_that_are_stated_of_videomaes_arithmetic_come_out():
    size = (256, 340)
    corner, extent = np.array([12.34, 20.5]), np.array([100.2, 150.9])
    fractions = np.concatenate([corner, corner + extent])[None] / [340, 256, 340, 256]
    pixels = to_pixel_boxes(fractions, size, "videomae")
    near(pixels, (12.34, 20.5, 111.54, 170.4), within=1e-9)
    larger = resize_boxes(pixels, size, (300, 398), "videomae")
    near(larger, (14.445059, 24.023438, 130.567413, 199.6875), within=1e-5)  # stated of float32
    near(hflip_boxes(larger, 398), (266.432587, 24.023438, 382.554932, 199.6875), within=1e-5)
    near(crop_boxes(larger, 40, 50, (224, 224), "videomae"), (0, 0, 80.567413, 159.6875), within=1e-5)


def test_expanded_boxes_are_those_of_videomaes_code():
    original = boxes((10, 20, 110, 200), (150.5, 33.25, 290.75, 222), (5, 5, 40, 30))
    near(
        expand_boxes(original, (0.1, 0.05), (224, 304)),
        (4.95, 15.475, 115.05, 204.525),
        (143.4375, 28.50625, 297.8125, 223),
        (3.2, 4.35, 41.8, 30.65),
    )


def test_videomaes_boxes_hold_their_last_pixel_and_are_cut_off_at_the_frames():
    whole = boxes((0, 0, 1, 1), (0.5, 0.5, 0.5005, 0.9), (-0.1, 0.2, 1.2, 0.4))
    near(to_pixel_boxes(whole, (100, 200), "videomae"), (0, 0, 199, 99), (100, 50, 100, 89), (0, 20, 199, 39))
    near(to_pixel_boxes(whole, (100, 200), "slowfast"), (0, 0, 199, 99), (100, 50, 100.1, 90), (0, 20, 199, 40))
    assert find_nonempty_boxes(to_pixel_boxes(whole, (100, 200), "videomae")).tolist() == [True, False, True]


@given(sides, sides, sides)
def test_the_shorter_side_is_exact_and_the_longer_is_rounded_down(height, width, short):
    for rule in ("videomae", "slowfast"):
        rows, columns = compute_resized_size((height, width), short, rule)
        assert (rows if height <= width else columns) == short
        exact = short * max(height, width) / min(height, width)
        # PySlowFast divides first, and may be just below a whole number
        assert exact - 1 - 1e-6 < max(rows, columns) <= exact


def test_a_frame_of_the_right_size_keeps_it():
    for rule in ("videomae", "slowfast"):
        assert compute_resized_size((256, 341), 256, rule) == (256, 341)
    assert compute_resized_size((300, 200), 200, "videomae") == (300, 200)


@given(sides, sides, sides)
def test_pyslowfast_scales_both_axes_as_the_longer_side_and_back_nearly(height, width, short):
    size = (height, width)
    to = compute_resized_size(size, short, "slowfast")
    resized = resize_boxes(boxes((3, 5, 11, 13)), size, to, "slowfast")
    near(resized, *(boxes((3, 5, 11, 13)) * max(to) / max(size)).tolist())
    back = resized * (min(size) / short)  # as PySlowFast scales predictions back
    assert np.abs(back - boxes((3, 5, 11, 13))).max() <= 13 / min(to) + 1e-6  # a pixel of the longer side at most


@given(st.integers(1, 300), st.lists(st.tuples(*[st.floats(-50, 350)] * 4), min_size=1, max_size=5))
def test_flipping_twice_changes_nothing_and_keeps_x1_below_x2(width, rows):
    some = boxes(*rows)
    some[:, 2:] = np.maximum(some[:, :2], some[:, 2:])
    near(hflip_boxes(hflip_boxes(some, width), width), *some.tolist())
    assert (hflip_boxes(some, width)[:, 0] <= hflip_boxes(some, width)[:, 2]).all()


@RULES
def test_a_box_outside_the_crop_remains_without_area(rule):
    (inside, outside) = crop_boxes(boxes((50, 50, 70, 80), (0, 0, 10, 10)), 40, 40, (32, 32), rule)
    last = 32 if rule == "videomae" else 31
    assert inside.tolist() == [10, 10, min(30, last), last]
    assert outside.tolist() == [0, 0, 0, 0]


def test_every_box_is_transformed_on_its_own():
    some = boxes((1, 2, 3, 4))
    near(clip_boxes(some, (3, 3)), (1, 2, 2, 2))
    near(some, (1, 2, 3, 4))


@RULES
def test_every_function_accepts_zero_boxes(rule):
    none = boxes()
    for result in (
        to_pixel_boxes(none, (10, 10), rule),
        resize_boxes(none, (10, 10), (20, 20), rule),
        crop_boxes(none, 1, 1, (4, 4), rule),
        hflip_boxes(none, 10),
        expand_boxes(none, (0.1, 0.1), (10, 10)),
    ):
        assert result.shape == (0, 4)
