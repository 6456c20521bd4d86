"""Charts: confusion matrices, precision over recall, timelines, losses and accuracies."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from vidstill.figures.metrics import draw_confusion_matrix, draw_precision_recall
from vidstill.figures.timeline import CLASS_COLORS, OTHER_COLOR, Timeline, draw_timeline, format_clock
from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP

# ---- Confusion matrices ---------------------------------------------------------------------------------------------


def decode(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def draw_confusion(counts: torch.Tensor, names: list[str]) -> np.ndarray:
    return decode(draw_confusion_matrix(counts, names))


@pytest.mark.parametrize("classes", [2, 4, 40, 101, 400])
def test_every_class_has_a_dot_or_more_on_the_diagonal(classes):
    image = draw_confusion(torch.eye(classes, dtype=torch.long), [f"class {n}" for n in range(classes)])
    blue = (image[..., 2] - image[..., 0] > 60) & (image[..., 0] < 40)  # a share of 1: the darkest
    rows, columns = np.nonzero(blue[:, : int(0.85 * blue.shape[1])])  # without the bar beside it
    assert len(set(rows)) >= classes
    assert len(set(columns)) >= classes
    assert min(image.shape[:2]) > 150
    assert max(image.shape[:2]) < 1600


def test_what_is_never_confused_stays_white():
    few, all_over = torch.eye(3, dtype=torch.long), torch.ones(3, 3, dtype=torch.long)
    white, rest = ((draw_confusion(counts, ["a", "b", "c"]) > 250).mean() for counts in (few, all_over))
    assert white > rest + 0.1


# ---- Precision over recall ------------------------------------------------------------------------------------------


def score(*each: tuple[str, list[int], int]) -> FrameMAP:
    """Of actions with these names, ranks of their hits, and so many annotated boxes."""
    actions = [
        ActionResult(number, name, annotated, 100, np.array(ranks, np.int64))
        for number, (name, ranks, annotated) in enumerate(each, 1)
    ]
    return FrameMAP(tuple(actions), "score_order", 0.5, 10, {}, 0)


def count_blue(*each: tuple[str, list[int], int]) -> int:
    image = decode(draw_precision_recall(score(*each)))
    return int((image[..., 2] - image[..., 0] > 20).sum())


@pytest.mark.parametrize("actions", [0, 1, 3, 80])
def test_any_number_of_actions_has_room(actions):
    each = [(f"action {number}", [1, 2, 5], 9) for number in range(actions)]
    height, width, _ = decode(draw_precision_recall(score(*each))).shape
    assert min(height, width) > 100
    assert max(height, width) < 2000
    assert count_blue(*each) >= 3000 * min(actions, 60)


def test_the_area_is_the_average_precision():
    whole, two, nothing = (count_blue(("it", ranks, 4)) for ranks in ([1, 2, 3, 4], [1, 2], []))
    assert two == pytest.approx(whole / 2, rel=0.05)
    assert nothing == 0


def test_an_action_that_is_not_annotated_has_no_panel():
    one, two = (decode(draw_precision_recall(score(("it", [1], 2), *more))) for more in ([], [("other", [], 0)]))
    assert one.shape == two.shape


@pytest.mark.parametrize("name", ["$x^2$", "$broken_{", "a_b", "\udcff.avi", "two\nlines", "走る", "x" * 300, "", "%s"])
def test_a_class_may_be_called_anything_and_the_same_chart_is_the_same_bytes(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw, data in (
            (draw_confusion_matrix, (torch.tensor([[3, 1], [0, 0]]), [name, "other"])),
            (draw_precision_recall, (score((name, [1, 3], 2), ("other", [], 2)),)),
        ):
            png = draw(*data)
            assert png == draw(*data)
            assert max(decode(png).shape[:2]) < 1000


# ---- Timelines ------------------------------------------------------------------------------------------------------


ODD = ["$\\frac{a}{0}$ $", "_hidden", "走る人", "a\nb\x1b[31m\u202e", "x" * 500, "", "\udcff", "{}%"]


def timeline(windows: int = 6, classes: int = 3, *, hop: float = 0.5, length: float = 1.0, seed: int = 0) -> Timeline:
    shares = np.random.default_rng(seed).dirichlet(np.ones(classes), windows).astype(np.float32)
    starts = hop * np.arange(windows)
    return Timeline(starts, starts + length, shares)


def best_classes(firsts: list[int], classes: int = 3) -> Timeline:
    """Windows of a second, one after another, in which these classes come first."""
    shares = np.full((len(firsts), classes), 0.1 / classes, np.float32)
    shares[np.arange(len(firsts)), firsts] += 0.9
    starts = np.arange(len(firsts), dtype=float)
    return Timeline(starts, starts + 1, shares)


@given(
    windows=st.integers(1, 9),
    hop=st.floats(0.1, 2, allow_subnormal=False),
    length=st.floats(0.1, 3, allow_subnormal=False),
    moment=st.floats(-1, 30),
)
def test_the_window_speaks_whose_middle_is_nearest(windows, hop, length, moment):
    line = timeline(windows, hop=hop, length=length)
    distances = np.abs(line.starts + length / 2 - moment)
    assert distances[line.find_window(moment)] <= distances.min() + 1e-9


def test_runs_join_windows_with_the_same_class_first_and_leave_no_time_out():
    runs = best_classes([0, 0, 2, 1, 1, 1]).find_segments()
    assert [(label, start, end) for start, end, label, _ in runs] == [(0, 0, 2.0), (2, 2.0, 3.0), (1, 3.0, 6)]
    assert all(share == pytest.approx(0.9 + 0.1 / 3, abs=1e-6) for *_, share in runs)


def test_the_classes_that_come_first_are_drawn_the_largest_before_the_others():
    line = best_classes([7, 7, 7, 4, 4, 2], classes=9)
    assert line.find_leading_classes(3) == [7, 4, 2]
    assert len(line.assign_colors()) == len(CLASS_COLORS)
    assert OTHER_COLOR not in line.assign_colors().values()


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0.0, 0, "0:00"),
        (7.4, 0, "0:07"),
        (59.96, 1, "1:00.0"),
        (754.0, 0, "12:34"),
        (3725.0, 0, "1:02:05"),
        (0.05, 2, "0:00.05"),
    ],
)
def test_moments_are_said_as_on_a_clock(seconds, digits, text):
    assert format_clock(seconds, digits) == text


def draw(*arguments) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = draw_timeline(*arguments)
    assert data.startswith(b"\x89PNG")
    return decode(data)


def colours_in(pixels: np.ndarray) -> list[str]:
    """The colours of ours in a row of pixels, in the order in which they come."""
    names = {ImageColor.getrgb(colour)[:3]: colour for colour in (*CLASS_COLORS, OTHER_COLOR)}
    colors = [names[tuple(pixel)] for pixel in pixels.tolist() if tuple(pixel) in names]
    return [colour for n, colour in enumerate(colors) if n == 0 or colors[n - 1] != colour]


def test_the_strip_shows_which_class_is_first_and_when():
    line = best_classes([1, 1, 0, 2, 2, 2])
    names = line.assign_colors()
    rows = [colours_in(row[:820]) for row in draw("clip.mp4", line, ["a", "b", "c"])]
    assert [names[label] for label in (1, 0, 2)] in rows


@pytest.mark.parametrize("windows", [1, 2, 300])
def test_any_name_and_any_number_of_windows_can_be_drawn(windows):
    picture = draw("dir/" + "".join(ODD) + ".mp4", timeline(windows, len(ODD)), ODD, "".join(ODD))
    assert picture.shape == (440, 1100, 3)


@pytest.mark.parametrize("seconds", [0.001, 0.04, 100_000.0])
def test_a_single_class_and_windows_of_any_length_can_be_drawn(seconds):
    draw("clip.mp4", Timeline(np.zeros(1), np.full(1, seconds), np.ones((1, 1), np.float32)), ["only"])
