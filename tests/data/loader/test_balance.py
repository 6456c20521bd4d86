"""Classes of unequal sizes: how often an epoch shows a clip, and that nothing else about an epoch changes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import RowDataset, build_manifest

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips, compute_expected_counts
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.loader.order import count_previous_occurrences, draw_epoch_order
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.types import InputError

CONFIG = ClipsConfig(dataset="own", sampling=SpanSampling(num_frames=4, stride=2), size=(16, 16), class_balance=1.0)


def batches(counts, balance, *, per_step: int, steps: int, broken=(), **how):
    manifest = build_manifest(counts)
    expected_counts = compute_expected_counts(manifest, balance) if balance else None
    dataset = RowDataset(manifest, broken=broken, expected_counts=expected_counts)
    how = {"max_broken_fraction": 0.5, "steps_per_epoch": len(dataset) // per_step, **how}
    return list(
        iter_train_batches(dataset, videos_per_step=per_step, total_steps=steps, device=torch.device("cpu"), **how)
    )


sizes = st.lists(st.integers(1, 30), min_size=2, max_size=5).map(tuple)
balances = st.floats(0, 1)


@given(sizes, balances)
def test_a_class_has_its_share_to_the_power_of_one_minus_the_balance(counts, balance):
    times = compute_expected_counts(build_manifest(counts), balance)
    shares = np.array(counts, float) ** (1 - balance)
    expected = np.repeat(shares / shares.sum() * sum(counts) / counts, counts)
    np.testing.assert_allclose(times, expected)
    assert times.sum() == pytest.approx(sum(counts))


def test_the_rarest_of_several_labels_counts():
    names = [f"{number}.mp4" for number in range(9)]
    rows = VideoTable(Path("videos"), names, {"label": [0] * 9}, extra_labels=[(4, 1)])
    times = compute_expected_counts(Manifest(rows, ("0", "1"), "made up", Path("videos"), "", multi_label=True), 1.0)
    assert times[4] == pytest.approx(9 * times[0])


@settings(max_examples=40)
@given(sizes, balances, st.integers(0, 10))
def test_an_epoch_shows_a_clip_as_often_as_expected_up_to_rounding(counts, balance, epoch):
    times = compute_expected_counts(build_manifest(counts), balance)
    order = draw_epoch_order(sum(counts), 3, epoch, times)
    assert len(order) == sum(counts)
    counts_shown = np.bincount(order, minlength=sum(counts))
    assert (np.abs(counts_shown - times) < 1 + 1e-9).all()


def test_over_many_epochs_every_clip_is_shown_as_often_as_expected():
    times = compute_expected_counts(build_manifest((20, 5, 2)), 0.7)
    counts_shown = sum(np.bincount(draw_epoch_order(27, 0, epoch, times), minlength=27) for epoch in range(600))
    np.testing.assert_allclose(counts_shown / 600, times, atol=0.08)  # 4 deviations of a share of one half


def test_equal_classes_are_shown_once_an_epoch_at_any_balance():
    for balance in (0.0, 0.3, 1.0):
        times = compute_expected_counts(build_manifest((6, 6)), balance)
        assert sorted(draw_epoch_order(12, 0, 5, times).tolist()) == list(range(12))


def test_an_epochs_order_depends_on_the_seed_and_the_epoch_alone():
    times = compute_expected_counts(build_manifest((9, 2)), 1.0)
    orders = {
        tuple(draw_epoch_order(11, seed, epoch, times)) for seed in range(3) for epoch in range(3) for _ in range(2)
    }
    assert len(orders) == 9


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_previous_occurrences_are_counted(order):
    occurrences: Counter[int] = Counter()
    expected = []
    for video in order:
        expected.append(occurrences[video])
        occurrences[video] += 1
    assert count_previous_occurrences(np.array(order)).tolist() == expected


def test_a_clip_that_is_shown_twice_in_an_epoch_is_drawn_anew():
    seeds = torch.cat([batch.seed for batch in batches((16, 2), 1.0, per_step=6, steps=9)])
    assert len(seeds.unique()) == len(seeds) == 54


def test_without_balance_an_epoch_is_a_permutation():
    for one, other in zip(
        batches((9, 3), 0.0, per_step=4, steps=6), batches((6, 6), 1.0, per_step=4, steps=6), strict=True
    ):
        assert len(one.label.unique()) == len(other.label.unique()) == 4  # no clip twice
    labels = torch.cat([batch.label for batch in batches((9, 3), 0.0, per_step=4, steps=3)])
    assert labels.tolist() == draw_epoch_order(12, 0, 0).tolist()


@settings(max_examples=15)
@given(sizes, st.sampled_from([0.0, 0.8]), st.integers(0, 8), st.integers(1, 3))
def test_a_resumed_run_and_two_processes_see_what_one_sees(counts, balance, start, accumulation):
    counts = (*counts, 4 * accumulation)
    how = {"per_step": 4 * accumulation, "steps": 9}
    whole = batches(counts, balance, **how, accumulation_steps=2 * accumulation)
    resumed = batches(counts, balance, **how, accumulation_steps=2 * accumulation, start_step=start)
    ranks = [
        batches(counts, balance, **how, accumulation_steps=accumulation, rank=rank, world_size=2) for rank in range(2)
    ]
    both = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    for one, other in zip(whole[start * 2 * accumulation :], resumed, strict=True):
        assert torch.equal(one.seed, other.seed)
    for one, other in zip(whole, both, strict=True):
        assert torch.equal(one.seed, other.seed)
        assert torch.equal(one.label, other.label)


@settings(max_examples=15)
@given(st.sets(st.integers(0, 19), max_size=4))
def test_another_clip_replaces_a_broken_one_with_its_draws(broken):
    plain, mended = (batches((16, 4), 1.0, per_step=5, steps=8, broken=tuple(out)) for out in ((), broken))
    for one, other in zip(plain, mended, strict=True):
        assert torch.equal(one.seed, other.seed)
        assert not broken & set(other.label.tolist())
        is_whole = [label not in broken for label in one.label.tolist()]
        assert torch.equal(one.label[is_whole], other.label[is_whole])


def test_a_clip_that_an_epoch_leaves_out_is_the_last_replacement():
    epochs = [
        set(draw_epoch_order(3, 0, epoch, compute_expected_counts(build_manifest((1, 2)), 1.0)).tolist())
        for epoch in range(40)
    ]
    epoch = next(n for n, counts_shown in enumerate(epochs) if len(counts_shown) == 2)
    omitted = ({0, 1, 2} - epochs[epoch]).pop()
    how = {"per_step": 1, "steps": 3 * epoch + 3, "start_step": 3 * epoch, "max_broken_fraction": 1.0}
    counts_shown = batches((1, 2), 1.0, broken=tuple(epochs[epoch]), **how)
    assert {int(batch.label) for batch in counts_shown} == {omitted}


def test_classes_without_labels_cannot_be_balanced():
    rows = VideoTable(Path("videos"), ["a.mp4"])
    with pytest.raises(InputError, match=r"videos has no labels, so that classes cannot be balanced"):
        TrainClips(Manifest(rows, (), "flat", Path("videos"), ""), CONFIG, seed=0)
