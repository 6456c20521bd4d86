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

from vidstill.data.decode.images import Picture

_APART_STILL, _APART_MOVING = 0.1, 0.6
_PALE_STILL, _PALE_MOVING = 2, 1  # grey levels that are added to what is divided by: what coding adds to nothing
_BLANK = 3  # grey levels: with fewer in all, a video is black, or grey, and like any other such

_CELL = 5  # numbers that a cell is made of: 3^5 neighbours are quickly looked up, and cells are small
_RADIX = 32 ** np.arange(_CELL)  # coordinates are whole numbers from -10 to 9: a cell is one number
_AHEAD = np.array([step for step in product((-1, 0, 1), repeat=_CELL) if np.dot(step, _RADIX) > 0]) @ _RADIX
_BLOCK = 2048  # videos that are compared with as many at a time
_PAIRS = 2**20  # are gathered before groups are joined by them

Pairs = Int64[np.ndarray, "_ 2"]


def near_groups(sketches: Sequence[str]) -> list[list[int]]:
    """The places of those that are near one another, in groups of two and more, each in order.

    Two that are near are in one group; so are two that another is near to.
    """
    if not sketches:
        return []
    numbers = numbers_of(sketches)
    seen = np.flatnonzero(np.linalg.norm(numbers, axis=1) >= _BLANK)
    group_of = np.arange(len(sketches))
    for pairs in _gathered(near_pairs(directions(numbers[seen]))):
        _join(group_of, seen[pairs])
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def directions(numbers: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """Points that lie closer than 1 together for videos that are near."""
    still, moving = numbers[:, :STILL], numbers[:, STILL:]
    still = still / ((np.linalg.norm(still, axis=1, keepdims=True) + _PALE_STILL) * _APART_STILL)
    moving = moving / ((np.linalg.norm(moving, axis=1, keepdims=True) + _PALE_MOVING) * _APART_MOVING)
    return np.concatenate([still, moving], 1)


def near_pairs(points: Float32[np.ndarray, "n k"]) -> Iterator[Pairs]:
    """All pairs that lie at most 1 apart, each once.

    Points that are so close differ by at most 1 in every coordinate. So the first few make a grid of cells 1 wide, and
    a point is compared with those of its own cell and of the cells around it alone.
    """
    cells = np.floor(points[:, :_CELL]).astype(np.int64) @ _RADIX
    order = np.argsort(cells, kind="stable")
    names, starts = np.unique(cells[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for cell, name in enumerate(names):
        around = np.searchsorted(names, name + _AHEAD)
        around = around[names[np.minimum(around, len(names) - 1)] == name + _AHEAD]
        own = order[starts[cell] : ends[cell]]
        others = np.concatenate([own, *(order[starts[each] : ends[each]] for each in around)])
        for row in range(0, len(own), _BLOCK):
            for column in range(row, len(others), _BLOCK):
                one, other = own[row : row + _BLOCK], others[column : column + _BLOCK]
                close = _close(points[one], points[other])
                if row == column:
                    close = np.triu(close, 1)
                i, j = np.nonzero(close)
                yield np.stack([one[i], other[j]], 1)


def _close(one: Float32[np.ndarray, "n k"], other: Float32[np.ndarray, "m k"]) -> Bool[np.ndarray, "n m"]:
    return (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T <= 1


def _gathered(pairs: Iterator[Pairs]) -> Iterator[Pairs]:
    """Many at a time."""
    kept: list[Pairs] = []
    number = 0
    for some in pairs:
        kept.append(some)
        number += len(some)
        if number >= _PAIRS:
            yield np.concatenate(kept)
            kept, number = [], 0
    if kept:
        yield np.concatenate(kept)


def _join(group_of: Int64[np.ndarray, "n"], pairs: Pairs) -> None:
    """Makes one group of the groups of each pair, in place; a group is called by its first member."""
    while len(pairs):
        groups = group_of[pairs]
        np.minimum.at(group_of, groups.max(1), groups.min(1))
        while (group_of != (above := group_of[group_of])).any():
            group_of[:] = above
        pairs = pairs[group_of[pairs[:, 0]] != group_of[pairs[:, 1]]]


_SIDE = 8  # parts of the time, rows and columns of the cube


_MOST = 96  # pictures that are kept of a video, however long it is: the middle ones of equal stretches


_PIXELS = 256  # in a row or column are looked at, at least, where there are as many


_FINE = 11  # a number x is kept as 11 √|x|, in a byte: 133 grey levels at most, 10 of them to within 0.3


_PLACES = np.indices((_SIDE,) * 3)  # of the transform's numbers, by their frequencies in time, rows and columns


_STILL = (_PLACES[0] == 0) & (_PLACES.sum(0) > 0)


_MOVING = (_PLACES[0] > 0) & (_PLACES.sum(0) < _SIDE)


_COARSE = np.sqrt((_PLACES[1:] ** 2).sum(0))[_STILL].argsort(kind="stable")  # the still picture's, coarse ones first


STILL, MOVING = int(_STILL.sum()), int(_MOVING.sum())


LETTERS = (STILL + MOVING) * 8 // 6  # of a sketch: six bits in each


_GREY = 0.299, 0.587, 0.114  # of red, green and blue: what videos are coded in, and coded best


_WAVES = np.cos(np.pi * np.arange(_SIDE)[:, None] * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE)) / _SIDE


_WAVES[1:] *= np.sqrt(2)


class Sketch:
    """Is shown a video's frames, one after the other, and keeps a few small ones."""

    def __init__(self) -> None:
        self._kept: list[Float[np.ndarray, "8 8"]] = []
        self._shown, self._step = 0, 1

    def show(self, picture: Picture) -> None:
        if self._shown % self._step == self._step // 2:
            self._kept.append(_fields(picture))
        self._shown += 1
        if len(self._kept) == _MOST:
            self._kept, self._step = self._kept[1::3], 3 * self._step

    def text(self) -> str:
        """The numbers, 196 letters; nothing where no frame was shown."""
        if not self._kept:
            return ""
        cube = _parts(np.stack(self._kept), self._shown / self._step)
        waves = np.einsum("at,by,cx,tyx->abc", _WAVES, _WAVES, _WAVES, cube)
        numbers = np.concatenate([waves[_STILL][_COARSE], waves[_MOVING]])
        kept = np.sign(numbers) * np.sqrt(np.abs(numbers)) * _FINE
        return base64.b64encode(np.clip(np.round(kept), -127, 127).astype(np.int8).tobytes()).decode()


def numbers_of(sketches: Sequence[str]) -> Float32[np.ndarray, "n 147"]:
    """The numbers of sketches, in grey levels: of the still picture, coarse ones first, then of what moves."""
    data = base64.b64decode("".join(sketches))
    kept = np.frombuffer(data, np.int8).reshape(len(sketches), STILL + MOVING).astype(np.float32) / _FINE
    return kept * np.abs(kept)


def _fields(picture: Picture) -> Float[np.ndarray, "8 8"]:
    """The mean grey of 8 x 8 fields; some pixels of a large picture stand for all, and fields of a tiny one are one."""
    picture = picture[:: max(1, picture.shape[0] // _PIXELS), :: max(1, picture.shape[1] // _PIXELS)]
    height, width, _ = picture.shape
    sums = np.add.reduceat(picture, _starts(height), 0, dtype=np.uint32)
    sums = np.add.reduceat(sums, _starts(width), 1)
    return sums @ np.array(_GREY) / np.outer(_lengths(height), _lengths(width))


def _starts(size: int) -> Int64[np.ndarray, "8"]:
    return np.arange(_SIDE) * size // _SIDE


def _lengths(size: int) -> Int64[np.ndarray, "8"]:
    return np.maximum(np.diff(_starts(size), append=size), 1)


def _parts(pictures: Float[np.ndarray, "t 8 8"], length: float) -> Float[np.ndarray, "8 8 8"]:
    """The mean pictures of 8 equal parts, whose borders may lie within a picture's time.

    Args:
        length: of the video, in times of a picture; the last may have less, or be missing.
    """
    sums = np.concatenate([np.zeros((1, _SIDE, _SIDE)), pictures.cumsum(0)])
    borders = np.linspace(0, min(length, len(pictures)), _SIDE + 1)
    whole = borders.astype(int)
    rest = pictures[np.minimum(whole, len(pictures) - 1)]
    until = sums[whole] + (borders - whole)[:, None, None] * rest
    return np.diff(until, axis=0) / borders[1]
