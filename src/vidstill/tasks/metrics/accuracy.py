"""What is counted of videos' scores: views merged, ranks, top-1 and top-5; of several labels, the average precision."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vidstill.utils.types import InputError


@dataclass(frozen=True)
class Accuracy:
    """Shares of the scored videos, in percent."""

    top1: float
    top5: float
    videos: int


def merge_views(
    logits: Float[Tensor, "views classes"], rule: Literal["mean", "max"] = "mean", *, multi_label: bool = False
) -> Float[Tensor, "classes"]:
    """A video's score: the mean of its views' probabilities, in float64, or the largest of them for each class.

    The mean is every paper's protocol (ST-MAE sums, which ranks alike); the largest is the other rule of ST-MAE's code.

    Args:
        multi_label: each class has a probability of its own, whatever the others have.
    """
    probabilities = logits.double().sigmoid() if multi_label else logits.double().softmax(dim=-1)
    return probabilities.mean(dim=0) if rule == "mean" else probabilities.amax(dim=0)


def predict_classes(scores: Float[Tensor, "videos classes"]) -> Int[Tensor, "videos"]:
    """The class of the largest score; of equal ones the class of the lowest number."""
    return scores.argmax(dim=1)  # which torch promises of it, and not of topk


def compute_label_ranks(
    scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]
) -> Int[Tensor, "videos"]:
    """Where each label stands among the scores, the largest at 1; of equal ones the class of the lowest number first.

    So a label has the rank 1 where it is what is `predict_classes`, and nowhere else.
    """
    own = scores.gather(1, labels.long()[:, None])
    lower = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    return ((scores > own) | ((scores == own) & lower)).sum(dim=1) + 1


def compute_accuracy(scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]) -> Accuracy:
    """Top-1 has the label at rank 1, top-5 at one of the first five (at any, where there are fewer classes)."""
    found = compute_label_ranks(scores, labels)
    top1, top5 = ((found <= most).sum().item() * 100 / len(labels) for most in (1, 5))
    return Accuracy(top1=top1, top5=top5, videos=len(labels))


def compute_average_precisions(
    scores: Float[Tensor, "videos classes"], targets: Bool[Tensor, "videos classes"]
) -> Float[Tensor, "classes"]:
    """Of each class, the mean precision over its videos as they are found from the largest score down, 0 to 1.

    Summed as a step function, without interpolation, as scikit-learn's `average_precision_score` defines it: over
    every score s that a video has, the gain in recall from taking the videos of score s or more, times their
    precision. Videos of equal scores come in together. NaN for a class that no video has.
    """
    order = scores.argsort(dim=0, descending=True)
    sorted_scores = scores.gather(0, order)
    hits = targets.gather(0, order).double().cumsum(dim=0)
    last = torch.ones_like(targets)  # of the videos of its score
    last[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    taken = torch.arange(1, len(scores) + 1, device=scores.device, dtype=torch.float64)[:, None]
    found = []
    for class_hits, class_last in zip(hits.T, last.T, strict=True):
        steps = class_hits[class_last]
        gains = steps.diff(prepend=steps.new_zeros(1)) / class_hits[-1]
        found.append((gains * steps / taken[class_last, 0]).sum())
    return torch.stack(found)


def compute_mean_average_precision(
    scores: Float[Tensor, "videos classes"], targets: Bool[Tensor, "videos classes"]
) -> float:
    """The mean of the classes' average precisions, in percent; classes that no video has are left out.

    Args:
        scores: any that rank the videos of a class: probabilities, or logits.
        targets: which classes each video has.

    Raises:
        InputError: no video has any.
    """
    if not targets.any():
        raise InputError("no video has a label, so that there is no average precision; give labelled videos")
    return 100 * compute_average_precisions(scores, targets).nanmean().item()


CALIBRATION_BINS = 15  # as in the tables of Guo et al.


def compute_calibration_error(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"], num_bins: int = CALIBRATION_BINS
) -> float:
    """The expected calibration error, in percent (Guo et al., ICML 2017, arXiv:1706.04599, eq. 3).

    The videos are sorted into bins of equal width by the probability of their prediction, each with its upper edge and
    without its lower one. Of each bin the share of hits is held against the mean of these probabilities; the mean of
    the distances counts each bin by its videos.
    """
    prediction = predict_classes(probabilities)
    sure = probabilities.gather(1, prediction[:, None])[:, 0].double()
    edges = torch.arange(1, num_bins, dtype=torch.float64, device=sure.device) / num_bins
    place = torch.bucketize(sure, edges)
    surplus = (prediction == labels).double() - sure
    return 100 * edges.new_zeros(num_bins).index_add_(0, place, surplus).abs().sum().item() / len(labels)


def compute_negative_log_likelihood(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]
) -> float:
    """The mean of -log of the label's probability, in nats; one of 0 counts as the smallest number above it."""
    own = probabilities.gather(1, labels.long()[:, None]).double()
    return -own.clamp_min(torch.finfo(torch.float64).tiny).log().mean().item()


@dataclass(frozen=True)
class ClassificationScore:
    """Shares of the scored videos, in percent.

    Args:
        mean_class_accuracy: the mean over the classes that there are of each one's top-1.
        standard_error: the binomial standard error of top-1, in points: of so many videos, were they drawn anew.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    videos: int
    standard_error: float


def compute_classification_score(
    scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]
) -> ClassificationScore:
    """What was scored; of classes that score the same, that of the lowest number comes first."""
    found = compute_accuracy(scores, labels)
    hit = (predict_classes(scores) == labels).double()
    of_each = [hit[labels == label].mean().item() for label in labels.unique()]
    return ClassificationScore(
        top1=found.top1,
        top5=found.top5,
        mean_class_accuracy=100 * sum(of_each) / len(of_each),
        videos=found.videos,
        standard_error=math.sqrt(found.top1 * (100 - found.top1) / found.videos),
    )
