"""Bilinear resizing of bytes by OpenCV's fixed-point arithmetic, which both released codes use, and a crop of it.

Weights are multiples of 1/2048, and intermediate values are truncated to a 64th of a level. Pixels outside the crop are
not computed.
"""

import numpy as np
from jaxtyping import Int32, Int64, Num, UInt8

from vidstill.data.transforms.crop import CropBox, resize_frames

_FIXED_POINT_ONE = 2048


def resize_and_crop(
    frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], crop: CropBox
) -> Num[np.ndarray, "t rows cols 3"]:
    """Resize frames to `size` (rows and columns) and crop them. Floating-point frames are not rounded.

    Args:
        frames: Frames to resize.
        size: Rows and columns before the crop.
        crop: Part of the resized frames.
    """
    if frames.shape[1:3] == size or frames.dtype != np.uint8:
        return np.ascontiguousarray(crop.crop_frames(resize_frames(frames, size, "bilinear")))
    return _resize_uint8(frames, size, crop)


def _resize_uint8(
    frames: UInt8[np.ndarray, "t h w 3"], size: tuple[int, int], part: CropBox
) -> UInt8[np.ndarray, "t r c 3"]:
    _, height, width, _ = frames.shape
    row, of_upper, of_lower = _compute_linear_weights(height, size[0], part.top, part.height)
    column, of_left, of_right = _compute_linear_weights(width, size[1], part.left, part.width)
    # OpenCV copies the outermost column, but interpolates the outermost row with itself, and truncates twice
    beyond = (column < 0) | (column + 1 >= width)
    of_left, of_right = np.where(beyond, _FIXED_POINT_ONE, of_left), np.where(beyond, 0, of_right)
    left, right = ((np.clip(index, 0, width - 1)[:, None] * 3 + np.arange(3)).ravel() for index in (column, column + 1))
    of_left, of_right = (np.repeat(shares, 3).astype(np.int32) for shares in (of_left, of_right))
    upper, lower = (np.clip(index, 0, height - 1) for index in (row, row + 1))
    first, end = upper[0], lower[-1] + 1
    out = np.empty((len(frames), part.height, part.width, 3), np.uint8)
    for frame, result in zip(frames, out, strict=True):  # one frame at a time fits into the processor's cache
        rows = frame[first:end].reshape(end - first, -1)
        mixed = np.take(rows, left, axis=1) * of_left
        mixed += np.take(rows, right, axis=1) * of_right
        mixed >>= 4
        above, below = mixed[upper - first] * of_upper[:, None], mixed[lower - first] * of_lower[:, None]
        above >>= 16
        below >>= 16
        above += below
        above += 2
        above >>= 2
        result[...] = above.reshape(result.shape)
    return out


def _compute_linear_weights(
    before: int, after: int, first: int, count: int
) -> tuple[Int64[np.ndarray, "n"], Int32[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Return the first of two source pixels, and both weights, of `count` pixels from `first` on, of a resized side."""
    positions = ((np.arange(first, first + count) + 0.5) * (before / after) - 0.5).astype(np.float32)
    low = np.floor(positions)
    share = positions - low
    of_low, of_high = (np.rint(each * np.float32(_FIXED_POINT_ONE)).astype(np.int32) for each in (1 - share, share))
    return low.astype(np.int64), of_low, of_high
