"""Import a foreign checkpoint: recognize its layout, rename its tensors, and account for every one of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from vidstill.checkpoints.conversion_report import ConversionReport, TensorConversion
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.build_match import compute_encoder_shapes
from vidstill.checkpoints.layouts.infer_encoder import check_encoder_matches
from vidstill.checkpoints.layouts.layout import ForeignFile, LayoutMatch, ShapeDict
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import RenameResult, rename_tensors
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.text import join_first
from vidstill.utils.types import InputError

_BACKBONE_PREFIX = "backbone."  # before every name of an encoder that was part of a larger model
_MAX_LISTED_TENSORS = 4
_CONVERTED = ("unchanged", "renamed", "reshaped")


def import_checkpoint(
    checkpoint: Checkpoint, hint: ViTConfig | None = None, *, ignore_keys: Collection[str] = ()
) -> tuple[Checkpoint, ConversionReport]:
    """Convert a foreign checkpoint to a native one.

    Args:
        checkpoint: As `read_checkpoint` returned it.
        hint: The expected encoder. It decides what the file does not say, and must agree with what it does.
        ignore_keys: Names of tensors that may be left out though nothing explains them: prefixes, or patterns with `*`.

    Returns:
        The native checkpoint, and what became of every tensor.

    Raises:
        InputError: The layout is unknown; the file contradicts itself or the hint; a tensor is missing, has a wrong
            shape, or is not explained.
    """
    wrapper = _BACKBONE_PREFIX if all(name.startswith(_BACKBONE_PREFIX) for name in checkpoint.tensors) else ""
    tensors = {name.removeprefix(wrapper): tensor for name, tensor in checkpoint.tensors.items()}
    try:
        key, match = _detect_layout(ForeignFile(tensors, checkpoint.foreign_metadata, hint))
        if hint is not None:
            check_encoder_matches(from_dict(ViTConfig, match.metadata["encoder"]), hint)
        result = rename_tensors(tensors, match.rules)
        expected = _compute_expected_shapes(match)
    except InputError as error:
        raise InputError(f"{checkpoint.source or 'the file'}: {error}") from None
    entries = [_resolve_entry(entry, match, expected, ignore_keys) for entry in result.entries]
    converted = {entry.native_name for entry in entries if entry.status in _CONVERTED} - result.partial_tensors.keys()
    missing = []
    for name in expected:
        reason = _find_reason(match.optional_prefixes, name)
        if name in converted:
            continue
        if reason is None or name in result.partial_tensors:
            missing.append(name)
        else:
            entries.append(TensorConversion("", name, expected[name], "missing", reason))
    _check_conversion(checkpoint, match, result, expected, entries, missing)
    entries = [
        replace(entry, foreign_name=wrapper + entry.foreign_name) if entry.foreign_name else entry for entry in entries
    ]
    description = f"{match.description}, all under {wrapper!r}" if wrapper else match.description
    separate_qkv = any(rule.chunk is not None for rule in match.rules)
    metadata = {"layout": key, **match.metadata, "separate_qkv": separate_qkv}
    native = {name: tensor for name, tensor in result.tensors.items() if name in converted}
    notes = (*match.notes, *map(str, checkpoint.foreign_metadata.get("notes", ())))
    report = ConversionReport(description, tuple(entries), notes)
    return replace(checkpoint, tensors=native, metadata=metadata), report


def _detect_layout(file: ForeignFile) -> tuple[str, LayoutMatch]:
    """The key of the layout that a file has, and what it was recognized as.

    Raises:
        InputError: No layout fits.
    """
    for key, layout in LAYOUTS.items():
        if (match := layout.match(file)) is not None:
            return key, match
    names = ", ".join(layout.name for layout in LAYOUTS.values())
    raise InputError(
        f"it is neither vidstill's nor of a known layout ({names}); its first tensor is "
        f"{next(iter(file.tensors), 'missing')!r}"
    )


def _compute_expected_shapes(match: LayoutMatch) -> ShapeDict:
    """Our names and shapes that a file of this kind must hold."""
    encoder, head = from_dict(ViTConfig, match.metadata["encoder"]), match.metadata.get("classifier")
    final_norm = head is None or head["pooling"] == "first"
    shapes = compute_encoder_shapes(encoder, final_norm=final_norm) | dict(match.expected_shapes)
    if head is None:
        return shapes
    if not final_norm:
        shapes |= {"norm.weight": (encoder.dim,), "norm.bias": (encoder.dim,)}
    return shapes | {"head.weight": (head["num_classes"], encoder.dim), "head.bias": (head["num_classes"],)}


def _resolve_entry(
    entry: TensorConversion, match: LayoutMatch, expected_shapes: ShapeDict, ignore_keys: Collection[str]
) -> TensorConversion:
    """Decide about a renamed tensor, now that the model's names are known."""
    reason = _find_reason(match.ignored_prefixes, entry.foreign_name)
    if entry.status == "ignored" or (reason is not None and entry.native_name not in expected_shapes):
        default = "a fixed position table, computed here" if "pos_embed" in entry.foreign_name else entry.reason
        return replace(entry, native_name="", status="ignored", reason=reason or default)
    if entry.native_name in expected_shapes:
        return entry
    if any(entry.foreign_name.startswith(key) or fnmatchcase(entry.foreign_name, key) for key in ignore_keys):
        return replace(entry, native_name="", status="ignored", reason="left out by --ignore-keys")
    return replace(entry, status="unexplained", reason=entry.reason or "the model has no such tensor")


def _find_reason(reasons: Mapping[str, str], name: str) -> str | None:
    return next((reason for prefix, reason in reasons.items() if name.startswith(prefix)), None)


def _check_conversion(
    checkpoint: Checkpoint,
    match: LayoutMatch,
    result: RenameResult,
    expected_shapes: ShapeDict,
    entries: Sequence[TensorConversion],
    missing: Sequence[str],
) -> None:
    """Raises an InputError where tensors are missing, of a wrong shape, or unexplained."""
    faults = []
    if missing:
        names = [
            f"{name} ({result.partial_tensors[name][0]} of {result.partial_tensors[name][1]} parts are there)"
            if name in result.partial_tensors
            else name
            for name in missing
        ]
        faults.append(f"lacks {_format_tensor_names(names)}")
    wrong_shapes = [
        f"{entry.foreign_name} as {entry.shape} instead of {expected_shapes[entry.native_name]}"
        for entry in entries
        if entry.status in _CONVERTED
        and entry.native_name in result.tensors
        and tuple(result.tensors[entry.native_name].shape) != expected_shapes[entry.native_name]
    ]
    if wrong_shapes:
        faults.append(f"has {_format_tensor_names(wrong_shapes)}")
    unexplained = [entry.foreign_name for entry in entries if entry.status == "unexplained"]
    if unexplained:
        faults.append(f"has {_format_tensor_names(unexplained)} that nothing explains")
    if not faults:
        return
    if missing or wrong_shapes:
        advice = "it was cut, renamed or changed: fetch it again"
    else:
        advice = (
            "if they are not needed, leave them out: `vidstill weights convert … --ignore-keys "
            f"{unexplained[0]}` (also a prefix, or a pattern)"
        )
    source = checkpoint.source or "the file"
    raise InputError(f"{source} was recognized as {match.description}, and {'; it '.join(faults)}; {advice}")


def _format_tensor_names(names: Sequence[str]) -> str:
    noun = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {noun} ({join_first(names, _MAX_LISTED_TENSORS)})"
