"""Precision over recall as a picture: of few actions and of many, with whatever they are called."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from vidstill.figures.precision_recall import draw_precision_recall
from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP


def score(*each: tuple[str, list[int], int]) -> FrameMAP:
    """Of actions with these names, ranks of their hits, and so many annotated boxes."""
    found = [
        ActionResult(number, name, annotated, 100, np.array(ranks, np.int64))
        for number, (name, ranks, annotated) in enumerate(each, 1)
    ]
    return FrameMAP(tuple(found), "score_order", 0.5, 10, {}, 0)


def drawn(found: FrameMAP) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(draw_precision_recall(found))).convert("RGB")).astype(int)


def blue(picture: np.ndarray) -> int:
    return int((picture[..., 2] - picture[..., 0] > 20).sum())


@pytest.mark.parametrize("actions", [0, 1, 3, 80])
def test_any_number_of_actions_has_room(actions):
    picture = drawn(score(*((f"action {number}", [1, 2, 5], 9) for number in range(actions))))
    assert min(picture.shape[:2]) > 100
    assert max(picture.shape[:2]) < 2000
    assert blue(picture) >= 3000 * min(actions, 60)


def test_the_same_score_is_the_same_picture():
    found = score(("it", [1, 2, 5], 9), ("other", [], 2))
    assert draw_precision_recall(found) == draw_precision_recall(found)


def test_the_area_is_the_average_precision():
    whole, half, nothing = (blue(drawn(score(("it", ranks, 4)))) for ranks in ([1, 2, 3, 4], [1, 2], []))
    assert half == pytest.approx(whole / 2, rel=0.05)
    assert nothing == 0


def test_an_action_that_is_not_annotated_has_no_panel():
    one = score(("it", [1], 2))
    assert drawn(score(("it", [1], 2), ("other", [], 0))).shape == drawn(one).shape


@pytest.mark.parametrize("name", ["$x^2$", "$broken_{", "a_b", "\udcff.avi", "two\nlines", "走る", "x" * 300, "", "%s"])
def test_an_action_may_be_called_anything(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(score((name, [1, 3], 2)))
