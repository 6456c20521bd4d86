"""Few-shot subsets: random draws of k training clips per class."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vidstill.utils.rng import numpy_rng


def draw_shots(labels: Int[Tensor, "n"], shots: int, *, seed: int, draw: int) -> Int[Tensor, "k"]:
    """Return the indices of `shots` clips of each class, ascending.

    A draw of fewer shots is a subset of the same draw of more.

    Args:
        draw: The number of the draw, from 0.
    """
    order = numpy_rng(seed, f"shots {draw}").permutation(len(labels))
    per_class = [order[labels.numpy()[order] == label][:shots] for label in labels.unique().tolist()]
    return torch.from_numpy(np.sort(np.concatenate(per_class)))
