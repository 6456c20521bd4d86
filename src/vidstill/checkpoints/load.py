"""Foreign tensors under our names, and weights put into a model so that each of them is accounted for."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from vidstill.checkpoints.convert import imported, renamed
from vidstill.checkpoints.inflate import inflated, is_inflation, learned_codes, makes_learned
from vidstill.checkpoints.io import Weights, read_weights
from vidstill.checkpoints.layouts.rename import Name
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import InputError

log = logging.getLogger("vidstill")


def translated(theirs: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    """Their tensors under our names and in our shapes.

    Raises:
        InputError: tensors that the layout does not know, or a part of one of ours without the others.
    """
    found = renamed(theirs, names)
    if unknown := [entry.theirs for entry in found.entries if entry.how == "unexplained"]:
        raise InputError(f"{len(unknown)} tensors belong to no layout that is known here, first {unknown[0]!r}")
    for name, (there, of) in found.incomplete.items():
        raise InputError(f"the file has {there} of the {of} parts of {name!r}: it is incomplete")
    return found.tensors


def read_known(source: str | Path, hint: ViTConfig | None = None) -> Weights:
    """A file's weights under our names; what a foreign one was taken for, and what it does not say, is said.

    Args:
        hint: the encoder that is asked for, as for `imported`.

    Raises:
        InputError: there is no such file, or it is of no layout known here, or incomplete.
    """
    weights = read_weights(source)
    if weights.about:
        return weights
    ours, ledger = imported(weights, hint)
    log.warning("%s is taken for %s", weights.source, "; ".join((ledger.layout, *ledger.notes)))
    return ours


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Puts the tensors into the module; every one has its place, and every place its tensor.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; the module is unchanged then.
    """
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - wanted.keys())
    shapes = [n for n in sorted(wanted.keys() & tensors.keys()) if wanted[n].shape != tensors[n].shape]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} tensors of this model, first {missing[0]!r}: it is of another kind"
        )
    if left_over:
        raise InputError(
            f"{source} has {len(left_over)} tensors too many, first {left_over[0]!r}: it is of another kind"
        )
    if shapes:
        name = shapes[0]
        raise InputError(
            f"{source}: {name!r} is {tuple(tensors[name].shape)}, this model's is {tuple(wanted[name].shape)}; "
            "take the size that the file was made with"
        )
    module.load_state_dict(dict(tensors))


def encoder_config(weights: Weights, otherwise: ViTConfig | None = None) -> ViTConfig:
    """The encoder that the file holds: as it says, or as its names and shapes say.

    Args:
        otherwise: the encoder that is asked for: it decides what a foreign file does not say, as for `imported`.

    Raises:
        InputError: the file holds no encoder that is known here, or one that contradicts the one that is asked for.
    """
    plain = _known(weights, otherwise).about.get("encoder")
    if plain:
        return from_plain(ViTConfig, plain)
    if otherwise is None:
        raise InputError(f"{weights.source} does not say what its encoder is; it is damaged, fetch or write it again")
    return otherwise


def continued(weights: Weights, asked: ViTConfig) -> ViTConfig:
    """The encoder of a model that goes on from a file's: as the file says, but for what its own recipe decides.

    That is how many branches are dropped, whether relative positions come in, what becomes of clips that do not divide
    into tubelets, and the length of tubelets and the codes of positions where the file's encoder is of images; or
    learned codes where the file's are computed, which they start as (MAE's fine-tuning).
    """
    found = encoder_config(weights, asked)
    relative = found.relative_positions or asked.relative_positions
    ours = replace(
        found,
        drop_path=asked.drop_path,
        drop_remainder=asked.drop_remainder,
        relative_positions=relative,
        learned_grid=found.learned_grid or (asked.learned_grid if relative else None),
    )
    if is_inflation(found, asked):
        ours = replace(ours, tubelet=(asked.tubelet[0], *found.tubelet[1:]))
    if is_inflation(found, asked) or makes_learned(found, asked):
        ours = replace(ours, positions=asked.positions, learned_grid=asked.learned_grid)
    return ours


def encoder_tensors(weights: Weights, config: ViTConfig) -> dict[str, Tensor]:
    """The encoder's tensors, under the names of `ViT`, of our files and of the authors'.

    Raises:
        InputError: the file holds no encoder that is known here.
    """
    ours = _known(weights, config).tensors
    return {name.removeprefix("encoder."): t for name, t in ours.items() if name.startswith("encoder.")}


def start_encoder(encoder: nn.Module, weights: Weights, config: ViTConfig, *, norm: nn.Module | None = None) -> None:
    """Puts a file's encoder into a model that goes on from it; one of images becomes one of clips (`inflated`).

    A final norm that the model does not have is left behind, as most authors do: a classifier starts its own.
    One that the model has and the file has not (it was fine-tuned) keeps its start, as do relative positions.

    Args:
        norm: a classifier's own, that goes on from the file's last norm: the encoder's, or its classifier's (ST-MAE).
    """
    weights = _known(weights, config)
    found = encoder_config(weights, config)
    tensors = encoder_tensors(weights, found)
    final = {name: tensor for name, tensor in tensors.items() if name.startswith("norm.")}
    if is_inflation(found, config):
        tensors = inflated(tensors, found, config)
    elif makes_learned(found, config):
        tensors |= learned_codes(tensors, found, config)
    own = encoder.state_dict()
    start = {name: tensor for name, tensor in own.items() if name.startswith("norm.") or ".relative." in name}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.") or name in start}
    load_exactly(encoder, start | kept, weights.source)
    if norm is not None:
        final = final or {name: tensor for name, tensor in weights.tensors.items() if name.startswith("norm.")}
        if not final:  # a student of MaskAgain
            raise InputError(f"{weights.source} has no last norm that a classifier could go on from; take --norm fresh")
        load_exactly(norm, {name.removeprefix("norm."): tensor for name, tensor in final.items()}, weights.source)


def _known(weights: Weights, hint: ViTConfig | None) -> Weights:
    return weights if weights.about else imported(weights, hint)[0]
