"""Finetune."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vidstill.checkpoints.licences import build_provenance
from vidstill.checkpoints.licences import describe_licence_restrictions as licence_notes
from vidstill.checkpoints.load import init_encoder, load_checkpoint, merge_encoder_config
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest, open_test_manifest
from vidstill.engine.distributed import Runtime
from vidstill.engine.early_stopping import Validation
from vidstill.pipelines.evaluate.classifier import (
    check_classes,
    check_train_classes,
    check_views,
    require_labels,
    score_classifier,
    write_classification_result,
)
from vidstill.pipelines.session import TrainingSession, ValidationSetup, build_train_clips
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.tasks.classification import ClassificationTask, Classifier
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import TEST_FILE


def finetune(
    recipe: FinetuneRecipe,
    run_config: RunConfig,
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
    runtime = runtime or Runtime(run_config.precision)
    listing, val = open_train_test_manifests(run_config)
    start = load_checkpoint(init, recipe.encoder) if init else None
    if start is not None:
        recipe = replace(recipe, encoder=merge_encoder_config(start, recipe.encoder))
    training = TrainingSession("finetune", recipe, build_train_clips(recipe, listing), run_config, runtime)

    def task(model: Classifier) -> ClassificationTask:
        return ClassificationTask(
            model,
            mixup=recipe.mixup,
            random_erasing=recipe.random_erasing,
            label_smoothing=recipe.label_smoothing,
            mask_ratio=recipe.mask_ratio,
            color_jitter=recipe.color_jitter,
        )

    config = recipe.build_classifier_config(len(listing.classes), multi_label=listing.multi_label)
    training.dry_run(lambda: task(config.build()))
    check_views(val, recipe.views, min(1, run_config.num_workers))
    watched = _open_validation_manifest(recipe, run_config, listing, val)
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        norm = model.norm if config.norm == "pretrained" and config.pooling != "first" else None
        init_encoder(model.encoder, start, recipe.encoder, head_norm=norm)
    about = {
        "kind": "classifier",
        "encoder": to_dict(recipe.encoder),
        "classifier": to_dict(config),
        "classes": list(listing.classes),
        "views": to_dict(recipe.views),
        "recipe": to_dict(recipe),
    }
    sources = {"init": start} if start else {}
    about |= build_provenance(sources)
    watching = (
        None if watched is None else _build_validation(recipe, run_config, runtime, model, watched, listing.classes)
    )
    if watched and recipe.patience is not None and watched.fingerprint == val.fingerprint:
        notes = [*notes, "the videos of the test choose the epoch, so that their score flatters; --watch others"]
    notes = [*notes, *licence_notes(sources)]
    selection = training.run(
        task(model), model, about, test_manifest=val, init=init or "", validation=watching, notes=notes
    )
    if not runtime.broadcast((run_config.out / TEST_FILE).exists()):
        tested = score_classifier(
            model, val, listing.classes, recipe.views, run_config, runtime, multi_label=config.multi_label
        )
        if runtime.is_main:
            write_classification_result(run_config.out, tested, selection)
        runtime.barrier()
    return run_config.out


def open_train_test_manifests(run_config: RunConfig) -> tuple[Manifest, Manifest]:
    """The videos that a fine-tuning trains on, and those that it is tested on.

    Raises:
        InputError: they have no labels, or not the same classes.
    """
    train = require_labels(open_manifest(run_config.data, split="train", fold=run_config.fold), multi_label=True)
    if run_config.test_data:
        val = require_labels(
            open_test_manifest(run_config.test_data, fold=run_config.fold), multi_label=train.multi_label
        )
    else:
        val = require_labels(
            open_manifest(run_config.data, split="val", fold=run_config.fold), multi_label=train.multi_label
        )
    check_classes(val, train.classes, str(train.source))
    check_train_classes(train, val)
    return train, val


def _open_validation_manifest(
    recipe: FinetuneRecipe, run_config: RunConfig, train: Manifest, test: Manifest
) -> Manifest | None:
    """The videos that are scored after each epoch: those that were named for it; else, where their score is to choose
    the epoch, the data's val split, which may be what is tested on.

    Raises:
        InputError: they have no labels, or not the same classes.
    """
    if run_config.val_data:
        found = require_labels(
            open_test_manifest(run_config.val_data, fold=run_config.fold), multi_label=train.multi_label
        )
    elif recipe.patience is None:
        return None
    elif run_config.test_data and "val" in list_splits(run_config.data):
        found = require_labels(
            open_manifest(run_config.data, split="val", fold=run_config.fold), multi_label=train.multi_label
        )
    else:
        return test
    check_classes(found, train.classes, str(train.source))
    check_views(found, recipe.views, min(1, run_config.num_workers))
    return found


def _build_validation(
    recipe: FinetuneRecipe,
    run_config: RunConfig,
    runtime: Runtime,
    model: Classifier,
    manifest: Manifest,
    classes: Sequence[str],
) -> ValidationSetup:
    """Watched videos and their score: of the one view in the middle of each, so that it costs little.

    Args:
        classes: the model's.
    """
    views = replace(recipe.views, temporal_clips=1, spatial_crops=1)
    several = model.config.multi_label
    by = "mean_average_precision" if several else "top1"

    def scores(epoch: int) -> dict[str, float]:
        tested = score_classifier(
            model, manifest, classes, views, run_config, runtime, multi_label=several, show_progress=False
        )
        return tested.metrics

    return ValidationSetup(
        manifest=manifest, early_stopping=Validation(score_epoch=scores, metric=by, patience=recipe.patience)
    )
