"""Numbers and tables as text."""

from collections.abc import Sequence


def format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, its columns as wide as they need; what is no word stands to the right."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    words = [all(row[k][:1].isalpha() for row in rows) for k in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        columns = zip(cells, widths, words, strict=True)
        return f"| {' | '.join(cell.ljust(width) if word else cell.rjust(width) for cell, width, word in columns)} |"

    rule = [f"{'-' * (width - 1)}{'-' if word else ':'}" for width, word in zip(widths, words, strict=True)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def format_number(value: float | None, digits: int = 1, suffix: str = "") -> str:
    """A dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}{suffix}"
