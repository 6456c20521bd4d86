"""Few shots: every draw has its clips of every class, and is the same whoever draws it."""

import torch

from vidstill.tasks.probes.fewshot import draw_shots

LABELS = torch.tensor([0, 1, 1, 0, 3, 3, 1, 0, 3, 1, 3, 0])


def test_every_draw_has_exactly_so_many_clips_of_every_class_that_there_is():
    for draw in range(20):
        places = draw_shots(LABELS, 3, seed=0, draw=draw)
        assert LABELS[places].bincount().tolist() == [3, 3, 0, 3]
        assert (places.diff() > 0).all()


def test_draws_are_the_same_again_and_differ_from_one_another_and_by_the_seed():
    def told(seed, draw):
        return draw_shots(LABELS, 1, seed=seed, draw=draw).tolist()

    assert all(told(0, draw) == told(0, draw) for draw in range(10))
    assert len({tuple(told(0, draw)) for draw in range(10)}) > 3
    assert [told(0, draw) for draw in range(10)] != [told(1, draw) for draw in range(10)]


def test_the_clips_of_fewer_shots_are_among_those_of_more():
    for draw in range(5):
        assert set(draw_shots(LABELS, 1, seed=0, draw=draw).tolist()) < set(
            draw_shots(LABELS, 2, seed=0, draw=draw).tolist()
        )


def test_every_clip_is_drawn_as_often_as_any_other():
    counts = torch.zeros(len(LABELS))
    for draw in range(2000):
        counts[draw_shots(LABELS, 1, seed=0, draw=draw)] += 1
    assert ((counts - 500).abs() < 100).all()  # five standard deviations
