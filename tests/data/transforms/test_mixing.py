"""Mixup and CutMix on the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from authors_draws import build_weights, replay_mixing
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.transforms.mixup import MixupCutmix, compute_cutmix_box, draw_beta, mix_pairs, smooth_labels
from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import InputError

starts = st.integers(0, 2**40)
sides = st.integers(1, 40)
MIXUP, CUTMIX = MixupCutmix(cutmix_alpha=0.0), MixupCutmix(mixup_alpha=0.0)


def seeds(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n)


def draw_plane(mixing: MixupCutmix, seed: int, height: int, width: int) -> torch.Tensor:
    """Return the weights of the pixels of every frame of a group, whose first seed this is."""
    weights, label_weights = mixing.draw_weights(seeds(2, seed), 3, height, width)
    torch.testing.assert_close(label_weights, weights.mean(dim=(1, 2, 3)))
    return weights[0, 0]


def draw_planes(mixing: MixupCutmix, count: int, height: int, width: int) -> torch.Tensor:
    """Return `draw_plane` of the seeds from 0, drawn at once: clip by clip, which some of them show to be the same."""
    planes = replace(mixing, mode="elem").draw_weights(seeds(count), 3, height, width)[0][:, 0]
    for seed in range(0, count, count // 20):
        assert torch.equal(planes[seed], draw_plane(mixing, seed, height, width))
    return planes


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
    keep = draw_plane(MIXUP, start, height, width)
    assert keep.shape == (height, width)
    assert (keep == keep[0, 0]).all()
    assert 0 <= keep[0, 0] <= 1


@given(starts, sides, sides)
def test_cutmix_replaces_one_box(start, height, width):
    cut = draw_plane(CUTMIX, start, height, width) == 0
    rows, columns = cut.any(dim=1), cut.any(dim=0)
    assert torch.equal(cut, rows[:, None] & columns)
    for line in (rows, columns):
        positions = line.nonzero()[:, 0]
        assert len(positions) == 0 or len(positions) == positions[-1] - positions[0] + 1
    assert (draw_plane(CUTMIX, start, height, width)[~cut] == 1).all()


def test_a_seeds_third_and_fourth_draws_are_the_row_and_column_of_the_boxs_centre():
    centers = (draw_uniform(seeds(200), "mixing", 4)[:, 2:] * torch.tensor([60, 40])).floor().long()
    for (row, column), plane in zip(centers.tolist(), draw_planes(CUTMIX, 200, 60, 40), strict=True):
        cut = plane == 0
        assert cut[row, column] or not cut.any()
        if cut.any() and not (cut[0].any() or cut[-1].any() or cut[:, 0].any() or cut[:, -1].any()):
            rows, columns = cut.nonzero().unbind(dim=1)
            assert (rows.min() + rows.max() + 1, columns.min() + columns.max() + 1) == (2 * row, 2 * column)


def test_a_cutmix_box_has_the_drawn_area_unless_it_is_clipped():
    shares = 1 - draw_beta(seeds(400), "cutmix", 1.0)
    boxes = draw_planes(CUTMIX, 400, 200, 100) == 0
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
    keep = draw_plane(mixing, start, 8, 8)
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
    keeps = draw_planes(mixing, 2000, 64, 64)
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


# ---- One draw for a group, a pair or a clip (timm's modes) -----------------------------------------------------------


@given(starts, st.sampled_from([MIXUP, CUTMIX, MixupCutmix(probability=0.7, switch_probability=0.4)]))
def test_in_mode_elem_each_clip_is_mixed_as_its_own_seed_decides(start, mixing):
    clip, label, seed = torch.rand(6, 3, 2, 8, 10), torch.arange(6), seeds(6, start)
    mixed, target = replace(mixing, mode="elem").apply(clip, label, seed, 6, 0.1)
    for k in range(6):
        whole, targets = mixing.apply(clip, label, seed[k].expand(6), 6, 0.1)
        torch.testing.assert_close(mixed[k], whole[k])
        torch.testing.assert_close(target[k], targets[k])


@given(starts, st.sampled_from([MIXUP, CUTMIX, MixupCutmix(probability=0.7, switch_probability=0.4)]))
def test_in_mode_pair_a_clip_and_its_partner_are_mixed_as_the_first_ones_seed_decides(start, mixing):
    clip, label, seed = torch.rand(6, 3, 2, 8, 10), torch.arange(6), seeds(6, start)
    mixed, target = replace(mixing, mode="pair").apply(clip, label, seed, 6, 0.1)
    for k in range(6):
        whole, targets = mixing.apply(clip, label, seed[min(k, 5 - k)].expand(6), 6, 0.1)
        torch.testing.assert_close(mixed[k], whole[k])
        torch.testing.assert_close(target[k], targets[k])


@pytest.mark.parametrize("mode", ["pair", "elem"])
def test_the_draws_of_a_group_differ(mode):
    weights, label_weights = replace(MIXUP, mode=mode).draw_weights(seeds(8), 2, 16, 16)
    assert weights.shape == (8, 1, 16, 16)
    assert len(label_weights.unique()) == (4 if mode == "pair" else 8)
    mixed = MixupCutmix(mode=mode, group_clips=2).apply(torch.rand(4, 3, 2, 8, 8), seeds(4), seeds(4), 4, 0.0)
    assert mixed[1].count_nonzero(dim=1).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("alphas", [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_a_batch_is_mixed_as_timm_mixes_it_with_the_same_draws(mode, alphas, monkeypatch):
    data = pytest.importorskip("timm.data", reason="timm is not installed: pip install 'vidstill[teachers]'")
    # timm's newer versions give boxes of an odd side one more row; the authors' version and ours do not
    monkeypatch.setattr("timm.data.mixup.rand_bbox", draw_released_box)
    mixing = MixupCutmix(
        mixup_alpha=alphas[0], cutmix_alpha=alphas[1], probability=0.7, switch_probability=0.4, mode=mode
    )
    theirs = data.Mixup(*alphas, prob=0.7, switch_prob=0.4, mode=mode, label_smoothing=0.1, num_classes=7)
    image, label, height, width = torch.rand(6, 3, 24, 20), torch.tensor([0, 3, 6, 3, 1, 2]), 24, 20
    for seed in range(30):
        np.random.seed(seed)
        expected, expected_target = theirs(image.clone(), label)
        draws = replay_mixing(mixing, np.random.RandomState(seed), 6, height, width)
        weights = build_weights(draws, mode, height, width)
        mixed, target = mix_pairs(image[:, :, None], smooth_labels(label, 7, 0.1), *weights)
        torch.testing.assert_close(mixed[:, :, 0], expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(target, expected_target, rtol=1e-5, atol=1e-6)


def draw_released_box(shape: tuple[int, ...], lam: float, margin: float = 0.0, count: int | None = None):
    center = torch.tensor([[np.random.randint(side)] for side in shape[-2:]]).float()
    return compute_cutmix_box(torch.tensor([float(lam)]), center, *shape[-2:])[:, 0].int().tolist()


# ---- MVD's released cut: spec/mvd.md, section 8.3 --------------------------------------------------------------------


RELEASED = replace(CUTMIX, cut="released_time_rows")


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("shape", [(4, 20, 24), (4, 24, 12), (40, 16, 16), (16, 30, 1), (1, 8, 8)])
def test_a_released_box_of_a_frame_is_applied_to_time_and_rows(shape, mode):
    """The authors index a clip as they do an image: the box's rows number frames, and its columns rows."""
    released, mixing = replace(RELEASED, mode=mode), replace(CUTMIX, mode=mode)
    _, height, width = shape
    clip, label = torch.rand(4, 3, *shape), torch.arange(4)
    for start in range(40):
        mixed, target = released.apply(clip, label, seeds(4, start), 4, 0.1)
        expected = clip.clone().numpy()
        keep, shares = mixing.draw_weights(seeds(4, start), 1, height, width)
        for k in range(4):
            rows, columns = (keep[k % len(keep), 0] == 0).nonzero().unbind(dim=1)
            if len(rows):
                y, x = (slice(int(line.min()), int(line.max()) + 1) for line in (rows, columns))
                expected[k][:, y, x] = clip.numpy()[3 - k][:, y, x]
        assert torch.equal(mixed, torch.from_numpy(expected))
        smooth, shares = smooth_labels(label, 4, 0.1), shares[:, None]
        torch.testing.assert_close(target, smooth * shares + smooth.flip(0) * (1 - shares))


def test_a_released_cut_of_16_frames_replaces_nothing_in_60_of_100_batches_and_else_most_frames():
    draws = [replace(RELEASED, mode="elem").draw_weights(each, 16, 224, 224) for each in seeds(4000).split(500)]
    weights, shares = (torch.cat(parts) for parts in zip(*draws, strict=True))
    assert weights.shape == (4000, 16, 224, 1)
    cut_frames = (weights == 0).any(dim=2).sum(dim=(1, 2)).double()
    assert (cut_frames == 0).double().mean().item() == pytest.approx(0.60, abs=0.025)
    assert cut_frames[cut_frames > 0].mean().item() == pytest.approx(14.7, abs=0.3)
    unchanged = shares[cut_frames == 0]
    assert (unchanged < 1).double().mean() > 0.95  # their labels are mixed all the same
    intended = replace(CUTMIX, mode="elem").draw_weights(seeds(500), 16, 224, 224)[1]
    assert torch.equal(shares[:500], intended)


def test_a_released_cut_does_not_change_mixup():
    clip, label = torch.rand(4, 3, 2, 8, 8), torch.arange(4)
    released = replace(MIXUP, cut="released_time_rows").apply(clip, label, seeds(4), 4, 0.1)
    for result, expected in zip(released, MIXUP.apply(clip, label, seeds(4), 4, 0.1), strict=True):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, MixupCutmix(), MixupCutmix(mode="pair"), RELEASED])
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
