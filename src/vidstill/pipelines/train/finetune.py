"""Finetune."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vidstill.checkpoints.licences import notes as licence_notes
from vidstill.checkpoints.licences import provenance
from vidstill.checkpoints.load import continued, read_known, start_encoder
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import listing_to_test, read_listing, splits_of
from vidstill.engine.distributed import Runtime
from vidstill.engine.early_stopping import Watch
from vidstill.pipelines.evaluate.classifier import check_classes, check_taught, check_views, labelled, score, write_test
from vidstill.pipelines.train.session import Launch, Training, Watching, train_clips
from vidstill.recipes.recipe import Finetune
from vidstill.tasks.classification import ClassificationTask, Classifier
from vidstill.utils.config_io import to_plain
from vidstill.utils.files import TEST_FILE


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
