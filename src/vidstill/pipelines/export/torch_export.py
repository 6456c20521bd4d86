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

from vidstill.pipelines.export.model import ExportConfig, Shipped, shipped
from vidstill.pipelines.export.report import Report, drafted, report_beside, size_of
from vidstill.pipelines.export.verify import Batch, answers, batches, check, compared, noise, with_boxes
from vidstill.utils.files import version_of
from vidstill.utils.types import InputError

TOLERANCE = 1e-5
ABOUT = "vidstill.json"
"""What the file says of itself stands in it under this name, beside the program."""

_ELSEWHERE = """
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


def write_program(source: str, out: Path, asked: ExportConfig | None = None) -> Report:
    """Writes a run's folder or a file of weights as a .pt2 file, which a process without us gives the same with.

    Of a detector, such a process has to have imported torchvision.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or it gives something else.
    """
    asked = asked or ExportConfig()
    with drafted(out, ".pt2") as draft:
        model = shipped(source, asked)
        given = batches(model, asked)
        expected = answers(model.model, given)
        begun = time.perf_counter()
        program = traced(model)
        program.example_inputs = None  # which would be written, too: clips that nobody needs
        save_program(program, draft, extra_files={ABOUT: json.dumps(model.about)})
        seconds = time.perf_counter() - begun
        found = compared(given, expected, elsewhere(draft, given, model.kind), model)
        check(found, TOLERANCE, str(out))
        report = Report(
            file=str(out),
            target="a program of torch.export",
            bytes=size_of(draft),
            seconds=seconds,
            about=model.about,
            compared=found,
            tolerance=TOLERANCE,
            versions={name: version_of(name) for name in ("vidstill", "torch")},
        )
        return report_beside(draft, report)


def traced(model: Shipped) -> ExportedProgram:
    """The program of a model, for any number of clips, and of boxes."""
    example = with_boxes(model, noise(model)[:2])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own insides
        return export(model.model, example, dynamic_shapes=dynamic(model))


def dynamic(model: Shipped) -> tuple[dict[int, Dim], ...]:
    """Which sides of what goes in are free."""
    batch = Dim("batch")
    return ({0: batch}, {0: batch, 1: Dim("boxes")}) if model.kind == "detector" else ({0: batch},)


def elsewhere(program: Path, given: Sequence[Batch], kind: str) -> list[Tensor]:
    """What a new process gives, which does not know us.

    Raises:
        InputError: it fails.
    """
    with TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
        torch.save([batch.inputs for batch in given], inputs)
        words = [str(program.absolute()), str(inputs), str(outputs), str(torch.get_num_threads()), kind]
        run = subprocess.run(
            [sys.executable, "-P", "-c", _ELSEWHERE, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if run.returncode:
            last = run.stderr.strip().rpartition("\n")[2]
            raise InputError(f"{program.name} does not run in a process of its own ({last}), so that it is not written")
        return torch.load(outputs)
