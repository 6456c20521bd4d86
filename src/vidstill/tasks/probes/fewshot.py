"""Few labels: draws of so many training clips of each class, the same whoever draws them."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vidstill.utils.rng import numpy_rng


def draw_shots(labels: Int[Tensor, "n"], shots: int, *, seed: int, draw: int) -> Int[Tensor, "k"]:
    """Places of `shots` clips of each class that there is, ascending; draws are numbered from 0.

    The clips of a draw of fewer shots are among those of one of more.
    """
    chance = numpy_rng(seed, f"shots {draw}")
    order = chance.permutation(len(labels))
    of_each = [order[labels.numpy()[order] == label][:shots] for label in labels.unique().tolist()]
    return torch.from_numpy(np.sort(np.concatenate(of_each)))
