"""How boxes that a detector of persons found join the annotated ones."""

import math
from dataclasses import dataclass

from vidstill.types import within


@dataclass(frozen=True, kw_only=True)
class PersonBoxes:
    """Boxes that a detector found, which join the annotated ones in training.

    Args:
        score: those with this score or more.
        iou: a box has the actions of the annotated box that it overlaps most, if by this much or more; None: those that
            its file states. One that has no actions is a negative: all of them are to be told as absent.
        most: of a key frame's boxes that have actions by `iou`, beside the annotated ones; None: all.
    """

    score: float = 0.9
    iou: float | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        within(0, 1, score=self.score, iou=self.iou)
        within(0, math.inf, most=self.most)
