"""How far a model's probabilities can be trusted."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.downstream.accuracy import predicted

BINS = 15  # as in the tables of Guo et al.


def calibration_error(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"], bins: int = BINS
) -> float:
    """The expected calibration error, in percent (Guo et al., ICML 2017, arXiv:1706.04599, eq. 3).

    The videos are sorted into bins of equal width by the probability of their prediction, each with its upper edge and
    without its lower one. Of each bin the share of hits is held against the mean of these probabilities; the mean of
    the distances counts each bin by its videos.
    """
    prediction = predicted(probabilities)
    sure = probabilities.gather(1, prediction[:, None])[:, 0].double()
    edges = torch.arange(1, bins, dtype=torch.float64, device=sure.device) / bins
    place = torch.bucketize(sure, edges)
    surplus = (prediction == labels).double() - sure
    return 100 * edges.new_zeros(bins).index_add_(0, place, surplus).abs().sum().item() / len(labels)


def negative_log_likelihood(probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, "videos"]) -> float:
    """The mean of -log of the label's probability, in nats; one of 0 counts as the smallest number above it."""
    own = probabilities.gather(1, labels.long()[:, None]).double()
    return -own.clamp_min(torch.finfo(torch.float64).tiny).log().mean().item()
