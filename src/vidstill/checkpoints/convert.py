"""A foreign file as ours: its layout recognised, its tensors under our names, and every one of them accounted for."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vidstill.checkpoints.conversion_report import ConversionReport, ConversionStatus, TensorConversion
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.constraints import LAYOUT_CONSTRAINTS as CONSTRAINTS
from vidstill.checkpoints.layouts.constraints import check_layout_constraints
from vidstill.checkpoints.layouts.helpers import ShapeDict, compute_encoder_shapes
from vidstill.checkpoints.layouts.infer_config import check_encoder_matches
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.mmaction import build_mmaction_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.checkpoints.layouts.slowfast import build_slowfast_rules
from vidstill.checkpoints.layouts.stmae import build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_classifier_rules, build_videomae_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import PositionKind, build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.text import join_first
from vidstill.utils.types import Grid, InputError

_BACKBONE_PREFIX = "backbone."  # before every name of an encoder that was kept of a larger model
_MAX_LISTED_TENSORS = 4  # tensors that a sentence names


@dataclass(frozen=True)
class RenameResult:
    """
    Args:
        tensors: theirs under our names and in our shapes.
        entries: what became of each; of one that is a part of ours, or from which several of ours come, too.
        partial_tensors: ours of which parts are missing, and how many are there of how many.
    """

    tensors: dict[str, Tensor]
    entries: tuple[TensorConversion, ...]
    partial_tensors: Mapping[str, tuple[int, int]]


def import_checkpoint(
    checkpoint: Checkpoint, hint: ViTConfig | None = None, *, ignore_keys: Collection[str] = ()
) -> tuple[Checkpoint, ConversionReport]:
    """A foreign file's tensors under our names, with what our own file would say of itself, and the account of them.

    Args:
        hint: the encoder that is asked for: it decides what the file does not say, and is held to what it does.
        ignore_keys: tensors that may be left out though nothing explains them: beginnings of names, or patterns with `*`.

    Raises:
        InputError: the file is of no layout known here; it contradicts itself or the hint; a tensor is missing, has
            another shape than it should, or is not explained.
    """
    wrapper = _BACKBONE_PREFIX if all(name.startswith(_BACKBONE_PREFIX) for name in checkpoint.tensors) else ""
    theirs = {name.removeprefix(wrapper): tensor for name, tensor in checkpoint.tensors.items()}
    try:
        key, reading = detect_layout(theirs, checkpoint, hint)
        if hint is not None:
            check_encoder_matches(from_dict(ViTConfig, reading.metadata["encoder"]), hint)
        found = rename_tensors(theirs, reading.rules)
        wanted = _collect_expected_shapes(reading)
    except InputError as error:
        raise InputError(f"{checkpoint.source or 'the file'}: {error}") from None
    entries = [_resolve_entry(entry, reading, wanted, ignore_keys) for entry in found.entries]
    there = {entry.native_name for entry in entries if entry.status in ("unchanged", "renamed", "reshaped", "resized")}
    missing = [name for name in wanted if name not in there or name in found.partial_tensors]
    entries += [
        TensorConversion("", name, wanted[name], "missing", why)
        for name in missing
        if (why := _find_reason(reading.optional_prefixes, name)) is not None and name not in found.partial_tensors
    ]
    explained = {entry.native_name for entry in entries if entry.status == "missing"}
    _check_conversion(checkpoint, reading, found, wanted, entries, [name for name in missing if name not in explained])
    if wrapper:
        entries = [
            replace(entry, foreign_name=wrapper + entry.foreign_name) if entry.foreign_name else entry
            for entry in entries
        ]
    ours = {name: tensor for name, tensor in found.tensors.items() if name in there}
    layout = f"{reading.layout_description}, all under {wrapper!r}" if wrapper else reading.layout_description
    separate = any(rule.chunk is not None for rule in reading.rules)
    about = {"layout": key, **reading.metadata, "separate_qkv": separate}
    notes = (*reading.notes, *map(str, checkpoint.foreign_metadata.get("notes", ())))
    return replace(checkpoint, tensors=ours, metadata=about), ConversionReport(layout, tuple(entries), notes)


def detect_layout(
    foreign_tensors: Mapping[str, Tensor], checkpoint: Checkpoint, hint: ViTConfig | None
) -> tuple[str, LayoutMatch]:
    """The layout that a file has, by its names and shapes, and what it is taken for.

    Raises:
        InputError: it is of no layout known here.
    """
    for layout in LAYOUTS:
        reading = layout.match(foreign_tensors, checkpoint.foreign_metadata, hint)
        if reading is not None:
            return layout.key, reading
    raise InputError(
        "it is neither vidstill's nor in a layout known here (VideoMAE, VideoMAE V2, AMD, MVD, MaskAgain, MAE, DMAE, "
        f"ST-MAE, PySlowFast, mmaction2, transformers); its first tensor is {next(iter(foreign_tensors), 'missing')!r}"
    )


def rename_tensors(foreign_tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> RenameResult:
    """Their tensors by a table of names, each with what became of it; what cannot be turned keeps its shape."""
    ours: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor | None]] = {}
    entries: list[TensorConversion] = []
    for name, tensor in foreign_tensors.items():
        shape = tuple(tensor.shape)
        first = next((rule for rule in rules if name.startswith(rule.foreign_prefix)), None)
        if first is None:
            entries.append(TensorConversion(name, "", shape, "unexplained", "the layout has no such name"))
            continue
        if first.native_prefix is None:
            entries.append(TensorConversion(name, "", shape, "ignored", "of no use here"))
            continue
        for rule in rules:
            if rule.foreign_prefix != first.foreign_prefix or rule.native_prefix is None:
                continue
            ours_name = rule.native_prefix + name.removeprefix(rule.foreign_prefix)
            turned = _apply_rule(tensor, rule)
            if rule.chunk is None:
                ours[ours_name] = turned
                how: ConversionStatus = "unchanged" if name == ours_name else "renamed"
                why = "" if rule.row_range is None else f"rows {rule.row_range[0]} to {rule.row_range[1] or 'the last'}"
                how = how if turned.shape == tensor.shape else "reshaped"
                entries.append(TensorConversion(name, ours_name, shape, how, why))
            else:
                parts.setdefault(ours_name, dict.fromkeys(range(rule.chunk[1])))[rule.chunk[0]] = turned
                entries.append(
                    TensorConversion(
                        name, ours_name, shape, "reshaped", f"part {rule.chunk[0] + 1} of {rule.chunk[1]} of it"
                    )
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
    return RenameResult(ours, tuple(entries), incomplete)


def _apply_rule(tensor: Tensor, rule: RenameRule) -> Tensor:
    try:
        shaped = rearrange(tensor, rule.to_native) if rule.to_native else tensor
    except EinopsError:
        return tensor  # its shape is met with a sentence later
    return shaped if rule.row_range is None or not shaped.ndim else shaped[slice(*rule.row_range)]


def _collect_expected_shapes(match: LayoutMatch) -> ShapeDict:
    """Our names, and their shapes, that a file of this kind has to hold."""
    about = match.metadata
    encoder = from_dict(ViTConfig, about["encoder"])
    head = about.get("classifier")
    wanted = compute_encoder_shapes(encoder, final_norm=head is None or head["pooling"] == "first") | dict(
        match.expected_shapes
    )
    if head is None:
        return wanted
    if head["pooling"] != "first":
        wanted |= {"norm.weight": (encoder.dim,), "norm.bias": (encoder.dim,)}
    return wanted | {"head.weight": (head["num_classes"], encoder.dim), "head.bias": (head["num_classes"],)}


def _resolve_entry(
    entry: TensorConversion, match: LayoutMatch, expected_shapes: ShapeDict, ignore_keys: Collection[str]
) -> TensorConversion:
    """An entry of the table of names, once it is known what the model has."""
    why = _find_reason(match.ignored_prefixes, entry.foreign_name)
    if entry.status == "ignored" or (why is not None and entry.native_name not in expected_shapes):
        of_positions = "a table that is computed here" if "pos_embed" in entry.foreign_name else entry.reason
        return replace(entry, native_name="", status="ignored", reason=why or of_positions)
    if entry.native_name in expected_shapes:
        return entry
    if any(entry.foreign_name.startswith(word) or fnmatchcase(entry.foreign_name, word) for word in ignore_keys):
        return replace(entry, native_name="", status="ignored", reason="allowed to be left out")
    return replace(entry, status="unexplained", reason=entry.reason or "its model has no such tensor")


def _find_reason(reasons: Mapping[str, str], name: str) -> str | None:
    return next((why for start, why in reasons.items() if name.startswith(start)), None)


def _check_conversion(
    checkpoint: Checkpoint,
    match: LayoutMatch,
    result: RenameResult,
    expected_shapes: ShapeDict,
    entries: Sequence[TensorConversion],
    missing: Sequence[str],
) -> None:
    """Raises an InputError where the account does not come out even."""
    faults = []
    if missing:
        parts = [f"{name} (of which it has {result.partial_tensors[name][0]} of {result.partial_tensors[name][1]} parts)"
                 if name in result.partial_tensors else name for name in missing]  # fmt: skip
        faults.append(f"lacks {_format_tensor_names(parts)}")
    shapes = [
        f"{entry.foreign_name} as {entry.shape}, where {expected_shapes[entry.native_name]} belongs"
        for entry in entries
        if entry.native_name in result.tensors
        and entry.status != "unexplained"
        and entry.native_name in expected_shapes
        and tuple(result.tensors[entry.native_name].shape) != expected_shapes[entry.native_name]
    ]
    if shapes:
        faults.append(f"has {_format_tensor_names(shapes)}")
    if strays := [entry.foreign_name for entry in entries if entry.status == "unexplained"]:
        faults.append(f"has {_format_tensor_names(strays)} that nothing explains")
    if not faults:
        return
    mend = "it was cut, renamed or changed: fetch it again" if missing or shapes else ""
    if strays and not (missing or shapes):
        mend = (
            f"if they are not needed, leave them out: `vidstill weights convert … --ignore-keys {strays[0]}` (also a "
            "beginning of names, or a pattern)"
        )
    raise InputError(
        f"{checkpoint.source or 'the file'} was taken for {match.layout_description}, and {'; it '.join(faults)}; {mend}"
    )


def _format_tensor_names(names: Sequence[str]) -> str:
    word = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {word} ({join_first(names, _MAX_LISTED_TENSORS)})"


def export_state_dict(checkpoint: Checkpoint, layout: str) -> dict[str, Tensor]:
    """The tensors of our file as the authors' code names and shapes them; each is of the type that it has here.

    Codes of positions that are computed are written where their files hold them, as their loaders ask for them: MAE's,
    DMAE's, mmaction2's, and those of MVD's pre-trainings. So are the norms behind AMD's generators, which nothing uses
    and nothing trains. In ST-MAE's two layouts, queries, keys and values have a layer each, as in the published files,
    but for an imported file that has them in one.

    Args:
        checkpoint: ours, or a foreign file's that was imported.
        layout: one of LAYOUTS.

    Raises:
        InputError: something of it has no place there.
    """
    code, about = CONSTRAINTS[layout], checkpoint.metadata
    config = check_layout_constraints(checkpoint, code)
    names = _build_export_rules(checkpoint, config, layout)
    theirs = rename_to_foreign(
        checkpoint.tensors, names, f"{checkpoint.source} cannot be written for {code.project}'s code"
    )
    if layout == "amd":
        theirs |= _build_unused_norms(theirs)
    if about["kind"] in code.kinds_with_position_table:
        theirs |= _build_fixed_position_tables(checkpoint, config, layout, theirs)
    return theirs


def rename_to_foreign(
    tensors: Mapping[str, Tensor], rules: Sequence[RenameRule], error_prefix: str
) -> dict[str, Tensor]:
    """Our tensors under the authors' names and in their shapes: the way back through a rename table.

    Args:
        error_prefix: how the sentence begins that says which tensor has no place there.

    Raises:
        InputError: one has none.
    """
    theirs: dict[str, Tensor] = {}
    rows: dict[str, list[tuple[RenameRule, Tensor]]] = defaultdict(list)
    for name, tensor in tensors.items():
        first = next(
            (rule for rule in rules if rule.native_prefix is not None and name.startswith(rule.native_prefix)), None
        )
        if first is None:
            raise InputError(f"{error_prefix}: it has no name for {name!r}, of the shape {tuple(tensor.shape)}")
        last = name.removeprefix(str(first.native_prefix))
        if first.row_range is not None:
            rows[first.foreign_prefix + last].append((first, tensor))
            continue
        parts = [rule for rule in rules if rule.native_prefix == first.native_prefix and rule.chunk is not None]
        if not parts:
            theirs[first.foreign_prefix + last] = _to_foreign_shape(tensor, first)
            continue
        for rule, part in zip(parts, tensor.chunk(len(parts)), strict=True):
            theirs[rule.foreign_prefix + last] = _to_foreign_shape(
                part.clone(), rule
            )  # in a file, what shares its memory is one
    for name, found in rows.items():
        found.sort(key=lambda pair: pair[0].row_range or (0, None))
        theirs[name] = _to_foreign_shape(torch.cat([tensor for _, tensor in found]), found[0][0])
    return theirs


def _build_export_rules(checkpoint: Checkpoint, config: ViTConfig, layout: str) -> tuple[RenameRule, ...]:
    """The table of a layout, as far as it depends on what the file holds."""
    tensors, separate = checkpoint.tensors, checkpoint.metadata.get("separate_qkv", True)
    if layout == "mmaction":
        return build_mmaction_rules(config, "backbone.")
    if checkpoint.metadata["kind"] == "probe":
        return (
            RenameRule("head.0.", "norm."),
            RenameRule("head.1.", "head."),
            *build_vit_rules(config, "", "encoder.", is_image=True),
        )
    if checkpoint.metadata["kind"] == "classifier":
        if layout in ("stmae", "slowfast"):
            return build_stmae_classifier_rules(config, separate_qkv=separate, slowfast=layout == "slowfast")
        return build_classifier_rules(config, is_image=CONSTRAINTS[layout].is_image)
    match layout:
        case "amd":
            return build_amd_rules(
                config, _list_projected_layers(checkpoint), len(_find_indices(tensors, r"generators\.(\d+)\."))
            )
        case "mvd":
            return build_mvd_rules(config)
        case "maskagain":
            return build_maskagain_rules(config)
        case "mae":
            return tuple(name for name in build_mae_rules(config) if name.native_prefix != "projections.")
        case "dmae":
            return build_mae_rules(config)
        case "stmae":
            return build_stmae_rules(config, _infer_decoder_naming(tensors), separate_qkv=separate)
        case "slowfast":
            return build_slowfast_rules(config, _infer_decoder_naming(tensors), separate_qkv=separate)
        case _:
            return build_videomae_rules(config)


def _infer_decoder_naming(tensors: Mapping[str, Tensor]) -> DecoderConfig:
    """What its tensors say of a decoder, as far as their names depend on it."""
    codes = "decoder.trunk.positions."
    learned: PositionKind = "learned" if f"{codes}joint" in tensors else "sincos2d"
    own = "decoder.trunk.cls_token" in tensors
    return DecoderConfig(
        dim=0,
        depth=len(_find_indices(tensors, r"decoder\.trunk\.blocks\.(\d+)\.")),
        heads=0,
        positions="separable" if f"{codes}space" in tensors else learned,
        class_token="own" if own else "encoder" if f"{codes}cls_embedding" in tensors else "none",
    )


def _list_projected_layers(checkpoint: Checkpoint) -> list[int]:
    """The layers that a student of AMD is projected at, in the order of its recipe: their places are their names."""
    found = _find_indices(checkpoint.tensors, r"projections\.(\d+)\.")
    pairs = checkpoint.metadata.get("recipe", {}).get("method", {}).get("layer_pairs") or ()
    listed = [layer for layer, _ in pairs if layer in found]
    return listed if len(listed) == len(found) else found


def _find_indices(names: Iterable[str], pattern: str) -> list[int]:
    """The numbers that stand in names, each once, ascending."""
    found = (re.match(pattern, name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def _build_unused_norms(foreign_tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What their model has behind each generator, as it was made."""
    norms = {}
    for place in _find_indices(foreign_tensors, r"generators\.(\d+)\."):
        like = foreign_tensors[f"generators.{place}.blocks.0.norm1.weight"]
        norms[f"generators.{place}.norm.weight"] = torch.ones_like(like)
        norms[f"generators.{place}.norm.bias"] = torch.zeros_like(like)
    return norms


def _build_fixed_position_tables(
    checkpoint: Checkpoint, config: ViTConfig, layout: str, foreign_tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The codes of positions that their files hold and ours do not; MAE's begin with the class token's, of zeros."""
    prefix, code = "backbone." if layout == "mmaction" else "", CONSTRAINTS[layout]
    widths = {} if config.positions == "learned" else {f"{prefix}pos_embed": config.dim}
    for name, norm in _DECODER_NORMS.items():
        if f"{norm}.weight" in foreign_tensors:
            widths[name] = len(foreign_tensors[f"{norm}.weight"])
    if not widths:
        return {}
    grid, like = find_trained_grid(checkpoint, config), checkpoint.tensors["encoder.patch_embed.weight"]
    fixed = code.position_kinds[0]
    if fixed not in ("sinusoid", "sincos2d", "sincos3d"):
        raise ValueError(f"{layout} has no codes that are computed, and says that its files hold them")
    tables = {}
    for name, width in widths.items():
        table = build_position_table(fixed, grid, width, torch.device("cpu")).to(like.dtype)
        first = table.new_zeros(int(code.is_image), width)
        tables[name] = rearrange(torch.cat([first, table]), "n d -> 1 n d")
    return tables


_DECODER_NORMS = {
    "decoder_pos_embed": "decoder_norm",
    "pos_embed_img": "decoder_img.norm",
    "pos_embed_vid": "decoder_vid.norm",
}


def find_trained_grid(checkpoint: Checkpoint, config: ViTConfig) -> Grid:
    """The tokens of the clips that a file's codes of positions are for: learned ones', its recipe's, or as it says.

    Raises:
        InputError: it does not say so.
    """
    about = checkpoint.metadata
    clips = about.get("recipe", {}).get("clips")
    if config.learned_grid is not None:
        return Grid(*config.learned_grid)
    if about.get("grid"):
        return Grid(*about["grid"])
    if clips is not None:
        return config.grid(torch.empty(1, 3, clips["sampling"]["num_frames"], *clips["size"], device="meta"))
    raise InputError(
        f"{checkpoint.source} does not say for which clips its positions were computed, and files of these authors hold "
        "them; convert a run of vidstill, or the authors' own file"
    )


def _to_foreign_shape(tensor: Tensor, rule: RenameRule) -> Tensor:
    return rearrange(tensor, rule.to_foreign, **rule.axis_sizes) if rule.to_foreign else tensor
