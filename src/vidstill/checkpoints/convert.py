"""A foreign file as ours: its layout recognised, its tensors under our names, and every one of them accounted for."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vidstill.checkpoints.conversion_report import Entry, How, Ledger
from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.layouts.amd import amd_names
from vidstill.checkpoints.layouts.constraints import LAYOUTS as CONSTRAINTS
from vidstill.checkpoints.layouts.constraints import check
from vidstill.checkpoints.layouts.helpers import Shapes, encoder_shapes
from vidstill.checkpoints.layouts.infer_config import agrees
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.mae import mae_names
from vidstill.checkpoints.layouts.maskagain import maskagain_names
from vidstill.checkpoints.layouts.mmaction import mmaction_names
from vidstill.checkpoints.layouts.mvd import mvd_names
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import Name, vit_names
from vidstill.checkpoints.layouts.slowfast import slowfast_names
from vidstill.checkpoints.layouts.stmae import stmae_classifier_names, stmae_names
from vidstill.checkpoints.layouts.videomae import classifier_names, videomae_names
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import Positions, position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import Grid, InputError

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


def exported(weights: Weights, layout: str) -> dict[str, Tensor]:
    """The tensors of our file as the authors' code names and shapes them; each is of the type that it has here.

    Codes of positions that are computed are written where their files hold them, as their loaders ask for them: MAE's,
    DMAE's, mmaction2's, and those of MVD's pre-trainings. So are the norms behind AMD's generators, which nothing uses
    and nothing trains. In ST-MAE's two layouts, queries, keys and values have a layer each, as in the published files,
    but for an imported file that has them in one.

    Args:
        weights: ours, or a foreign file's that was imported.
        layout: one of LAYOUTS.

    Raises:
        InputError: something of it has no place there.
    """
    code, about = CONSTRAINTS[layout], weights.about
    config = check(weights, code)
    names = _names(weights, config, layout)
    theirs = in_their_words(weights.tensors, names, f"{weights.source} cannot be written for {code.whose}'s code")
    if layout == "amd":
        theirs |= _unused_norms(theirs)
    if about["kind"] in code.stores:
        theirs |= _computed(weights, config, layout, theirs)
    return theirs


def in_their_words(ours: Mapping[str, Tensor], names: Sequence[Name], refused: str) -> dict[str, Tensor]:
    """Our tensors under the authors' names and in their shapes: the way back through a rename table.

    Args:
        refused: how the sentence begins that says which tensor has no place there.

    Raises:
        InputError: one has none.
    """
    theirs: dict[str, Tensor] = {}
    rows: dict[str, list[tuple[Name, Tensor]]] = defaultdict(list)
    for name, tensor in ours.items():
        first = next((rule for rule in names if rule.ours is not None and name.startswith(rule.ours)), None)
        if first is None:
            raise InputError(f"{refused}: it has no name for {name!r}, of the shape {tuple(tensor.shape)}")
        last = name.removeprefix(str(first.ours))
        if first.rows is not None:
            rows[first.theirs + last].append((first, tensor))
            continue
        parts = [rule for rule in names if rule.ours == first.ours and rule.part is not None]
        if not parts:
            theirs[first.theirs + last] = _shaped(tensor, first)
            continue
        for rule, part in zip(parts, tensor.chunk(len(parts)), strict=True):
            theirs[rule.theirs + last] = _shaped(part.clone(), rule)  # in a file, what shares its memory is one
    for name, found in rows.items():
        found.sort(key=lambda pair: pair[0].rows or (0, None))
        theirs[name] = _shaped(torch.cat([tensor for _, tensor in found]), found[0][0])
    return theirs


def _names(weights: Weights, config: ViTConfig, layout: str) -> tuple[Name, ...]:
    """The table of a layout, as far as it depends on what the file holds."""
    tensors, separate = weights.tensors, weights.about.get("separate_qkv", True)
    if layout == "mmaction":
        return mmaction_names(config, "backbone.")
    if weights.about["kind"] == "probe":
        return (Name("head.0.", "norm."), Name("head.1.", "head."), *vit_names(config, "", "encoder.", image=True))
    if weights.about["kind"] == "classifier":
        if layout in ("stmae", "slowfast"):
            return stmae_classifier_names(config, separate_qkv=separate, slowfast=layout == "slowfast")
        return classifier_names(config, image=CONSTRAINTS[layout].images)
    match layout:
        case "amd":
            return amd_names(config, _direct(weights), len(_numbers(tensors, r"generators\.(\d+)\.")))
        case "mvd":
            return mvd_names(config)
        case "maskagain":
            return maskagain_names(config)
        case "mae":
            return tuple(name for name in mae_names(config) if name.ours != "projections.")
        case "dmae":
            return mae_names(config)
        case "stmae":
            return stmae_names(config, _decoder(tensors), separate_qkv=separate)
        case "slowfast":
            return slowfast_names(config, _decoder(tensors), separate_qkv=separate)
        case _:
            return videomae_names(config)


def _decoder(tensors: Mapping[str, Tensor]) -> DecoderConfig:
    """What its tensors say of a decoder, as far as their names depend on it."""
    codes = "decoder.infill.positions."
    learned: Positions = "learned" if f"{codes}joint" in tensors else "sincos2d"
    own = "decoder.infill.class_token" in tensors
    return DecoderConfig(
        dim=0,
        depth=len(_numbers(tensors, r"decoder\.infill\.blocks\.(\d+)\.")),
        heads=0,
        positions="separable" if f"{codes}space" in tensors else learned,
        class_token="own" if own else "encoder" if f"{codes}of_class" in tensors else "none",
    )


def _direct(weights: Weights) -> list[int]:
    """The layers that a student of AMD is projected at, in the order of its recipe: their places are their names."""
    found = _numbers(weights.tensors, r"projections\.(\d+)\.")
    pairs = weights.about.get("recipe", {}).get("method", {}).get("pairs") or ()
    listed = [layer for layer, _ in pairs if layer in found]
    return listed if len(listed) == len(found) else found


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    """The numbers that stand in names, each once, ascending."""
    found = (re.match(pattern, name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def _unused_norms(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What their model has behind each generator, as it was made."""
    norms = {}
    for place in _numbers(theirs, r"generators\.(\d+)\."):
        like = theirs[f"generators.{place}.blocks.0.norm1.weight"]
        norms[f"generators.{place}.norm.weight"] = torch.ones_like(like)
        norms[f"generators.{place}.norm.bias"] = torch.zeros_like(like)
    return norms


def _computed(weights: Weights, config: ViTConfig, layout: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The codes of positions that their files hold and ours do not; MAE's begin with the class token's, of zeros."""
    prefix, code = "backbone." if layout == "mmaction" else "", CONSTRAINTS[layout]
    widths = {} if config.positions == "learned" else {f"{prefix}pos_embed": config.dim}
    for name, norm in _DECODERS.items():
        if f"{norm}.weight" in theirs:
            widths[name] = len(theirs[f"{norm}.weight"])
    if not widths:
        return {}
    grid, like = trained_grid(weights, config), weights.tensors["encoder.embed.weight"]
    fixed = code.positions[0]
    if fixed not in ("sinusoid", "sincos2d", "sincos3d"):
        raise ValueError(f"{layout} has no codes that are computed, and says that its files hold them")
    tables = {}
    for name, width in widths.items():
        table = position_table(fixed, grid, width, torch.device("cpu")).to(like.dtype)
        first = table.new_zeros(int(code.images), width)
        tables[name] = rearrange(torch.cat([first, table]), "n d -> 1 n d")
    return tables


_DECODERS = {
    "decoder_pos_embed": "decoder_norm",
    "pos_embed_img": "decoder_img.norm",
    "pos_embed_vid": "decoder_vid.norm",
}


def trained_grid(weights: Weights, config: ViTConfig) -> Grid:
    """The tokens of the clips that a file's codes of positions are for: learned ones', its recipe's, or as it says.

    Raises:
        InputError: it does not say so.
    """
    about = weights.about
    clips = about.get("recipe", {}).get("clips")
    if config.learned_grid is not None:
        return Grid(*config.learned_grid)
    if about.get("grid"):
        return Grid(*about["grid"])
    if clips is not None:
        return config.grid(torch.empty(1, 3, clips["sampling"]["frames"], *clips["size"], device="meta"))
    raise InputError(
        f"{weights.source} does not say for which clips its positions were computed, and files of these authors hold "
        "them; convert a run of vidstill, or the authors' own file"
    )


def _shaped(tensor: Tensor, rule: Name) -> Tensor:
    return rearrange(tensor, rule.to_theirs, **rule.axes) if rule.to_theirs else tensor
