"""Export to `torch.export`: a .pt2 file that torch runs without vidstill."""

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export
from torch.export import save as save_program

from vidstill.pipelines.export.model import ExportableModel
from vidstill.pipelines.export.verify import ComparisonBatch, add_boxes, draw_noise_clips
from vidstill.pipelines.export.write import ExportTarget
from vidstill.utils.types import InputError

TORCH_EXPORT_METADATA_FILE = "vidstill.json"  # of our metadata, inside the file

_SUBPROCESS_SCRIPT = """
import sys, torch
program, inputs, outputs, threads, kind = sys.argv[1:]
torch.set_num_threads(int(threads))
if kind == "detector":
    import torchvision
model = torch.export.load(program).module()
with torch.no_grad():
    torch.save([model(*each) for each in torch.load(inputs)], outputs)
assert "vidstill" not in sys.modules
"""


class TorchExportTarget(ExportTarget):
    """A torch.export program, checked in a process without vidstill; for a detector, it has to import torchvision."""

    name = "torch.export program"
    suffix = ".pt2"
    packages = ("vidstill", "torch")
    tolerance = 1e-5

    def save(self, path: Path) -> None:
        program = trace_model(self.model)
        program.example_inputs = None  # clips that nobody needs would be written, too
        save_program(program, path, extra_files={TORCH_EXPORT_METADATA_FILE: json.dumps(self.model.metadata)})

    def run(self, path: Path, batches: Sequence[ComparisonBatch]) -> list[Tensor]:
        with TemporaryDirectory() as folder:
            inputs, outputs = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
            torch.save([batch.inputs for batch in batches], inputs)
            args = [str(path.absolute()), str(inputs), str(outputs), str(torch.get_num_threads()), self.model.kind]
            command = [sys.executable, "-P", "-c", _SUBPROCESS_SCRIPT, *args]
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if result.returncode:
                message = result.stderr.strip().rpartition("\n")[2]
                raise InputError(f"{path.name} does not run in a new process ({message}); it was not written")
            return torch.load(outputs)


def trace_model(model: ExportableModel) -> ExportedProgram:
    """Return the program of a model, for any number of clips and boxes."""
    example = add_boxes(model, draw_noise_clips(model)[:2])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's internals
        return export(model.module, example, dynamic_shapes=build_dynamic_shapes(model))


def build_dynamic_shapes(model: ExportableModel) -> tuple[dict[int, Dim], ...]:
    """Return the dimensions of each input that may vary."""
    batch = Dim("batch")
    return ({0: batch}, {0: batch, 1: Dim("boxes")}) if model.kind == "detector" else ({0: batch},)
