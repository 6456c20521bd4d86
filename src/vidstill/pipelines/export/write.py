"""Write a model to a file of another format, after the file's outputs were compared with the model's; and a report."""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from torch import Tensor

from vidstill.pipelines.export.model import ExportableModel, ExportConfig, load_exportable_model
from vidstill.pipelines.export.verify import (
    ComparisonBatch,
    OutputComparison,
    build_comparison_batches,
    check_outputs,
    compare_outputs,
)
from vidstill.utils.files import (
    PARTIAL_SUFFIX,
    check_output_file,
    convert_write_errors,
    get_package_version,
    rename_durably,
    write_json,
)
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

_REPORT_SUFFIX = ".json"  # after the full name of the file


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
        scores = ", ".join(f"{name} {score:.2f} ({self.float_scores[name]:.2f})" for name, score in self.scores.items())
        return [
            f"  size: {_format_megabytes(self.float_bytes)} in float32",
            f"  one clip on one thread, median of {self.num_rounds} runs: {times}",
            *([f"  accuracy on {self.num_videos} videos (in float32): {scores}"] if self.num_videos else []),
        ]


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
            diff = f"largest difference {each.max_abs_diff:.1e} ({each.location})"
            lines.append(f"  {clips}: {diff}, cosine {each.min_cosine:.6f}{top1}")
        if self.quantization is not None:
            lines += self.quantization.format_lines()
        if licence := self.metadata.get("licence"):
            lines.append(f"  licence: {licence}")
        return "\n".join([*lines, f"  report: {self.file}{_REPORT_SUFFIX}"])


def _format_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


class ExportTarget(ABC):
    """A file format, and how a model is written to it and checked.

    Args:
        model: What is exported.
        config: The output and the clips.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # whose versions the report states
    tolerance: ClassVar[float]

    def __init__(self, model: ExportableModel, config: ExportConfig):
        self.model, self.config = model, config

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the model to a file."""

    @abstractmethod
    def run(self, path: Path, batches: Sequence[ComparisonBatch]) -> list[Tensor]:
        """Return the file's outputs of batches."""

    def check(self, comparisons: Sequence[OutputComparison], file: str) -> None:
        """Raise an InputError if the outputs differ too much from the model's."""
        check_outputs(comparisons, self.tolerance, file)

    def measure(self, path: Path) -> QuantizationResult | None:
        """Measure what the format costs, if it costs something."""
        return None


def write_export(
    source: str, out: Path, target_class: type[ExportTarget], config: ExportConfig | None = None
) -> ExportReport:
    """Export a model, compare the file's outputs with the model's, and write the file and its report.

    Args:
        source: Run directory or weights file.
        config: The output and the clips; None: the defaults.

    Raises:
        InputError: The source has no such output, the file cannot be written, or its outputs differ.
    """
    config = config or ExportConfig()
    with _open_draft(out, target_class.suffix) as draft:
        model = load_exportable_model(source, config)
        target, batches = target_class(model, config), build_comparison_batches(model, config)
        start = time.perf_counter()
        target.save(draft)
        seconds = time.perf_counter() - start
        comparisons = compare_outputs(batches, target.run(draft, batches), model.class_names)
        target.check(comparisons, str(out))
        report = ExportReport(
            file=str(out),
            target=target.name,
            num_bytes=compute_export_size(draft),
            export_seconds=seconds,
            metadata=model.metadata,
            comparisons=comparisons,
            tolerance=target.tolerance,
            versions={name: get_package_version(name) for name in target.packages},
            quantization=target.measure(draft),
        )
        write_json(draft.with_name(draft.name + _REPORT_SUFFIX), report.to_dict())
        return report


@contextmanager
def _open_draft(out: Path, suffix: str) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `out`, with all files beside it, unless the block raises.

    Raises:
        InputError: The file cannot be written, or has another suffix; an existing file is unchanged.
    """
    if out.suffix != suffix:
        raise InputError(f"{out} does not end with {suffix}; rename it with --out")
    check_output_file(out)
    with convert_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.", suffix=PARTIAL_SUFFIX) as folder:
            draft = Path(folder) / out.name
            yield draft
            for each in sorted(Path(folder).iterdir(), key=lambda path: path.name == out.name):  # the file itself last
                rename_durably(each, out.with_name(each.name))


def compute_export_size(draft: Path) -> int:
    """Return the bytes of a file and of the files beside it."""
    return sum(path.stat().st_size for path in draft.parent.iterdir())


def import_optional(package: str) -> Any:
    """Import a package that only exports need.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} cannot be imported ({error}); install it: pip install 'vidstill[export]'"
        ) from error
