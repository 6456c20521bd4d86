"""Colour jitter on the device: what light and camera do, and nothing else."""

from dataclasses import replace

import pytest
import torch

from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.utils.types import InputError

STILL = ColorJitter(brightness=0.0, contrast=0.0, channel_gain=0.0, grayscale_probability=0.0)


def clips(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3


def seeds(n: int = 64) -> torch.Tensor:
    return torch.arange(n)


def test_amounts_of_zero_change_nothing():
    torch.testing.assert_close(STILL.apply(clips(), seeds()), clips())


def test_colours_stay_in_their_range():
    changed = ColorJitter(brightness=1.0, contrast=1.0, channel_gain=1.0).apply(clips(), seeds())
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_brightness_scales_the_mean_and_contrast_the_difference_from_it():
    brighter = replace(STILL, brightness=0.4).apply(clips(), seeds())
    factor = brighter.mean((1, 2, 3, 4)) / clips().mean((1, 2, 3, 4))
    assert factor.min() >= 0.6
    assert factor.max() <= 1.4
    assert factor.std() > 0.15  # of an even draw it is 0.23
    torch.testing.assert_close(brighter.std((1, 2, 3, 4)), clips().std((1, 2, 3, 4)))
    starker = replace(STILL, contrast=0.4).apply(clips(), seeds())
    torch.testing.assert_close(starker.mean((1, 2, 3, 4)), clips().mean((1, 2, 3, 4)))
    assert (starker.std((1, 2, 3, 4)) / clips().std((1, 2, 3, 4))).std() > 0.15


def test_a_channel_gain_is_one_factor_per_colour_in_every_frame():
    tinted = replace(STILL, channel_gain=0.3).apply(clips(), seeds())
    factor = tinted / clips()
    torch.testing.assert_close(factor, factor[:, :, :1, :1, :1].expand_as(factor))
    assert factor[:, :, 0, 0, 0].std(dim=0).min() > 0.1


def test_half_of_the_clips_lose_their_colours_and_no_others():
    grey = replace(STILL, grayscale_probability=0.5)
    changed = grey.apply(clips(512), seeds(512))
    without = (changed[:, :1] == changed).flatten(1).all(dim=1)
    assert 200 < without.sum() < 312  # five standard errors
    torch.testing.assert_close(changed[~without], clips(512)[~without])
    luma = 0.299 * clips(512)[:, 0] + 0.587 * clips(512)[:, 1] + 0.114 * clips(512)[:, 2]
    torch.testing.assert_close(changed[without, 0], luma[without])


def test_a_clip_s_colours_depend_on_its_seed_alone():
    jitter = ColorJitter()
    torch.testing.assert_close(jitter.apply(clips(), seeds())[5:6], jitter.apply(clips()[5:6], seeds()[5:6]))


def test_an_amount_beyond_one_is_refused():
    with pytest.raises(InputError, match="channel_gain is 1"):
        ColorJitter(channel_gain=1.5)
