"""The quickstart's report: logs become curves, curves become charts, and a page needs nothing but itself."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.figures import page
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
from vidstill.figures.similarity import center_tokens, compute_layer_similarity, linear_cka, match_layers
from vidstill.models.vit import ViTConfig

# ---- Losses and accuracies ------------------------------------------------------------------------------------------


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
    result = smooth_curve(points)
    xs, ys = [x for x, _ in result], [y for _, y in result]
    assert xs == sorted(xs)
    assert min(y for _, y in points) - 1e-6 <= min(ys)
    assert max(ys) <= max(y for _, y in points) + 1e-6
    assert result[0] == points[0]
    assert len(result) <= 49


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
    scores = [ModelScore(f"model {n}", top1=10.0 * n, margin=3.0, probe_top1=5.0, color="red") for n in (1, 9)]
    svg = draw_score_chart(scores, 8.0, "top-1, %")
    assert 'aria-label="top-1, %: model 1 10.0 ± 3.0, probe 5.0, model 9 90.0 ± 3.0, probe 5.0"' in svg
    assert {"model 1", "model 9", "chance", "top-1, %"} <= set(re.findall(r">([^<>]+)</text>", svg))


# ---- The page -------------------------------------------------------------------------------------------------------


EVIL = '<script>alert(\'x\')</script><img src=https://evil.example/a.png onerror="run()">&amp;"'


class Reader(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its words."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def full_page(text: str) -> str:
    line = ChartLine(text, [(1.0, 1.0), (2.0, 2.0)], "red")
    score = ModelScore(text, top1=50.0, margin=5.0, probe_top1=40.0, color="red")
    charts = (draw_line_chart([line], text, text, log_x=False), draw_score_chart([score], 10.0, text))
    section = (
        page.render_note(text)
        + page.render_table([text, text], [[text, text]], [text], text)
        + page.render_image(b"not a picture", text, text)
        + page.render_charts(*((text, chart, text) for chart in charts))
        + page.render_facts({text: text})
    )
    return page.render_page(text, text, text, {text: section}, text)


def test_all_text_is_escaped():
    read, plain = Reader(full_page(EVIL)), Reader(full_page("plain"))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]
    assert [set(attributes) for _, attributes in read.elements] == [set(attributes) for _, attributes in plain.elements]
    assert read.texts.count(EVIL) == plain.texts.count("plain") > 10


def test_a_page_asks_no_network_and_runs_nothing():
    html = full_page("plain")
    read = Reader(html)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.elements}
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    sources = [
        value for _, attributes in read.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_element_that_is_opened_is_closed():
    html = re.sub(r"<(meta|img)[^>]*>|<[^>]*/>|<!doctype html>", "", full_page("plain"))
    opened: list[str] = []
    for closing, tag in re.findall(r"<(/?)([a-z0-9]+)", html.split("</head>")[1].removesuffix("</html>\n")):
        if closing:
            assert opened.pop() == tag
        else:
            opened.append(tag)
    assert not opened


def test_a_cell_carries_its_columns_name_for_narrow_screens():
    table = page.render_table(["model", "top-1, %"], [["student", "12.5"]], ["red"])
    assert '<td data-name="top-1, %">12.5</td>' in table


# ---- Similarity -----------------------------------------------------------------------------------------------------


ENCODER = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))


def features(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_features_are_like_themselves_turned_scaled_and_moved(seed, scale, index):
    one = features(50, 6, seed)
    rotation = torch.linalg.qr(features(6, 6, seed + 1)).Q
    assert linear_cka(one, one @ rotation * scale + index) == pytest.approx(1)


@given(st.integers(0, 1000))
def test_the_order_of_the_two_does_not_matter_and_all_is_between_0_and_1(seed):
    one, other = features(20, 6, seed), features(20, 9, seed + 1)
    assert linear_cka(one, other) == pytest.approx(linear_cka(other, one))
    assert 0 <= linear_cka(one, other) <= 1


def test_independent_features_differ():
    assert linear_cka(features(5000, 6, 0), features(5000, 9, 1)) < 0.01


def test_half_of_two_equal_directions_shared_is_worth_a_half():
    """X = (a, b), Y = a for uncorrelated a, b of one size: |Y'X|² / (|X'X| |Y'Y|) = 1 / √2."""
    a, b = torch.linalg.qr(features(50, 3, 0) - features(50, 3, 0).mean(0)).Q.T[:2]
    a, b = a[:, None], b[:, None]
    assert linear_cka(torch.cat([a, b], 1), a) == pytest.approx(2**-0.5)


def test_the_last_layers_belong_together():
    assert match_layers(4, 8) == {1: 2, 2: 4, 3: 6, 4: 8}
    assert match_layers(3, 3) == {1: 1, 2: 2, 3: 3}
    assert match_layers(12, 24)[12] == 24


def test_a_model_is_like_itself_in_every_layer_and_unlike_another():
    one, other = ENCODER.build().eval(), ENCODER.build().eval()
    clips = [torch.rand(4, 3, 4, 8, 8), torch.rand(3, 3, 4, 8, 8)]
    assert compute_layer_similarity(one, one, clips) == pytest.approx([1, 1])
    assert all(value < 0.999 for value in compute_layer_similarity(one, other, clips))


def test_codes_of_places_alone_make_no_likeness():
    codes = 10 * features(16, 6, 0)
    one, other = (codes + features(16 * 200, 6, seed).view(200, 16, 6) for seed in (1, 2))
    assert linear_cka(one.flatten(0, 1), other.flatten(0, 1)) > 0.9
    assert linear_cka(center_tokens(one), center_tokens(other)) < 0.01
