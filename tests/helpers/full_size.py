"""The recipe by which full-size numbers were made with the authors' code: weights, clip and mask, and how to compare.

Weights: every tensor gets 0.02 · z, z from a generator seeded with the checksum of its official name; 1 more for the
weight of a norm. Clip: standard normal, after ImageNet's mean and deviation. Mask: 20 places of each slot are visible,
29 more for AMD's teacher. The numbers are printed ones: the tolerance is half a unit in the last printed digit, and
beside it a millionth (of the number or of its tensor's deviation, the larger): float32 rounds otherwise when it sums in
another order. (In float64 the last number of AMD's teacher's layer 12 is 2.0786711; theirs is 2.1e-6 off, and ours in
float32 was 0.4e-6 off on one processor and 1.3e-6 on another, so that model is run in float64.)
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from foreign_layout import to_foreign, translate_state_dict
from reference_models import colours
from torch import Tensor, nn

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.masking import Mask


@cache
def clip(frames: int = 16) -> Tensor:
    """Colours before ImageNet's mean and deviation were taken off: a model's door gives the recipe's numbers again."""
    numbers = np.random.RandomState(0).standard_normal((2, 3, frames, 224, 224)).astype(np.float32)
    return colours(torch.from_numpy(numbers))


@cache
def mask() -> Mask:
    rng = np.random.RandomState(1)
    orders = [rng.permutation(196) for _ in range(2)]

    def tubes(first: int, last: int) -> Tensor:
        slots = np.arange(8)[:, None] * 196
        return torch.from_numpy(np.stack([np.sort((slots + order[first:last]).ravel()) for order in orders]))

    return Mask(tubes(0, 20), tubes(20, 196), tubes(20, 49))


def filled(foreign: str, tensor: Tensor) -> Tensor:
    z = np.random.RandomState(crc32(foreign.encode("ascii"))).standard_normal(tensor.numel()).astype(np.float32)
    parents, _, last = foreign.rpartition(".")
    one = last == "weight" and "norm" in parents.rpartition(".")[2]
    return torch.from_numpy(np.float32(0.02) * z + np.float32(one)).reshape(tensor.shape)


def fill(module: nn.Module, names: Sequence[RenameRule], prefix: str = "") -> None:
    foreign = to_foreign(module.state_dict(), names)
    load_state_dict_strict(
        module,
        translate_state_dict({name: filled(prefix + name, t) for name, t in foreign.items()}, names),
        "the recipe",
    )


def count_parameters(config: Any) -> int:
    """Return the number of those that are trained."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build().parameters() if parameter.requires_grad)


def hold(tensor: Tensor, shape: tuple[int, ...], mean: str | None, std: str | None, first: str, last: str) -> None:
    """Shape, mean, std, and entries in token order: `first` are as many as are printed, `last` is the last one."""
    assert tuple(tensor.shape) == shape
    numbers = tensor.detach().double().flatten()
    firsts = first.split()
    printed = [*zip(numbers[: len(firsts)], firsts, strict=True), (numbers[-1], last)]
    printed += [(numbers.mean(), mean), (numbers.std(), std)]
    for number, digits in printed:
        if digits is not None:
            hold_numbers(number[None], [digits], scale=numbers.std().item())


def hold_numbers(values: Tensor, printed: Sequence[str], *, scale: float) -> None:
    for number, digits in zip(values.tolist(), printed, strict=True):
        half_a_digit = 0.5 * 10.0 ** int(Decimal(digits).as_tuple().exponent)
        assert number == pytest.approx(float(digits), rel=0, abs=half_a_digit + 1e-6 * max(scale, abs(float(digits))))
