"""Top-1, top-5 and merged views, counted by hand."""

import pytest
import torch

from vidstill.downstream.accuracy import accuracy, merged


def test_a_videos_score_is_the_mean_of_its_views_probabilities():
    logits = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    sure = torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64).exp()
    expected = (1 / 3 + sure / sure.sum()) / 2
    torch.testing.assert_close(merged(logits), expected)
    assert merged(logits).sum().item() == pytest.approx(1)


def test_one_sure_view_cannot_outvote_as_logits_would():
    logits = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert logits.mean(dim=0).argmax() == 0
    torch.testing.assert_close(merged(logits)[0].item(), (1 + 2 / (1 + torch.tensor(1.0).exp().item())) / 3)


def test_a_videos_score_may_be_the_largest_of_its_views_probabilities():
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    torch.testing.assert_close(merged(logits, "max"), torch.ones(2, dtype=torch.float64))


def test_top_1_and_top_5_are_shares_of_the_videos_in_percent():
    scores = torch.arange(10.0).repeat(4, 1)  # 9 is best, then 8, 7, 6, 5
    found = accuracy(scores, torch.tensor([9, 5, 4, 0]))
    assert (found.top1, found.top5, found.videos) == (25.0, 50.0, 4)


def test_with_fewer_than_five_classes_top_5_has_them_all():
    found = accuracy(torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    assert found.top5 == 100
