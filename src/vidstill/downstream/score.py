"""What a probe's scores are worth: top-1, top-5, the mean over classes, and how far chance alone would move them."""

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from vidstill.downstream.accuracy import accuracy, predicted


@dataclass(frozen=True)
class Score:
    """Shares of the scored videos, in percent.

    Args:
        mean_class: the mean over the classes that there are of each one's top-1.
        error: the binomial standard error of top-1, in points: of so many videos, were they drawn anew.
    """

    top1: float
    top5: float
    mean_class: float
    videos: int
    error: float


def measured(scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]) -> Score:
    """What was scored; of classes that score the same, that of the lowest number comes first."""
    found = accuracy(scores, labels)
    hit = (predicted(scores) == labels).double()
    of_each = [hit[labels == label].mean().item() for label in labels.unique()]
    return Score(
        top1=found.top1,
        top5=found.top5,
        mean_class=100 * sum(of_each) / len(of_each),
        videos=found.videos,
        error=math.sqrt(found.top1 * (100 - found.top1) / found.videos),
    )
