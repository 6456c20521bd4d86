"""Export to ONNX: a file that onnxruntime and other programs run without torch."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.pipelines.export.torch_export import build_dynamic_shapes, trace_model
from vidstill.pipelines.export.verify import ComparisonBatch, run_batches
from vidstill.pipelines.export.write import ExportTarget, import_optional

ONNX_METADATA_KEY = "vidstill"  # of our metadata, as JSON
_OPSET = 20


class OnnxSession(nn.Module):
    """An ONNX file, run by onnxruntime on the CPU.

    Args:
        threads: Of one operation.
    """

    def __init__(self, path: Path, *, threads: int | None = None):
        super().__init__()
        runtime = import_optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(self, *inputs: Tensor) -> Tensor:
        names = [each.name for each in self.session.get_inputs()]
        arrays = {name: each.cpu().numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(self.session.run(None, arrays)[0])


class OnnxTarget(ExportTarget):
    """ONNX; tensors of more than 2 GB are in OUT.data beside the file, and have to stay there."""

    name = f"ONNX, opset {_OPSET}"
    suffix = ".onnx"
    packages = ("vidstill", "torch", "onnx", "onnxscript", "onnxruntime")
    tolerance = 1e-4

    def save(self, path: Path) -> None:
        """Write the model in float32, and check the file with ONNX's own checker.

        Raises:
            InputError: onnx or onnxscript is not installed.
        """
        onnx = import_optional("onnx")
        import_optional("onnxscript")
        program = trace_model(self.model)
        with silence_logger("torch.onnx"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's internals
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=_OPSET,
                input_names=self.model.input_names,
                output_names=(self.model.output_type,),
                dynamic_shapes=build_dynamic_shapes(self.model),
                verbose=False,
            )
        exported.model.metadata_props[ONNX_METADATA_KEY] = json.dumps(self.model.metadata)
        exported.save(path)
        onnx.checker.check_model(str(path), full_check=True)

    def run(self, path: Path, batches: Sequence[ComparisonBatch]) -> list[Tensor]:
        return run_batches(OnnxSession(path), [batch.inputs for batch in batches])


@contextmanager
def silence_logger(name: str | None) -> Iterator[None]:
    """Log only errors during the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
