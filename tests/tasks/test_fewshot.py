"""Few-shot draws have k clips of every class, and depend on the seed alone."""

import torch

from vidstill.tasks.probes.fewshot import draw_shots

LABELS = torch.tensor([0, 1, 1, 0, 3, 3, 1, 0, 3, 1, 3, 0])


def test_every_draw_has_k_clips_of_every_class():
    for draw in range(20):
        indices = draw_shots(LABELS, 3, seed=0, draw=draw)
        assert LABELS[indices].bincount().tolist() == [3, 3, 0, 3]
        assert (indices.diff() > 0).all()


def test_draws_are_reproducible_and_differ_from_each_other_and_by_seed():
    def draw_one(seed, draw):
        return draw_shots(LABELS, 1, seed=seed, draw=draw).tolist()

    assert all(draw_one(0, draw) == draw_one(0, draw) for draw in range(10))
    assert len({tuple(draw_one(0, draw)) for draw in range(10)}) > 3
    assert [draw_one(0, draw) for draw in range(10)] != [draw_one(1, draw) for draw in range(10)]


def test_fewer_shots_are_a_subset_of_more():
    for draw in range(5):
        assert set(draw_shots(LABELS, 1, seed=0, draw=draw).tolist()) < set(
            draw_shots(LABELS, 2, seed=0, draw=draw).tolist()
        )


def test_every_clip_is_equally_likely():
    counts = torch.zeros(len(LABELS))
    for draw in range(2000):
        counts[draw_shots(LABELS, 1, seed=0, draw=draw)] += 1
    assert ((counts - 500).abs() < 100).all()  # five standard deviations
