"""Random erasing on the device."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.utils.types import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALWAYS = RandomErasing(probability=1.0)
sides = st.integers(2, 40)
starts = st.integers(0, 2**40)


def seeds(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n)


@given(sides, sides, starts)
def test_a_rectangle_lies_in_the_frame_and_only_that_is_changed(height, width, start):
    clip = torch.full((3, 3, 2, height, width), 7.0)
    erased = ALWAYS.apply(clip, seeds(3, start), MEAN, STD)
    for changed, top, left, high, wide in zip(
        erased != 7, *ALWAYS.draw_boxes(seeds(3, start), height, width), strict=True
    ):
        assert 0 <= top <= top + high <= height
        assert 0 <= left <= left + wide <= width
        assert changed[..., top : top + high, left : left + wide].all()
        assert changed.sum() == 3 * 2 * high * wide


def test_the_noise_is_standard_normal_after_normalization_and_independent_everywhere():
    clip = torch.full((16, 3, 4, 24, 24), 7.0)
    erased = ALWAYS.apply(clip, seeds(16), MEAN, STD)
    behind = (erased - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    for channel in range(3):
        draws = behind[:, channel][erased[:, channel] != 7]
        assert draws.mean().item() == pytest.approx(0, abs=0.05)
        assert draws.std().item() == pytest.approx(1, abs=0.05)
        tails = torch.quantile(draws, torch.tensor([0.0228, 0.8413])).tolist()
        assert tails == pytest.approx([-2, 1], abs=0.1)
    draws = erased[erased != 7]
    assert len(draws.unique()) > 0.99 * len(draws)
    assert draws.min() < 0  # it is not clipped
    assert draws.max() > 1


def test_a_quarter_of_the_clips_is_erased():
    touched = RandomErasing().draw_boxes(seeds(4000), 24, 24)[2] > 0
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_areas_are_uniform_and_aspects_log_uniform():
    _, _, high, wide = ALWAYS.draw_boxes(seeds(4000), 500, 500).double()
    assert (wide > 0).all()
    areas = torch.quantile(high * wide / 500**2, torch.tensor([0.01, 0.25, 0.5], dtype=torch.float64)).tolist()
    low, step = 0.02, 1 / 3 - 0.02  # large rectangles of an extreme aspect do not fit, but here only above 0.3
    assert areas == pytest.approx([low + 0.01 * step, low + 0.25 * step, low + 0.5 * step], abs=0.01)
    aspects = torch.log(high / wide)
    bound = math.log(1 / 0.3)
    assert aspects.abs().max() < bound + 0.03
    assert aspects.mean().item() == pytest.approx(0, abs=0.05)
    assert aspects.std().item() == pytest.approx(bound / 3**0.5, abs=0.03)


def test_positions_are_uniform():
    top, left, high, wide = ALWAYS.draw_boxes(seeds(4000), 100, 60).double()
    for start, room in ((top, 100 - high), (left, 60 - wide)):
        assert ((start + 0.5) / (room + 1)).mean().item() == pytest.approx(0.5, abs=0.02)
        assert (start == 0).any()
        assert (start == room).any()


@given(starts)
def test_a_clip_is_erased_the_same_way_in_every_batch(start):
    clip = torch.zeros(4, 3, 2, 12, 10)
    together = ALWAYS.apply(clip, seeds(4, start), MEAN, STD)
    alone = [ALWAYS.apply(clip[k : k + 1], seeds(1, start + k), MEAN, STD) for k in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 30)])
def test_a_frame_that_no_rectangle_fits_is_left_alone(size):
    clip = torch.rand(4, 3, 2, *size)
    assert torch.equal(ALWAYS.apply(clip, seeds(4), MEAN, STD), clip)


def test_erasing_does_not_synchronize_the_device():
    clip = torch.empty(4, 3, 2, 12, 10, device="meta")  # a device that has no values to be asked for
    assert ALWAYS.apply(clip, seeds(4).to("meta"), MEAN, STD).shape == clip.shape


def test_a_rectangle_may_be_the_largest_that_is_allowed():
    big = RandomErasing(probability=1.0, scale=(0.9, 0.9), min_ratio=1.0)
    clip = torch.full((2, 3, 1, 30, 30), 7.0)
    erased = big.apply(clip, seeds(2), MEAN, STD)
    assert ((erased != 7).sum(dim=(1, 2, 3, 4)) == 3 * 28 * 28).all()
    assert len(erased[erased != 7].unique()) > 0.99 * (erased != 7).sum()  # no noise is used twice


def test_a_scale_that_is_no_range_is_refused():
    with pytest.raises(InputError, match="a scale of 0 <= low <= high <= 1"):
        RandomErasing(scale=(0.5, 0.2))
