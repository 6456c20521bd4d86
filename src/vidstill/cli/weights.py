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

from vidstill.checkpoints.conversion_report import ConversionReport, TensorConversion
from vidstill.checkpoints.convert import export_state_dict, import_checkpoint
from vidstill.checkpoints.io import Checkpoint, read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.constraints import LAYOUT_CONSTRAINTS, describe_omissions
from vidstill.checkpoints.layouts.infer_config import POSITION_DESCRIPTIONS
from vidstill.checkpoints.layouts.transformers_export import export_to_transformers
from vidstill.checkpoints.layouts.write import check_foreign_suffix, write_foreign_checkpoint
from vidstill.checkpoints.licences import allows_commercial, build_provenance, find_licence, format_licence
from vidstill.checkpoints.model_zoo import PublishedCheckpoint
from vidstill.checkpoints.model_zoo import find_published_checkpoints as find_published
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.export.int8 import Int8Target
from vidstill.pipelines.export.model import ExportConfig
from vidstill.pipelines.export.onnx import OnnxTarget
from vidstill.pipelines.export.torch_export import TorchExportTarget
from vidstill.pipelines.export.write import ExportTarget, write_export
from vidstill.recipes.recipe import PretrainRecipe, find_recipe
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import check_output_file
from vidstill.utils.terminal import echo, format_key_values
from vidstill.utils.text import list_first
from vidstill.utils.types import Grid, InputError

TargetFormat = Literal[
    "vidstill", "videomae", "mvd", "amd", "maskagain", "mae", "dmae", "stmae", "slowfast", "mmaction", "transformers",
    "onnx", "torch", "int8",
]  # fmt: skip

_DEFAULT_EXPORT = ExportConfig()
_MAX_LINES = 10  # of many lines


@dataclass(frozen=True, kw_only=True)
class ConversionSummary:
    """
    Args:
        num_tensors: in the file that was written.
        omissions: what it does not say, in sentences.
    """

    num_tensors: int
    omissions: Sequence[str] = ()


def convert_weights(
    source: Positional[str],
    /,
    *,
    to: TargetFormat,
    out: Path,
    hint: str | None = None,
    ignore_keys: tuple[str, ...] = (),
    export: Annotated[ExportConfig, tyro.conf.arg(name="")] = _DEFAULT_EXPORT,
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
        ignore_keys: tensors of the file that may be left out though nothing explains them: beginnings of names, or patterns.
        json: as JSON, for programs.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name another file with --out, or remove it first")
    if to in _EXPORT_TARGETS:
        if hint is not None or ignore_keys:
            raise InputError(f"--hint and --ignore-keys are not for --to {to}: convert --to vidstill with them first")
        report = write_export(source, out, _EXPORT_TARGETS[to], export)
        echo(jsons.dumps(report.to_dict(), indent=1) if json else report.format_summary())
        return
    if export != _DEFAULT_EXPORT:
        raise InputError(f"clips and what is given of them are asked for, and --to {to} writes weights; leave them out")
    _check_output_path(to, out)
    asked = None if hint is None else find_recipe_encoder(hint)
    weights, ledger = _import_with_provenance(read_checkpoint(source), asked, ignore_keys)
    found = _WRITERS[to](weights, out)
    told = _build_summary(weights, ledger, to, out, found)
    echo(jsons.dumps(told, indent=1) if json else _format_conversion(told))


def find_recipe_encoder(recipe: str) -> ViTConfig:
    """The encoder of a recipe.

    Raises:
        InputError: there is no such recipe.
    """
    found = find_recipe(recipe)
    return found.method.encoder if isinstance(found, PretrainRecipe) else found.encoder


def _check_output_path(target: TargetFormat, path: Path) -> None:
    """Raises an InputError where OUT cannot be written so: before the work, not after it."""
    if target == "vidstill" and path.suffix != ".safetensors":
        raise InputError(f"{path} does not end with .safetensors; name it so")
    if target in LAYOUT_CONSTRAINTS:
        check_foreign_suffix(path)
    check_output_file(path)


def _import_with_provenance(
    checkpoint: Checkpoint, hint: ViTConfig | None, ignore_keys: Sequence[str]
) -> tuple[Checkpoint, ConversionReport | None]:
    """Weights under our names, with where they come from; and the account of a foreign file."""
    if checkpoint.metadata:
        return checkpoint, None
    found, ledger = import_checkpoint(checkpoint, hint, ignore_keys=ignore_keys)
    ignored = {entry.foreign_name: entry.reason for entry in ledger.filter_by_status("ignored")}
    about = {
        **found.metadata,
        **build_provenance({"converted": found}),
        "counts": _count_statuses(ledger),
        "ignored": ignored,
    }
    return Checkpoint(found.tensors, about, found.source), ledger


def _count_statuses(report: ConversionReport) -> dict[str, int]:
    return dict(Counter(entry.status for entry in report.entries))


def _write_vidstill(checkpoint: Checkpoint, out: Path) -> ConversionSummary:
    write_checkpoint(out, checkpoint.tensors, checkpoint.metadata)
    return ConversionSummary(num_tensors=len(checkpoint.tensors))


def _write_layout(checkpoint: Checkpoint, out: Path, *, layout: str) -> ConversionSummary:
    tensors = export_state_dict(checkpoint, layout)
    write_foreign_checkpoint(out, tensors, layout)
    return ConversionSummary(num_tensors=len(tensors), omissions=describe_omissions(checkpoint, layout))


def _write_transformers(checkpoint: Checkpoint, out: Path) -> ConversionSummary:
    written = export_to_transformers(checkpoint, out)
    return ConversionSummary(
        num_tensors=len(checkpoint.tensors), omissions=[f"it is a {written.architecture}", *written.notes]
    )


_WRITERS: Mapping[str, Callable[[Checkpoint, Path], ConversionSummary]] = {
    "vidstill": _write_vidstill,
    **{layout: partial(_write_layout, layout=layout) for layout in LAYOUT_CONSTRAINTS},
    "transformers": _write_transformers,
}
_EXPORT_TARGETS: Mapping[str, type[ExportTarget]] = {
    "onnx": OnnxTarget,
    "torch": TorchExportTarget,
    "int8": Int8Target,
}


def _build_summary(
    checkpoint: Checkpoint, report: ConversionReport | None, target: TargetFormat, out: Path, result: ConversionSummary
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "source": checkpoint.source,
        "kind": checkpoint.metadata.get("kind"),
        "licence": find_licence(checkpoint),
    }
    if report is not None:
        told |= {"layout": report.layout_description, "counts": _count_statuses(report), "notes": list(report.notes)}
        told["ignored"] = {entry.foreign_name: entry.reason for entry in report.filter_by_status("ignored")}
        told["missing"] = {entry.native_name: entry.reason for entry in report.filter_by_status("missing")}
    files = [out] if out.is_file() else sorted(out.iterdir())
    size = sum(each.stat().st_size for each in files)
    return told | {
        "to": target,
        "out": str(out),
        "num_tensors": result.num_tensors,
        "num_bytes": size,
        "omissions": list(result.omissions),
    }


def _format_conversion(summary: Mapping[str, Any]) -> str:
    if "layout" in summary:
        lines = [f"{summary['source']} is taken for {summary['layout']}"]
        lines += [f"  {sentence}" for sentence in summary["notes"]]
        counts = ", ".join(f"{count} {how}" for how, count in sorted(summary["counts"].items()))
        lines.append(f"  tensors: {counts}")
        for what in ("ignored", "missing"):
            every = [f"  {what}: {name} ({why})" for name, why in summary[what].items()]
            lines += list_first(every, _MAX_LINES)
    else:
        lines = [f"{summary['source']} is vidstill's: a {summary['kind']}"]
    lines.append(
        f"{summary['out']}: {summary['to']}, {summary['num_tensors']} tensors, {summary['num_bytes'] / 1e6:.1f} MB"
    )
    lines += [f"  {sentence}" for sentence in summary["omissions"]]
    if summary["licence"]:
        lines.append(f"  licence: {summary['licence']}")
    return "\n".join(lines)


_UNREMARKABLE_STATUSES = ("unchanged", "renamed")  # what needs no line of its own


def inspect_weights(
    source: Positional[str],
    /,
    *,
    hint: str | None = None,
    ignore_keys: tuple[str, ...] = (),
    all: bool = False,
    json: bool = False,
) -> None:
    """Shows what weights are: layout, model, licence, and what becomes of every tensor; nothing is written.

    Args:
        source: a run's folder or a file of weights, ours or others'.
        hint: a recipe whose encoder the file has: its heads, and which positions are computed, where no tensor says so.
        ignore_keys: tensors that may be left out though nothing explains them: beginnings of names, or patterns.
        all: a line for every tensor.
        json: as JSON, for programs: every tensor.
    """
    read = read_checkpoint(source)
    if read.metadata:
        entries = tuple(
            TensorConversion(name, name, tuple(tensor.shape), "unchanged") for name, tensor in read.tensors.items()
        )
        weights, ledger = read, ConversionReport("a file of vidstill", entries)
    else:
        weights, ledger = import_checkpoint(
            read, None if hint is None else find_recipe_encoder(hint), ignore_keys=ignore_keys
        )
    found = _build_inspection(weights, ledger)
    if json:
        about = {"licence": find_licence(weights), "provenance": weights.metadata.get("provenance", [])}
        echo(jsons.dumps(found | about | {"conversion_report": [asdict(entry) for entry in ledger.entries]}, indent=1))
        return
    notes = [f"  {note}" for note in found.pop("notes")]
    lines = [format_key_values({name: value for name, value in found.items() if value is not None}), *notes]
    echo("\n".join([*lines, *format_licence(weights), *_format_tensor_table(ledger, show_all=all)]))


def _build_inspection(checkpoint: Checkpoint, report: ConversionReport) -> dict[str, Any]:
    """What is said of weights, by name."""
    about = checkpoint.metadata
    head = about.get("classifier", {})
    told: dict[str, Any] = {
        "source": checkpoint.source,
        "layout": report.layout_description,
        "kind": about.get("kind"),
        "classes": head.get("num_classes"),
        "num_parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
    }
    if about.get("encoder"):
        told |= _describe_encoder(from_dict(ViTConfig, about["encoder"]))
    counts = Counter(entry.status for entry in report.entries)
    return told | {
        "tensors": ", ".join(f"{count} {how}" for how, count in counts.items()),
        "notes": list(report.notes),
    }


def _describe_encoder(encoder: ViTConfig) -> dict[str, Any]:
    grid = None if encoder.learned_grid is None else Grid(*encoder.learned_grid)
    t, h, w = encoder.tubelet
    return {
        "dim": encoder.dim,
        "depth": encoder.depth,
        "heads": encoder.heads,
        "mlp ratio": f"{encoder.mlp_ratio:g}",
        "tubelet": f"{t} × {h} × {w}" + (" (images)" if t == 1 else ""),
        "position embedding": POSITION_DESCRIPTIONS[encoder.positions]
        + ("" if grid is None else f", for {grid.t} × {grid.h} × {grid.w} tokens"),
        "class token": "yes" if encoder.class_token else "no",
        "layer scale": "yes" if encoder.layer_scale else "no",
        "attention bias": {"qv": "queries, values", "qkv": "queries, keys, values"}.get(encoder.attention_bias, "none"),
        "norm eps": f"{encoder.norm_eps:g}",
        "mean": " ".join(f"{value:g}" for value in encoder.mean),
        "std": " ".join(f"{value:g}" for value in encoder.std),
    }


def _format_tensor_table(report: ConversionReport, *, show_all: bool) -> list[str]:
    """A line for each tensor; without `probe_all_command`, for those alone that were not simply taken, the first of each kind."""
    shown: list[TensorConversion] = []
    for how in dict.fromkeys(entry.status for entry in report.entries):
        entries = list(report.filter_by_status(how))
        shown += entries if show_all else [] if how in _UNREMARKABLE_STATUSES else entries[:_MAX_LINES]
    if not shown:
        return []
    rows = [
        (e.status, e.foreign_name or "–", e.native_name or "–", " × ".join(map(str, e.shape)), e.reason) for e in shown
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = len(report.entries) - len(shown)
    return ["", *lines, *([f"{_format_remaining(left)}: --all shows every one"] if left else [])]


def _format_remaining(num_tensors: int) -> str:
    return "one more tensor" if num_tensors == 1 else f"{num_tensors} more tensors"


def list_weights(pattern: Positional[str] = "*", /, *, commercial: bool = False, json: bool = False) -> None:
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
        echo(jsons.dumps([asdict(each) for each in shown], indent=1))
        return
    blocks = [_format_family(list(of_one)) for _, of_one in groupby(shown, key=lambda each: each.family)]
    left_out = [_describe_omitted(found)] if commercial and len(free) < len(found) else []
    echo("\n\n".join([*blocks, "\n".join([*left_out, _LIST_FOOTNOTE] if blocks else left_out)]))


_LIST_FOOTNOTE = """\
Top-1 / top-5 in percent (clips × crops), of a pre-training after its fine-tuning on that data set; –: not known.
Licences are as the authors state them for the files; the data sets that they learned from have terms of their own."""


def _format_family(checkpoints: Sequence[PublishedCheckpoint]) -> str:
    """A family's checkpoints: a line for each, with one below it for its recipes and one for what is to be known."""
    first = checkpoints[0]
    rows = [
        (each.name, each.size, _format_parameters(each), _format_results(each), each.licence or "–", _get_url(each))
        for each in checkpoints
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{first.family}, {first.paper}"]
    for each, row in zip(checkpoints, rows, strict=True):
        lines.append("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        recipes = [f"made by {each.recipe}"] if each.recipe else []
        recipes += [f"used by {', '.join(each.downstream_recipes)}"] if each.downstream_recipes else []
        lines += [f"      {line}" for line in ("; ".join(recipes), each.note) if line]
    return "\n".join(lines)


def _format_parameters(checkpoint: PublishedCheckpoint) -> str:
    return f"{checkpoint.num_parameters / 1e6:.1f} M" if checkpoint.num_parameters else "–"


def _format_results(checkpoint: PublishedCheckpoint) -> str:
    return ", ".join(map(str, checkpoint.results)) or "–"


def _get_url(checkpoint: PublishedCheckpoint) -> str:
    return f"https://huggingface.co/{checkpoint.hub_repo}" if checkpoint.hub_repo else checkpoint.url


def _describe_omitted(checkpoints: Sequence[PublishedCheckpoint]) -> str:
    """How many are not shown with --commercial, and why."""
    verdicts = [allows_commercial(each.licence) for each in checkpoints]
    why = {
        "not for commercial use": verdicts.count(False),
        "under no licence that is known here": verdicts.count(None),
    }
    return f"Left out: {', '.join(f'{count} {reason}' for reason, count in why.items() if count)}."
