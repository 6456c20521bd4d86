"""Top-1 and top-5 over the views of a video."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Accuracy:
    """Shares of the scored videos, in percent."""

    top1: float
    top5: float
    videos: int


def merged(logits: Float[Tensor, "views classes"], rule: Literal["mean", "max"] = "mean") -> Float[Tensor, "classes"]:
    """A video's score: the mean of its views' probabilities, in float64, or the largest of them for each class.

    The mean is every paper's protocol (ST-MAE sums, which ranks alike); the largest is the other rule of ST-MAE's code.
    """
    probabilities = logits.double().softmax(dim=-1)
    return probabilities.mean(dim=0) if rule == "mean" else probabilities.amax(dim=0)


def accuracy(scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]) -> Accuracy:
    """Top-1 is the largest score; top-5 has the label among the five largest (among all, where there are fewer)."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    share = hits.sum(dim=0).cumsum(dim=0).double() * 100 / len(labels)
    return Accuracy(top1=share[0].item(), top5=share[-1].item(), videos=len(labels))
