"""Foreign tensors under our names, and weights put into a model so that each of them is accounted for."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from vidstill.checkpoints.convert import import_checkpoint, rename_tensors
from vidstill.checkpoints.inflate import (
    inflate_encoder,
    init_learned_positions,
    needs_inflation,
    needs_learned_positions,
)
from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

log = logging.getLogger("vidstill")


def translate_state_dict(foreign_tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> dict[str, Tensor]:
    """Their tensors under our names and in our shapes.

    Raises:
        InputError: tensors that the layout does not know, or a part of one of ours without the others.
    """
    found = rename_tensors(foreign_tensors, rules)
    if unknown := [entry.foreign_name for entry in found.entries if entry.status == "unexplained"]:
        raise InputError(f"{len(unknown)} tensors belong to no layout that is known here, first {unknown[0]!r}")
    for name, (there, of) in found.partial_tensors.items():
        raise InputError(f"the file has {there} of the {of} parts of {name!r}: it is incomplete")
    return found.tensors


def load_checkpoint(source: str | Path, hint: ViTConfig | None = None) -> Checkpoint:
    """A file's weights under our names; what a foreign one was taken for, and what it does not say, is said.

    Args:
        hint: the encoder that is asked for, as for `import_checkpoint`.

    Raises:
        InputError: there is no such file, or it is of no layout known here, or incomplete.
    """
    weights = read_checkpoint(source)
    if weights.metadata:
        return weights
    ours, ledger = import_checkpoint(weights, hint)
    log.warning("%s is taken for %s", weights.source, "; ".join((ledger.layout_description, *ledger.notes)))
    return ours


def load_state_dict_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
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


def infer_encoder_config(checkpoint: Checkpoint, hint: ViTConfig | None = None) -> ViTConfig:
    """The encoder that the file holds: as it says, or as its names and shapes say.

    Args:
        hint: the encoder that is asked for: it decides what a foreign file does not say, as for `import_checkpoint`.

    Raises:
        InputError: the file holds no encoder that is known here, or one that contradicts the one that is asked for.
    """
    plain = _import_if_foreign(checkpoint, hint).metadata.get("encoder")
    if plain:
        return from_dict(ViTConfig, plain)
    if hint is None:
        raise InputError(
            f"{checkpoint.source} does not say what its encoder is; it is damaged, fetch or write it again"
        )
    return hint


def merge_encoder_config(checkpoint: Checkpoint, config: ViTConfig) -> ViTConfig:
    """The encoder of a model that goes on from a file's: as the file says, but for what its own recipe decides.

    That is how many branches are dropped, whether relative positions come in, what becomes of clips that do not divide
    into tubelets, and the length of tubelets and the codes of positions where the file's encoder is of images; or
    learned codes where the file's are computed, which they start as (MAE's fine-tuning).
    """
    found = infer_encoder_config(checkpoint, config)
    relative = found.relative_positions or config.relative_positions
    ours = replace(
        found,
        drop_path=config.drop_path,
        drop_remainder=config.drop_remainder,
        relative_positions=relative,
        learned_grid=found.learned_grid or (config.learned_grid if relative else None),
    )
    if needs_inflation(found, config):
        ours = replace(ours, tubelet=(config.tubelet[0], *found.tubelet[1:]))
    if needs_inflation(found, config) or needs_learned_positions(found, config):
        ours = replace(ours, positions=config.positions, learned_grid=config.learned_grid)
    return ours


def extract_encoder_state(checkpoint: Checkpoint, config: ViTConfig) -> dict[str, Tensor]:
    """The encoder's tensors, under the names of `ViT`, of our files and of the authors'.

    Raises:
        InputError: the file holds no encoder that is known here.
    """
    ours = _import_if_foreign(checkpoint, config).tensors
    return {name.removeprefix("encoder."): t for name, t in ours.items() if name.startswith("encoder.")}


def init_encoder(
    encoder: nn.Module, checkpoint: Checkpoint, config: ViTConfig, *, head_norm: nn.Module | None = None
) -> None:
    """Puts a file's encoder into a model that goes on from it; one of images becomes one of clips (`inflate_encoder`).

    A final norm that the model does not have is left behind, as most authors do: a classifier starts its own.
    One that the model has and the file has not (it was fine-tuned) keeps its start, as do relative positions.

    Args:
        head_norm: a classifier's own, that goes on from the file's last norm: the encoder's, or its classifier's (ST-MAE).
    """
    checkpoint = _import_if_foreign(checkpoint, config)
    found = infer_encoder_config(checkpoint, config)
    tensors = extract_encoder_state(checkpoint, found)
    final = {name: tensor for name, tensor in tensors.items() if name.startswith("norm.")}
    if needs_inflation(found, config):
        tensors = inflate_encoder(tensors, found, config)
    elif needs_learned_positions(found, config):
        tensors |= init_learned_positions(tensors, found, config)
    own = encoder.state_dict()
    start = {name: tensor for name, tensor in own.items() if name.startswith("norm.") or ".rel_pos." in name}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.") or name in start}
    load_state_dict_strict(encoder, start | kept, checkpoint.source)
    if head_norm is not None:
        final = final or {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("norm.")}
        if not final:  # a student of MaskAgain
            raise InputError(
                f"{checkpoint.source} has no last norm that a classifier could go on from; take --norm fresh"
            )
        load_state_dict_strict(
            head_norm, {name.removeprefix("norm."): tensor for name, tensor in final.items()}, checkpoint.source
        )


def _import_if_foreign(checkpoint: Checkpoint, hint: ViTConfig | None) -> Checkpoint:
    return checkpoint if checkpoint.metadata else import_checkpoint(checkpoint, hint)[0]
