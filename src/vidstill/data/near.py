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

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vidstill.data.sketch import STILL, numbers_of

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
