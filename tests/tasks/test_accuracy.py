"""Top-1, top-5, ranks, merged views, calibration and average precision, counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.tasks.metrics.accuracy import (
    CALIBRATION_BINS,
    compute_accuracy,
    compute_average_precisions,
    compute_calibration_error,
    compute_label_ranks,
    compute_mean_average_precision,
    compute_negative_log_likelihood,
    merge_views,
    predict_classes,
)
from vidstill.utils.types import InputError

COARSE = st.integers(0, 4).map(lambda n: n / 4)  # so that many are equal


def tables(cells: st.SearchStrategy, videos: int = 12, classes: int = 8) -> st.SearchStrategy:
    widths = st.integers(1, classes)
    return widths.flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=videos))


# ---- Views ----------------------------------------------------------------------------------------------------------


def test_the_score_of_a_video_is_the_mean_of_its_views_probabilities_or_their_maximum():
    logits = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    weights = torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64).exp()
    torch.testing.assert_close(merge_views(logits), (1 / 3 + weights / weights.sum()) / 2)
    assert merge_views(logits).sum().item() == pytest.approx(1)
    confident = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # one view does not outvote the others
    assert confident.mean(dim=0).argmax() == 0
    assert merge_views(confident)[0].item() == pytest.approx((1 + 2 / (1 + math.e)) / 3, rel=1e-6)
    opposite = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    torch.testing.assert_close(merge_views(opposite, "max"), torch.ones(2, dtype=torch.float64))
    several_labels = torch.tensor([[4.0, 4.0, -9.0], [0.0, 4.0, -9.0]])  # a probability for each class
    expected = several_labels.double().sigmoid().mean(0)
    torch.testing.assert_close(merge_views(several_labels, multi_label=True), expected)


# ---- Ranks ----------------------------------------------------------------------------------------------------------


def test_top_1_and_top_5_are_percentages_of_the_videos():
    accuracy = compute_accuracy(torch.arange(10.0).repeat(4, 1), torch.tensor([9, 5, 4, 0]))  # best: 9, 8, 7, 6, 5
    assert (accuracy.top1, accuracy.top5, accuracy.videos) == (25.0, 50.0, 4)
    few = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))  # fewer than five classes
    assert compute_accuracy(few, torch.arange(6) % 3).top5 == 100
    equal = compute_accuracy(torch.full((400, 400), 1 / 400), torch.arange(400))  # the first class is predicted
    assert (equal.top1, equal.top5) == (0.25, 1.25)


@given(tables(COARSE), st.data())
def test_a_rank_counts_higher_scores_and_ties_of_lower_classes(rows, data):
    labels = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    orders = [sorted(range(len(row)), key=lambda number, row=row: (-row[number], number)) for row in rows]
    scores = torch.tensor(rows)
    ranks = compute_label_ranks(scores, torch.tensor(labels)).tolist()
    assert ranks == [order.index(label) + 1 for order, label in zip(orders, labels, strict=True)]
    assert predict_classes(scores).tolist() == [order[0] for order in orders]


def test_accuracies_are_counted_over_videos_and_over_classes():
    labels = torch.tensor([0, 0, 0, 2])  # class 1 has no videos
    accuracy = compute_accuracy(torch.eye(8)[torch.tensor([0, 0, 1, 1])], labels)
    assert (accuracy.top1, accuracy.videos) == (50, 4)
    assert accuracy.mean_class_accuracy == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert accuracy.standard_error == pytest.approx(100 * math.sqrt(0.5 * 0.5 / 4))


def test_the_standard_error_is_the_deviation_of_top_1_between_tests():
    """Of 400 tests of 50 videos, each right with a probability of 0.7."""
    is_right = torch.rand(400, 50, generator=torch.Generator().manual_seed(0)) < 0.7
    tests = [compute_accuracy(torch.eye(2)[(~each).long()], torch.zeros(50, dtype=torch.long)) for each in is_right]
    std = torch.tensor([each.top1 for each in tests]).std().item()
    assert std == pytest.approx(sum(each.standard_error for each in tests) / len(tests), rel=0.15)


# ---- Average precision ----------------------------------------------------------------------------------------------


def brute_force(scores: np.ndarray, targets: np.ndarray) -> float:
    """The area under the steps of precision over recall, threshold after threshold."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        included = scores >= threshold
        recall, precision = targets[included].sum() / targets.sum(), targets[included].mean()
        area, recall_before = area + (recall - recall_before) * precision, recall
    return area


@given(tables(st.tuples(COARSE, st.booleans())))
def test_an_average_precision_is_the_area_under_its_steps(rows):
    scores, targets = (np.array([[cell[part] for cell in row] for row in rows]) for part in (0, 1))
    precisions = compute_average_precisions(torch.from_numpy(scores), torch.from_numpy(targets))
    for number, precision in enumerate(precisions.tolist()):
        if targets[:, number].any():
            assert precision == pytest.approx(brute_force(scores[:, number], targets[:, number]))
        else:
            assert np.isnan(precision)
    if targets.any():
        expected = np.mean([brute_force(s, t) for s, t in zip(scores.T, targets.T, strict=True) if t.any()])
        assert compute_mean_average_precision(torch.from_numpy(scores), torch.from_numpy(targets)) == pytest.approx(
            100 * expected
        )


def test_an_average_precision_counted_by_hand_and_without_labels_an_error():
    """Positives at ranks 1 and 3: (1/1 + 2/3) / 2."""
    scores, targets = torch.tensor([[0.9], [0.5], [0.4]]), torch.tensor([[True], [False], [True]])
    assert compute_mean_average_precision(scores, targets) == pytest.approx(100 * (1 + 2 / 3) / 2)
    with pytest.raises(InputError, match="no video has a label"):
        compute_mean_average_precision(scores, torch.zeros_like(targets))


# ---- Calibration ----------------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), min_size=1, max_size=40)


def probabilities(weights: list[list[int]]) -> torch.Tensor:
    table = torch.tensor(weights, dtype=torch.float64)
    return table / table.sum(dim=1, keepdim=True)


@given(WEIGHTS, st.data())
def test_the_calibration_error_is_the_mean_distance_between_confidence_and_accuracy_of_the_bins(weights, data):
    table = probabilities(weights)
    labels = [data.draw(st.integers(0, 2)) for _ in weights]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(table.tolist(), labels, strict=True):
        top = max(row)
        (number,) = [m for m in range(CALIBRATION_BINS) if m / CALIBRATION_BINS < top <= (m + 1) / CALIBRATION_BINS]
        bins.setdefault(number, []).append((top, row.index(top) == label))
    expected = sum(abs(sum(correct - top for top, correct in each)) for each in bins.values())
    error = compute_calibration_error(table, torch.tensor(labels))
    assert error == pytest.approx(100 * expected / len(labels), abs=1e-9)
    assert 0 <= error <= 100


@pytest.mark.parametrize(("scores", "labels", "error"), [([0.75, 0.25], [0, 0, 0, 1], 0), ([1.0, 0.0], [1] * 4, 100)])
def test_calibration_errors_are_0_if_accuracy_is_confidence_and_100_if_it_is_always_wrong(scores, labels, error):
    table = torch.tensor([scores], dtype=torch.float64).repeat(4, 1)
    assert compute_calibration_error(table, torch.tensor(labels)) == pytest.approx(error)


def test_the_likelihood_is_that_of_the_labels_and_finite():
    table = torch.tensor([[0.5, 0.5], [0.125, 0.875]], dtype=torch.float64)
    assert compute_negative_log_likelihood(table, torch.tensor([1, 0])) == pytest.approx(2 * math.log(2))
    certain = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert 700 < compute_negative_log_likelihood(certain, torch.tensor([1])) < 710
