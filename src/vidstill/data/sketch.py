"""What a video looks like, in few numbers that outlive coding, scaling and another frame rate: for finding copies.

The video is cut into 8 equal parts of its time, and each part's mean picture, in grey, into 8 x 8 fields. Of this
cube's discrete cosine transform 147 numbers are kept: of the still picture all but its brightness, 63, and of what
moves in it the slowest and coarsest, 84. They count grey levels: their squares add up to the cube's mean square.
"""

import base64
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64

from vidstill.data.pictures import Picture

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
