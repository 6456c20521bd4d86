"""Random erasing on the device."""

import math
import random
from dataclasses import replace

import pytest
import torch
from authors_draws import replay_erasing
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.utils.types import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALWAYS = RandomErasing(probability=1.0)
SEVERAL = RandomErasing(probability=1.0, max_count=3)
sides = st.integers(2, 40)
starts = st.integers(0, 2**40)


def seeds(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n)


@given(sides, sides, starts)
def test_a_rectangle_lies_in_the_frame_and_only_that_is_changed(height, width, start):
    clip = torch.full((3, 3, 2, height, width), 7.0)
    erased = ALWAYS.apply(clip, seeds(3, start), MEAN, STD)
    for changed, top, left, high, wide in zip(
        erased != 7, *ALWAYS.draw_boxes(seeds(3, start), height, width)[0], strict=True
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
    touched = RandomErasing().draw_boxes(seeds(4000), 24, 24)[0, 2] > 0
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_areas_are_uniform_and_aspects_log_uniform():
    _, _, high, wide = ALWAYS.draw_boxes(seeds(4000), 500, 500)[0].double()
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
    top, left, high, wide = ALWAYS.draw_boxes(seeds(4000), 100, 60)[0].double()
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


@pytest.mark.parametrize("erasing", [ALWAYS, SEVERAL, replace(SEVERAL, mode="rand"), replace(SEVERAL, mode="const")])
def test_erasing_does_not_synchronize_the_device(erasing):
    clip = torch.empty(4, 3, 2, 12, 10, device="meta")  # a device that has no values to be asked for
    assert erasing.apply(clip, seeds(4).to("meta"), MEAN, STD).shape == clip.shape


def test_a_rectangle_may_be_the_largest_that_is_allowed():
    big = RandomErasing(probability=1.0, scale=(0.9, 0.9), min_ratio=1.0)
    clip = torch.full((2, 3, 1, 30, 30), 7.0)
    erased = big.apply(clip, seeds(2), MEAN, STD)
    assert ((erased != 7).sum(dim=(1, 2, 3, 4)) == 3 * 28 * 28).all()
    assert len(erased[erased != 7].unique()) > 0.99 * (erased != 7).sum()  # no noise is used twice


def test_a_scale_that_is_no_range_is_refused():
    with pytest.raises(InputError, match="a scale of 0 <= low <= high <= 1"):
        RandomErasing(scale=(0.5, 0.2))
    with pytest.raises(InputError, match="max_count"):
        RandomErasing(max_count=0)


# ---- Modes and several rectangles (timm's) ---------------------------------------------------------------------------


def test_mode_const_fills_with_the_models_mean():
    clip = torch.full((4, 3, 2, 24, 24), 7.0)
    erased = replace(ALWAYS, mode="const").apply(clip, seeds(4), MEAN, STD)
    for channel, mean in enumerate(MEAN):
        filled = erased[:, channel][erased[:, channel] != 7]
        assert len(filled) > 0
        assert (filled == torch.tensor(mean)).all()  # 0 after normalization
    assert torch.equal(erased == 7, ALWAYS.apply(clip, seeds(4), MEAN, STD) == 7)  # the same rectangles


def test_mode_rand_fills_each_frame_with_a_random_colour():
    clip = torch.full((400, 3, 4, 12, 12), 7.0)
    erased = replace(ALWAYS, mode="rand").apply(clip, seeds(400), MEAN, STD)
    assert torch.equal(erased == 7, ALWAYS.apply(clip, seeds(400), MEAN, STD) == 7)
    flat = torch.where(erased == 7, torch.nan, erased).flatten(3)
    assert torch.equal(flat.nan_to_num(nan=-99.0).amax(dim=3), flat.nan_to_num(nan=99.0).amin(dim=3))
    colors = flat.nanmean(dim=3)
    assert len(colors.unique()) > 0.99 * colors.numel()
    normal = (colors - torch.tensor(MEAN).view(3, 1)) / torch.tensor(STD).view(3, 1)
    assert normal.mean().item() == pytest.approx(0, abs=0.05)
    assert normal.std().item() == pytest.approx(1, abs=0.05)


def test_the_number_of_rectangles_is_uniform_and_their_areas_are_divided_by_it():
    boxes = SEVERAL.draw_boxes(seeds(6000), 500, 500).double()
    assert boxes.shape == (3, 4, 6000)
    counts = (boxes[:, 2] > 0).sum(dim=0)
    assert torch.equal((boxes[:, 2] > 0).int(), (torch.arange(3)[:, None] < counts).int())  # the first ones
    low, step = 0.02, 1 / 3 - 0.02
    for count in (1, 2, 3):
        assert (counts == count).double().mean().item() == pytest.approx(1 / 3, abs=0.025)
        drawn = boxes[:count, :, counts == count]
        shares = count * drawn[:, 2] * drawn[:, 3] / 500**2
        for each in shares:
            median = torch.quantile(each, torch.tensor(0.5, dtype=torch.float64)).item()
            assert median == pytest.approx(low + step / 2, abs=0.01)
    alone = boxes[:, :, counts == 3]
    assert (alone[0] != alone[1]).any(dim=0).double().mean() > 0.99
    assert torch.equal(boxes[0, :, counts == 1], ALWAYS.draw_boxes(seeds(6000), 500, 500)[0, :, counts == 1].double())


def test_rectangles_have_noise_of_their_own():
    clip = torch.full((8, 3, 2, 30, 30), 7.0)
    erased = SEVERAL.apply(clip, seeds(8), MEAN, STD)
    boxes = SEVERAL.draw_boxes(seeds(8), 30, 30)
    for k in range(8):
        inside = torch.zeros(30, 30, dtype=torch.bool)
        for top, left, high, wide in boxes[:, :, k].tolist():
            inside[top : top + high, left : left + wide] = True
        assert torch.equal(erased[k] != 7, inside.expand(3, 2, 30, 30))
        draws = erased[k][erased[k] != 7]
        assert len(draws.unique()) > 0.99 * len(draws)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
@pytest.mark.parametrize("count", [1, 4])
def test_an_image_is_erased_as_timm_erases_it_with_the_same_draws(mode, count):
    module = pytest.importorskip("timm.data.random_erasing", reason="timm is not installed: pip install timm")
    theirs = module.RandomErasing(probability=0.7, mode=mode, max_count=count, device="cpu")
    ours = RandomErasing(probability=0.7, mode=mode, max_count=count)
    numbers = set()
    for seed in range(60):
        image = torch.rand(3, 26, 22)
        random.seed(seed)
        torch.manual_seed(seed)
        expected = theirs(image.clone())
        erased, boxes = replay_erasing(ours, image[:, None], seed, tries=10)
        numbers.add(len(boxes))
        torch.testing.assert_close(erased[:, 0], expected, rtol=0, atol=1e-6)
    assert numbers == set(range(count + 1))
