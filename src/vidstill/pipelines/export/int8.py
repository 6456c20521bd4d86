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

from vidstill.bench.timing import in_turns, one_core
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import listing_to_test
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import check_classes, labelled, score
from vidstill.pipelines.export.model import ExportConfig, Shipped, shipped
from vidstill.pipelines.export.onnx import PACKAGES, TOLERANCE, Session, save_onnx
from vidstill.pipelines.export.report import Measured, Report, drafted, optional, report_beside, size_of
from vidstill.pipelines.export.verify import Compared, answers, batches, check, compared, drawn, with_boxes
from vidstill.pipelines.train.session import Launch
from vidstill.tasks.results import SeveralTested, Tested
from vidstill.utils.files import version_of
from vidstill.utils.rng import numpy_chance
from vidstill.utils.types import InputError

LEAST_COSINE = 0.9
"""Between the answers; below it, a file is broken rather than rounded."""

_TURNS = 15  # of each that is timed,
_LEAST = 3  # and so many in any case,
_SECONDS = 60.0  # but no more after so many seconds


def write_int8(source: str, out: Path, asked: ExportConfig | None = None) -> Report:
    """Writes a run's folder or a file of weights as ONNX with 8-bit linear layers, and measures what that costs.

    Raises:
        InputError: the source cannot give what is asked, the file cannot be written, or its answers are far off.
    """
    asked = asked or ExportConfig()
    with drafted(out, ".onnx") as draft, TemporaryDirectory() as folder:
        model = shipped(source, asked)
        listing = _labelled(model, asked)
        given = batches(model, asked)
        expected = answers(model.model, given)
        exact = Path(folder) / "float32.onnx"
        begun = time.perf_counter()
        save_onnx(model, exact)
        quantise(exact, draft, model.about)
        seconds = time.perf_counter() - begun
        float_session, session = (Session(path, threads=torch.get_num_threads()) for path in (exact, draft))
        check(compared(given, expected, answers(float_session, given), model), TOLERANCE, f"{out}, still in float32,")
        found = compared(given, expected, answers(session, given), model)
        _check_rounded(found, str(out))
        report = Report(
            file=str(out),
            target="ONNX with 8-bit linear layers",
            bytes=size_of(draft),
            seconds=seconds,
            about=model.about,
            compared=found,
            tolerance=LEAST_COSINE,
            versions={name: version_of(name) for name in PACKAGES},
            measured=measured(model, listing, asked, exact, draft),
        )
        return report_beside(draft, report)


def quantise(exact: Path, out: Path, about: Mapping[str, Any]) -> None:
    """Writes the file `exact` with 8-bit linear layers.

    Seven of the eight bits of a weight are used, for CPUs without VNNI (`reduce_range` of onnxruntime's own docstring):
    there, sums of products with all of them may overflow.
    """
    tools, onnx = optional("onnxruntime.quantization"), optional("onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on a preparation that the exporter has done
    model = onnx.load(str(exact))
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
    made.metadata_props.add(key="vidstill", value=json.dumps(dict(about)))
    onnx.save(made, str(out))
    onnx.checker.check_model(str(out))


def measured(model: Shipped, listing: Listing | None, asked: ExportConfig, exact: Path, draft: Path) -> Measured:
    """Times and, where labelled videos are given, accuracy, beside those of our model."""
    times = _times(model, exact, draft)
    accuracy: dict[str, Any] = {}
    if listing is not None:
        ours, theirs = (
            _tested(each, model, listing, asked)
            for each in (model.model, Session(draft, threads=torch.get_num_threads()))
        )
        accuracy = {"videos": len(theirs.places), "score": theirs.score, "float_score": ours.score}
    return Measured(
        float_bytes=size_of(exact),
        milliseconds={name: 1000 * median(each) for name, each in times.items()},
        turns=min(map(len, times.values())),
        **accuracy,
    )


def _times(model: Shipped, exact: Path, draft: Path) -> dict[str, Sequence[float]]:
    """Seconds of one clip on one core, turn by turn."""
    clip = with_boxes(model, drawn(model, 1))
    float_session, session = (Session(path, threads=1) for path in (exact, draft))
    sorts: dict[str, Callable[..., Tensor]] = {
        "int8": session,
        "float32 in onnxruntime": float_session,
        "float32 in torch": model.model,
    }
    works = {name: lambda each=each: each(*clip) for name, each in sorts.items()}
    chance, begun = numpy_chance(0, "turns"), time.perf_counter()
    turns: list[dict[str, float]] = []
    with torch.no_grad(), one_core():
        in_turns(works, chance)  # a first one sets things up
        while len(turns) < _LEAST or (len(turns) < _TURNS and time.perf_counter() - begun < _SECONDS):
            turns.append(in_turns(works, chance))
    return {name: [turn[name] for turn in turns] for name in works}


def _labelled(model: Shipped, asked: ExportConfig) -> Listing | None:
    """The videos that accuracy is measured on; None: there are none, or nothing is scored."""
    if asked.data is None or model.gives != "logits":
        return None
    listing = labelled(listing_to_test(asked.data, fold=asked.fold), several=model.several)
    check_classes(listing, model.names, model.source)
    return listing


def _tested(module: torch.nn.Module, model: Shipped, listing: Listing, asked: ExportConfig) -> Tested | SeveralTested:
    assert model.views is not None
    launch = Launch(data=Path(), out=Path(), workers=asked.workers, precision="fp32")
    return score(module, listing, model.names, model.views, launch, Runtime("fp32"), several=model.several, shown=False)


def _check_rounded(found: Sequence[Compared], out: str) -> None:
    worst = min(found, key=lambda each: each.cosine if each.cosine == each.cosine else -2.0)
    if not worst.cosine >= LEAST_COSINE:
        raise InputError(
            f"{out} would be far off in 8 bits: a cosine of {worst.cosine:.3f} to what the model gives ({worst.kind} "
            f"clips), where {LEAST_COSINE} is the least; it is not written, take onnx or torch"
        )
