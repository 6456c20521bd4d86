"""Finds which of many videos show the same, by their sketches, without comparing each with each.

Two are near where (s / 0.1)² + (t / 0.6)² <= 1: s is the distance of their still pictures, each divided by its contrast
plus 2 grey levels, t the distance of what moves in them, each divided by its strength plus 1 grey level. So neither
size, codec, brightness, contrast nor frame rate matter; where next to nothing moves, the still picture alone decides. A
video of less than 3 grey levels in all, a black one, is near to none.

Measured on 593 real videos (people before a wall, in a room, in the street, close to a camera; most of 25 to 150 frames
and 64 to 340 pixels wide) and copies of 587 of them. Found were, of those that were coded anew

    by MPEG-4, or at every second frame                                                 100 %
    at half the size (crf 28)                                                            99.8 %
    coarsely (x264, crf 35)                                                              98.5 %
    without 5 % at either end                                                            99.7 %
    without a tenth at the beginning (end)                                               93.7 % (92.7 %)
    at half the size and every second frame, crf 30, without 3 % at either end           99.3 %

Of all 175,528 pairs of the originals, 63 are near: one is a copy that nobody knew of; 62 show the same person doing the
same again before the same wall, or sitting still, as far as 8 x 8 fields show it. None is of two persons, or of train
and val: closest come two persons who sit in one room, at 1.33 where 1 is near. Of different data sets, of which there
are 121,747 pairs, no other two come closer than 2.2.

Not found are copies that are mirrored, framed, cropped, or parts of something longer, and those of a video of varying
frame rate at a constant one where that moves its parts by more than a tenth of the time.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from vidstill.data.decode.images import ImageArray

_STILL_TOLERANCE, _MOTION_TOLERANCE = 0.1, 0.6
_STILL_NORM_OFFSET, _MOTION_NORM_OFFSET = (
    2,
    1,
)  # grey levels that are added to what is divided by: what coding adds to nothing
_MIN_NORM = 3  # grey levels: with fewer in all, a video is black, or grey, and like any other such

_CELL_DIMS = 5  # numbers that a cell is made of: 3^5 neighbours are quickly looked up, and cells are small
_CELL_STRIDES = 32 ** np.arange(_CELL_DIMS)  # coordinates are whole numbers from -10 to 9: a cell is one number
_NEIGHBOR_OFFSETS = (
    np.array([step for step in product((-1, 0, 1), repeat=_CELL_DIMS) if np.dot(step, _CELL_STRIDES) > 0])
    @ _CELL_STRIDES
)
_BLOCK_SIZE = 2048  # videos that are compared with as many at a time
_PAIRS_PER_BATCH = 2**20  # are gathered before groups are joined by them

IndexPairs = Int64[np.ndarray, "_ 2"]


def group_near_duplicates(signatures: Sequence[str]) -> list[list[int]]:
    """The places of those that are near one another, in groups of two and more, each in order.

    Two that are near are in one group; so are two that another is near to.
    """
    if not signatures:
        return []
    numbers = decode_signatures(signatures)
    seen = np.flatnonzero(np.linalg.norm(numbers, axis=1) >= _MIN_NORM)
    group_of = np.arange(len(signatures))
    for pairs in _batch_pairs(iter_near_pairs(normalize_signatures(numbers[seen]))):
        _merge_groups(group_of, seen[pairs])
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def normalize_signatures(coefficients: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """Points that lie closer than 1 together for videos that are near."""
    still, moving = coefficients[:, :NUM_STILL_COEFFICIENTS], coefficients[:, NUM_STILL_COEFFICIENTS:]
    still = still / ((np.linalg.norm(still, axis=1, keepdims=True) + _STILL_NORM_OFFSET) * _STILL_TOLERANCE)
    moving = moving / ((np.linalg.norm(moving, axis=1, keepdims=True) + _MOTION_NORM_OFFSET) * _MOTION_TOLERANCE)
    return np.concatenate([still, moving], 1)


def iter_near_pairs(points: Float32[np.ndarray, "n k"]) -> Iterator[IndexPairs]:
    """All pairs that lie at most 1 apart, each once.

    Points that are so close differ by at most 1 in every coordinate. So the first few make a grid of cells 1 wide, and
    a point is compared with those of its own cell and of the cells around it alone.
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
                close = _is_near(points[one], points[other])
                if row == column:
                    close = np.triu(close, 1)
                i, j = np.nonzero(close)
                yield np.stack([one[i], other[j]], 1)


def _is_near(one: Float32[np.ndarray, "n k"], other: Float32[np.ndarray, "m k"]) -> Bool[np.ndarray, "n m"]:
    return (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T <= 1


def _batch_pairs(pairs: Iterator[IndexPairs]) -> Iterator[IndexPairs]:
    """Many at a time."""
    kept: list[IndexPairs] = []
    number = 0
    for some in pairs:
        kept.append(some)
        number += len(some)
        if number >= _PAIRS_PER_BATCH:
            yield np.concatenate(kept)
            kept, number = [], 0
    if kept:
        yield np.concatenate(kept)


def _merge_groups(group_of: Int64[np.ndarray, "n"], pairs: IndexPairs) -> None:
    """Makes one group of the groups of each pair, in place; a group is called by its first member."""
    while len(pairs):
        groups = group_of[pairs]
        np.minimum.at(group_of, groups.max(1), groups.min(1))
        while (group_of != (above := group_of[group_of])).any():
            group_of[:] = above
        pairs = pairs[group_of[pairs[:, 0]] != group_of[pairs[:, 1]]]


_CUBE_SIDE = 8  # parts of the time, rows and columns of the cube


_MAX_FRAMES = 96  # pictures that are kept of a video, however long it is: the middle ones of equal stretches


_MIN_PIXELS_PER_SIDE = 256  # in a row or column are looked at, at least, where there are as many


_QUANTIZATION_SCALE = 11  # a number x is kept as 11 √|x|, in a byte: 133 grey levels at most, 10 of them to within 0.3


_FREQUENCIES = np.indices(
    (_CUBE_SIDE,) * 3
)  # of the transform's numbers, by their frequencies in time, rows and columns


_STILL_MASK = (_FREQUENCIES[0] == 0) & (_FREQUENCIES.sum(0) > 0)


_MOTION_MASK = (_FREQUENCIES[0] > 0) & (_FREQUENCIES.sum(0) < _CUBE_SIDE)


_STILL_ORDER = np.sqrt((_FREQUENCIES[1:] ** 2).sum(0))[_STILL_MASK].argsort(
    kind="stable"
)  # the still picture's, coarse ones first


NUM_STILL_COEFFICIENTS, NUM_MOTION_COEFFICIENTS = int(_STILL_MASK.sum()), int(_MOTION_MASK.sum())


SIGNATURE_LENGTH = (NUM_STILL_COEFFICIENTS + NUM_MOTION_COEFFICIENTS) * 8 // 6  # of a sketch: six bits in each


_LUMA_WEIGHTS = 0.299, 0.587, 0.114  # of red, green and blue: what videos are coded in, and coded best


_DCT_BASIS = (
    np.cos(np.pi * np.arange(_CUBE_SIDE)[:, None] * (2 * np.arange(_CUBE_SIDE) + 1) / (2 * _CUBE_SIDE)) / _CUBE_SIDE
)


_DCT_BASIS[1:] *= np.sqrt(2)


class VideoSignature:
    """Is shown a video's frames, one after the other, and keeps a few small ones."""

    def __init__(self) -> None:
        self._frames: list[Float[np.ndarray, "8 8"]] = []
        self._num_frames, self._frame_step = 0, 1

    def update(self, frame: ImageArray) -> None:
        if self._num_frames % self._frame_step == self._frame_step // 2:
            self._frames.append(_pool_luma(frame))
        self._num_frames += 1
        if len(self._frames) == _MAX_FRAMES:
            self._frames, self._frame_step = self._frames[1::3], 3 * self._frame_step

    def digest(self) -> str:
        """The numbers, 196 letters; nothing where no frame was shown."""
        if not self._frames:
            return ""
        cube = _pool_time(np.stack(self._frames), self._num_frames / self._frame_step)
        waves = np.einsum("at,by,cx,tyx->abc", _DCT_BASIS, _DCT_BASIS, _DCT_BASIS, cube)
        numbers = np.concatenate([waves[_STILL_MASK][_STILL_ORDER], waves[_MOTION_MASK]])
        kept = np.sign(numbers) * np.sqrt(np.abs(numbers)) * _QUANTIZATION_SCALE
        return base64.b64encode(np.clip(np.round(kept), -127, 127).astype(np.int8).tobytes()).decode()


def decode_signatures(signatures: Sequence[str]) -> Float32[np.ndarray, "n 147"]:
    """The numbers of sketches, in grey levels: of the still picture, coarse ones first, then of what moves."""
    data = base64.b64decode("".join(signatures))
    kept = (
        np.frombuffer(data, np.int8)
        .reshape(len(signatures), NUM_STILL_COEFFICIENTS + NUM_MOTION_COEFFICIENTS)
        .astype(np.float32)
        / _QUANTIZATION_SCALE
    )
    return kept * np.abs(kept)


def _pool_luma(picture: ImageArray) -> Float[np.ndarray, "8 8"]:
    """The mean grey of 8 x 8 fields; some pixels of a large picture stand for all, and fields of a tiny one are one."""
    picture = picture[
        :: max(1, picture.shape[0] // _MIN_PIXELS_PER_SIDE), :: max(1, picture.shape[1] // _MIN_PIXELS_PER_SIDE)
    ]
    height, width, _ = picture.shape
    sums = np.add.reduceat(picture, _get_cell_starts(height), 0, dtype=np.uint32)
    sums = np.add.reduceat(sums, _get_cell_starts(width), 1)
    return sums @ np.array(_LUMA_WEIGHTS) / np.outer(_get_cell_lengths(height), _get_cell_lengths(width))


def _get_cell_starts(size: int) -> Int64[np.ndarray, "8"]:
    return np.arange(_CUBE_SIDE) * size // _CUBE_SIDE


def _get_cell_lengths(size: int) -> Int64[np.ndarray, "8"]:
    return np.maximum(np.diff(_get_cell_starts(size), append=size), 1)


def _pool_time(pictures: Float[np.ndarray, "t 8 8"], length: float) -> Float[np.ndarray, "8 8 8"]:
    """The mean pictures of 8 equal parts, whose borders may lie within a picture's time.

    Args:
        length: of the video, in times of a picture; the last may have less, or be missing.
    """
    sums = np.concatenate([np.zeros((1, _CUBE_SIDE, _CUBE_SIDE)), pictures.cumsum(0)])
    borders = np.linspace(0, min(length, len(pictures)), _CUBE_SIDE + 1)
    whole = borders.astype(int)
    rest = pictures[np.minimum(whole, len(pictures) - 1)]
    until = sums[whole] + (borders - whole)[:, None, None] * rest
    return np.diff(until, axis=0) / borders[1]
