"""A foreign file as ours: its layout recognised, its tensors under our names, and every one of them accounted for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vidstill.config import from_plain
from vidstill.models.vit import ViTConfig
from vidstill.types import InputError
from vidstill.weights.files import Weights
from vidstill.weights.layouts.every import LAYOUTS
from vidstill.weights.layouts.layout import Reading
from vidstill.weights.layouts.parts import Shapes, encoder_shapes
from vidstill.weights.layouts.sizes import agrees
from vidstill.weights.ledger import Entry, How, Ledger
from vidstill.weights.names import Name

_BACKBONE = "backbone."  # before every name of an encoder that was kept of a larger model
_NAMED = 4  # tensors that a sentence names


@dataclass(frozen=True)
class Renamed:
    """
    Args:
        tensors: theirs under our names and in our shapes.
        entries: what became of each; of one that is a part of ours, or from which several of ours come, too.
        incomplete: ours of which parts are missing, and how many are there of how many.
    """

    tensors: dict[str, Tensor]
    entries: tuple[Entry, ...]
    incomplete: Mapping[str, tuple[int, int]]


def imported(weights: Weights, hint: ViTConfig | None = None, *, allow: Collection[str] = ()) -> tuple[Weights, Ledger]:
    """A foreign file's tensors under our names, with what our own file would say of itself, and the account of them.

    Args:
        hint: the encoder that is asked for: it decides what the file does not say, and is held to what it does.
        allow: tensors that may be left out though nothing explains them: beginnings of names, or patterns with `*`.

    Raises:
        InputError: the file is of no layout known here; it contradicts itself or the hint; a tensor is missing, has
            another shape than it should, or is not explained.
    """
    wrapper = _BACKBONE if all(name.startswith(_BACKBONE) for name in weights.tensors) else ""
    theirs = {name.removeprefix(wrapper): tensor for name, tensor in weights.tensors.items()}
    try:
        key, reading = recognised(theirs, weights, hint)
        if hint is not None:
            agrees(from_plain(ViTConfig, reading.about["encoder"]), hint)
        found = renamed(theirs, reading.names)
        wanted = _wanted(reading)
    except InputError as error:
        raise InputError(f"{weights.source or 'the file'}: {error}") from None
    entries = [_judged(entry, reading, wanted, allow) for entry in found.entries]
    there = {entry.ours for entry in entries if entry.how in ("taken", "renamed", "reshaped", "resized")}
    missing = [name for name in wanted if name not in there or name in found.incomplete]
    entries += [
        Entry("", name, wanted[name], "missing", why)
        for name in missing
        if (why := _first(reading.may_lack, name)) is not None and name not in found.incomplete
    ]
    explained = {entry.ours for entry in entries if entry.how == "missing"}
    _check(weights, reading, found, wanted, entries, [name for name in missing if name not in explained])
    if wrapper:
        entries = [replace(entry, theirs=wrapper + entry.theirs) if entry.theirs else entry for entry in entries]
    ours = {name: tensor for name, tensor in found.tensors.items() if name in there}
    layout = f"{reading.layout}, all under {wrapper!r}" if wrapper else reading.layout
    separate = any(rule.part is not None for rule in reading.names)
    about = {"layout": key, **reading.about, "separate_qkv": separate}
    notes = (*reading.notes, *map(str, weights.said.get("notes", ())))
    return replace(weights, tensors=ours, about=about), Ledger(layout, tuple(entries), notes)


def recognised(theirs: Mapping[str, Tensor], weights: Weights, hint: ViTConfig | None) -> tuple[str, Reading]:
    """The layout that a file has, by its names and shapes, and what it is taken for.

    Raises:
        InputError: it is of no layout known here.
    """
    for layout in LAYOUTS:
        reading = layout.read(theirs, weights.said, hint)
        if reading is not None:
            return layout.key, reading
    raise InputError(
        "it is neither vidstill's nor in a layout known here (VideoMAE, VideoMAE V2, AMD, MVD, MaskAgain, MAE, DMAE, "
        f"ST-MAE, PySlowFast, mmaction2, transformers); its first tensor is {next(iter(theirs), 'missing')!r}"
    )


def renamed(theirs: Mapping[str, Tensor], names: Sequence[Name]) -> Renamed:
    """Their tensors by a table of names, each with what became of it; what cannot be turned keeps its shape."""
    ours: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor | None]] = {}
    entries: list[Entry] = []
    for name, tensor in theirs.items():
        shape = tuple(tensor.shape)
        first = next((rule for rule in names if name.startswith(rule.theirs)), None)
        if first is None:
            entries.append(Entry(name, "", shape, "unexplained", "the layout has no such name"))
            continue
        if first.ours is None:
            entries.append(Entry(name, "", shape, "ignored", "of no use here"))
            continue
        for rule in names:
            if rule.theirs != first.theirs or rule.ours is None:
                continue
            ours_name = rule.ours + name.removeprefix(rule.theirs)
            turned = _turned(tensor, rule)
            if rule.part is None:
                ours[ours_name] = turned
                how: How = "taken" if name == ours_name else "renamed"
                why = "" if rule.rows is None else f"rows {rule.rows[0]} to {rule.rows[1] or 'the last'}"
                how = how if turned.shape == tensor.shape else "reshaped"
                entries.append(Entry(name, ours_name, shape, how, why))
            else:
                parts.setdefault(ours_name, dict.fromkeys(range(rule.part[1])))[rule.part[0]] = turned
                entries.append(
                    Entry(name, ours_name, shape, "reshaped", f"part {rule.part[0] + 1} of {rule.part[1]} of it")
                )
    incomplete = {}
    for name, found in parts.items():
        there = [tensor for tensor in found.values() if tensor is not None]
        if len(there) < len(found):
            incomplete[name] = (len(there), len(found))
        elif len({tensor.shape[1:] for tensor in there}) > 1:
            incomplete[name] = (1, len(found))
        else:
            ours[name] = torch.cat(there)
    return Renamed(ours, tuple(entries), incomplete)


def _turned(tensor: Tensor, rule: Name) -> Tensor:
    try:
        shaped = rearrange(tensor, rule.to_ours) if rule.to_ours else tensor
    except EinopsError:
        return tensor  # its shape is met with a sentence later
    return shaped if rule.rows is None or not shaped.ndim else shaped[slice(*rule.rows)]


def _wanted(reading: Reading) -> Shapes:
    """Our names, and their shapes, that a file of this kind has to hold."""
    about = reading.about
    encoder = from_plain(ViTConfig, about["encoder"])
    head = about.get("classifier")
    wanted = encoder_shapes(encoder, final_norm=head is None or head["pooling"] == "first") | dict(reading.wanted)
    if head is None:
        return wanted
    if head["pooling"] != "first":
        wanted |= {"norm.weight": (encoder.dim,), "norm.bias": (encoder.dim,)}
    return wanted | {"head.weight": (head["classes"], encoder.dim), "head.bias": (head["classes"],)}


def _judged(entry: Entry, reading: Reading, wanted: Shapes, allow: Collection[str]) -> Entry:
    """An entry of the table of names, once it is known what the model has."""
    why = _first(reading.ignored, entry.theirs)
    if entry.how == "ignored" or (why is not None and entry.ours not in wanted):
        of_positions = "a table that is computed here" if "pos_embed" in entry.theirs else entry.why
        return replace(entry, ours="", how="ignored", why=why or of_positions)
    if entry.ours in wanted:
        return entry
    if any(entry.theirs.startswith(word) or fnmatchcase(entry.theirs, word) for word in allow):
        return replace(entry, ours="", how="ignored", why="allowed to be left out")
    return replace(entry, how="unexplained", why=entry.why or "its model has no such tensor")


def _first(reasons: Mapping[str, str], name: str) -> str | None:
    return next((why for start, why in reasons.items() if name.startswith(start)), None)


def _check(
    weights: Weights,
    reading: Reading,
    found: Renamed,
    wanted: Shapes,
    entries: Sequence[Entry],
    missing: Sequence[str],
) -> None:
    """Raises an InputError where the account does not come out even."""
    faults = []
    if missing:
        parts = [f"{name} (of which it has {found.incomplete[name][0]} of {found.incomplete[name][1]} parts)"
                 if name in found.incomplete else name for name in missing]  # fmt: skip
        faults.append(f"lacks {_listed(parts)}")
    shapes = [
        f"{entry.theirs} as {entry.shape}, where {wanted[entry.ours]} belongs"
        for entry in entries
        if entry.ours in found.tensors
        and entry.how != "unexplained"
        and entry.ours in wanted
        and tuple(found.tensors[entry.ours].shape) != wanted[entry.ours]
    ]
    if shapes:
        faults.append(f"has {_listed(shapes)}")
    if strays := [entry.theirs for entry in entries if entry.how == "unexplained"]:
        faults.append(f"has {_listed(strays)} that nothing explains")
    if not faults:
        return
    mend = "it was cut, renamed or changed: fetch it again" if missing or shapes else ""
    if strays and not (missing or shapes):
        mend = (
            f"if they are not needed, leave them out: `vidstill weights convert … --allow {strays[0]}` (also a "
            "beginning of names, or a pattern)"
        )
    raise InputError(
        f"{weights.source or 'the file'} was taken for {reading.layout}, and {'; it '.join(faults)}; {mend}"
    )


def _listed(names: Sequence[str]) -> str:
    word = "tensor" if len(names) == 1 else "tensors"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {word} ({', '.join(names[:_NAMED])}{more})"
