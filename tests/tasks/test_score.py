"""What scores are worth is counted as one would by hand."""

import math

import pytest
import torch

from vidstill.tasks.metrics.accuracy import compute_classification_score


def test_shares_are_counted_over_videos_and_over_classes():
    labels = torch.tensor([0, 0, 0, 2])  # class 1 is not tested
    found = compute_classification_score(torch.eye(8)[torch.tensor([0, 0, 1, 1])], labels)
    assert found.top1 == 50  # two of four videos
    assert found.mean_class_accuracy == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found.videos == 4
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.5 * 0.5 / 4))


def test_the_error_is_how_far_chance_moves_top_1():
    """Of 400 tests of 50 videos, each right with a probability of 0.7."""
    chance = torch.Generator().manual_seed(0)
    right = torch.rand(400, 50, generator=chance) < 0.7
    tests = [
        compute_classification_score(torch.eye(2)[(~each).long()], torch.zeros(50, dtype=torch.long)) for each in right
    ]
    spread = torch.tensor([each.top1 for each in tests]).std().item()
    assert spread == pytest.approx(sum(each.standard_error for each in tests) / len(tests), rel=0.15)


def test_of_equal_scores_the_class_of_the_lowest_number_comes_first():
    scores = torch.zeros(7, 7)
    found = compute_classification_score(scores, torch.arange(7))
    assert found.top1 == pytest.approx(100 / 7)  # class 0
    assert found.top5 == pytest.approx(500 / 7)
