"""A model as a program of `torch.export`: a .pt2 file that torch runs without us."""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export
from torch.export import save as save_program

from vidstill.pipelines.export.model import ExportableModel, ExportConfig, load_exportable_model
from vidstill.pipelines.export.report import ExportReport, compute_export_size, open_export_draft, write_export_report
from vidstill.pipelines.export.verify import (
    ComparisonBatch,
    add_boxes,
    build_comparison_batches,
    check_outputs,
    compare_outputs,
    draw_noise_clips,
    run_batches,
)
from vidstill.utils.files import get_package_version
from vidstill.utils.types import InputError

TORCH_EXPORT_TOLERANCE = 1e-5
TORCH_EXPORT_METADATA_FILE = "vidstill.json"
"""What the file says of itself stands in it under this name, beside the program."""

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


def write_torch_export(source: str, out: Path, config: ExportConfig | None = None) -> ExportReport:
    """Writes a run's folder or a file of weights as a .pt2 file, which a process without us gives the same with.

    Of a detector, such a process has to have imported torchvision.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or it gives something else.
    """
    config = config or ExportConfig()
    with open_export_draft(out, ".pt2") as draft:
        model = load_exportable_model(source, config)
        given = build_comparison_batches(model, config)
        expected = run_batches(model.module, given)
        begun = time.perf_counter()
        program = trace_model(model)
        program.example_inputs = None  # which would be written, too: clips that nobody needs
        save_program(program, draft, extra_files={TORCH_EXPORT_METADATA_FILE: json.dumps(model.metadata)})
        seconds = time.perf_counter() - begun
        found = compare_outputs(given, expected, run_in_subprocess(draft, given, model.kind), model)
        check_outputs(found, TORCH_EXPORT_TOLERANCE, str(out))
        report = ExportReport(
            file=str(out),
            target="a program of torch.export",
            num_bytes=compute_export_size(draft),
            export_seconds=seconds,
            metadata=model.metadata,
            comparisons=found,
            tolerance=TORCH_EXPORT_TOLERANCE,
            versions={name: get_package_version(name) for name in ("vidstill", "torch")},
        )
        return write_export_report(draft, report)


def trace_model(model: ExportableModel) -> ExportedProgram:
    """The program of a model, for any number of clips, and of boxes."""
    example = add_boxes(model, draw_noise_clips(model)[:2])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own insides
        return export(model.module, example, dynamic_shapes=build_dynamic_shapes(model))


def build_dynamic_shapes(model: ExportableModel) -> tuple[dict[int, Dim], ...]:
    """Which sides of what goes in are free."""
    batch = Dim("batch")
    return ({0: batch}, {0: batch, 1: Dim("boxes")}) if model.kind == "detector" else ({0: batch},)


def run_in_subprocess(program: Path, batches: Sequence[ComparisonBatch], kind: str) -> list[Tensor]:
    """What a new process gives, which does not know us.

    Raises:
        InputError: it fails.
    """
    with TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
        torch.save([batch.inputs for batch in batches], inputs)
        words = [str(program.absolute()), str(inputs), str(outputs), str(torch.get_num_threads()), kind]
        run = subprocess.run(
            [sys.executable, "-P", "-c", _SUBPROCESS_SCRIPT, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            last = run.stderr.strip().rpartition("\n")[2]
            raise InputError(f"{program.name} does not run in a process of its own ({last}), so that it is not written")
        return torch.load(outputs)
