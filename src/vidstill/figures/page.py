"""A self-contained HTML page: one file without scripts and without network access. All text is escaped."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal

_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def render_page(kicker: str, title: str, lead: str, sections: Mapping[str, str], footer: str) -> str:
    """Return the page as HTML.

    Args:
        kicker: A few words above the title.
        lead: The first paragraph.
        sections: The HTML of each section by its title.
        footer: The last line.
    """
    body = "".join(f"<section><h2>{escape(name)}</h2>{section}</section>" for name, section in sections.items())
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


def render_note(text: str) -> str:
    """Return a paragraph with a warning."""
    return f'<p class="note">{escape(text)}</p>'


def render_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], row_colors: Sequence[str], caption: str = ""
) -> str:
    """Return a table; a row's first cell is its name, the others are numbers. Narrow screens show a row as a card.

    Args:
        row_colors: One CSS color per row, shown as a dot before its name.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = ""
    for (name, *cells), color in zip(rows, row_colors, strict=True):
        columns = zip(header[1:], cells, strict=True)
        numbers = "".join(f'<td data-name="{escape(column)}">{escape(cell)}</td>' for column, cell in columns)
        dot = f'<i style="background:{escape(color)}"></i>'
        body += f'<tr><th scope="row">{dot}{escape(name)}</th>{numbers}</tr>'
    return _render_figure("table", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", caption)


def render_image(png: bytes, alt: str, caption: str) -> str:
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return _render_figure("picture", f'<img src="{source}" alt="{escape(alt)}">', caption)


def render_charts(*charts: tuple[str, str, str]) -> str:
    """Return charts side by side where they fit: title, SVG element of `figures.charts`, and caption of each."""
    figures = (_render_figure("chart", f"<h3>{escape(title)}</h3>{svg}", caption) for title, svg, caption in charts)
    return f'<div class="charts">{"".join(figures)}</div>'


def render_facts(facts: Mapping[str, str]) -> str:
    """Return names and values in two columns."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _render_figure(kind: Literal["table", "picture", "chart"], content: str, caption: str) -> str:
    caption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{content}{caption}</figure>'
