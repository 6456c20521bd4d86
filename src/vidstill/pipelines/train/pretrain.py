"""Puts a recipe's parts together: pretrain, finetune. A run is a folder; the same call again resumes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidstill.checkpoints.inflate import is_inflation
from vidstill.checkpoints.io import Weights, read_weights
from vidstill.checkpoints.licences import notes as licence_notes
from vidstill.checkpoints.licences import provenance
from vidstill.checkpoints.load import encoder_config, encoder_tensors, read_known, start_encoder
from vidstill.data.manifest.open import read_listing
from vidstill.engine.distributed import Runtime
from vidstill.methods.common.teacher import Frozen, TeacherConfig
from vidstill.models.decoder import Decoder
from vidstill.models.external.base import Foreign
from vidstill.models.external.registry import file_of, is_foreign, read_foreign
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.train.session import Launch, Training, train_clips
from vidstill.recipes.recipe import Pretrain
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import Grid, InputError


def pretrain(recipe: Pretrain, launch: Launch, *, init: str | None = None, runtime: Runtime | None = None) -> Path:
    """Pre-trains to the recipe's end, from the newest saved state where there is one; gives the run's folder.

    Args:
        init: a run's folder or a file of weights that the encoder starts from (MVD, table 12), a teacher's for example:
            of the recipe's sizes, or of images; positions that are computed are the recipe's.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(launch.precision)
    teachers = {name: _read_teacher(name, teacher) for name, teacher in _teachers(recipe.method).items()}
    start = read_known(init, recipe.method.encoder) if init else None
    recipe = replace(recipe, method=_with_teachers(recipe.method, {n: each.config for n, each in teachers.items()}))
    if start is not None:
        _check_start(start, recipe.method.encoder)
    listing = read_listing(launch.data, split="train", fold=launch.fold)
    training = Training("pretrain", recipe, train_clips(recipe, listing, launch), launch, runtime)
    _check_mask(recipe, training.rehearse(recipe.method.build))
    torch.manual_seed(recipe.seed)
    method = recipe.method.build()
    for name, teacher in teachers.items():  # the method's part is named as its configuration's field
        teacher.start(method.get_submodule(name))
    if start is not None:
        start_encoder(method.encoder, start, recipe.method.encoder)
    about = {"kind": "pretraining", "encoder": to_plain(recipe.method.encoder), "recipe": to_plain(recipe)}
    sources = {name: teacher.weights for name, teacher in teachers.items()}
    sources = sources if start is None else {"init": start, **sources}
    training.run(method, method, about | provenance(sources), init=init or "", notes=licence_notes(sources))
    return launch.out


@dataclass(frozen=True)
class _Teacher:
    """What was read of a teacher.

    Args:
        config: as its source says that it is.
        weights: its tensors, and what it says of itself.
        encoder: what these are put into; another library's has them.
    """

    config: TeacherConfig
    weights: Weights
    encoder: ViTConfig | Foreign

    def start(self, frozen: Frozen) -> None:
        if isinstance(self.encoder, Foreign):
            frozen.become(self.encoder)
        else:
            start_encoder(frozen.model, self.weights, self.encoder)


def _teachers(method: Any) -> dict[str, TeacherConfig]:
    """A method's teachers by the fields that they stand in; of several in one, with their places: more_teachers.0."""
    found: dict[str, Any] = {}
    for field in fields(method):
        value = getattr(method, field.name)
        several = value if isinstance(value, tuple) else ()
        found |= {field.name: value} | {f"{field.name}.{place}": each for place, each in enumerate(several)}
    return {name: value for name, value in found.items() if isinstance(value, TeacherConfig)}


def _with_teachers(method: Any, teachers: Mapping[str, TeacherConfig]) -> Any:
    """A method's configuration with these in the places of its teachers, which are named as `_teachers` does."""
    changed: dict[str, Any] = {}
    for name, teacher in teachers.items():
        field, _, place = name.partition(".")
        changed[field] = (*changed.get(field, ()), teacher) if place else teacher
    return replace(method, **changed)


def _read_teacher(name: str, teacher: TeacherConfig) -> _Teacher:
    if not teacher.weights:
        option = f"--method.{name.replace('_', '-')}.weights"
        raise InputError(f"the {name.replace('_', ' ')} has no weights; give {option} a run's folder or a file")
    if is_foreign(teacher.weights):
        file = file_of(teacher.weights)
        weights = read_weights(file) if file else Weights({}, source=teacher.weights)
        model = read_foreign(teacher.weights, weights.tensors if file else None, input=teacher.input)
        weights = replace(weights, tensors={}, about=model.about)
        return _Teacher(replace(teacher, model=model.config), weights, model)
    if teacher.input == "own":
        raise InputError(
            f"{teacher.weights} has no size of its own, but takes any; "
            f"--method.{name.replace('_', '-')}.input own is for transformers: and timm: alone"
        )
    weights = read_weights(teacher.weights)
    asked = None if "." in name or not isinstance(teacher.model, ViTConfig) else teacher.model
    found = encoder_config(weights, asked)
    encoder_tensors(weights, found)  # before its sizes are said not to fit
    return _Teacher(replace(teacher, model=found), weights, found)


def _check_start(start: Weights, asked: ViTConfig) -> None:
    """Raises an InputError where an encoder is not the file's: that of other heads has weights of the same shapes."""
    found = encoder_config(start, asked)
    alike = ["dim", "depth", "heads", "mlp_ratio"]
    if not is_inflation(found, asked):
        alike = ["tubelet", *alike, "class_token", "attention_bias"]
    for name in alike:
        theirs, ours = getattr(found, name), getattr(asked, name)
        if theirs != ours:
            raise InputError(
                f"{start.source} holds an encoder whose {name} is {theirs}, and the recipe's is {ours}; "
                f"set --method.encoder.{name.replace('_', '-')}, or start from another file"
            )


def _check_mask(recipe: Pretrain, task: nn.Module) -> None:
    """Raises an InputError where the mask hides nothing from a task that fills in what is hidden.

    AMD may do without pixels (table 7): its teacher's features are to be guessed then.
    """
    clips = recipe.clips
    grid = Grid.of(torch.empty(1, 3, clips.sampling.frames, *clips.size, device="meta"), recipe.method.encoder.tubelet)
    mask = recipe.method.mask.draw(torch.zeros(1, dtype=torch.long), grid)
    fills_in = any(isinstance(part, Decoder) for part in task.modules())
    if fills_in and mask.extra is None and not mask.masked.numel():
        raise InputError(
            f"the mask hides none of the {grid.tokens} tokens of a clip, so that there is nothing to fill in; "
            "raise --method.mask.ratio, or take smaller tubelets"
        )
