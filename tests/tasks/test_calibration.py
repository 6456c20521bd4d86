"""Calibration error and likelihood against a count by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.tasks.metrics.accuracy import CALIBRATION_BINS, compute_calibration_error, compute_negative_log_likelihood

WEIGHTS = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), min_size=1, max_size=40)


def probabilities(weights: list[list[int]]) -> torch.Tensor:
    table = torch.tensor(weights, dtype=torch.float64)
    return table / table.sum(dim=1, keepdim=True)


@given(WEIGHTS, st.data())
def test_the_calibration_error_is_the_mean_distance_of_its_bins_from_their_hits(weights, data):
    table = probabilities(weights)
    labels = [data.draw(st.integers(0, 2)) for _ in weights]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(table.tolist(), labels, strict=True):
        sure = max(row)
        (place,) = [m for m in range(CALIBRATION_BINS) if m / CALIBRATION_BINS < sure <= (m + 1) / CALIBRATION_BINS]
        bins.setdefault(place, []).append((sure, row.index(sure) == label))
    expected = sum(
        abs(sum(hit for _, hit in each) / len(each) - sum(sure for sure, _ in each) / len(each)) * len(each)
        for each in bins.values()
    )
    found = compute_calibration_error(table, torch.tensor(labels))
    assert found == pytest.approx(100 * expected / len(labels), abs=1e-9)
    assert 0 <= found <= 100


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated():
    table = torch.tensor([[0.75, 0.25]], dtype=torch.float64).repeat(4, 1)
    assert compute_calibration_error(table, torch.tensor([0, 0, 0, 1])) == pytest.approx(0)


def test_a_model_that_is_sure_and_always_wrong_has_the_largest_error():
    table = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(4, 1)
    assert compute_calibration_error(table, torch.ones(4, dtype=torch.long)) == 100


def test_the_likelihood_is_that_of_the_labels():
    table = torch.tensor([[0.5, 0.5], [0.125, 0.875]], dtype=torch.float64)
    assert compute_negative_log_likelihood(table, torch.tensor([1, 0])) == pytest.approx(2 * math.log(2))


def test_what_was_held_impossible_and_came_costs_much_but_not_without_end():
    found = compute_negative_log_likelihood(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([1]))
    assert 700 < found < 710
