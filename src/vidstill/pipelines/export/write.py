"""Write a model to a file of another format, after the file's outputs were compared with the model's."""

import importlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from torch import Tensor

from vidstill.pipelines.export.model import ExportableModel, ExportConfig, load_exportable_model
from vidstill.pipelines.export.report import REPORT_SUFFIX, ExportReport, QuantizationResult
from vidstill.pipelines.export.verify import (
    ComparisonBatch,
    OutputComparison,
    build_comparison_batches,
    check_outputs,
    compare_outputs,
    run_batches,
)
from vidstill.utils.files import (
    PARTIAL_SUFFIX,
    check_output_file,
    convert_write_errors,
    get_package_version,
    write_json,
)
from vidstill.utils.types import InputError


class ExportTarget(ABC):
    """A file format, and how it is written and checked; `packages` are those whose versions the report states."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    tolerance: ClassVar[float]

    @abstractmethod
    def save(self, model: ExportableModel, path: Path) -> None:
        """Write a model to a file."""

    @abstractmethod
    def run(self, path: Path, batches: Sequence[ComparisonBatch], model: ExportableModel) -> list[Tensor]:
        """Return the file's outputs of batches."""

    def __init__(self, config: ExportConfig):
        self.config = config

    def check(self, comparisons: Sequence[OutputComparison], file: str) -> None:
        """Raise an InputError if the outputs differ too much from the model's."""
        check_outputs(comparisons, self.tolerance, file)

    def measure(self, model: ExportableModel, path: Path) -> QuantizationResult | None:
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
    target = target_class(config)
    with _open_draft(out, target.suffix) as draft:
        model = load_exportable_model(source, config)
        batches = build_comparison_batches(model, config)
        expected = run_batches(model.module, batches)
        start = time.perf_counter()
        target.save(model, draft)
        seconds = time.perf_counter() - start
        comparisons = compare_outputs(batches, expected, target.run(draft, batches, model), model)
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
            quantization=target.measure(model, draft),
        )
        write_json(draft.with_name(draft.name + REPORT_SUFFIX), report.to_dict())
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
                os.replace(each, out.with_name(each.name))


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
