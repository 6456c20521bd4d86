"""What `vidstill weights convert` does: its options are the function's signature, read by tyro."""

import json as jsons
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.export.int8 import write_int8
from vidstill.export.onnx import write_onnx
from vidstill.export.program import write_program
from vidstill.export.report import Report
from vidstill.export.shipped import ExportConfig
from vidstill.folder import check_below
from vidstill.models.vit import ViTConfig
from vidstill.recipes.recipe import Pretrain, find
from vidstill.terminal import tell
from vidstill.types import InputError
from vidstill.weights.authors import LAYOUTS, unsaid
from vidstill.weights.exporting import exported
from vidstill.weights.files import Weights, read_weights, write_weights
from vidstill.weights.importing import imported
from vidstill.weights.ledger import Ledger
from vidstill.weights.licences import licence_of, provenance
from vidstill.weights.to_transformers import to_transformers
from vidstill.weights.writing import check_suffix, write_exported

To = Literal[
    "vidstill", "videomae", "mvd", "amd", "maskagain", "mae", "dmae", "stmae", "slowfast", "mmaction", "transformers",
    "onnx", "torch", "int8",
]  # fmt: skip

_USUAL = ExportConfig()
_SHOWN = 10  # of many lines


@dataclass(frozen=True, kw_only=True)
class Converted:
    """
    Args:
        tensors: in the file that was written.
        unsaid: what it does not say, in sentences.
    """

    tensors: int
    unsaid: Sequence[str] = ()


def convert(
    source: Positional[str],
    /,
    *,
    to: To,
    out: Path,
    hint: str | None = None,
    allow: tuple[str, ...] = (),
    shipped: Annotated[ExportConfig, tyro.conf.arg(name="")] = _USUAL,
    json: bool = False,
) -> None:
    """Writes weights anew: ours or the authors', in our file, in an authors' layout, or as what other programs run.

    Every tensor of a foreign file is accounted for: what was ignored and why is said, and what nothing explains is an
    error. Whatever there is at OUT is left alone.

    Args:
        source: a run's folder or a file of weights.
        to: vidstill: our file; an authors' layout, by its method (mae_st's is stmae; slowfast: PySlowFast's); a folder
            of transformers; an ONNX file (onnx; int8: with 8-bit linear layers) or a program of torch.export (torch).
        out: the file to write, .safetensors or of an authors' layout also .pth; .onnx, .pt2; of transformers a folder.
        hint: a recipe whose encoder the file has: its heads, and which positions are computed, where no tensor says so.
        allow: tensors of the file that may be left out though nothing explains them: beginnings of names, or patterns.
        json: as JSON, for programs.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name another file with --out, or remove it first")
    if to in _PROGRAMS:
        if hint is not None or allow:
            raise InputError(f"--hint and --allow are not for --to {to}: convert --to vidstill with them first")
        report = _PROGRAMS[to](source, out, shipped)
        tell(jsons.dumps(report.plain(), indent=1) if json else report.in_words())
        return
    if shipped != _USUAL:
        raise InputError(f"clips and what is given of them are asked for, and --to {to} writes weights; leave them out")
    _check_out(to, out)
    asked = None if hint is None else encoder_of(hint)
    weights, ledger = _ours(read_weights(source), asked, allow)
    found = _WRITERS[to](weights, out)
    told = _told(weights, ledger, to, out, found)
    tell(jsons.dumps(told, indent=1) if json else _in_words(told))


def encoder_of(recipe: str) -> ViTConfig:
    """The encoder of a recipe.

    Raises:
        InputError: there is no such recipe.
    """
    found = find(recipe)
    return found.method.encoder if isinstance(found, Pretrain) else found.encoder


def _check_out(to: To, out: Path) -> None:
    """Raises an InputError where OUT cannot be written so: before the work, not after it."""
    if to == "vidstill" and out.suffix != ".safetensors":
        raise InputError(f"{out} does not end with .safetensors; name it so")
    if to in LAYOUTS:
        check_suffix(out)
    check_below(out)


def _ours(weights: Weights, hint: ViTConfig | None, allow: Sequence[str]) -> tuple[Weights, Ledger | None]:
    """Weights under our names, with where they come from; and the account of a foreign file."""
    if weights.about:
        return weights, None
    found, ledger = imported(weights, hint, allow=allow)
    ignored = {entry.theirs: entry.why for entry in ledger.of("ignored")}
    about = {**found.about, **provenance({"converted": found}), "counts": _counts(ledger), "ignored": ignored}
    return Weights(found.tensors, about, found.source), ledger


def _counts(ledger: Ledger) -> dict[str, int]:
    return dict(Counter(entry.how for entry in ledger.entries))


def _to_vidstill(weights: Weights, out: Path) -> Converted:
    write_weights(out, weights.tensors, weights.about)
    return Converted(tensors=len(weights.tensors))


def _to_authors(weights: Weights, out: Path, *, layout: str) -> Converted:
    tensors = exported(weights, layout)
    write_exported(out, tensors, layout)
    return Converted(tensors=len(tensors), unsaid=unsaid(weights, layout))


def _to_transformers(weights: Weights, out: Path) -> Converted:
    written = to_transformers(weights, out)
    return Converted(tensors=len(weights.tensors), unsaid=[f"it is a {written.architecture}", *written.notes])


_WRITERS: Mapping[str, Callable[[Weights, Path], Converted]] = {
    "vidstill": _to_vidstill,
    **{layout: partial(_to_authors, layout=layout) for layout in LAYOUTS},
    "transformers": _to_transformers,
}
_PROGRAMS: Mapping[str, Callable[[str, Path, ExportConfig], Report]] = {
    "onnx": write_onnx,
    "torch": write_program,
    "int8": write_int8,
}


def _told(weights: Weights, ledger: Ledger | None, to: To, out: Path, found: Converted) -> dict[str, Any]:
    told: dict[str, Any] = {"source": weights.source, "kind": weights.about.get("kind"), "licence": licence_of(weights)}
    if ledger is not None:
        told |= {"read": ledger.layout, "counts": _counts(ledger), "notes": list(ledger.notes)}
        told["ignored"] = {entry.theirs: entry.why for entry in ledger.of("ignored")}
        told["missing"] = {entry.ours: entry.why for entry in ledger.of("missing")}
    files = [out] if out.is_file() else sorted(out.iterdir())
    size = sum(each.stat().st_size for each in files)
    return told | {"to": to, "out": str(out), "tensors": found.tensors, "bytes": size, "unsaid": list(found.unsaid)}


def _in_words(told: Mapping[str, Any]) -> str:
    if "read" in told:
        lines = [f"{told['source']} is taken for {told['read']}"]
        lines += [f"  {sentence}" for sentence in told["notes"]]
        counts = ", ".join(f"{count} {how}" for how, count in sorted(told["counts"].items()))
        lines.append(f"  tensors: {counts}")
        for what in ("ignored", "missing"):
            every = [f"  {what}: {name} ({why})" for name, why in told[what].items()]
            lines += every[:_SHOWN]
            lines += [f"  … and {len(every) - _SHOWN} more"] if len(every) > _SHOWN else []
    else:
        lines = [f"{told['source']} is vidstill's: a {told['kind']}"]
    lines.append(f"{told['out']}: {told['to']}, {told['tensors']} tensors, {told['bytes'] / 1e6:.1f} MB")
    lines += [f"  {sentence}" for sentence in told["unsaid"]]
    if told["licence"]:
        lines.append(f"  licence: {told['licence']}")
    return "\n".join(lines)


VERBS: dict[str, Callable[..., None]] = {"weights convert": convert}
