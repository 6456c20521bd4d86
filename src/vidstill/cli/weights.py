"""What `vidstill weights convert` does: its options are the function's signature, read by tyro."""

import json as jsons
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.checkpoints.conversion_report import Entry, Ledger
from vidstill.checkpoints.convert import exported, imported
from vidstill.checkpoints.io import Weights, read_weights, write_weights
from vidstill.checkpoints.layouts.constraints import LAYOUTS, unsaid
from vidstill.checkpoints.layouts.infer_config import WORDS
from vidstill.checkpoints.layouts.transformers_export import to_transformers
from vidstill.checkpoints.layouts.write import check_suffix, write_exported
from vidstill.checkpoints.licences import allows_commercial, in_words, licence_of, provenance
from vidstill.checkpoints.model_zoo import Checkpoint
from vidstill.checkpoints.model_zoo import find as find_published
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.export.int8 import write_int8
from vidstill.pipelines.export.model import ExportConfig
from vidstill.pipelines.export.onnx import write_onnx
from vidstill.pipelines.export.report import Report
from vidstill.pipelines.export.torch_export import write_program
from vidstill.recipes.recipe import Pretrain, find
from vidstill.utils.config_io import from_plain
from vidstill.utils.files import check_below
from vidstill.utils.terminal import aligned, tell
from vidstill.utils.types import Grid, InputError

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


_EVEN = ("taken", "renamed")  # what needs no line of its own


def inspect(
    source: Positional[str],
    /,
    *,
    hint: str | None = None,
    allow: tuple[str, ...] = (),
    all: bool = False,
    json: bool = False,
) -> None:
    """Shows what weights are: layout, model, licence, and what becomes of every tensor; nothing is written.

    Args:
        source: a run's folder or a file of weights, ours or others'.
        hint: a recipe whose encoder the file has: its heads, and which positions are computed, where no tensor says so.
        allow: tensors that may be left out though nothing explains them: beginnings of names, or patterns.
        all: a line for every tensor.
        json: as JSON, for programs: every tensor.
    """
    read = read_weights(source)
    if read.about:
        entries = tuple(Entry(name, name, tuple(tensor.shape), "taken") for name, tensor in read.tensors.items())
        weights, ledger = read, Ledger("a file of vidstill", entries)
    else:
        weights, ledger = imported(read, None if hint is None else encoder_of(hint), allow=allow)
    found = _found(weights, ledger)
    if json:
        about = {"licence": licence_of(weights), "provenance": weights.about.get("provenance", [])}
        tell(jsons.dumps(found | about | {"ledger": [asdict(entry) for entry in ledger.entries]}, indent=1))
        return
    notes = [f"  {note}" for note in found.pop("notes")]
    lines = [aligned({name: value for name, value in found.items() if value is not None}), *notes]
    tell("\n".join([*lines, *in_words(weights), *_table(ledger, every=all)]))


def _found(weights: Weights, ledger: Ledger) -> dict[str, Any]:
    """What is said of weights, by name."""
    about = weights.about
    head = about.get("classifier", {})
    told: dict[str, Any] = {
        "source": weights.source,
        "layout": ledger.layout,
        "kind": about.get("kind"),
        "classes": head.get("classes"),
        "parameters": sum(tensor.numel() for tensor in weights.tensors.values()),
    }
    if about.get("encoder"):
        told |= _of_encoder(from_plain(ViTConfig, about["encoder"]))
    counts = Counter(entry.how for entry in ledger.entries)
    return told | {
        "tensors": ", ".join(f"{count} {how}" for how, count in counts.items()),
        "notes": list(ledger.notes),
    }


def _of_encoder(encoder: ViTConfig) -> dict[str, Any]:
    grid = None if encoder.learned_grid is None else Grid(*encoder.learned_grid)
    t, h, w = encoder.tubelet
    return {
        "width": encoder.dim,
        "depth": encoder.depth,
        "heads": encoder.heads,
        "mlp ratio": f"{encoder.mlp_ratio:g}",
        "tubelet": f"{t} × {h} × {w}" + (" (images)" if t == 1 else ""),
        "positions": WORDS[encoder.positions]
        + ("" if grid is None else f", for {grid.t} × {grid.h} × {grid.w} tokens"),
        "class token": "yes" if encoder.class_token else "no",
        "layer scale": "yes" if encoder.layer_scale else "no",
        "attention's biases": {"qv": "queries, values", "qkv": "queries, keys, values"}.get(
            encoder.attention_bias, "none"
        ),
        "layer norms' eps": f"{encoder.norm_eps:g}",
        "colours' mean": " ".join(f"{value:g}" for value in encoder.mean),
        "colours' deviation": " ".join(f"{value:g}" for value in encoder.std),
    }


def _table(ledger: Ledger, *, every: bool) -> list[str]:
    """A line for each tensor; without `every`, for those alone that were not simply taken, the first of each kind."""
    shown: list[Entry] = []
    for how in dict.fromkeys(entry.how for entry in ledger.entries):
        entries = list(ledger.of(how))
        shown += entries if every else [] if how in _EVEN else entries[:_SHOWN]
    if not shown:
        return []
    rows = [(e.how, e.theirs or "–", e.ours or "–", " × ".join(map(str, e.shape)), e.why) for e in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = len(ledger.entries) - len(shown)
    return ["", *lines, *([f"{_counted(left)}: --all shows every one"] if left else [])]


def _counted(left: int) -> str:
    return "one more tensor" if left == 1 else f"{left} more tensors"


def listed(pattern: Positional[str] = "*", /, *, commercial: bool = False, json: bool = False) -> None:
    """Lists the published checkpoints of the family: size, accuracy, licence, where they are, and our recipes.

    Args:
        pattern: a part of the names, or a pattern such as "videomae-*-finetuned"; or a family, such as "ST-MAE".
        commercial: only those whose licence is stated and allows commercial use.
        json: as JSON, for programs.
    """
    found = find_published(pattern)
    free = [each for each in found if allows_commercial(each.licence)]
    shown = free if commercial else found
    if json:
        tell(jsons.dumps([asdict(each) for each in shown], indent=1))
        return
    blocks = [_block(list(of_one)) for _, of_one in groupby(shown, key=lambda each: each.family)]
    left_out = [_left_out(found)] if commercial and len(free) < len(found) else []
    tell("\n\n".join([*blocks, "\n".join([*left_out, _LAST] if blocks else left_out)]))


_LAST = """\
Top-1 / top-5 in percent (clips × crops), of a pre-training after its fine-tuning on that data set; –: not known.
Licences are as the authors state them for the files; the data sets that they learned from have terms of their own."""


def _block(of_one: Sequence[Checkpoint]) -> str:
    """A family's checkpoints: a line for each, with one below it for its recipes and one for what is to be known."""
    first = of_one[0]
    rows = [
        (each.name, each.size, _millions(each), _results(each), each.licence or "–", _where(each)) for each in of_one
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{first.family}, {first.paper}"]
    for each, row in zip(of_one, rows, strict=True):
        lines.append("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        recipes = [f"made by {each.made_by}"] if each.made_by else []
        recipes += [f"used by {', '.join(each.used_by)}"] if each.used_by else []
        lines += [f"      {line}" for line in ("; ".join(recipes), each.note) if line]
    return "\n".join(lines)


def _millions(each: Checkpoint) -> str:
    return f"{each.parameters / 1e6:.1f} M" if each.parameters else "–"


def _results(each: Checkpoint) -> str:
    return ", ".join(map(str, each.results)) or "–"


def _where(each: Checkpoint) -> str:
    return f"https://huggingface.co/{each.hub}" if each.hub else each.page


def _left_out(found: Sequence[Checkpoint]) -> str:
    """How many are not shown with --commercial, and why."""
    verdicts = [allows_commercial(each.licence) for each in found]
    why = {
        "not for commercial use": verdicts.count(False),
        "under no licence that is known here": verdicts.count(None),
    }
    return f"Left out: {', '.join(f'{count} {reason}' for reason, count in why.items() if count)}."


VERBS: dict[str, Callable[..., None]] = {
    "weights list": listed,
    "weights inspect": inspect,
    "weights convert": convert,
}
