"""Logs become curves, and curves become charts."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.figures.charts import (
    ChartLine,
    ModelScore,
    draw_line_chart,
    draw_score_chart,
    extract_loss_curve,
    read_log,
    smooth_curve,
    sum_step_seconds,
)

POINTS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60).map(
    lambda ys: [(float(x), y) for x, y in enumerate(ys, start=1)]
)


def step(number: int, loss: float | None, **parts: float) -> dict:
    return {"step": number, "loss": loss, "parts": parts, "step_seconds": 0.5}


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


def test_every_line_is_named_in_its_color_and_described_for_screen_readers():
    lines = [
        ChartLine("student", [(1.0, 3.0), (10.0, 2.0)], "#b4501e"),
        ChartLine("teacher", [(1.0, 2.0)], "teal", "dashed"),
    ]
    svg = draw_line_chart(lines, "step", "loss")
    assert 'aria-label="loss over step: student, teacher"' in svg
    assert {"step", "loss", "student", "teacher"} <= set(re.findall(r">([^<>]+)</text>", svg))
    assert "$" not in svg  # no tick label is mathtext, which is not parsed
    assert {"#b4501e", "#008080"} <= set(re.findall(r"stroke: (#\w+)", svg))


def test_the_same_chart_is_the_same_bytes_and_lines_without_points_are_left_out():
    line, empty = ChartLine("loss", [(1.0, 3.0), (2.0, 2.0)], "red"), ChartLine("nothing", [], "blue")
    charts = [draw_line_chart(lines, "step", "loss", log_x=False) for lines in ([line], [line], [line, empty])]
    assert len(set(charts)) == 1
    assert draw_line_chart([empty], "step", "loss") == ""


def test_a_score_chart_names_every_model_and_states_its_numbers():
    scores = [ModelScore(f"model {n}", top1=10.0 * n, standard_error=3.0, probe_top1=5.0, color="red") for n in (1, 9)]
    svg = draw_score_chart(scores, 8.0, "top-1, %")
    assert 'aria-label="top-1, %: model 1 10.0 ± 3.0, probe 5.0, model 9 90.0 ± 3.0, probe 5.0"' in svg
    assert {"model 1", "model 9", "chance", "top-1, %"} <= set(re.findall(r">([^<>]+)</text>", svg))
