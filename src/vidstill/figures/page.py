"""A self-contained HTML page: one file without scripts and without network access."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class PageText:
    text: str
    kind: Literal["plain", "lead", "note"] = "plain"  # lead: the summary; note: a warning


@dataclass(frozen=True)
class PageTable:
    """Rows of cells; a row's first cell is its name, the others are numbers. Narrow screens show a row as a card."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    row_colors: Sequence[str] = ()  # one CSS color per row, shown as a dot before its name
    caption: str = ""


@dataclass(frozen=True)
class PageImage:
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class PageCharts:
    """SVG elements of `figures.charts`, side by side where they fit."""

    charts: Sequence[tuple[str, str, str]]  # title, SVG element, caption


@dataclass(frozen=True)
class PageFacts:
    """Names and values, in two columns."""

    items: Sequence[tuple[str, str]]


PageBlock = PageText | PageTable | PageImage | PageCharts | PageFacts


@dataclass(frozen=True)
class PageSection:
    title: str
    blocks: Sequence[PageBlock]


def render_page(*, kicker: str, title: str, lead: str, sections: Sequence[PageSection], footer: str) -> str:
    """Return the page as HTML; all text is escaped.

    Args:
        kicker: A few words above the title.
        lead: The first paragraph.
        footer: The last line.
    """
    body = "".join(
        f"<section><h2>{escape(section.title)}</h2>{''.join(map(_render_block, section.blocks))}</section>"
        for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="above">{escape(kicker)}</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p></header>\n{body}\n</main>\n'
        f"<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def _render_block(block: PageBlock) -> str:
    match block:
        case PageText(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>'
        case PageTable():
            return _render_table(block)
        case PageImage(png, alt, caption):
            source = f"data:image/png;base64,{b64encode(png).decode()}"
            image = f'<img src="{source}" alt="{escape(alt, quote=True)}">'
            return f'<figure class="picture">{image}{_render_caption(caption)}</figure>'
        case PageCharts(charts):
            return f'<div class="charts">{"".join(_render_chart(*chart) for chart in charts)}</div>'
        case PageFacts(items):
            facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in items)
            return f"<dl>{facts}</dl>"


def _render_table(table: PageTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = []
    for number, (name, *cells) in enumerate(table.rows):
        dot = f'<i style="background:{escape(table.row_colors[number], quote=True)}"></i>' if table.row_colors else ""
        numbers = "".join(
            f'<td data-name="{escape(column, quote=True)}">{escape(cell)}</td>'
            for column, cell in zip(table.header[1:], cells, strict=True)
        )
        rows.append(f'<tr><th scope="row">{dot}{escape(name)}</th>{numbers}</tr>')
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<figure class="table">{body}{_render_caption(table.caption)}</figure>'


def _render_chart(title: str, element: str, caption: str) -> str:
    return f'<figure class="chart"><h3>{escape(title)}</h3>{element}{_render_caption(caption)}</figure>'


def _render_caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""
