"""A model whose linear layers compute in whole numbers: smaller, and faster where a CPU multiplies 8-bit numbers.

By onnxruntime's dynamic quantisation, for it is kept up and its files run wherever ONNX does: torch's own is deprecated
in favour of torchao, whose files need torch and torchao. Weights are rounded to 8-bit numbers once, channel by channel;
what meets them is rounded clip by clip as it comes, so that no data are needed. All else stays in float32.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from vidstill.bench.timing import pin_to_one_core, time_in_random_order
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_test_manifest
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import check_classes, require_labels, score_classifier
from vidstill.pipelines.export.model import ExportableModel, ExportConfig, load_exportable_model
from vidstill.pipelines.export.onnx import ONNX_PACKAGES, ONNX_TOLERANCE, OnnxSession, save_onnx
from vidstill.pipelines.export.report import (
    ExportReport,
    QuantizationResult,
    compute_export_size,
    import_optional,
    open_export_draft,
    write_export_report,
)
from vidstill.pipelines.export.verify import (
    OutputComparison,
    add_boxes,
    build_comparison_batches,
    check_outputs,
    compare_outputs,
    draw_synthetic_clips,
    run_batches,
)
from vidstill.pipelines.workers import Workers
from vidstill.tasks.results import MultiLabelResult, SingleLabelResult
from vidstill.utils.files import get_package_version
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError

MIN_COSINE = 0.9
"""Between the answers; below it, a file is broken rather than rounded."""

_MAX_TIMED_ROUNDS = 15  # of each that is timed,
_MIN_TIMED_ROUNDS = 3  # and so many in any case,
_TIMING_BUDGET_SECONDS = 60.0  # but no more after so many seconds


def write_int8(source: str, out: Path, config: ExportConfig | None = None) -> ExportReport:
    """Writes a run's folder or a file of weights as ONNX with 8-bit linear layers, and measures what that costs.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or its answers are far off.
    """
    config = config or ExportConfig()
    with open_export_draft(out, ".onnx") as draft, TemporaryDirectory() as folder:
        model = load_exportable_model(source, config)
        listing = _open_labelled_manifest(model, config)
        given = build_comparison_batches(model, config)
        expected = run_batches(model.module, given)
        exact = Path(folder) / "float32.onnx"
        begun = time.perf_counter()
        save_onnx(model, exact)
        quantize_onnx(exact, draft, model.metadata)
        seconds = time.perf_counter() - begun
        float_session, session = (OnnxSession(path, threads=torch.get_num_threads()) for path in (exact, draft))
        check_outputs(
            compare_outputs(given, expected, run_batches(float_session, given), model),
            ONNX_TOLERANCE,
            f"{out}, still in float32,",
        )
        found = compare_outputs(given, expected, run_batches(session, given), model)
        _check_cosine(found, str(out))
        report = ExportReport(
            file=str(out),
            target="ONNX with 8-bit linear layers",
            num_bytes=compute_export_size(draft),
            export_seconds=seconds,
            metadata=model.metadata,
            comparisons=found,
            tolerance=MIN_COSINE,
            versions={name: get_package_version(name) for name in ONNX_PACKAGES},
            quantization=measure_quantization(model, listing, config, exact, draft),
        )
        return write_export_report(draft, report)


def quantize_onnx(float_path: Path, out: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the file `exact` with 8-bit linear layers.

    Seven of the eight bits of a weight are used, for CPUs without VNNI (`reduce_range` of onnxruntime's own docstring):
    there, sums of products with all of them may overflow.
    """
    tools, onnx = import_optional("onnxruntime.quantization"), import_optional("onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on a preparation that the exporter has done
    model = onnx.load(str(float_path))
    del model.graph.value_info[:]  # it transposes weights, and does not forget how their shapes were noted
    try:
        tools.quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=tools.QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    made = onnx.load(str(out))
    del made.metadata_props[:]
    made.metadata_props.add(key="vidstill", value=json.dumps(dict(metadata)))
    onnx.save(made, str(out))
    onnx.checker.check_model(str(out))


def measure_quantization(
    model: ExportableModel, manifest: Manifest | None, config: ExportConfig, float_path: Path, int8_path: Path
) -> QuantizationResult:
    """Times and, where labelled videos are given, accuracy, beside those of our model."""
    times = _measure_latency(model, float_path, int8_path)
    accuracy: dict[str, Any] = {}
    if manifest is not None:
        ours, theirs = (
            _evaluate_module(each, model, manifest, config)
            for each in (model.module, OnnxSession(int8_path, threads=torch.get_num_threads()))
        )
        accuracy = {"videos": len(theirs.indices), "score": theirs.metrics, "float_score": ours.metrics}
    return QuantizationResult(
        float_bytes=compute_export_size(float_path),
        latency_ms={name: 1000 * median(each) for name, each in times.items()},
        num_rounds=min(map(len, times.values())),
        **accuracy,
    )


def _measure_latency(model: ExportableModel, float_path: Path, int8_path: Path) -> dict[str, Sequence[float]]:
    """Seconds of one clip on one core, turn by turn."""
    clip = add_boxes(model, draw_synthetic_clips(model, 1))
    float_session, session = (OnnxSession(path, threads=1) for path in (float_path, int8_path))
    sorts: dict[str, Callable[..., Tensor]] = {
        "int8": session,
        "float32 in onnxruntime": float_session,
        "float32 in torch": model.module,
    }
    works = {name: lambda each=each: each(*clip) for name, each in sorts.items()}
    chance, begun = numpy_rng(0, "turns"), time.perf_counter()
    turns: list[dict[str, float]] = []
    with torch.no_grad(), pin_to_one_core():
        time_in_random_order(works, chance)  # a first one sets things up
        while len(turns) < _MIN_TIMED_ROUNDS or (
            len(turns) < _MAX_TIMED_ROUNDS and time.perf_counter() - begun < _TIMING_BUDGET_SECONDS
        ):
            turns.append(time_in_random_order(works, chance))
    return {name: [turn[name] for turn in turns] for name in works}


def _open_labelled_manifest(model: ExportableModel, config: ExportConfig) -> Manifest | None:
    """The videos that accuracy is measured on; None: there are none, or nothing is scored."""
    if config.data is None or model.output_type != "logits":
        return None
    listing = require_labels(open_test_manifest(config.data, fold=config.fold), multi_label=model.multi_label)
    check_classes(listing, model.class_names, model.source)
    return listing


def _evaluate_module(
    module: torch.nn.Module, model: ExportableModel, manifest: Manifest, config: ExportConfig
) -> SingleLabelResult | MultiLabelResult:
    assert model.views is not None
    return score_classifier(
        module,
        manifest,
        model.class_names,
        model.views,
        Workers(workers=config.workers, precision="fp32"),
        Runtime("fp32"),
        multi_label=model.multi_label,
        show_progress=False,
    )


def _check_cosine(comparisons: Sequence[OutputComparison], out: str) -> None:
    worst = min(comparisons, key=lambda each: each.min_cosine if each.min_cosine == each.min_cosine else -2.0)
    if not worst.min_cosine >= MIN_COSINE:
        raise InputError(
            f"{out} would be far off in 8 bits: a cosine of {worst.min_cosine:.3f} to what the model gives ({worst.clip_source} "
            f"clips), where {MIN_COSINE} is the least; it is not written, take onnx or torch"
        )
