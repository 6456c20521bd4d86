"""A confusion matrix as a picture: which classes are taken for which, of four classes or of a thousand."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from vidstill.utils.text import format_one_line

_MAX_NAMED_CLASSES, _MAX_ANNOTATED_CLASSES = (
    60,
    16,
)  # up to so many classes there is room for their names, and for numbers in the cells
_MAX_NAME_LENGTH = 28  # letters of a name
_DPI = 100  # per inch
_CELL_INCHES, _MATRIX_INCHES = 0.42, 10.0  # inches: a cell that a number stands in; the side of many classes
_MIN_CELL_DOTS = 3  # dots for each class, however many there are


def draw_confusion_matrix(counts: Int[Tensor, "classes classes"], class_names: Sequence[str]) -> bytes:
    """Each class's videos as a row, by the share that was taken for each class; a grey row has no videos.

    Args:
        counts: rows are the classes of the videos, columns those they were taken for.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no window; and half a second to import
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = (
        max(2.0, classes * _CELL_INCHES)
        if classes <= _MAX_ANNOTATED_CLASSES
        else max(_MATRIX_INCHES, classes * _MIN_CELL_DOTS / _DPI)
    )
    figure = Figure(figsize=(side + 2.5, side + 1.5), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((1.5 / (side + 2.5), 1.0 / (side + 1.5), side / (side + 2.5), side / (side + 1.5)))
    videos = counts.sum(dim=1, keepdim=True)
    shares = np.ma.masked_invalid((counts / videos).numpy())
    axes.set_facecolor("0.9")
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")  # shows rare mistakes
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if classes <= _MAX_NAMED_CLASSES:
        shown = [_short(name) for name in class_names]
        size = 9 if classes <= _MAX_ANNOTATED_CLASSES else 7
        axes.set_xticks(range(classes), shown, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), shown, fontsize=size, parse_math=False)
    else:
        axes.set_title(f"{classes} classes by their numbers, from 0", fontsize=10)
    if classes <= _MAX_ANNOTATED_CLASSES:
        for row, column in np.ndindex(classes, classes):
            if count := int(counts[row, column]):
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    bar = figure.add_axes(((1.7 + side) / (side + 2.5), 1.0 / (side + 1.5), 0.15 / (side + 2.5), side / (side + 1.5)))
    figure.colorbar(image, cax=bar, label="share of the class's videos")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # it draws a box
        figure.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()


def _short(name: str) -> str:
    line = format_one_line(name)
    return line if len(line) <= _MAX_NAME_LENGTH else f"{line[: _MAX_NAME_LENGTH - 1]}…"
