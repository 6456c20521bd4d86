"""Nearest-neighbour probe: the most similar training clips vote for their class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

KNN_TEMPERATURE = 0.07
"""A neighbour of similarity s votes with exp(s / 0.07) (InstDisc, arXiv:1805.01978; DINO, arXiv:2104.14294)."""

_CHUNK_SIZE = 2**26  # similarities in memory


def compute_knn_scores(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    features: Float[Tensor, "m d"],
    num_classes: int,
    ks: Sequence[int],
    *,
    chunk_size: int = _CHUNK_SIZE,
) -> dict[int, Float[Tensor, "m classes"]]:
    """Return for each k the votes of the k training clips with the highest cosine similarity; ties go to the first.

    Args:
        ks: Numbers of neighbours, 1 to n.
        chunk_size: Similarities that are held in memory.
    """
    train = F.normalize(train_features.float(), dim=1)
    chunks = F.normalize(features.float(), dim=1).split(max(1, chunk_size // len(train)))
    votes: dict[int, list[Tensor]] = {k: [] for k in ks}
    for chunk in chunks:
        similarity, neighbours = _find_nearest(chunk @ train.T, max(ks))
        weights = (similarity.double() / KNN_TEMPERATURE).exp()
        for k in ks:
            scores = weights.new_zeros(len(chunk), num_classes)
            votes[k].append(scores.scatter_add_(1, train_labels[neighbours[:, :k]], weights[:, :k]))
    return {k: torch.cat(parts) for k, parts in votes.items()}


def _find_nearest(similarity: Float[Tensor, "m n"], k: int) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Return the k largest values of each row and their columns, sorted; unlike topk, ties go to the first column."""
    smallest = similarity.topk(k, dim=1).values[:, -1:]
    above, equal = similarity > smallest, similarity == smallest
    is_nearest = above | (equal & (equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
    columns = is_nearest.nonzero()[:, 1].view(-1, k)
    values, order = similarity.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
