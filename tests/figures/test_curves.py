"""Logs become curves, and curves become charts."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.figures.chart import ChartLine, draw_line_chart
from vidstill.figures.curves import extract_loss_curve, read_log, smooth_curve, sum_step_seconds
from vidstill.figures.standing import ModelScore, draw_score_chart

POINTS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60).map(
    lambda ys: [(float(x), y) for x, y in enumerate(ys, start=1)]
)


def step(number: int, loss: float | None, **parts: float) -> dict:
    return {"step": number, "loss": loss, "parts": parts, "seconds_step": 0.5}


@pytest.fixture
def run(tmp_path):
    lines = [
        step(1, 4.0, direct=3.0),
        step(2, None),
        {"step": 2, "validation": {"top1": 5.0}},
        step(3, 2.0, direct=1.0),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"step": 4, "lo')  # killed while it wrote
    return tmp_path


def test_a_curve_has_the_finite_steps_and_no_tests(run):
    steps = read_log(run)
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert extract_loss_curve(steps) == [(1, 4.0), (3, 2.0)]
    assert extract_loss_curve(steps, "direct") == [(1, 3.0), (3, 1.0)]
    assert extract_loss_curve(steps, "unheard of") == []


def test_the_seconds_are_those_of_all_steps(run):
    assert sum_step_seconds(read_log(run)) == 1.5


@given(POINTS)
def test_smoothing_stays_between_the_extremes_and_in_order(points):
    found = smooth_curve(points)
    xs, ys = [x for x, _ in found], [y for _, y in found]
    assert xs == sorted(xs)
    assert min(y for _, y in points) - 1e-6 <= min(ys)
    assert max(ys) <= max(y for _, y in points) + 1e-6
    assert found[0] == points[0]
    assert len(found) <= 49


def test_smoothing_takes_off_a_ripple():
    points = [(float(x), 1.0 + (-1) ** x) for x in range(1, 2001)]
    late = [y for x, y in smooth_curve(points) if x > 500]
    assert late == pytest.approx([1.0] * len(late), abs=0.05)
    assert len(late) > 5


def places(svg: str) -> list[tuple[float, float]]:
    drawn = re.search(r'<polyline[^>]* points="([^"]*)"', svg).group(1)
    return [tuple(map(float, pair.split(","))) for pair in drawn.split()]


@given(POINTS)
def test_a_line_stays_within_its_picture(points):
    svg = draw_line_chart([ChartLine("loss", points, "red")], x_label="step", y_label="loss", log_x=True)
    wide, high = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    assert all(0 <= x <= wide and 0 <= y <= high for x, y in places(svg))


def test_higher_numbers_stand_higher_and_later_steps_further_right():
    (x0, y0), (x1, y1), (x2, y2) = places(
        draw_line_chart(
            [ChartLine("loss", [(1.0, 3.0), (10.0, 2.0), (100.0, 1.0)], "red")],
            x_label="step",
            y_label="loss",
            log_x=True,
        )
    )
    assert y0 < y1 < y2
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)  # powers of ten are equally far apart


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=5))
def test_names_never_overlap(ends):
    lines = [ChartLine(f"line {n}", [(1.0, 0.5), (2.0, end)], "red") for n, end in enumerate(ends)]
    svg = draw_line_chart(lines, x_label="step", y_label="loss", y_range=(0.0, 1.0))
    heights = sorted(float(y) for y in re.findall(r'class="name" x="[^"]*" y="([^"]*)"', svg))
    assert all(b - a > 12 for a, b in pairwise(heights))


def test_a_chart_of_nothing_is_nothing():
    assert draw_line_chart([ChartLine("loss", [], "red")], x_label="step", y_label="loss") == ""


def test_a_better_score_stands_further_right():
    scores = [
        ModelScore(str(top1), top1=top1, standard_error=3.0, probe_top1=top1 / 2, color="red")
        for top1 in (10.0, 55.0, 99.0)
    ]
    dots = re.findall(
        r'<circle cx="([^"]*)" cy="[^"]*" r="5.5"', draw_score_chart(scores, chance_level=8.0, x_label="top-1")
    )
    assert [float(x) for x in dots] == sorted(float(x) for x in dots)
    assert len(set(dots)) == 3
