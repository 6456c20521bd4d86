"""What was found of a file that is shipped: how it agrees, how large it is, and how fast; and the file written."""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vidstill.pipelines.export.verify import Compared
from vidstill.utils.files import HALF, check_new_file, unwritable, write_json
from vidstill.utils.types import InputError

REPORT = ".json"
"""Ends the name of a file's report, after the whole name of the file."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What whole numbers cost and buy.

    Args:
        float_bytes: of the same model as ONNX in float32.
        milliseconds: of one clip on one thread, the median, by what computes it; the turns are interleaved.
        videos: labelled ones that accuracy was measured on; 0: none were given.
        score, float_score: in percent, of this file and of our model on the same videos.
    """

    float_bytes: int
    milliseconds: Mapping[str, float]
    turns: int
    videos: int = 0
    score: Mapping[str, float] = field(default_factory=dict)
    float_score: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    Args:
        file: what was written; its name with `.json` behind it is this report.
        target: in words.
        bytes: of the file, with its tensors where these stand beside it.
        seconds: that the export took, without the comparison.
        about: what the file says of itself.
        tolerance: that all of `compared` are held to; of int8, of the smallest cosine.
        versions: of the packages that it was made with.
    """

    file: str
    target: str
    bytes: int
    seconds: float
    about: Mapping[str, Any]
    compared: Sequence[Compared]
    tolerance: float
    versions: Mapping[str, str]
    measured: Measured | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def in_words(self) -> str:
        """A few lines for people."""
        frames, rows, columns = self.about["input"]["clip"][2:]
        what = f"{self.about['gives']} of clips of {frames} frames of {rows} × {columns}, any number at once"
        lines = [f"{self.file}: {self.target}, {_size(self.bytes)}; {what}"]
        for each in self.compared:
            clips = f"{each.batch} {each.kind} {'clip' if each.batch == 1 else 'clips'}"
            top1 = "" if each.same_top1 is None else f", the same first class of {100 * each.same_top1:.0f}%"
            lines.append(f"  {clips}: {each.largest:.1e} apart at most ({each.where}), cosine {each.cosine:.6f}{top1}")
        if self.measured is not None:
            lines += _measured(self.measured)
        if licence := self.about.get("licence"):
            lines.append(f"  licence: {licence}")
        return "\n".join([*lines, f"  report: {self.file}{REPORT}"])


def _measured(found: Measured) -> list[str]:
    times = ", ".join(f"{name} {value:.1f} ms" for name, value in found.milliseconds.items())
    lines = [
        f"  size: {_size(found.float_bytes)} in float32",
        f"  one clip on one thread, median of {found.turns} turns: {times}",
    ]
    if found.videos:
        scores = ", ".join(f"{name} {value:.2f} ({found.float_score[name]:.2f})" for name, value in found.score.items())
        lines.append(f"  accuracy on {found.videos} videos (in float32): {scores}")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


@contextmanager
def drafted(out: Path, suffix: str) -> Iterator[Path]:
    """A place for what becomes the file `out`, and what stands beside it, if nothing is raised meanwhile.

    Raises:
        InputError: it cannot be written, or its name has another end; what was there still is.
    """
    if out.suffix != suffix:
        raise InputError(f"{out} does not end with {suffix}; name it so")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_new_file(out)
        with TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.", suffix=HALF) as folder:
            draft = Path(folder) / out.name
            yield draft
            for each in sorted(Path(folder).iterdir(), key=lambda path: path.name == out.name):  # itself comes last
                os.replace(each, out.with_name(each.name))
    except OSError as error:
        raise unwritable(out, error) from error


def report_beside(draft: Path, report: Report) -> Report:
    write_json(draft.with_name(draft.name + REPORT), report.plain())
    return report


def size_of(draft: Path) -> int:
    """Bytes of a file and of what stands beside it."""
    return sum(path.stat().st_size for path in draft.parent.iterdir())


def optional(package: str) -> Any:
    """A package that only exports need.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} cannot be imported ({error}); install it: pip install 'vidstill[export]'"
        ) from error
