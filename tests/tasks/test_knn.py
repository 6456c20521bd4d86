"""The nearest-neighbour probe votes as a plain loop does, ties go to the first clip; few-shot draws are balanced."""

import math

import pytest
import torch

from vidstill.pipelines.probe.fit import draw_shots
from vidstill.tasks.metrics.accuracy import compute_accuracy
from vidstill.tasks.probes.knn import compute_knn_scores

CLASSES = 3
LABELS = torch.tensor([0, 1, 1, 0, 3, 3, 1, 0, 3, 1, 3, 0])


def compute_votes(train, labels, vectors, k):
    """Return each vector's votes: neighbours by descending similarity, then by index."""
    all_votes = []
    for vector in vectors.double():
        similarity = [float(other @ vector / (other.norm() * vector.norm())) for other in train.double()]
        order = sorted(range(len(train)), key=lambda index: (-round(similarity[index], 5), index))
        votes = [0.0] * CLASSES
        for index in order[:k]:
            votes[labels[index]] += math.exp(similarity[index] / 0.07)
        all_votes.append(votes)
    return torch.tensor(all_votes, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 4, 30])
def test_votes_are_those_of_a_plain_loop_and_of_directions_alone(k):
    generator = torch.Generator().manual_seed(k)
    train, vectors = torch.randn(30, 5, generator=generator), torch.randn(11, 5, generator=generator)
    labels = torch.randint(CLASSES, (30,), generator=generator)
    votes = compute_knn_scores(train, labels, vectors, CLASSES, [k], chunk_size=70)[k]  # two vectors at a time
    torch.testing.assert_close(votes, compute_votes(train, labels, vectors, k), rtol=1e-4, atol=1e-6)
    several = compute_knn_scores(train, labels, vectors, CLASSES, [3, k, 8], chunk_size=70)
    assert torch.equal(several[k], votes)
    scaled = compute_knn_scores(train * torch.rand(30, 1, generator=generator), labels, 7 * vectors, CLASSES, [k])[k]
    torch.testing.assert_close(scaled, votes, rtol=1e-3, atol=1e-6)


def test_ties_go_to_the_first_neighbours():
    train = torch.tensor([[0.0, 1], [1, 0], [2, 0], [3, 0], [4, 0]])  # four in one direction: equally similar
    labels = torch.tensor([0, 1, 2, 2, 2])
    for k, expected in ((1, [0, 1, 0]), (2, [0, 1, 1]), (3, [0, 1, 2])):
        votes = compute_knn_scores(train, labels, torch.tensor([[5.0, 0]]), CLASSES, [k])[k]
        torch.testing.assert_close(votes / math.exp(1 / 0.07), torch.tensor([expected]).double(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("distance", "low", "high"), [(20.0, 100, 100), (0.0, 26, 41)])
def test_separable_clouds_are_classified_and_noise_is_at_random(distance, low, high):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(900) % CLASSES
    points = torch.randn(900, 6, generator=generator) + distance * torch.eye(CLASSES, 6)[labels]
    votes = compute_knn_scores(points[:300], labels[:300], points[300:], CLASSES, [20])[20]
    assert low <= compute_accuracy(votes, labels[300:]).top1 <= high  # four standard errors around a third


def test_few_shot_draws_have_k_clips_of_every_class_and_fewer_shots_are_a_subset():
    for draw in range(20):
        indices = draw_shots(LABELS, 3, seed=0, draw=draw)
        assert LABELS[indices].bincount().tolist() == [3, 3, 0, 3]
        assert (indices.diff() > 0).all()
        assert set(draw_shots(LABELS, 1, seed=0, draw=draw).tolist()) < set(indices.tolist())


def test_few_shot_draws_are_reproducible_and_every_clip_is_equally_likely():
    draws = [[draw_shots(LABELS, 1, seed=seed, draw=draw).tolist() for draw in range(2000)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0][:10] != draws[2][:10]
    assert len(set(map(tuple, draws[0][:10]))) > 3
    counts = torch.tensor(draws[0]).flatten().bincount(minlength=len(LABELS))
    assert ((counts - 500).abs() < 100).all()  # five standard deviations
