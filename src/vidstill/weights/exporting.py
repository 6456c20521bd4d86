"""Our weights as the authors' files have them: names, shapes, wrapping; what these cannot hold is refused."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from vidstill.models.decoder import DecoderConfig
from vidstill.models.positions import Positions, position_table
from vidstill.models.vit import ViTConfig
from vidstill.types import Grid, InputError
from vidstill.weights.authors import LAYOUTS, check
from vidstill.weights.files import Weights
from vidstill.weights.names import (
    Name,
    amd_names,
    classifier_names,
    mae_names,
    maskagain_names,
    mmaction_names,
    mvd_names,
    slowfast_names,
    stmae_classifier_names,
    stmae_names,
    videomae_names,
    vit_names,
)


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
    code, about = LAYOUTS[layout], weights.about
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
        return classifier_names(config, image=LAYOUTS[layout].images)
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
    prefix, code = "backbone." if layout == "mmaction" else "", LAYOUTS[layout]
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
"""What decoders' tables are called, and a decoder is known by."""


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
