"""Random numbers as a function of a seed and a purpose: independent of order, workers and devices."""

import math
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.types import evaluate_at_compilation

_GOLDEN = 0x9E3779B97F4A7C15  # the step of the splitmix64 sequence
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9  # its two multipliers (Steele, Lea and Flood, OOPSLA 2014)
_SECOND_MULTIPLIER = 0x94D049BB133111EB


def derive_sample_seed(seed: int, epoch: int, index: int, copy: int = 0) -> int:
    """Return the seed of one augmented copy of one sample in one epoch of one run, in [0, 2**63).

    Args:
        index: Of the sample in the dataset.
        copy: Number of the copy, from 0.
    """
    return int(np.random.SeedSequence([seed, epoch, index, copy]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_rng(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose (`"frames"`, `"crop"`); draws for other purposes do not affect it."""
    return np.random.default_rng([seed, crc32(purpose.encode())])


def draw_uniform(seeds: Int[Tensor, "b"], purpose: str, n: int) -> Float[Tensor, "b n"]:
    """Return `n` numbers in [0, 1) for each seed, the same bits on every device."""
    bits = _shift_right(_draw_bits(seeds, purpose, n), 40)  # 24 bits: what a float32 holds exactly
    return bits.to(torch.float32) * 2.0**-24


def draw_normal(seeds: Int[Tensor, "b"], purpose: str, n: int) -> Float[Tensor, "b n"]:
    """Return `n` standard normal numbers for each seed (Box and Muller, 1958)."""
    num_pairs = (n + 1) // 2
    radius = torch.sqrt(-2 * torch.log1p(-draw_uniform(seeds, purpose + " radius", num_pairs)))
    angle = 2 * math.pi * draw_uniform(seeds, purpose + " angle", num_pairs)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :n]


def draw_permutation(seeds: Int[Tensor, "b"], purpose: str, n: int) -> Int[Tensor, "b n"]:
    """Return a permutation of 0 … n-1 for each seed, the same on every device."""
    return _draw_bits(seeds, purpose, n).argsort(dim=1, stable=True)


def _draw_bits(seeds: Int[Tensor, "b"], purpose: str, n: int) -> Int[Tensor, "b n"]:
    """Return 64 mixed bits for each seed and index: splitmix64, in two's complement int64 arithmetic."""
    start = _mix_bits(seeds.to(torch.int64) + _hash_purpose(purpose))
    steps = torch.arange(1, n + 1, device=seeds.device, dtype=torch.int64)
    return _mix_bits(start[:, None] + steps * _to_signed(_GOLDEN))


@evaluate_at_compilation
def _hash_purpose(purpose: str) -> int:
    return _to_signed(crc32(purpose.encode()) * _GOLDEN)


def _mix_bits(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _to_signed(_FIRST_MULTIPLIER)
    x = (x ^ _shift_right(x, 27)) * _to_signed(_SECOND_MULTIPLIER)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros (torch fills with the sign)."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _to_signed(x: int) -> int:
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x
