"""What is seen when: which window speaks at a moment, and how it is drawn."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from vidstill.figures.timeline import CLASS_COLORS, OTHER_COLOR, Timeline, draw_timeline, format_clock

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


def draw(*given, **named) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = draw_timeline(*given, **named)
    assert data.startswith(b"\x89PNG")
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


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
