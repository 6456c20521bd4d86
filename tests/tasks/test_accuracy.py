"""Top-1, top-5, ranks, merged views and average precisions, counted by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.tasks.metrics.accuracy import (
    compute_accuracy,
    compute_average_precisions,
    compute_label_ranks,
    compute_mean_average_precision,
    merge_views,
    predict_classes,
)
from vidstill.utils.types import InputError

COARSE = st.integers(0, 4).map(lambda n: n / 4)  # so that many are equal


def tables(cells: st.SearchStrategy, videos: int = 12, classes: int = 8) -> st.SearchStrategy:
    widths = st.integers(1, classes)
    return widths.flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=videos))


# ---- Views ----------------------------------------------------------------------------------------------------------


def test_a_videos_score_is_the_mean_of_its_views_probabilities():
    logits = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    sure = torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64).exp()
    expected = (1 / 3 + sure / sure.sum()) / 2
    torch.testing.assert_close(merge_views(logits), expected)
    assert merge_views(logits).sum().item() == pytest.approx(1)


def test_one_sure_view_cannot_outvote_as_logits_would():
    logits = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert logits.mean(dim=0).argmax() == 0
    torch.testing.assert_close(merge_views(logits)[0].item(), (1 + 2 / (1 + torch.tensor(1.0).exp().item())) / 3)


def test_a_videos_score_may_be_the_largest_of_its_views_probabilities():
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    torch.testing.assert_close(merge_views(logits, "max"), torch.ones(2, dtype=torch.float64))


# ---- Ranks ----------------------------------------------------------------------------------------------------------


def test_top_1_and_top_5_are_shares_of_the_videos_in_percent():
    scores = torch.arange(10.0).repeat(4, 1)  # 9 is best, then 8, 7, 6, 5
    found = compute_accuracy(scores, torch.tensor([9, 5, 4, 0]))
    assert (found.top1, found.top5, found.videos) == (25.0, 50.0, 4)


def test_with_fewer_than_five_classes_top_5_has_them_all():
    found = compute_accuracy(torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    assert found.top5 == 100


@given(tables(COARSE), st.data())
def test_a_rank_is_the_place_in_the_order_of_scores_where_of_equal_ones_the_lowest_class_comes_first(rows, data):
    labels = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    orders = [sorted(range(len(row)), key=lambda number, row=row: (-row[number], number)) for row in rows]
    scores = torch.tensor(rows)
    found = compute_label_ranks(scores, torch.tensor(labels))
    assert found.tolist() == [order.index(label) + 1 for order, label in zip(orders, labels, strict=True)]
    assert predict_classes(scores).tolist() == [order[0] for order in orders]


def test_a_model_that_knows_nothing_is_right_of_the_first_class_alone():
    alike = torch.full((400, 400), 1 / 400)
    found = compute_accuracy(alike, torch.arange(400))
    assert (found.top1, found.top5) == (0.25, 1.25)


# ---- Average precision ----------------------------------------------------------------------------------------------


def brute_force(scores: np.ndarray, targets: np.ndarray) -> float:
    """The area under the steps of precision over recall, threshold after threshold."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall, precision = targets[taken].sum() / targets.sum(), targets[taken].mean()
        area, recall_before = area + (recall - recall_before) * precision, recall
    return area


@given(tables(st.tuples(COARSE, st.booleans())))
def test_an_average_precision_is_the_area_under_its_steps(rows):
    scores, targets = (np.array([[cell[part] for cell in row] for row in rows]) for part in (0, 1))
    found = compute_average_precisions(torch.from_numpy(scores), torch.from_numpy(targets))
    for number, precision in enumerate(found.tolist()):
        if targets[:, number].any():
            assert precision == pytest.approx(brute_force(scores[:, number], targets[:, number]))
        else:
            assert np.isnan(precision)
    if targets.any():
        expected = np.mean([brute_force(s, t) for s, t in zip(scores.T, targets.T, strict=True) if t.any()])
        assert compute_mean_average_precision(torch.from_numpy(scores), torch.from_numpy(targets)) == pytest.approx(
            100 * expected
        )


def test_the_precision_of_a_short_list_is_counted_by_hand():
    """Found 1st and 3rd of three: (1/1 + 2/3) / 2."""
    scores, targets = torch.tensor([[0.9], [0.5], [0.4]]), torch.tensor([[True], [False], [True]])
    assert compute_mean_average_precision(scores, targets) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_without_a_single_label_there_is_no_average_precision():
    with pytest.raises(InputError, match="no video has a label"):
        compute_mean_average_precision(torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.bool))
