"""Score classifications: merged views, top-1 and top-5, calibration, and average precision for several labels."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vidstill.utils.types import InputError

CALIBRATION_BINS = 15  # as in the tables of Guo et al.


@dataclass(frozen=True)
class Accuracy:
    """Shares of the scored videos, in percent."""

    top1: float
    top5: float
    mean_class_accuracy: float  # the mean of the top-1 of each class that has videos
    majority_baseline: float  # the top-1 of a model that always answers the most frequent class of the scored videos
    num_classes: int  # that the scores tell apart
    videos: int
    standard_error: float  # the binomial one of top-1 over the videos, in percentage points


def merge_views(
    logits: Float[Tensor, "views classes"], rule: Literal["mean", "max"] = "mean", *, multi_label: bool = False
) -> Float[Tensor, "classes"]:
    """Merge the views of a video: the mean or maximum of their probabilities, in float64.

    The mean is every paper's protocol (ST-MAE sums, which gives the same ranking); the maximum is the other rule of
    ST-MAE's code.

    Args:
        multi_label: Take the sigmoid of each class instead of the softmax.
    """
    probabilities = logits.double().sigmoid() if multi_label else logits.double().softmax(dim=-1)
    return probabilities.mean(dim=0) if rule == "mean" else probabilities.amax(dim=0)


def predict_classes(scores: Float[Tensor, "videos classes"]) -> Int[Tensor, "videos"]:
    """Return the class with the highest score; ties go to the lowest number."""
    return scores.argmax(dim=1)  # which torch promises of it, and not of topk


def compute_label_ranks(
    scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]
) -> Int[Tensor, "videos"]:
    """Return the rank of each label among the scores, from 1; in ties the lowest number ranks first.

    A label has rank 1 exactly where `predict_classes` returns it.
    """
    own = scores.gather(1, labels.long()[:, None])
    is_lower_class = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    return ((scores > own) | ((scores == own) & is_lower_class)).sum(dim=1) + 1


def compute_accuracy(scores: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]) -> Accuracy:
    """Compute top-1, top-5 (100 % if there are at most five classes), the mean class accuracy and the baseline."""
    ranks = compute_label_ranks(scores, labels)
    top1, top5 = ((ranks <= k).sum().item() * 100 / len(labels) for k in (1, 5))
    correct, videos = (ranks == 1).double(), labels.bincount()
    of_class = labels.bincount(weights=correct)[videos > 0] / videos[videos > 0]
    return Accuracy(
        top1=top1,
        top5=top5,
        mean_class_accuracy=100 * of_class.mean().item(),
        majority_baseline=100 * videos.max().item() / len(labels),
        num_classes=scores.shape[1],
        videos=len(labels),
        standard_error=math.sqrt(top1 * (100 - top1) / len(labels)),
    )


def compute_average_precisions(
    scores: Float[Tensor, "videos classes"], targets: Bool[Tensor, "videos classes"]
) -> Float[Tensor, "classes"]:
    """Return the average precision of each class, in [0, 1]; NaN for a class without videos.

    Summed as a step function without interpolation, as scikit-learn's `average_precision_score` defines it: at every
    distinct score, the gain in recall from including the videos with that score, times the precision.
    """
    order = scores.argsort(dim=0, descending=True)
    sorted_scores = scores.gather(0, order)
    hits = targets.gather(0, order).double().cumsum(dim=0)
    is_last = torch.ones_like(targets)  # of the videos with the same score
    is_last[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    count = torch.arange(1, len(scores) + 1, device=scores.device, dtype=torch.float64)
    precisions = []
    for class_hits, class_last in zip(hits.T, is_last.T, strict=True):
        steps = class_hits[class_last]
        gains = steps.diff(prepend=steps.new_zeros(1)) / class_hits[-1]
        precisions.append((gains * steps / count[class_last]).sum())
    return torch.stack(precisions)


def compute_mean_average_precision(
    scores: Float[Tensor, "videos classes"], targets: Bool[Tensor, "videos classes"]
) -> float:
    """Return the mean of the average precisions in percent; classes without videos are left out.

    Args:
        scores: Any scores that rank the videos of a class: probabilities or logits.
        targets: The classes of each video.

    Raises:
        InputError: No video has a label.
    """
    if not targets.any():
        raise InputError("no video has a label, so there is no average precision; give labelled videos")
    return 100 * compute_average_precisions(scores, targets).nanmean().item()


def compute_calibration_error(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"], num_bins: int = CALIBRATION_BINS
) -> float:
    """Return the expected calibration error in percent (Guo et al., ICML 2017, arXiv:1706.04599, eq. 3).

    Videos are binned by the probability of their prediction, into bins of equal width that include their upper edge;
    the distance between accuracy and mean probability of each bin is weighted by its number of videos.
    """
    prediction = predict_classes(probabilities)
    confidence = probabilities.gather(1, prediction[:, None])[:, 0].double()
    edges = torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins
    surplus = (prediction == labels).double() - confidence
    of_bins = edges.new_zeros(num_bins).index_add_(0, torch.bucketize(confidence, edges), surplus)
    return 100 * of_bins.abs().sum().item() / len(labels)


def compute_negative_log_likelihood(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]
) -> float:
    """Return the mean of -log p(label), in nats; a probability of 0 counts as the smallest positive number."""
    own = probabilities.gather(1, labels.long()[:, None]).double()
    return -own.clamp_min(torch.finfo(torch.float64).tiny).log().mean().item()
