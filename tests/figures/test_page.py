"""A page shows what it is given as it is, and needs nothing but itself."""

import re
from html.parser import HTMLParser

from vidstill.figures import page
from vidstill.figures.charts import ChartLine, ModelScore, draw_line_chart, draw_score_chart

EVIL = '<script>alert(\'x\')</script><img src=https://evil.example/a.png onerror="run()">&amp;"'


class Reader(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its words."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def full_page(words: str) -> str:
    line = ChartLine(words, [(1.0, 1.0), (2.0, 2.0)], "red")
    score = ModelScore(words, top1=50.0, standard_error=5.0, probe_top1=40.0, color="red")
    charts = (draw_line_chart([line], words, words, log_x=False), draw_score_chart([score], 10.0, words))
    section = (
        page.render_note(words)
        + page.render_table([words, words], [[words, words]], [words], words)
        + page.render_image(b"not a picture", words, words)
        + page.render_charts(*((words, chart, words) for chart in charts))
        + page.render_facts({words: words})
    )
    return page.render_page(words, words, words, {words: section}, words)


def test_no_text_is_taken_for_html():
    read, plain = Reader(full_page(EVIL)), Reader(full_page("plain"))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]
    assert [set(attributes) for _, attributes in read.elements] == [set(attributes) for _, attributes in plain.elements]
    assert read.words.count(EVIL) == plain.words.count("plain") > 10


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
