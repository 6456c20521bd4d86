"""Nearest neighbours: classes told from the training clips that an encoder takes for the most alike."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

KNN_TEMPERATURE = 0.07
"""A neighbour of similarity s votes with exp(s / 0.07) (InstDisc, arXiv:1805.01978; DINO, arXiv:2104.14294)."""

_CHUNK_SIZE = 2**26  # similarities


def compute_knn_scores(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    features: Float[Tensor, "m d"],
    num_classes: int,
    ks: Sequence[int],
    *,
    chunk_size: int = _CHUNK_SIZE,
) -> dict[int, Float[Tensor, "m classes"]]:
    """For each k, the votes of the k training clips of the largest cosine similarity; of equals, the first listed.

    Args:
        ks: 1 to n.
        chunk_size: similarities that are held in memory.
    """
    known = F.normalize(train_features.float(), dim=1)
    parts = F.normalize(features.float(), dim=1).split(max(1, chunk_size // len(known)))
    votes: dict[int, list[Tensor]] = {k: [] for k in ks}
    for part in parts:
        alike, neighbours = _find_nearest(part @ known.T, max(ks))
        weights = (alike.double() / KNN_TEMPERATURE).exp()
        for k in ks:
            of_each = weights.new_zeros(len(part), num_classes)
            votes[k].append(of_each.scatter_add_(1, train_labels[neighbours[:, :k]], weights[:, :k]))
    return {k: torch.cat(found) for k, found in votes.items()}


def _find_nearest(alike: Float[Tensor, "m n"], k: int) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """The k largest of each row, the largest first, and where they stand; torch's own topk takes any of equals."""
    least = alike.topk(k, dim=1).values[:, -1:]
    above, level = alike > least, alike == least
    room = k - above.sum(dim=1, keepdim=True)
    places = (above | (level & (level.cumsum(dim=1) <= room))).nonzero()[:, 1].view(-1, k)
    values, order = alike.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)
