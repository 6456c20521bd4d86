"""Mixup and CutMix on the device."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.transforms.mixup import MixupCutmix, draw_beta, smooth_labels
from vidstill.utils.types import InputError

starts = st.integers(0, 2**40)
sides = st.integers(1, 40)
MIXUP, CUTMIX = MixupCutmix(cutmix_alpha=0.0), MixupCutmix(mixup_alpha=0.0)


def seeds(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.8, 1.0, 1.5, 2.0])
def test_lambdas_are_beta_distributed(alpha):
    n = 4000
    draws = draw_beta(seeds(n), "share", alpha).double().sort().values
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    density = (grid * (1 - grid)) ** (alpha - 1)
    middle = (grid > 0.05) & (grid < 0.95)  # the ends, where the density may be infinite, are told by symmetry
    below = torch.cumsum(density * middle, 0) / (density * middle).sum()
    inner = draws[(draws > 0.05) & (draws < 0.95)]
    expected = below[(inner * 200_000).long() - 1]
    steps = (torch.arange(len(inner)) + 0.5) / len(inner)
    assert (expected - steps).abs().max() < 1.63 / len(inner) ** 0.5  # Kolmogorov and Smirnov, at 1 %
    variance = 1 / (4 * (2 * alpha + 1))
    assert draws.mean().item() == pytest.approx(0.5, abs=0.025)
    assert draws.var().item() == pytest.approx(variance, rel=0.06)
    assert ((draws >= 0) & (draws <= 1)).all()


def test_lambdas_of_a_tiny_alpha_are_0_or_1():
    draws = draw_beta(seeds(1000), "share", 0.001)
    assert ((draws < 0.01) | (draws > 0.99)).float().mean() > 0.98
    assert draws.mean().item() == pytest.approx(0.5, abs=0.05)


@given(starts, sides, sides)
def test_mixup_has_the_same_weight_at_every_pixel(start, height, width):
    keep = MIXUP.draw_pixel_weights(seeds(1, start), height, width)
    assert keep.shape == (height, width)
    assert (keep == keep[0, 0]).all()
    assert 0 <= keep[0, 0] <= 1


@given(starts, sides, sides)
def test_cutmix_replaces_one_box(start, height, width):
    cut = CUTMIX.draw_pixel_weights(seeds(1, start), height, width) == 0
    rows, columns = cut.any(dim=1), cut.any(dim=0)
    assert torch.equal(cut, rows[:, None] & columns)
    for line in (rows, columns):
        positions = line.nonzero()[:, 0]
        assert len(positions) == 0 or len(positions) == positions[-1] - positions[0] + 1
    assert (CUTMIX.draw_pixel_weights(seeds(1, start), height, width)[~cut] == 1).all()


def test_a_cutmix_box_has_the_drawn_area_unless_it_is_clipped():
    shares = 1 - draw_beta(seeds(400), "cutmix", 1.0)
    boxes = torch.stack([CUTMIX.draw_pixel_weights(seeds(1, k), 200, 100) == 0 for k in range(400)])
    areas = boxes.float().mean(dim=(1, 2))
    inside = ~(boxes[:, 0].any(1) | boxes[:, -1].any(1) | boxes[:, :, 0].any(1) | boxes[:, :, -1].any(1))
    assert inside.sum() > 50
    assert (areas[inside] - shares[inside]).abs().max() < 0.03  # the sides are whole and even
    assert (areas <= shares + 1e-6).all()
    covered = boxes.float().mean(dim=0)
    centre, corner = covered[90:110, 45:55].mean(), covered[:10, :5].mean()
    assert centre > 1.5 * corner  # centres are uniform, so the middle is covered more often


@given(starts, st.sampled_from([MIXUP, CUTMIX, MixupCutmix()]))
def test_labels_are_mixed_by_the_mean_pixel_weight(start, mixing):
    clip = torch.zeros(4, 3, 2, 12, 10)
    clip[:2] = 1  # so that a clip's mean is the share that it kept
    mixed, target = mixing.apply(clip, torch.tensor([1, 1, 0, 0]), seeds(4, start), 2, 0.0)
    torch.testing.assert_close(target[:, 1], mixed.mean(dim=(1, 2, 3, 4)))
    torch.testing.assert_close(target.sum(dim=1), torch.ones(4))


@given(starts, st.sampled_from([MIXUP, CUTMIX, MixupCutmix()]))
def test_the_partner_is_the_clip_at_the_same_position_from_the_end(start, mixing):
    clip, label = torch.rand(6, 3, 2, 8, 8), torch.arange(6)
    mixed, target = mixing.apply(clip, label, seeds(6, start), 6, 0.0)
    keep = mixing.draw_pixel_weights(seeds(1, start), 8, 8)
    torch.testing.assert_close(mixed, clip * keep + clip.flip(0) * (1 - keep))
    assert ((target > 0).int() <= torch.eye(6).int() + torch.eye(6).int().flip(0)).all()


def test_the_first_clips_seed_decides_for_the_batch():
    clip, label = torch.rand(4, 3, 2, 8, 8), torch.arange(4)
    one = MixupCutmix().apply(clip, label, torch.tensor([5, 1, 2, 3]), 4, 0.1)
    other = MixupCutmix().apply(clip, label, torch.tensor([5, 9, 9, 9]), 4, 0.1)
    third = MixupCutmix().apply(clip, label, torch.tensor([6, 1, 2, 3]), 4, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], third[0])


@pytest.mark.parametrize(("switch", "probability"), [(0.5, 1.0), (0.2, 0.6)])
def test_batches_are_mixed_and_cut_with_the_stated_probabilities(switch, probability):
    mixing = MixupCutmix(switch_probability=switch, probability=probability)
    keeps = torch.stack([mixing.draw_pixel_weights(seeds(1, k), 64, 64) for k in range(2000)])
    # a mixed share is almost never exactly 0 or 1; a cut one always is
    cut = (keeps.amin(dim=(1, 2)) == 0) & (keeps.amax(dim=(1, 2)) == 1)
    mixed = (keeps > 0).all(dim=(1, 2)) & (keeps < 1).all(dim=(1, 2))
    assert cut.float().mean().item() == pytest.approx(probability * switch, abs=0.04)
    assert mixed.float().mean().item() == pytest.approx(probability * (1 - switch), abs=0.04)


def test_a_batch_that_is_not_mixed_keeps_its_clips_and_smooths_its_labels():
    clip, label = torch.rand(2, 3, 2, 8, 8), torch.tensor([0, 2])
    mixed, target = MixupCutmix(probability=0.0).apply(clip, label, seeds(2), 4, 0.1)
    assert torch.equal(mixed, clip)
    torch.testing.assert_close(target, smooth_labels(label, 4, 0.1))


def test_a_smoothed_label_is_what_label_smoothing_trains_on():
    label, logits = torch.tensor([0, 2, 1]), torch.randn(3, 5)
    result = -(smooth_labels(label, 5, 0.1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(result, torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.1))


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, MixupCutmix()])
def test_mixing_does_not_synchronize_the_device(mixing):
    clip = torch.empty(4, 3, 2, 12, 10, device="meta")  # a device that has no values to be asked for
    mixed, target = mixing.apply(clip, seeds(4).to("meta"), seeds(4).to("meta"), 7, 0.1)
    assert mixed.shape == clip.shape
    assert target.shape == (4, 7)


def test_an_odd_batch_is_refused_with_advice():
    for count, group in ((3, 8), (6, 4), (6, 3)):
        batch = torch.rand(count, 3, 2, 8, 8), torch.arange(count) % 4, seeds(count)
        with pytest.raises(InputError, match=r"give an even --mixup.group-clips that divides"):
            MixupCutmix(group_clips=group).apply(*batch, 4, 0.1)


def test_what_is_mixed_does_not_depend_on_how_many_groups_a_device_holds_at_once():
    mixing, clip, label, seed = MixupCutmix(group_clips=2), torch.rand(8, 3, 2, 8, 8), torch.arange(8) % 5, seeds(8)
    whole = mixing.apply(clip, label, seed, 5, 0.1)
    for size in (2, 4):
        parts = zip(*(each.split(size) for each in (clip, label, seed)), strict=True)
        chunks = [mixing.apply(*part, 5, 0.1) for part in parts]
        for together, column in zip(whole, zip(*chunks, strict=True), strict=True):
            assert torch.equal(torch.cat(column), together)
    assert not torch.equal(MixupCutmix(group_clips=4).apply(clip, label, seed, 5, 0.1)[0], whole[0])


def test_an_alpha_that_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="from 0 to 2"):
        MixupCutmix(mixup_alpha=-0.1)
    with pytest.raises(InputError, match="from 0 to 2"):
        MixupCutmix(cutmix_alpha=8.0)
