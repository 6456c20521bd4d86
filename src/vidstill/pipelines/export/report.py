"""What was found of a file that is shipped: how it agrees, how large it is, and how fast; and the file written."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vidstill.pipelines.export.verify import OutputComparison
from vidstill.utils.files import PARTIAL_SUFFIX, check_output_file, convert_write_errors, rename_durably, write_json
from vidstill.utils.types import InputError

REPORT_SUFFIX = ".json"
"""Ends the name of a file's report, after the whole name of the file."""


@dataclass(frozen=True, kw_only=True)
class QuantizationResult:
    """What whole numbers cost and buy.

    Args:
        float_bytes: of the same model as ONNX in float32.
        latency_ms: of one clip on one thread, the median, by what computes it; the turns are interleaved.
        num_videos: labelled ones that accuracy was measured on; 0: none were given.
        score, float_score: in percent, of this file and of our model on the same videos.
    """

    float_bytes: int
    latency_ms: Mapping[str, float]
    num_rounds: int
    num_videos: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    float_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """
    Args:
        file: what was written; its name with `.json` behind it is this report.
        target: in words.
        num_bytes: of the file, with its tensors where these stand beside it.
        export_seconds: that the export took, without the comparison.
        metadata: what the file says of itself.
        tolerance: that all of `compare_outputs` are held to; of int8, of the smallest cosine.
        versions: of the packages that it was made with.
    """

    file: str
    target: str
    num_bytes: int
    export_seconds: float
    metadata: Mapping[str, Any]
    comparisons: Sequence[OutputComparison]
    tolerance: float
    versions: Mapping[str, str]
    quantization: QuantizationResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def format_summary(self) -> str:
        """A few lines for people."""
        frames, rows, columns = self.metadata["input"]["clip"][2:]
        what = f"{self.metadata['gives']} of clips of {frames} frames of {rows} × {columns}, any number at once"
        lines = [f"{self.file}: {self.target}, {_format_megabytes(self.num_bytes)}; {what}"]
        for each in self.comparisons:
            clips = f"{each.batch_size} {each.clip_source} {'clip' if each.batch_size == 1 else 'clips'}"
            top1 = "" if each.top1_agreement is None else f", the same first class of {100 * each.top1_agreement:.0f}%"
            lines.append(
                f"  {clips}: {each.max_abs_diff:.1e} apart at most ({each.location}), cosine {each.min_cosine:.6f}{top1}"
            )
        if self.quantization is not None:
            lines += _format_quantization(self.quantization)
        if licence := self.metadata.get("licence"):
            lines.append(f"  licence: {licence}")
        return "\n".join([*lines, f"  report: {self.file}{REPORT_SUFFIX}"])


def _format_quantization(result: QuantizationResult) -> list[str]:
    times = ", ".join(f"{name} {value:.1f} ms" for name, value in result.latency_ms.items())
    lines = [
        f"  size: {_format_megabytes(result.float_bytes)} in float32",
        f"  one clip on one thread, median of {result.num_rounds} turns: {times}",
    ]
    if result.num_videos:
        scores = ", ".join(
            f"{name} {value:.2f} ({result.float_scores[name]:.2f})" for name, value in result.scores.items()
        )
        lines.append(f"  accuracy on {result.num_videos} videos (in float32): {scores}")
    return lines


def _format_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


@contextmanager
def open_export_draft(out: Path, suffix: str) -> Iterator[Path]:
    """A place for what becomes the file `out`, and what stands beside it, if nothing is raised meanwhile.

    Raises:
        InputError: it cannot be written, or its name has another end; what was there still is.
    """
    if out.suffix != suffix:
        raise InputError(f"{out} does not end with {suffix}; name it so")
    with convert_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        check_output_file(out)
        with TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.", suffix=PARTIAL_SUFFIX) as folder:
            draft = Path(folder) / out.name
            yield draft
            for each in sorted(Path(folder).iterdir(), key=lambda path: path.name == out.name):  # itself comes last
                rename_durably(each, out.with_name(each.name))


def write_export_report(draft: Path, report: ExportReport) -> ExportReport:
    write_json(draft.with_name(draft.name + REPORT_SUFFIX), report.to_dict())
    return report


def compute_export_size(draft: Path) -> int:
    """Bytes of a file and of what stands beside it."""
    return sum(path.stat().st_size for path in draft.parent.iterdir())


def import_optional(package: str) -> Any:
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
