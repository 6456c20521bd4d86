"""A page that people keep: one HTML file with everything in it, which runs nothing and asks no network."""

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
    kind: Literal["plain", "lead", "note"] = "plain"  # lead: what it is all about; note: what must not be overlooked


@dataclass(frozen=True)
class PageTable:
    """Rows of cells; the first cell of a row names it, the others are numbers. On a phone each row is a card."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    row_colors: Sequence[str] = ()  # of the rows' names, as CSS has them
    caption: str = ""


@dataclass(frozen=True)
class PageImage:
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class PageCharts:
    """SVG elements of `figures.draw_line_chart`, side by side where there is room, each with its title and caption."""

    charts: Sequence[tuple[str, str, str]]  # title, element, caption


@dataclass(frozen=True)
class PageFacts:
    """Names and values, for who wants to know exactly."""

    items: Sequence[tuple[str, str]]


PageBlock = PageText | PageTable | PageImage | PageCharts | PageFacts


@dataclass(frozen=True)
class PageSection:
    title: str
    blocks: Sequence[PageBlock]


def render_page(*, kicker: str, title: str, lead: str, sections: Sequence[PageSection], footer: str) -> str:
    """The page as HTML. Whatever text is given is shown as it is: none of it is taken for HTML.

    Args:
        kicker: a few words over the title.
        lead: the first paragraph.
        footer: the last line.
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


def _render_block(part: PageBlock) -> str:
    match part:
        case PageText(words, kind):
            return f'<p class="{kind}">{escape(words)}</p>'
        case PageTable():
            return _render_table(part)
        case PageImage(png, alt, caption):
            source = f"data:image/png;base64,{b64encode(png).decode()}"
            picture = f'<img src="{source}" alt="{escape(alt, quote=True)}">'
            return f'<figure class="picture">{picture}{_render_caption(caption)}</figure>'
        case PageCharts(each):
            return f'<div class="charts">{"".join(_render_chart(*one) for one in each)}</div>'
        case PageFacts(each):
            facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in each)
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


def _render_caption(words: str) -> str:
    return f"<figcaption>{escape(words)}</figcaption>" if words else ""
