"""`vidstill weights inspect`, `vidstill weights convert` and `vidstill weights verify`."""

import json as jsons
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from vidstill.checkpoints.convert import ConversionReport, import_checkpoint
from vidstill.checkpoints.io import Checkpoint, read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.export import (
    check_foreign_suffix,
    describe_omissions,
    export_state_dict,
    write_foreign_checkpoint,
)
from vidstill.checkpoints.layouts.registry import LAYOUTS, WRITABLE_LAYOUTS
from vidstill.checkpoints.layouts.rename import TensorConversion
from vidstill.checkpoints.licences import build_provenance, find_licence, format_licence
from vidstill.checkpoints.verify import VerifiedWeights, format_verified_weights, verify_weights
from vidstill.cli.options import Json
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.export.int8 import Int8Target
from vidstill.pipelines.export.model import ExportConfig
from vidstill.pipelines.export.onnx import OnnxTarget
from vidstill.pipelines.export.torch_export import TorchExportTarget
from vidstill.pipelines.export.write import ExportTarget, write_export
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.recipes.sources import open_recipe
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import check_output_file
from vidstill.utils.locks import lock_outputs
from vidstill.utils.terminal import align_columns, echo, format_key_values, show_progress_bar
from vidstill.utils.text import list_first
from vidstill.utils.types import InputError

_EXPORT_TARGETS: Mapping[str, type[ExportTarget]] = {"onnx": OnnxTarget, "torch": TorchExportTarget, "int8": Int8Target}
TARGETS = ("vidstill", *WRITABLE_LAYOUTS, *_EXPORT_TARGETS)
_DEFAULT_EXPORT = ExportConfig()
_MAX_LINES = 10  # of a long list
_UNREMARKABLE_STATUSES = ("unchanged", "renamed")  # need no line of their own


def convert_weights(
    source: Positional[str],
    /,
    *,
    to: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(TARGETS)}}}")],
    out: Path,
    hint: str | None = None,
    ignore_keys: tuple[str, ...] = (),
    export: Annotated[ExportConfig, tyro.conf.arg(name="")] = _DEFAULT_EXPORT,
    json: Json = False,
) -> None:
    """Convert a checkpoint: from or to vidstill's format, an authors' layout, or what other programs run.

    Every tensor of a foreign file is accounted for: the report says what was ignored and why, and an unexplained tensor
    is an error. An existing OUT is never overwritten.

    Args:
        source: A run directory, a file, a URL or a model of the Hub
        to: The target: vidstill's format; an authors' layout by the method's name (stmae: mae_st's; slowfast:
            PySlowFast's); a directory of transformers; an ONNX file (int8: with 8-bit linear layers); a torch.export
            program (torch)
        out: The output: .safetensors, or .pth for an authors' layout; .onnx, .pt2; a directory for transformers
        hint: A recipe whose encoder the file has: its heads and its fixed positions, which no tensor says
        ignore_keys: Tensors that may be left out though nothing explains them: prefixes or patterns of names
    """
    if to not in TARGETS:
        raise InputError(f"--to {to} is unknown; take one of {', '.join(TARGETS)}")
    if out.exists():
        raise InputError(f"{out} exists; name another file with --out, or remove it first")
    with lock_outputs(out):
        if to in _EXPORT_TARGETS:
            if hint is not None or ignore_keys:
                raise InputError(
                    f"--hint and --ignore-keys are not for --to {to}: convert --to vidstill with them first"
                )
            exported = write_export(source, out, _EXPORT_TARGETS[to], export)
            echo(jsons.dumps(exported.to_dict(), indent=1) if json else exported.format_summary())
            return
        if export != _DEFAULT_EXPORT:
            raise InputError(
                f"options of exported programs are not for --to {to}, which writes weights; leave them out"
            )
        if to == "vidstill" and out.suffix != ".safetensors":
            raise InputError(f"{out} does not end with .safetensors; name it so")
        if to != "vidstill" and LAYOUTS[to].format:
            check_foreign_suffix(out)
        check_output_file(out)
        encoder = find_encoder(hint)
        checkpoint, conversion = read_checkpoint(source), dict[str, Any]()
        if not checkpoint.metadata:
            native, report = import_checkpoint(checkpoint, encoder, ignore_keys=ignore_keys)
            conversion = _report_to_dict(report)
            history = {"counts": conversion["counts"], "ignored": conversion["ignored"]}
            metadata = {**native.metadata, **build_provenance({"converted": native}), **history}
            checkpoint = Checkpoint(native.tensors, metadata, native.source)
        num_tensors, omissions = len(checkpoint.tensors), list[str]()
        if to == "vidstill":
            write_checkpoint(out, checkpoint.tensors, checkpoint.metadata)
        elif write := LAYOUTS[to].write:
            omissions = write(checkpoint, out)
        else:
            tensors = export_state_dict(checkpoint, to)
            write_foreign_checkpoint(out, tensors, to)
            num_tensors, omissions = len(tensors), describe_omissions(checkpoint, to)
        summary = {
            "source": checkpoint.source,
            "kind": checkpoint.metadata.get("kind"),
            "licence": find_licence(checkpoint),
            **conversion,
            "to": to,
            "out": str(out),
            "num_tensors": num_tensors,
            "num_bytes": sum(each.stat().st_size for each in ([out] if out.is_file() else out.iterdir())),
            "omissions": omissions,
        }
        echo(jsons.dumps(summary, indent=1) if json else _format_summary(summary))


def find_encoder(recipe: str | None) -> ViTConfig | None:
    """Return the encoder of a recipe."""
    if recipe is None:
        return None
    config = open_recipe(recipe)
    return config.method.encoder if isinstance(config, PretrainRecipe) else config.encoder


def _report_to_dict(report: ConversionReport) -> dict[str, Any]:
    """Return what was converted, and the tensors that were ignored or are missing, and why."""
    return {
        "layout": report.layout_description,
        "counts": dict(Counter(entry.status for entry in report.entries)),
        "notes": list(report.notes),
        "ignored": {entry.foreign_name: entry.reason for entry in report.filter_by_status("ignored")},
        "missing": {entry.native_name: entry.reason for entry in report.filter_by_status("missing")},
    }


def _format_summary(summary: Mapping[str, Any]) -> str:
    if "layout" in summary:
        lines = [f"{summary['source']} is {summary['layout']}", *(f"  {note}" for note in summary["notes"])]
        counts = ", ".join(f"{count} {status}" for status, count in sorted(summary["counts"].items()))
        lines.append(f"  tensors: {counts}")
        for status in ("ignored", "missing"):
            reasons = [f"  {status}: {name} ({reason})" for name, reason in summary[status].items()]
            lines += list_first(reasons, _MAX_LINES)
    else:
        lines = [f"{summary['source']} is vidstill's: a {summary['kind']}"]
    size = f"{summary['num_tensors']} tensors, {summary['num_bytes'] / 1e6:.1f} MB"
    lines.append(f"{summary['out']}: {summary['to']}, {size}")
    lines += [f"  {omission}" for omission in summary["omissions"]]
    return "\n".join([*lines, *([f"  licence: {summary['licence']}"] if summary["licence"] else [])])


def inspect_weights(
    source: Positional[str],
    /,
    *,
    hint: str | None = None,
    ignore_keys: tuple[str, ...] = (),
    all: bool = False,
    json: bool = False,
) -> None:
    """Show what a checkpoint is: layout, model, licence, and what becomes of every tensor; nothing is written.

    Args:
        source: A run directory, a file, a URL or a model of the Hub
        hint: A recipe whose encoder the file has: its heads and its fixed positions, which no tensor says
        ignore_keys: Tensors that may be left out though nothing explains them: prefixes or patterns of names
        all: Print a line for every tensor
        json: Print JSON, with every tensor
    """
    checkpoint = read_checkpoint(source)
    if checkpoint.metadata:
        tensors = checkpoint.tensors.items()
        entries = tuple(TensorConversion(name, name, tuple(tensor.shape), "unchanged") for name, tensor in tensors)
        report = ConversionReport("a file of vidstill", entries)
    else:
        checkpoint, report = import_checkpoint(checkpoint, find_encoder(hint), ignore_keys=ignore_keys)
    metadata, counts = checkpoint.metadata, _report_to_dict(report)["counts"]
    inspection: dict[str, Any] = {
        "source": checkpoint.source,
        "layout": report.layout_description,
        "kind": metadata.get("kind"),
        "num_classes": metadata.get("classifier", {}).get("num_classes"),
        "num_parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
    }
    if metadata.get("encoder"):
        encoder = asdict(from_dict(ViTConfig, metadata["encoder"]))
        inspection |= {name: value for name, value in encoder.items() if value not in (None, False)}
    inspection["tensors"] = ", ".join(f"{count} {status}" for status, count in counts.items())
    if json:
        inspection |= {"notes": list(report.notes), "licence": find_licence(checkpoint)}
        inspection |= {"provenance": metadata.get("provenance", [])}
        inspection |= {"conversion_report": [asdict(entry) for entry in report.entries]}
        echo(jsons.dumps(inspection, indent=1))
        return
    lines = [format_key_values({name: value for name, value in inspection.items() if value is not None})]
    lines += [f"  {note}" for note in report.notes]
    echo("\n".join([*lines, *format_licence(checkpoint), *_format_tensor_table(report, show_all=all)]))


def _format_tensor_table(report: ConversionReport, *, show_all: bool) -> list[str]:
    """Return a line for each tensor; without `show_all`, for the first ones of each remarkable status."""
    entries: list[TensorConversion] = []
    for status in dict.fromkeys(entry.status for entry in report.entries):
        same_status = list(report.filter_by_status(status))
        limit = 0 if status in _UNREMARKABLE_STATUSES else _MAX_LINES
        entries += same_status if show_all else same_status[:limit]
    if not entries:
        return []
    rows = [
        (each.status, each.foreign_name or "–", each.native_name or "–", " × ".join(map(str, each.shape)), each.reason)
        for each in entries
    ]
    remaining = len(report.entries) - len(entries)
    more = f"{remaining} more tensor{'' if remaining == 1 else 's'}: --all shows every one"
    return ["", *align_columns(rows), *([more] if remaining else [])]


def verify_weights_command(sources: Positional[tuple[str, ...]], /, *, json: Json = False) -> None:
    """Compare weights with their checksums: ours state their SHA-256, torch's archives have a CRC-32 of each record.

    The exit code is 1 if a file is damaged.

    Args:
        sources: Run directories, files, URLs (with #sha256=… to compare with that) or models of the Hub
    """
    if not sources:
        raise InputError("no weights are named; give run directories, files, URLs or models of the Hub")
    results = list[VerifiedWeights]()
    with show_progress_bar("sources") as progress:
        for number, source in enumerate(sources, start=1):
            results += verify_weights(source)
            progress(number, len(sources))
    echo(jsons.dumps([asdict(each) for each in results], indent=1) if json else format_verified_weights(results))
    if any(each.problem for each in results):
        sys.exit(1)
