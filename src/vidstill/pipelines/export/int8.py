"""Export to ONNX with 8-bit linear layers: smaller, and faster where a CPU multiplies 8-bit numbers.

By onnxruntime's dynamic quantization, which is maintained and whose files run wherever ONNX does: torch's own is
deprecated in favour of torchao, whose files need torch and torchao. Weights are rounded to 8-bit numbers once, channel
by channel; activations are rounded clip by clip, so that no calibration data are needed. All else stays in float32.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import score_classifier
from vidstill.pipelines.export.model import ExportableModel, ExportConfig
from vidstill.pipelines.export.onnx import ONNX_METADATA_KEY, OnnxSession, OnnxTarget, silence_logger
from vidstill.pipelines.export.verify import (
    ComparisonBatch,
    OutputComparison,
    add_boxes,
    check_outputs,
    compare_outputs,
    draw_synthetic_clips,
)
from vidstill.pipelines.export.write import QuantizationResult, compute_export_size, import_optional
from vidstill.pipelines.labeled_data import open_labeled_test
from vidstill.pipelines.run_config import Workers
from vidstill.utils.rng import numpy_rng
from vidstill.utils.timing import pin_to_one_core, time_in_random_order
from vidstill.utils.types import InputError

_MIN_COSINE = 0.9  # of the model's and the file's outputs; below it, the file is broken rather than rounded
_MIN_ROUNDS, _MAX_ROUNDS = 3, 15  # timed runs of each program,
_TIMING_SECONDS = 60.0  # and no more after so many seconds


class Int8Target(OnnxTarget):
    """ONNX with 8-bit linear layers; accuracy is measured on the labelled videos of the config, if it has any."""

    name = "ONNX with 8-bit linear layers"
    tolerance = _MIN_COSINE

    def __init__(self, model: ExportableModel, config: ExportConfig):
        super().__init__(model, config)
        self.manifest: Manifest | None = None
        if config.data is not None and model.output_type == "logits":
            self.manifest = open_labeled_test(
                config.data,
                fold=config.fold,
                multi_label=model.multi_label,
                classes=model.class_names,
                classes_source=model.source,
            )
        self._folder = TemporaryDirectory()
        self._float_path = Path(self._folder.name) / "float32.onnx"

    def save(self, path: Path) -> None:
        super().save(self._float_path)
        quantize_onnx(self._float_path, path, self.model.metadata)

    def run(self, path: Path, batches: Sequence[ComparisonBatch]) -> list[Tensor]:
        comparisons = compare_outputs(batches, super().run(self._float_path, batches), self.model.class_names)
        check_outputs(comparisons, OnnxTarget.tolerance, f"{path.name}, still in float32,")
        return super().run(path, batches)

    def check(self, comparisons: Sequence[OutputComparison], file: str) -> None:
        worst = min(comparisons, key=lambda each: each.min_cosine if each.min_cosine == each.min_cosine else -2.0)
        if not worst.min_cosine >= _MIN_COSINE:
            raise InputError(
                f"{file} would be far off in 8 bits: the cosine to the model's outputs is {worst.min_cosine:.3f} "
                f"({worst.clip_source} clips), below {_MIN_COSINE}; it was not written, use --to onnx or torch"
            )

    def measure(self, path: Path) -> QuantizationResult:
        seconds = _measure_latency(self.model, self._float_path, path)
        accuracy: dict[str, Any] = {}
        if self.manifest is not None and self.model.views is not None:
            workers, runtime = Workers(workers=self.config.workers, precision="fp32"), Runtime("fp32")
            videos = self.manifest, self.model.class_names, self.model.views, workers, runtime
            float_result, result = (
                score_classifier(module, *videos, multi_label=self.model.multi_label, show_progress=False)
                for module in (self.model.module, OnnxSession(path))
            )
            accuracy["num_videos"] = len(result.indices)
            accuracy |= {"scores": result.metrics, "float_scores": float_result.metrics}
        return QuantizationResult(
            float_bytes=compute_export_size(self._float_path),
            latency_ms={name: 1000 * median(each) for name, each in seconds.items()},
            num_rounds=min(map(len, seconds.values())),
            **accuracy,
        )


def quantize_onnx(float_path: Path, out: Path, metadata: Mapping[str, Any]) -> None:
    """Write an ONNX file with 8-bit linear layers.

    Seven bits of a weight are used, for CPUs without VNNI (`reduce_range` of onnxruntime's own docstring): there, sums
    of products of all eight may overflow.
    """
    quantization, onnx = import_optional("onnxruntime.quantization"), import_optional("onnx")
    model = onnx.load(str(float_path))
    del model.graph.value_info[:]  # it transposes weights and keeps their stated shapes
    with silence_logger(None):  # it advises a preparation that the exporter has done
        quantization.quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
    quantized = onnx.load(str(out))
    del quantized.metadata_props[:]
    quantized.metadata_props.add(key=ONNX_METADATA_KEY, value=json.dumps(dict(metadata)))
    onnx.save(quantized, str(out))
    onnx.checker.check_model(str(out))


def _measure_latency(model: ExportableModel, float_path: Path, int8_path: Path) -> dict[str, Sequence[float]]:
    """Return the seconds of one clip on one core, in interleaved runs."""
    clip = add_boxes(model, draw_synthetic_clips(model, 1))
    modules: dict[str, nn.Module] = {"float32 in torch": model.module, "int8": OnnxSession(int8_path, threads=1)}
    modules["float32 in onnxruntime"] = OnnxSession(float_path, threads=1)
    functions = {name: partial(module, *clip) for name, module in modules.items()}
    rng, start = numpy_rng(0, "turns"), time.perf_counter()
    rounds: list[dict[str, float]] = []
    with torch.no_grad(), pin_to_one_core():
        time_in_random_order(functions, rng)  # warm-up
        for number in range(_MAX_ROUNDS):
            if number < _MIN_ROUNDS or time.perf_counter() - start < _TIMING_SECONDS:
                rounds.append(time_in_random_order(functions, rng))
    return {name: [each[name] for each in rounds] for name in functions}
