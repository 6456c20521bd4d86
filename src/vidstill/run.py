"""Puts a recipe's parts together: pretrain, finetune. A run is a folder; the same call again resumes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidstill.config import to_plain
from vidstill.data.annotations import Listing, listing_to_test, read_listing, splits_of
from vidstill.downstream.classification import ClassificationTask, Classifier
from vidstill.engine.runtime import Runtime
from vidstill.engine.stopping import Watch
from vidstill.folder import TEST_FILE
from vidstill.models.decoder import Decoder
from vidstill.models.vit import ViTConfig
from vidstill.pretext.foreign.model import Foreign
from vidstill.pretext.foreign.sources import file_of, is_foreign, read_foreign
from vidstill.pretext.teachers import Frozen, TeacherConfig
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.testing import check_classes, check_taught, check_views, labelled, score, write_test
from vidstill.training import Launch, Training, Watching, train_clips
from vidstill.types import Grid, InputError
from vidstill.weights.files import Weights, read_weights
from vidstill.weights.inflate import is_inflation
from vidstill.weights.licences import notes as licence_notes
from vidstill.weights.licences import provenance
from vidstill.weights.transfer import continued, encoder_config, encoder_tensors, read_known, start_encoder


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


def finetune(
    recipe: Finetune,
    launch: Launch,
    *,
    init: str | None,
    runtime: Runtime | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Trains a classifier from an encoder (from scratch without one) and tests it; gives the run's folder.

    Args:
        init: a run's folder or a file of weights.
        notes: sentences to be said before training.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(launch.precision)
    listing, val = labelled_splits(launch)
    start = read_known(init, recipe.encoder) if init else None
    if start is not None:
        recipe = replace(recipe, encoder=continued(start, recipe.encoder))
    training = Training("finetune", recipe, train_clips(recipe, listing, launch), launch, runtime)

    def task(model: Classifier) -> ClassificationTask:
        return ClassificationTask(
            model,
            mixing=recipe.mixing,
            erasing=recipe.erasing,
            smoothing=recipe.smoothing,
            mask_ratio=recipe.mask_ratio,
            colour=recipe.colour,
        )

    config = recipe.classifier(len(listing.classes), several=listing.several)
    training.rehearse(lambda: task(config.build()))
    check_views(val, recipe.views, min(1, launch.decoders))
    watched = _watched(recipe, launch, listing, val)
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        norm = model.norm if config.norm == "pretrained" and config.pooling != "first" else None
        start_encoder(model.encoder, start, recipe.encoder, norm=norm)
    about = {
        "kind": "classifier",
        "encoder": to_plain(recipe.encoder),
        "classifier": to_plain(config),
        "classes": list(listing.classes),
        "views": to_plain(recipe.views),
        "recipe": to_plain(recipe),
    }
    sources = {"init": start} if start else {}
    about |= provenance(sources)
    watching = None if watched is None else _watching(recipe, launch, runtime, model, watched, listing.classes)
    if watched and recipe.patience is not None and watched.fingerprint == val.fingerprint:
        notes = [*notes, "the videos of the test choose the epoch, so that their score flatters; --watch others"]
    notes = [*notes, *licence_notes(sources)]
    taken = training.run(task(model), model, about, val=val, init=init or "", watching=watching, notes=notes)
    if not runtime.agreed((launch.out / TEST_FILE).exists()):
        tested = score(model, val, listing.classes, recipe.views, launch, runtime, several=config.several)
        if runtime.is_main:
            write_test(launch.out, tested, taken)
        runtime.wait()
    return launch.out


def labelled_splits(launch: Launch) -> tuple[Listing, Listing]:
    """The videos that a fine-tuning trains on, and those that it is tested on.

    Raises:
        InputError: they have no labels, or not the same classes.
    """
    train = labelled(read_listing(launch.data, split="train", fold=launch.fold), several=True)
    if launch.val:
        val = labelled(listing_to_test(launch.val, fold=launch.fold), several=train.several)
    else:
        val = labelled(read_listing(launch.data, split="val", fold=launch.fold), several=train.several)
    check_classes(val, train.classes, str(train.source))
    check_taught(train, val)
    return train, val


def _watched(recipe: Finetune, launch: Launch, train: Listing, val: Listing) -> Listing | None:
    """The videos that are scored after each epoch: those that were named for it; else, where their score is to choose
    the epoch, the data's val split, which may be what is tested on.

    Raises:
        InputError: they have no labels, or not the same classes.
    """
    if launch.watch:
        found = labelled(listing_to_test(launch.watch, fold=launch.fold), several=train.several)
    elif recipe.patience is None:
        return None
    elif launch.val and "val" in splits_of(launch.data):
        found = labelled(read_listing(launch.data, split="val", fold=launch.fold), several=train.several)
    else:
        return val
    check_classes(found, train.classes, str(train.source))
    check_views(found, recipe.views, min(1, launch.decoders))
    return found


def _watching(
    recipe: Finetune,
    launch: Launch,
    runtime: Runtime,
    model: Classifier,
    listing: Listing,
    classes: Sequence[str],
) -> Watching:
    """Watched videos and their score: of the one view in the middle of each, so that it costs little.

    Args:
        classes: the model's.
    """
    views = replace(recipe.views, views=1, crops=1)
    several = model.config.several
    by = "mean_average_precision" if several else "top1"

    def scores(epoch: int) -> dict[str, float]:
        tested = score(model, listing, classes, views, launch, runtime, several=several, shown=False)
        return tested.score

    return Watching(listing=listing, watch=Watch(scores=scores, by=by, patience=recipe.patience))


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
