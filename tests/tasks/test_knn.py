"""The nearest neighbours are those of a plain loop, and equal ones are taken in their order."""

import math

import pytest
import torch

from vidstill.tasks.metrics.accuracy import compute_classification_score
from vidstill.tasks.probes.knn import compute_knn_scores

CLASSES = 3


def by_hand(train, labels, vectors, k):
    """Each vector's votes: neighbours sorted by falling similarity, then by place."""
    found = []
    for vector in vectors.double():
        alike = [float(other @ vector / (other.norm() * vector.norm())) for other in train.double()]
        order = sorted(range(len(train)), key=lambda place: (-round(alike[place], 5), place))
        votes = [0.0] * CLASSES
        for place in order[:k]:
            votes[labels[place]] += math.exp(alike[place] / 0.07)
        found.append(votes)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 4, 30])
def test_votes_are_those_of_a_plain_loop(k):
    chance = torch.Generator().manual_seed(k)
    train, vectors = torch.randn(30, 5, generator=chance), torch.randn(11, 5, generator=chance)
    labels = torch.randint(CLASSES, (30,), generator=chance)
    found = compute_knn_scores(train, labels, vectors, CLASSES, [k], chunk_size=70)[k]  # two vectors at a time
    torch.testing.assert_close(found, by_hand(train, labels, vectors, k), rtol=1e-4, atol=1e-6)


def test_of_equal_neighbours_the_first_are_taken():
    train = torch.tensor([[0.0, 1], [1, 0], [2, 0], [3, 0], [4, 0]])  # four in one direction: equally alike
    labels = torch.tensor([0, 1, 2, 2, 2])
    for k, votes in ((1, [0, 1, 0]), (2, [0, 1, 1]), (3, [0, 1, 2])):
        found = compute_knn_scores(train, labels, torch.tensor([[5.0, 0]]), CLASSES, [k])[k]
        torch.testing.assert_close(found / math.exp(1 / 0.07), torch.tensor([votes]).double(), rtol=1e-5, atol=1e-9)


def test_several_numbers_of_neighbours_are_as_each_by_itself():
    chance = torch.Generator().manual_seed(0)
    train, vectors = torch.randn(20, 4, generator=chance), torch.randn(6, 4, generator=chance)
    labels = torch.arange(20) % CLASSES
    together = compute_knn_scores(train, labels, vectors, CLASSES, [3, 1, 8])
    for k in (3, 1, 8):
        assert torch.equal(together[k], compute_knn_scores(train, labels, vectors, CLASSES, [k])[k])


def test_lengths_make_no_difference():
    chance = torch.Generator().manual_seed(0)
    train, vectors = torch.randn(20, 4, generator=chance), torch.randn(6, 4, generator=chance)
    labels = torch.arange(20) % CLASSES
    longer = compute_knn_scores(train * torch.rand(20, 1, generator=chance), labels, 7 * vectors, CLASSES, [5])[5]
    torch.testing.assert_close(
        longer, compute_knn_scores(train, labels, vectors, CLASSES, [5])[5], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize(("apart", "low", "high"), [(20.0, 100, 100), (0.0, 26, 41)])
def test_separable_clouds_are_told_apart_and_noise_is_not(apart, low, high):
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(900) % CLASSES
    points = torch.randn(900, 6, generator=chance) + apart * torch.eye(CLASSES, 6)[labels]
    found = compute_knn_scores(points[:300], labels[:300], points[300:], CLASSES, [20])[20]
    assert low <= compute_classification_score(found, labels[300:]).top1 <= high  # four standard errors around a third
