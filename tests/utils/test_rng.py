"""Random numbers are a function of seed and purpose, and have the moments of their distributions."""

import math
from itertools import product
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.utils.rng import derive_sample_seed, draw_normal, draw_permutation, draw_uniform, numpy_rng

RANGE = 2**64
seeds = st.integers(0, 2**63 - 1)
purposes = st.text(st.characters(codec="ascii"), max_size=12)
MANY = torch.tensor([derive_sample_seed(0, 0, index) for index in range(4096)])


def mix(x: int) -> int:
    """The output function of splitmix64, in Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % RANGE
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % RANGE
    return x ^ (x >> 31)


def bits(seed: int, purpose: str, n: int) -> list[int]:
    """splitmix64 from a start that is itself a mix of seed and purpose."""
    gold = 0x9E3779B97F4A7C15
    start = mix((seed + crc32(purpose.encode()) * gold) % RANGE)
    return [mix((start + index * gold) % RANGE) for index in range(1, n + 1)]


def test_our_own_splitmix64_is_the_published_one():
    state, numbers = 1234567, []
    for _ in range(3):  # the test vector that the generator is published with
        state = (state + 0x9E3779B97F4A7C15) % RANGE
        numbers.append(mix(state))
    assert numbers == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seeds, purposes, st.integers(1, 9))
def test_numbers_are_those_of_splitmix64(seed, purpose, n):
    expected = [(b >> 40) / 2**24 for b in bits(seed, purpose, n)]
    assert draw_uniform(torch.tensor([seed]), purpose, n)[0].tolist() == expected


@given(seeds, purposes, st.integers(1, 30))
def test_a_permutation_has_every_number_once(seed, purpose, n):
    assert sorted(draw_permutation(torch.tensor([seed]), purpose, n)[0].tolist()) == list(range(n))


@pytest.mark.parametrize("draw", [draw_uniform, draw_normal, draw_permutation])
def test_a_seed_decides_its_numbers_whatever_seeds_are_beside_it(draw):
    numbers = draw(MANY[:8], "mask", 7)
    assert torch.equal(draw(MANY[[5]], "mask", 7), numbers[[5]])
    assert torch.equal(draw(MANY[:8].flip(0), "mask", 7), numbers.flip(0))
    rows = [draw(MANY[[k]], purpose, 16)[0].tolist() for k, purpose in product(range(4), ("mask", "erasing"))]
    assert len({tuple(row) for row in rows}) == len(rows)  # each seed and each purpose has its own


def test_uniform_numbers_are_in_0_to_1_with_the_moments_of_the_uniform_law():
    numbers = draw_uniform(MANY, "anything", 64).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    count = numbers.numel()
    assert numbers.mean().item() == pytest.approx(1 / 2, abs=5 / math.sqrt(12 * count))  # five standard errors
    assert numbers.var().item() == pytest.approx(1 / 12, abs=5 / math.sqrt(180 * count))


@pytest.mark.parametrize("draw", [draw_uniform, draw_normal])
@pytest.mark.parametrize("seeds", [MANY, torch.arange(4096)], ids=["derived", "consecutive"])
def test_neither_neighbouring_numbers_nor_neighbouring_seeds_are_correlated(draw, seeds):
    numbers = draw(seeds, "mask", 16).double()
    between_columns = torch.corrcoef(numbers.T) - torch.eye(numbers.shape[1])
    assert between_columns.abs().max() < 5 / math.sqrt(len(numbers))
    between_seeds = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))
    assert between_seeds[0, 1].abs() < 5 / math.sqrt(numbers.numel())


def test_normal_numbers_have_the_moments_of_the_normal_law():
    numbers = draw_normal(MANY, "noise", 33).double()
    assert numbers.shape == (4096, 33)
    assert torch.isfinite(numbers).all()
    count = numbers.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # E[z^2k] - E[z^k]^2
        assert (numbers**power).mean().item() == pytest.approx(moment, abs=5 * math.sqrt(variance / count))


def test_every_number_is_equally_likely_at_every_index_of_a_permutation():
    orders = draw_permutation(MANY, "mask", 8)
    counts = torch.stack([(orders == number).sum(dim=0) for number in range(8)]).double()
    expected = len(MANY) / 8
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 49 + 5 * math.sqrt(2 * 49)  # 49 degrees of freedom


def test_every_copy_of_every_sample_in_every_epoch_has_its_own_seed():
    seeds = [derive_sample_seed(*key) for key in product(range(3), range(5), range(40), range(4))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_sample_seed(1, 2, 3, 0) == derive_sample_seed(1, 2, 3)


def test_a_purpose_has_its_own_generator():
    frames, again, crop = (numpy_rng(7, purpose).random(8) for purpose in ("frames", "frames", "crop"))
    assert np.array_equal(frames, again)
    assert not np.array_equal(frames, crop)
