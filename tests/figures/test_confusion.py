"""A confusion matrix as a picture: of few classes and of many, with whatever they are called."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vidstill.figures.confusion import draw_confusion_matrix


def drawn(counts: torch.Tensor, names: list[str]) -> np.ndarray:
    png = draw_confusion_matrix(counts, names)
    assert png == draw_confusion_matrix(counts, names)
    return np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", [2, 4, 40, 101, 400])
def test_every_class_has_a_dot_or_more_on_the_diagonal(classes):
    picture = drawn(torch.eye(classes, dtype=torch.long), [f"class {n}" for n in range(classes)])
    blue = (picture[..., 2] - picture[..., 0] > 60) & (picture[..., 0] < 40)  # a share of 1: the darkest
    rows, columns = np.nonzero(blue[:, : int(0.85 * blue.shape[1])])  # without the bar beside it
    assert len(set(rows)) >= classes
    assert len(set(columns)) >= classes
    assert min(picture.shape[:2]) > 150
    assert max(picture.shape[:2]) < 1600


def test_what_is_never_confused_stays_white():
    few, all_over = torch.eye(3, dtype=torch.long), torch.ones(3, 3, dtype=torch.long)
    assert (drawn(few, ["a", "b", "c"]) > 250).mean() > (drawn(all_over, ["a", "b", "c"]) > 250).mean() + 0.1


@pytest.mark.parametrize("name", ["$x^2$", "$broken_{", "a_b", "\udcff.avi", "two\nlines", "走る", "x" * 300, "", "%s"])
def test_a_class_may_be_called_anything(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = drawn(torch.tensor([[3, 1], [0, 0]]), [name, "other"])
    assert max(picture.shape[:2]) < 1000
