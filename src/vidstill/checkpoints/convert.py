"""Import a foreign checkpoint: recognize its layout, rename its tensors, and account for every one of them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import Tensor

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, check_encoder_matches
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import ConversionStatus, TensorConversion, rename_tensors
from vidstill.models.vit import ViTConfig
from vidstill.utils.text import join_first, pluralize
from vidstill.utils.types import InputError

_BACKBONE_PREFIX = "backbone."  # before every name of an encoder that was part of a larger model
_MAX_LISTED_TENSORS = 4


@dataclass(frozen=True)
class ConversionReport:
    """
    Args:
        layout_description: What the file was recognized as, and by which signs.
        entries: One for each tensor, or for each place it goes to.
        notes: What the file does not say and was assumed or taken from the hint.
    """

    layout_description: str
    entries: tuple[TensorConversion, ...]
    notes: tuple[str, ...] = ()

    def filter_by_status(self, status: ConversionStatus) -> Iterator[TensorConversion]:
        return (entry for entry in self.entries if entry.status == status)


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
    file, source = ForeignFile(tensors, checkpoint.foreign_metadata, hint), checkpoint.source or "the file"
    try:
        key, match = _detect_layout(file)
        if hint is not None:
            check_encoder_matches(match.inferred.config, hint)
        renamed, entries = rename_tensors(tensors, match.rules)
        shapes = match.compute_shapes(tensors)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    entries = [_resolve_entry(entry, shapes, ignore_keys) for entry in entries]
    present = {entry.native_name for entry in entries}
    for name in [name for name in shapes if name not in present]:
        if reason := match.find_reason(name):
            entries.append(TensorConversion("", name, shapes[name], "missing", reason))
    native = {name: tensor for name, tensor in renamed.items() if name in shapes}
    if faults := _describe_faults(native, shapes, entries):
        raise InputError(f"{source} was recognized as {match.description}, and {faults}")
    description = f"{match.description}, all under {wrapper!r}" if wrapper else match.description
    metadata = {"layout": key, **match.build_metadata(), "separate_qkv": file.has_separate_qkv}
    entries = [
        replace(entry, foreign_name=wrapper + entry.foreign_name) if entry.foreign_name else entry for entry in entries
    ]
    notes = (*match.inferred.notes, *match.notes, *map(str, checkpoint.foreign_metadata.get("notes", ())))
    report = ConversionReport(description, tuple(entries), notes)
    return replace(checkpoint, tensors=native, metadata=metadata), report


def _detect_layout(file: ForeignFile) -> tuple[str, LayoutMatch]:
    """Return the key of the layout that a file has, and what it was recognized as.

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


def _resolve_entry(
    entry: TensorConversion, shapes: Mapping[str, tuple[int, ...]], ignore_keys: Collection[str]
) -> TensorConversion:
    """Decide about a renamed tensor, now that the model's names are known."""
    if entry.status == "ignored" or entry.native_name in shapes:
        return entry
    if any(entry.foreign_name.startswith(key) or fnmatchcase(entry.foreign_name, key) for key in ignore_keys):
        return replace(entry, native_name="", status="ignored", reason="left out by --ignore-keys")
    return replace(entry, status="unexplained", reason=entry.reason or "the model has no such tensor")


def _describe_faults(
    native: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], entries: Sequence[TensorConversion]
) -> str:
    """Return what is missing, of a wrong shape, or unexplained, and what to do; empty: nothing is."""
    statuses = defaultdict(list)
    for entry in entries:
        statuses[entry.native_name].append(entry.status)
    missing = [
        f"{name} ({len(statuses[name])} of 3 parts are there)" if statuses[name] else name
        for name in shapes
        if name not in native and "missing" not in statuses[name]
    ]
    wrong_shapes = [
        f"{entry.foreign_name} as {entry.shape} instead of {shapes[entry.native_name]}"
        for entry in entries
        if entry.native_name in native and tuple(native[entry.native_name].shape) != shapes[entry.native_name]
    ]
    unexplained = [entry.foreign_name for entry in entries if entry.status == "unexplained"]
    faults = [f"lacks {_format_tensor_names(missing)}"] if missing else []
    faults += [f"has {_format_tensor_names(wrong_shapes)}"] if wrong_shapes else []
    faults += [f"has {_format_tensor_names(unexplained)} that nothing explains"] if unexplained else []
    if missing or wrong_shapes:
        faults[-1] += "; it was cut, renamed or changed: fetch it again"
    elif unexplained:
        command = f"`vidstill weights convert … --ignore-keys {unexplained[0]}`"
        faults[-1] += f"; if they are not needed, leave them out: {command} (also a prefix, or a pattern)"
    return "; it ".join(faults)


def _format_tensor_names(names: Sequence[str]) -> str:
    return f"{pluralize(len(names), 'tensor')} ({join_first(names, _MAX_LISTED_TENSORS)})"
