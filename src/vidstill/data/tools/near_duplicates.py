"""Near duplicates among many videos, found by small signatures without comparing every pair.

Two videos are near duplicates if (s / 0.1)² + (t / 0.6)² <= 1: s is the distance of their mean frames, each divided by
its contrast plus 2 gray levels; t is the distance of their motion, each divided by its strength plus 1 gray level. So
size, codec, brightness, contrast and frame rate do not matter; where almost nothing moves, the mean frame decides. A
video of fewer than 3 gray levels in all, such as a black one, is no near duplicate of any.

Measured on 593 real videos (people in front of a wall, in a room, in the street, close to a camera; most of 25 to 150
frames and 64 to 340 pixels wide) and copies of 587 of them. Detected, of the copies that were encoded again

    by MPEG-4, or at every second frame                                                 100 %
    at half the size (crf 28)                                                            99.8 %
    coarsely (x264, crf 35)                                                              98.5 %
    without 5 % at either end                                                            99.7 %
    without a tenth at the beginning (end)                                               93.7 % (92.7 %)
    at half the size and every second frame, crf 30, without 3 % at either end           99.3 %

Of all 175,528 pairs of the originals, 63 are near duplicates: one is a copy that nobody knew of; 62 show the same
person doing the same again in front of the same wall, or sitting still, as far as 8 x 8 cells show it. None is of two
persons, or of train and val: the closest are two persons in one room, at 1.33 where 1 is the limit. Of different
datasets, which have 121,747 pairs, no other two come closer than 2.2.

Not detected are copies that are mirrored, framed, cropped, or parts of something longer, and those of a video of
varying frame rate at a constant one where that moves its parts by more than a tenth of the time.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int64

from vidstill.data.decode.images import ImageArray
from vidstill.utils.types import LUMA_WEIGHTS

_STILL_TOLERANCE, _MOTION_TOLERANCE = 0.1, 0.6
_STILL_NORM_OFFSET, _MOTION_NORM_OFFSET = 2, 1  # gray levels, added to the norms: what encoding adds to nothing
_MIN_NORM = 3  # gray levels; a video with fewer in all is black or gray, and like any other such

_CELL_DIMS = 5  # coordinates of a grid cell: 3^5 neighbors are quickly searched, and cells are small
_CELL_STRIDES = 32 ** np.arange(_CELL_DIMS)  # coordinates are integers from -10 to 9: a cell is one number
_NEIGHBOR_OFFSETS = (
    np.array([step for step in product((-1, 0, 1), repeat=_CELL_DIMS) if np.dot(step, _CELL_STRIDES) > 0])
    @ _CELL_STRIDES
)
_BLOCK_SIZE = 2048  # videos that are compared with as many others at a time
_PAIRS_PER_BATCH = 2**20  # pairs that are gathered before groups are merged

IndexPairs = Int64[np.ndarray, "_ 2"]


def group_near_duplicates(signatures: Sequence[str]) -> list[list[int]]:
    """Return the indices of near duplicates, in groups of two and more: the connected components of all near pairs."""
    if not signatures:
        return []
    coefficients = decode_signatures(signatures)
    rows = np.flatnonzero(np.linalg.norm(coefficients, axis=1) >= _MIN_NORM)
    group_of = np.arange(len(signatures))
    for pairs in _batch_pairs(iter_near_pairs(normalize_signatures(coefficients[rows]))):
        _merge_groups(group_of, rows[pairs])
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def normalize_signatures(coefficients: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """Return points whose distance is at most 1 for near duplicates."""
    still, motion = coefficients[:, :NUM_STILL_COEFFICIENTS], coefficients[:, NUM_STILL_COEFFICIENTS:]
    still = still / ((np.linalg.norm(still, axis=1, keepdims=True) + _STILL_NORM_OFFSET) * _STILL_TOLERANCE)
    motion = motion / ((np.linalg.norm(motion, axis=1, keepdims=True) + _MOTION_NORM_OFFSET) * _MOTION_TOLERANCE)
    return np.concatenate([still, motion], 1)


def iter_near_pairs(points: Float32[np.ndarray, "n k"]) -> Iterator[IndexPairs]:
    """Yield all pairs of points whose distance is at most 1, each once.

    Such points differ by at most 1 in every coordinate. So the first few coordinates make a grid of cells 1 wide, and a
    point is compared only with those of its own cell and of the neighboring cells.
    """
    cells = np.floor(points[:, :_CELL_DIMS]).astype(np.int64) @ _CELL_STRIDES
    order = np.argsort(cells, kind="stable")
    names, starts = np.unique(cells[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for cell, name in enumerate(names):
        around = np.searchsorted(names, name + _NEIGHBOR_OFFSETS)
        around = around[names[np.minimum(around, len(names) - 1)] == name + _NEIGHBOR_OFFSETS]
        own = order[starts[cell] : ends[cell]]
        others = np.concatenate([own, *(order[starts[each] : ends[each]] for each in around)])
        for row in range(0, len(own), _BLOCK_SIZE):
            for column in range(row, len(others), _BLOCK_SIZE):
                one, other = own[row : row + _BLOCK_SIZE], others[column : column + _BLOCK_SIZE]
                squares = (points[one] ** 2).sum(1)[:, None] + (points[other] ** 2).sum(1)
                close = squares - 2 * points[one] @ points[other].T <= 1
                i, j = np.nonzero(np.triu(close, 1) if row == column else close)
                yield np.stack([one[i], other[j]], 1)


def _batch_pairs(pairs: Iterator[IndexPairs]) -> Iterator[IndexPairs]:
    batch: list[IndexPairs] = []
    for block in pairs:
        batch.append(block)
        if sum(map(len, batch)) >= _PAIRS_PER_BATCH or len(batch) >= _BLOCK_SIZE:
            yield np.concatenate(batch)
            batch = []
    if batch:
        yield np.concatenate(batch)


def _merge_groups(group_of: Int64[np.ndarray, "n"], pairs: IndexPairs) -> None:
    """Merge the groups of each pair in place; a group has the number of its first member."""
    while len(pairs):
        groups = group_of[pairs]
        np.minimum.at(group_of, groups.max(1), groups.min(1))
        while (group_of != (parent := group_of[group_of])).any():
            group_of[:] = parent
        pairs = pairs[group_of[pairs[:, 0]] != group_of[pairs[:, 1]]]


_CUBE_SIDE = 8  # parts of the time, rows and columns
_MAX_FRAMES = 96  # frames that are stored of a video of any length: the middle ones of equal parts
_MIN_PIXELS_PER_SIDE = 256  # larger frames are subsampled to at least so many rows and columns
_QUANTIZATION_SCALE = 11  # x is stored as 11 √|x| in a byte: 133 gray levels at most, 10 of them to within 0.3
_FREQUENCIES = np.indices((_CUBE_SIDE,) * 3)  # of the transform's coefficients, in time, rows and columns
_STILL_MASK = (_FREQUENCIES[0] == 0) & (_FREQUENCIES.sum(0) > 0)
_MOTION_MASK = (_FREQUENCIES[0] > 0) & (_FREQUENCIES.sum(0) < _CUBE_SIDE)
_STILL_ORDER = np.sqrt((_FREQUENCIES[1:] ** 2).sum(0))[_STILL_MASK].argsort(kind="stable")  # low frequencies first
NUM_STILL_COEFFICIENTS, NUM_MOTION_COEFFICIENTS = int(_STILL_MASK.sum()), int(_MOTION_MASK.sum())
SIGNATURE_LENGTH = (NUM_STILL_COEFFICIENTS + NUM_MOTION_COEFFICIENTS) * 8 // 6  # base64 characters
_DCT_BASIS = (
    np.cos(np.pi * np.arange(_CUBE_SIDE)[:, None] * (2 * np.arange(_CUBE_SIDE) + 1) / (2 * _CUBE_SIDE)) / _CUBE_SIDE
)
_DCT_BASIS[1:] *= np.sqrt(2)


class VideoSignature:
    """Takes the frames of a video one after the other, and stores a few small ones."""

    def __init__(self) -> None:
        self._frames: list[Float[np.ndarray, "8 8"]] = []
        self._num_frames, self._frame_step = 0, 1

    def update(self, frame: ImageArray) -> None:
        """Add the next frame."""
        if self._num_frames % self._frame_step == self._frame_step // 2:
            self._frames.append(_pool_luma(frame))
        self._num_frames += 1
        if len(self._frames) == _MAX_FRAMES:
            self._frames, self._frame_step = self._frames[1::3], 3 * self._frame_step

    def digest(self) -> str:
        """Return the signature, 196 characters; an empty string if there was no frame."""
        if not self._frames:
            return ""
        cube = _pool_time(np.stack(self._frames), self._num_frames / self._frame_step)
        transform = np.einsum("at,by,cx,tyx->abc", _DCT_BASIS, _DCT_BASIS, _DCT_BASIS, cube)
        coefficients = np.concatenate([transform[_STILL_MASK][_STILL_ORDER], transform[_MOTION_MASK]])
        quantized = np.sign(coefficients) * np.sqrt(np.abs(coefficients)) * _QUANTIZATION_SCALE
        return base64.b64encode(np.clip(np.round(quantized), -127, 127).astype(np.int8).tobytes()).decode()


def decode_signatures(signatures: Sequence[str]) -> Float32[np.ndarray, "n 147"]:
    """Return the coefficients in gray levels: of the mean frame, low frequencies first, then of the motion."""
    data = np.frombuffer(base64.b64decode("".join(signatures)), np.int8).reshape(len(signatures), -1)
    roots = data.astype(np.float32) / _QUANTIZATION_SCALE
    return roots * np.abs(roots)


def _pool_luma(image: ImageArray) -> Float[np.ndarray, "8 8"]:
    """Return the mean luma of 8 x 8 cells; large images are subsampled, and cells of tiny ones share pixels."""
    row_step, column_step = (max(1, size // _MIN_PIXELS_PER_SIDE) for size in image.shape[:2])
    image = image[::row_step, ::column_step]
    starts = [np.arange(_CUBE_SIDE) * size // _CUBE_SIDE for size in image.shape[:2]]
    lengths = [np.maximum(np.diff(each, append=size), 1) for each, size in zip(starts, image.shape, strict=False)]
    sums = np.add.reduceat(np.add.reduceat(image, starts[0], 0, dtype=np.uint32), starts[1], 1)
    return sums @ np.array(LUMA_WEIGHTS) / np.outer(*lengths)


def _pool_time(frames: Float[np.ndarray, "t 8 8"], length: float) -> Float[np.ndarray, "8 8 8"]:
    """Return the mean frames of 8 equal parts of a video of this length, in stored frames; the last may be missing."""
    sums = np.concatenate([np.zeros((1, _CUBE_SIDE, _CUBE_SIDE)), frames.cumsum(0)])
    borders = np.linspace(0, min(length, len(frames)), _CUBE_SIDE + 1)
    index = borders.astype(int)
    partial_frames = (borders - index)[:, None, None] * frames[np.minimum(index, len(frames) - 1)]
    return np.diff(sums[index] + partial_frames, axis=0) / borders[1]
