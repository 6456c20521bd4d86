"""A model as ONNX: a file that onnxruntime, and whatever else reads ONNX, runs without torch."""

import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.pipelines.export.model import ExportConfig, Shipped, shipped
from vidstill.pipelines.export.report import Report, drafted, optional, report_beside, size_of
from vidstill.pipelines.export.torch_export import dynamic, traced
from vidstill.pipelines.export.verify import answers, batches, check, compared
from vidstill.utils.files import version_of

TOLERANCE = 1e-4
OPSET = 20
PACKAGES = ("vidstill", "torch", "onnx", "onnxscript", "onnxruntime")

_ABOUT = "vidstill"  # where our metadata stands, as JSON


class Session(nn.Module):
    """What an ONNX file gives, computed by onnxruntime on the CPU.

    Args:
        threads: that compute one operation.
    """

    def __init__(self, path: Path, *, threads: int):
        super().__init__()
        runtime = optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self.session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(self, *inputs: Tensor) -> Tensor:
        names = [each.name for each in self.session.get_inputs()]
        given = {name: each.cpu().numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(self.session.run(None, given)[0])


def write_onnx(source: str, out: Path, asked: ExportConfig | None = None) -> Report:
    """Writes a run's folder or a file of weights as ONNX; onnxruntime gives with it what our model gives.

    Of more than 2 GB, the tensors stand in OUT.data beside it, which has to stay there.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or it gives something else.
    """
    asked = asked or ExportConfig()
    with drafted(out, ".onnx") as draft:
        model = shipped(source, asked)
        given = batches(model, asked)
        expected = answers(model.model, given)
        begun = time.perf_counter()
        save_onnx(model, draft)
        seconds = time.perf_counter() - begun
        session = Session(draft, threads=torch.get_num_threads())
        found = compared(given, expected, answers(session, given), model)
        check(found, TOLERANCE, str(out))
        report = Report(
            file=str(out),
            target=f"ONNX, opset {OPSET}",
            bytes=size_of(draft),
            seconds=seconds,
            about=model.about,
            compared=found,
            tolerance=TOLERANCE,
            versions={name: version_of(name) for name in PACKAGES},
        )
        return report_beside(draft, report)


def save_onnx(model: Shipped, path: Path) -> None:
    """Writes the model in float32, and lets ONNX's own checker look at it.

    Raises:
        InputError: onnx or onnxscript is not installed.
    """
    onnx = optional("onnx")
    optional("onnxscript")
    program = traced(model)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own insides
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=model.inputs,
                output_names=(model.gives,),
                dynamic_shapes=dynamic(model),
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    made.model.metadata_props[_ABOUT] = json.dumps(model.about)
    made.save(path)
    onnx.checker.check_model(str(path), full_check=True)


def about_of(path: Path) -> dict[str, Any]:
    """What an ONNX file of ours says of itself."""
    model = optional("onnx").load(str(path), load_external_data=False)
    return next((json.loads(each.value) for each in model.metadata_props if each.key == _ABOUT), {})
