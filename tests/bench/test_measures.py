"""What is measured: PSNR and SSIM by their definitions, and timing that leaves the process as it was."""

import math
import os
from functools import partial

import numpy as np
import pytest
import torch

from vidstill.bench.quality import psnr, ssim
from vidstill.utils.timing import pin_to_one_core, time_in_random_order

CLIP = np.random.default_rng(0).integers(0, 200, (2, 24, 32, 3), dtype=np.uint8)


def level(value):
    return np.full((2, 16, 16, 3), value, np.uint8)


@pytest.mark.parametrize("off", [1, 5, 50])
def test_psnr_of_a_constant_error_is_that_of_its_square(off):
    assert psnr(CLIP, CLIP + np.uint8(off)) == pytest.approx(20 * math.log10(255 / off), abs=1e-4)


def test_nothing_is_better_than_equal():
    assert psnr(CLIP, CLIP) == 100
    assert ssim(CLIP, CLIP) == pytest.approx(1, abs=1e-5)


def test_ssim_of_two_plain_clips_is_that_of_their_brightness():
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(level(100), level(150)) == pytest.approx(expected, abs=1e-4)


def test_ssim_falls_with_noise_and_does_not_ask_which_clip_comes_first():
    noise = np.random.default_rng(1).normal(size=CLIP.shape)
    noisy = [np.clip(CLIP + strength * noise, 0, 255).astype(np.uint8) for strength in (5, 20, 80)]
    result = [ssim(CLIP, other) for other in noisy]
    assert sorted(result, reverse=True) == result
    assert result[0] < 1
    assert ssim(noisy[0], CLIP) == pytest.approx(result[0], abs=1e-6)


# ---- Timing ---------------------------------------------------------------------------------------------------------


def test_everything_is_done_once_and_in_another_order_from_turn_to_turn():
    done: list[str] = []
    works = {name: partial(done.append, name) for name in "abc"}
    orders = set()
    for seed in range(20):
        done.clear()
        assert set(time_in_random_order(works, np.random.default_rng(seed))) == set("abc")
        assert sorted(done) == ["a", "b", "c"]
        orders.add("".join(done))
    assert len(orders) > 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose its cores")
def test_one_core_is_one_core_and_then_all_are_there_again_even_after_an_error():
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()

    def fail():
        with pin_to_one_core():
            assert len(os.sched_getaffinity(0)) == 1
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.sched_getaffinity(0) == cores
    assert torch.get_num_threads() == threads
