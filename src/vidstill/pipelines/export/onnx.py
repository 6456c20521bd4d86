"""A model as ONNX: a file that onnxruntime, and whatever else reads ONNX, runs without torch."""

import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.pipelines.export.model import ExportableModel, ExportConfig, load_exportable_model
from vidstill.pipelines.export.report import (
    ExportReport,
    compute_export_size,
    import_optional,
    open_export_draft,
    write_export_report,
)
from vidstill.pipelines.export.torch_export import build_dynamic_shapes, trace_model
from vidstill.pipelines.export.verify import build_comparison_batches, check_outputs, compare_outputs, run_batches
from vidstill.utils.files import get_package_version

ONNX_TOLERANCE = 1e-4
ONNX_OPSET = 20
ONNX_PACKAGES = ("vidstill", "torch", "onnx", "onnxscript", "onnxruntime")

_METADATA_KEY = "vidstill"  # where our metadata stands, as JSON


class OnnxSession(nn.Module):
    """What an ONNX file gives, computed by onnxruntime on the CPU.

    Args:
        threads: that compute one operation.
    """

    def __init__(self, path: Path, *, threads: int):
        super().__init__()
        runtime = import_optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self.session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(self, *inputs: Tensor) -> Tensor:
        names = [each.name for each in self.session.get_inputs()]
        given = {name: each.cpu().numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(self.session.run(None, given)[0])


def write_onnx(source: str, out: Path, config: ExportConfig | None = None) -> ExportReport:
    """Writes a run's folder or a file of weights as ONNX; onnxruntime gives with it what our model gives.

    Of more than 2 GB, the tensors stand in OUT.data beside it, which has to stay there.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or it gives something else.
    """
    config = config or ExportConfig()
    with open_export_draft(out, ".onnx") as draft:
        model = load_exportable_model(source, config)
        given = build_comparison_batches(model, config)
        expected = run_batches(model.module, given)
        begun = time.perf_counter()
        save_onnx(model, draft)
        seconds = time.perf_counter() - begun
        session = OnnxSession(draft, threads=torch.get_num_threads())
        found = compare_outputs(given, expected, run_batches(session, given), model)
        check_outputs(found, ONNX_TOLERANCE, str(out))
        report = ExportReport(
            file=str(out),
            target=f"ONNX, opset {ONNX_OPSET}",
            num_bytes=compute_export_size(draft),
            export_seconds=seconds,
            metadata=model.metadata,
            comparisons=found,
            tolerance=ONNX_TOLERANCE,
            versions={name: get_package_version(name) for name in ONNX_PACKAGES},
        )
        return write_export_report(draft, report)


def save_onnx(model: ExportableModel, path: Path) -> None:
    """Writes the model in float32, and lets ONNX's own checker look at it.

    Raises:
        InputError: onnx or onnxscript is not installed.
    """
    onnx = import_optional("onnx")
    import_optional("onnxscript")
    program = trace_model(model)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own insides
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=ONNX_OPSET,
                input_names=model.input_names,
                output_names=(model.output_type,),
                dynamic_shapes=build_dynamic_shapes(model),
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    made.model.metadata_props[_METADATA_KEY] = json.dumps(model.metadata)
    made.save(path)
    onnx.checker.check_model(str(path), full_check=True)


def read_onnx_metadata(path: Path) -> dict[str, Any]:
    """What an ONNX file of ours says of itself."""
    model = import_optional("onnx").load(str(path), load_external_data=False)
    return next((json.loads(each.value) for each in model.metadata_props if each.key == _METADATA_KEY), {})
