"""Report of an export: how the file agrees with the model, its size and speed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vidstill.pipelines.export.verify import OutputComparison
from vidstill.utils.text import pluralize

REPORT_SUFFIX = ".json"
"""Of a file's report, after the full name of the file."""


@dataclass(frozen=True, kw_only=True)
class QuantizationResult:
    """Size, speed and accuracy of an 8-bit file.

    Args:
        float_bytes: Of the same model as ONNX in float32.
        latency_ms: Of one clip on one thread, the median, by program; runs are interleaved.
        num_rounds: Runs of each program.
        num_videos: Labelled videos that accuracy was measured on; 0: none were given.
        scores: Of this file on these videos, in percent.
        float_scores: Of the model on the same videos.
    """

    float_bytes: int
    latency_ms: Mapping[str, float]
    num_rounds: int
    num_videos: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    float_scores: Mapping[str, float] = field(default_factory=dict)

    def format_lines(self) -> list[str]:
        times = ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency_ms.items())
        lines = [
            f"  size: {_format_megabytes(self.float_bytes)} in float32",
            f"  one clip on one thread, median of {self.num_rounds} runs: {times}",
        ]
        if self.num_videos:
            scores = ", ".join(
                f"{name} {score:.2f} ({self.float_scores[name]:.2f})" for name, score in self.scores.items()
            )
            lines.append(f"  accuracy on {self.num_videos} videos (in float32): {scores}")
        return lines


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The file, its metadata, and how it agrees with the model.

    Args:
        target: The file format.
        num_bytes: With the tensors beside the file, if any.
        export_seconds: Without the comparison.
        metadata: As in the file.
        tolerance: Of all comparisons; for int8, of the smallest cosine.
        versions: Of the packages that wrote it.
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
        """Return everything for JSON."""
        return asdict(self)

    def format_summary(self) -> str:
        """Return a few lines of text."""
        frames, rows, columns = self.metadata["input"]["clip"][2:]
        output = f"{self.metadata['output_type']} of clips of {frames} frames of {rows} × {columns}, any batch size"
        lines = [f"{self.file}: {self.target}, {_format_megabytes(self.num_bytes)}; {output}"]
        for each in self.comparisons:
            clips = pluralize(each.batch_size, f"{each.clip_source} clip")
            top1 = "" if each.top1_agreement is None else f", same top-1 class in {100 * each.top1_agreement:.0f} %"
            lines.append(
                f"  {clips}: largest difference {each.max_abs_diff:.1e} ({each.location}), cosine "
                f"{each.min_cosine:.6f}{top1}"
            )
        if self.quantization is not None:
            lines += self.quantization.format_lines()
        if licence := self.metadata.get("licence"):
            lines.append(f"  licence: {licence}")
        return "\n".join([*lines, f"  report: {self.file}{REPORT_SUFFIX}"])


def _format_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
