"""Load a checkpoint once, and put its weights into a model so that every tensor is accounted for."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.inflate import (
    inflate_encoder,
    init_learned_positions,
    needs_inflation,
    needs_learned_positions,
)
from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.layouts.infer_encoder import list_indices, select_prefix
from vidstill.checkpoints.meta_build import build_on_meta
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

_log = logging.getLogger("vidstill")
_ENCODER_PREFIX = "encoder."

ConfigT = TypeVar("ConfigT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_checkpoint(source: str | Path, expected: ViTConfig | None = None) -> Checkpoint:
    """Read a checkpoint and import it if it is foreign; what was assumed of a foreign one is logged.

    The tensors are mapped from the file, so that the processes of a host share them.

    Args:
        source: As for `read_checkpoint`.
        expected: The encoder that the caller expects; it decides what a foreign file does not say.

    Raises:
        InputError: There is no such file; its layout is unknown; or it is incomplete or damaged.
    """
    checkpoint = read_checkpoint(source)
    if not checkpoint.metadata:
        checkpoint, report = import_checkpoint(checkpoint, expected)
        notes = "; ".join((report.layout_description, *report.notes))
        _log.warning("%s is recognized as %s", checkpoint.source, notes)
    elif encoder := checkpoint.metadata.get("encoder"):
        _check_encoder(parse_metadata(ViTConfig, encoder, checkpoint.source), checkpoint)
    return checkpoint


def parse_metadata(config_class: type[ConfigT], value: Any, source: str) -> ConfigT:
    """Return a configuration in a file's metadata, as `from_dict`; an InputError names the file."""
    try:
        return from_dict(config_class, value)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _check_encoder(config: ViTConfig, checkpoint: Checkpoint) -> None:
    """Raises an InputError where a native file's tensors are not those of the encoder in its metadata."""
    tensors = extract_encoder_state(checkpoint)
    _check_depth(config, tensors, "", checkpoint.source)
    for name, tensor in _build_on_meta(config.build, tensors, checkpoint.source).state_dict().items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != tuple(tensor.shape) and not (name.startswith("norm.") and shape is None):
            raise InputError(
                f"{checkpoint.source}: the encoder in its metadata has {name!r} of shape {tuple(tensor.shape)}, its "
                f"tensors {shape or 'none'}; it is damaged, fetch or write it again"
            )


def _check_depth(config: ViTConfig, tensors: Mapping[str, Tensor], prefix: str, source: str) -> None:
    """Raises an InputError before blocks are built that the file does not hold."""
    depth = len(list_indices(tensors, f"{prefix}blocks."))
    if config.depth != depth:
        raise InputError(
            f"{source}: the encoder in its metadata has {config.depth} blocks, its tensors {depth}; it is damaged, "
            "fetch or write it again"
        )


def build_from_state(
    build: Callable[[], ModuleT], encoder: ViTConfig, tensors: Mapping[str, Tensor], source: str
) -> ModuleT:
    """Build a model with these tensors; no memory is taken before their names and shapes are known to be right.

    Args:
        build: Builds the model, from the metadata of the same file.
        encoder: The model's.
        tensors: By the model's names.
        source: What messages call the file.

    Raises:
        InputError: The tensors are not those of the model.
    """
    _check_depth(encoder, tensors, _ENCODER_PREFIX, source)
    _check_state_dict(_build_on_meta(build, tensors, source), tensors, source)
    model = build()
    model.load_state_dict(dict(tensors))
    return model


def _build_on_meta(build: Callable[[], ModuleT], tensors: Mapping[str, Tensor], source: str) -> ModuleT:
    try:
        return build_on_meta(build, tensors.values())
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def load_state_dict_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors into a module that has exactly their names and shapes.

    Args:
        module: It is unchanged if an error is raised.
        tensors: By the module's names.
        source: What messages call the file.

    Raises:
        InputError: A tensor is missing, left over, or of another shape.
    """
    _check_state_dict(module, tensors, source)
    module.load_state_dict(dict(tensors))


def _check_state_dict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    expected = module.state_dict()
    missing, left_over = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} tensors of this model, first {missing[0]!r}: it is of another kind"
        )
    if left_over:
        raise InputError(
            f"{source} has {len(left_over)} tensors too many, first {left_over[0]!r}: it is of another kind"
        )
    for name, tensor in sorted(expected.items()):
        if tensor.shape != tensors[name].shape:
            raise InputError(
                f"{source}: {name!r} is {tuple(tensors[name].shape)}, this model's is {tuple(tensor.shape)}; take the "
                "size that the file was made with"
            )


def infer_encoder_config(checkpoint: Checkpoint, default: ViTConfig | None = None) -> ViTConfig:
    """Return the encoder that a loaded checkpoint states, or the default if it states none.

    Raises:
        InputError: It states none, and there is no default.
    """
    if encoder := checkpoint.metadata.get("encoder"):
        return from_dict(ViTConfig, encoder)
    if default is None:
        raise InputError(f"{checkpoint.source} does not state its encoder; it is damaged, fetch or write it again")
    return default


def merge_encoder_config(checkpoint: Checkpoint, config: ViTConfig) -> ViTConfig:
    """Return the encoder of a model initialized from a checkpoint: the checkpoint's, except what the recipe decides.

    The recipe decides drop path, whether relative positions are added, and what happens to clips that do not divide
    into tubelets. Where an image encoder becomes a video encoder, it decides the tubelet's frames and the positions;
    where fixed positions become learned (MAE's fine-tuning), the positions.
    """
    source = infer_encoder_config(checkpoint, config)
    relative = source.relative_positions or config.relative_positions
    grid = source.learned_grid or (config.learned_grid if relative else None)
    target = replace(source, drop_path=config.drop_path, drop_remainder=config.drop_remainder)
    target = replace(target, relative_positions=relative, learned_grid=grid)
    if needs_inflation(source, config):
        target = replace(target, tubelet=(config.tubelet[0], *source.tubelet[1:]))
    if needs_inflation(source, config) or needs_learned_positions(source, config):
        target = replace(target, positions=config.positions, learned_grid=config.learned_grid)
    return target


def extract_encoder_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the encoder's tensors of a loaded checkpoint, with the names of `ViT`."""
    return select_prefix(checkpoint.tensors, _ENCODER_PREFIX)


def init_encoder(
    encoder: nn.Module, checkpoint: Checkpoint, config: ViTConfig, *, head_norm: nn.Module | None = None
) -> None:
    """Load a checkpoint's encoder into a model that starts from it; an image encoder is inflated to a video encoder.

    A final norm that the model lacks is dropped, as most authors do: a classifier starts its own. A norm or relative
    positions that the checkpoint lacks keep their initial values.

    Args:
        encoder: The model's encoder.
        checkpoint: As `load_checkpoint` returned it.
        config: The encoder's.
        head_norm: A classifier's own norm, which starts from the checkpoint's final norm, or its classifier's (ST-MAE).

    Raises:
        InputError: The tensors do not fit, or the checkpoint has no norm for `head_norm`.
    """
    source_config = infer_encoder_config(checkpoint, config)
    tensors = extract_encoder_state(checkpoint)
    norm = select_prefix(tensors, "norm.") or select_prefix(checkpoint.tensors, "norm.")
    if needs_inflation(source_config, config):
        tensors = inflate_encoder(tensors, source_config, config)
    elif needs_learned_positions(source_config, config):
        tensors |= init_learned_positions(tensors, source_config, config)
    own: dict[str, Any] = encoder.state_dict()
    initial = {name: tensor for name, tensor in own.items() if name.startswith("norm.") or ".rel_pos." in name}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.") or name in initial}
    load_state_dict_strict(encoder, initial | tensors, checkpoint.source)
    if head_norm is None:
        return
    if not norm:  # a student of MaskAgain
        raise InputError(f"{checkpoint.source} has no final norm that a classifier could start from; take --norm fresh")
    load_state_dict_strict(head_norm, norm, checkpoint.source)
