"""Rows of AVA's files, `video,second,x1,y1,x2,y2,action,…`, as columns: annotations, and what was detected."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from vidstill.data.sources import Place

NO_ACTION = -1
"""In place of an action's number: a box of which none is stated."""


@dataclass(frozen=True)
class BoxRows:
    """One row for each box and action, in the order of the file.

    Args:
        videos: their names, in the order in which they are first met.
        video: a row's place among these.
        second: of the video; a key frame is known by its video and second.
        box: x1, y1, x2, y2 as fractions of the frame's width and height.
        action: its number, or NO_ACTION.
        score: 1 where none is stated.
        line: of the file, from 1.
    """

    source: Place
    videos: tuple[str, ...]
    video: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float64[np.ndarray, "n 4"]
    action: Int32[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    line: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.video)
