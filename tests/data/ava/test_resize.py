"""Bytes are resized by OpenCV's whole numbers, and of a part no other pixels are needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.ava.transforms import resize_and_crop
from vidstill.data.transforms.crop import CropBox, resize_frames

sides = st.integers(2, 24)


def random_frames(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)


def whole(size: tuple[int, int]) -> CropBox:
    return CropBox(0, 0, *size)


def slowly(row: np.ndarray, length: int) -> list[tuple[int, int, int, int]]:
    """For each pixel of a resized side: two places, and their shares of 2048."""
    weights = []
    for pixel in range(length):
        position = np.float32((pixel + 0.5) * len(row) / length - 0.5)
        low = int(np.floor(position))
        share = float(position - np.float32(low))
        weights.append((low, low + 1, round((1 - share) * 2048), round(share * 2048)))
    return weights


def pixel_by_pixel(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width, _ = frame.shape
    out = np.zeros((*size, 3), np.uint8)
    for y, (upper, lower, of_upper, of_lower) in enumerate(slowly(frame, size[0])):
        for x, (left, right, of_left, of_right) in enumerate(slowly(frame[0], size[1])):
            if left < 0:
                left, of_left, of_right = 0, 2048, 0
            if right >= width:
                left, of_left, right, of_right = width - 1, 2048, width - 1, 0
            for c in range(3):
                above, below = (
                    int(frame[row, left, c]) * of_left + int(frame[row, right, c]) * of_right
                    for row in (max(upper, 0), min(lower, height - 1))
                )
                out[y, x, c] = ((of_upper * (above >> 4) >> 16) + (of_lower * (below >> 4) >> 16) + 2) >> 2
    return out


@given(sides, sides, sides, sides)
def test_every_byte_is_interpolated_from_four_pixels_and_within_a_level_of_resized_floats(height, width, rows, columns):
    frames, size = random_frames(height, width), (rows, columns)
    actual = resize_and_crop(frames, size, whole(size))
    np.testing.assert_array_equal(actual[1], pixel_by_pixel(frames[1], size))
    assert np.abs(actual - resize_frames(frames.astype(np.float32), size, "bilinear")).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@given(sides, sides, sides, sides, st.data())
def test_a_crop_equals_that_part_of_the_whole_frame(kind, height, width, rows, columns, data):
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    part = CropBox(top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left)))
    frames = random_frames(height, width).astype(kind)
    size = (rows, columns)
    np.testing.assert_array_equal(
        resize_and_crop(frames, size, part), part.crop_frames(resize_and_crop(frames, size, whole(size)))
    )


def test_frames_of_the_right_size_are_unchanged():
    frames = random_frames(8, 9)
    np.testing.assert_array_equal(resize_and_crop(frames, (8, 9), whole((8, 9))), frames)
