"""Puts a recipe's parts together: pretrain, finetune. A run is a folder; the same call again resumes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidstill.checkpoints.inflate import needs_inflation
from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.licences import build_provenance
from vidstill.checkpoints.licences import describe_licence_restrictions as licence_notes
from vidstill.checkpoints.load import extract_encoder_state, infer_encoder_config, init_encoder, load_checkpoint
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.distributed import Runtime
from vidstill.methods.common.teacher import FrozenTeacher, TeacherConfig
from vidstill.models.decoder import Decoder
from vidstill.models.external.base import ExternalEncoder
from vidstill.models.external.registry import is_external_encoder, load_external_encoder, parse_weights_file
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.session import TrainingSession, build_train_clips
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError


def pretrain(
    recipe: PretrainRecipe, run_config: RunConfig, *, init: str | None = None, runtime: Runtime | None = None
) -> Path:
    """Pre-trains to the recipe's end, from the newest saved state where there is one; gives the run's folder.

    Args:
        init: a run's folder or a file of weights that the encoder starts from (MVD, table 12), a teacher's for example:
            of the recipe's sizes, or of images; positions that are computed are the recipe's.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(run_config.precision)
    teachers = {name: _load_teacher(name, teacher) for name, teacher in _find_teachers(recipe.method).items()}
    start = load_checkpoint(init, recipe.method.encoder) if init else None
    recipe = replace(recipe, method=_replace_teachers(recipe.method, {n: each.config for n, each in teachers.items()}))
    if start is not None:
        _check_init_encoder(start, recipe.method.encoder)
    listing = open_manifest(run_config.data, split="train", fold=run_config.fold)
    training = TrainingSession("pretrain", recipe, build_train_clips(recipe, listing), run_config, runtime)
    _check_mask(recipe, training.dry_run(recipe.method.build))
    torch.manual_seed(recipe.seed)
    method = recipe.method.build()
    for name, teacher in teachers.items():  # the method's part is named as its configuration's field
        teacher.load_into(method.get_submodule(name))
    if start is not None:
        init_encoder(method.encoder, start, recipe.method.encoder)
    about = {"kind": "pretraining", "encoder": to_dict(recipe.method.encoder), "recipe": to_dict(recipe)}
    sources = {name: teacher.checkpoint for name, teacher in teachers.items()}
    sources = sources if start is None else {"init": start, **sources}
    training.run(method, method, about | build_provenance(sources), init=init or "", notes=licence_notes(sources))
    return run_config.out


@dataclass(frozen=True)
class _LoadedTeacher:
    """What was read of a teacher.

    Args:
        config: as its source says that it is.
        checkpoint: its tensors, and what it says of itself.
        encoder: what these are put into; another library's has them.
    """

    config: TeacherConfig
    checkpoint: Checkpoint
    encoder: ViTConfig | ExternalEncoder

    def load_into(self, teacher: FrozenTeacher) -> None:
        if isinstance(self.encoder, ExternalEncoder):
            teacher.set_model(self.encoder)
        else:
            init_encoder(teacher.model, self.checkpoint, self.encoder)


def _find_teachers(method: Any) -> dict[str, TeacherConfig]:
    """A method's teachers by the fields that they stand in; of several in one, with their places: extra_teachers.0."""
    found: dict[str, Any] = {}
    for field in fields(method):
        value = getattr(method, field.name)
        several = value if isinstance(value, tuple) else ()
        found |= {field.name: value} | {f"{field.name}.{place}": each for place, each in enumerate(several)}
    return {name: value for name, value in found.items() if isinstance(value, TeacherConfig)}


def _replace_teachers(method: Any, teachers: Mapping[str, TeacherConfig]) -> Any:
    """A method's configuration with these in the places of its teachers, which are named as `_find_teachers` does."""
    changed: dict[str, Any] = {}
    for name, teacher in teachers.items():
        field, _, place = name.partition(".")
        changed[field] = (*changed.get(field, ()), teacher) if place else teacher
    return replace(method, **changed)


def _load_teacher(name: str, teacher: TeacherConfig) -> _LoadedTeacher:
    if not teacher.checkpoint:
        option = f"--method.{name.replace('_', '-')}.weights"
        raise InputError(f"the {name.replace('_', ' ')} has no weights; give {option} a run's folder or a file")
    if is_external_encoder(teacher.checkpoint):
        file = parse_weights_file(teacher.checkpoint)
        weights = read_checkpoint(file) if file else Checkpoint({}, source=teacher.checkpoint)
        model = load_external_encoder(
            teacher.checkpoint, weights.tensors if file else None, input_resolution=teacher.input_resolution
        )
        weights = replace(weights, tensors={}, metadata=model.metadata)
        return _LoadedTeacher(replace(teacher, model=model.config), weights, model)
    if teacher.input_resolution == "own":
        raise InputError(
            f"{teacher.checkpoint} has no size of its own, but takes any; "
            f"--method.{name.replace('_', '-')}.input own is for transformers: and timm: alone"
        )
    weights = read_checkpoint(teacher.checkpoint)
    asked = None if "." in name or not isinstance(teacher.model, ViTConfig) else teacher.model
    found = infer_encoder_config(weights, asked)
    extract_encoder_state(weights, found)  # before its sizes are said not to fit
    return _LoadedTeacher(replace(teacher, model=found), weights, found)


def _check_init_encoder(checkpoint: Checkpoint, expected: ViTConfig) -> None:
    """Raises an InputError where an encoder is not the file's: that of other heads has weights of the same shapes."""
    found = infer_encoder_config(checkpoint, expected)
    alike = ["dim", "depth", "heads", "mlp_ratio"]
    if not needs_inflation(found, expected):
        alike = ["tubelet", *alike, "class_token", "attention_bias"]
    for name in alike:
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            raise InputError(
                f"{checkpoint.source} holds an encoder whose {name} is {theirs}, and the recipe's is {ours}; "
                f"set --method.encoder.{name.replace('_', '-')}, or start from another file"
            )


def _check_mask(recipe: PretrainRecipe, task: nn.Module) -> None:
    """Raises an InputError where the mask hides nothing from a task that fills in what is hidden.

    AMD may do without pixels (table 7): its teacher's features are to be guessed then.
    """
    clips = recipe.clips
    grid = Grid.from_clip(
        torch.empty(1, 3, clips.sampling.num_frames, *clips.size, device="meta"), recipe.method.encoder.tubelet
    )
    mask = recipe.method.mask.draw(torch.zeros(1, dtype=torch.long), grid)
    fills_in = any(isinstance(part, Decoder) for part in task.modules())
    if fills_in and mask.extra is None and not mask.masked.numel():
        raise InputError(
            f"the mask hides none of the {grid.num_tokens} tokens of a clip, so that there is nothing to fill in; "
            "raise --method.mask.ratio, or take smaller tubelets"
        )
