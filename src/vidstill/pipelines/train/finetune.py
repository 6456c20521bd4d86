"""Fine-tuning: train a classifier by a recipe, validate each epoch, and test the selected one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder, load_checkpoint, merge_encoder_config
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.engine.distributed import Runtime
from vidstill.engine.validation import Validation
from vidstill.pipelines.evaluate.classifier import check_decodes, score_classifier, write_classification_result
from vidstill.pipelines.labeled_data import LabeledSplits, open_labeled_splits
from vidstill.pipelines.run_config import FinetuneRunConfig
from vidstill.pipelines.run_dir import WeightsSource, load_average
from vidstill.pipelines.session import TrainingSession
from vidstill.recipes.change import check_changes
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.tasks.classification import ClassificationTask, Classifier, ClassifierConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError


def run_finetuning(
    recipe: FinetuneRecipe,
    run_config: FinetuneRunConfig,
    *,
    init: str | None = None,
    runtime: Runtime | None = None,
    notes: Sequence[str] = (),
    changes: Mapping[str, Any] = {},
) -> Path:
    """Fine-tune a classifier to the recipe's end, from the last checkpoint if there is one, and test it.

    Args:
        recipe: The settings.
        run_config: Data and run directory; its fold is a number (`finetune_folds` trains on all).
        init: Run directory or weights file that the encoder starts from; None: random weights.
        runtime: Device and processes; None: made from `run_config`.
        notes: Messages before training.
        changes: The settings that the user gave, of those in `recipe`: values by field, parts as dicts.

    Returns:
        The run directory.

    Raises:
        InputError: Something that the user gave cannot be used; nothing has been written.
    """
    if run_config.fold == "all":
        raise InputError("a run trains on one fold; give --fold 1, 2 or 3")
    splits = open_run_splits(run_config, fold=run_config.fold)
    train, test = splits.train, splits.test
    runtime = runtime or Runtime(run_config.precision)
    start = load_checkpoint(init, recipe.encoder) if init else None
    if start is not None:
        encoder = merge_encoder_config(start, recipe.encoder)
        check_changes(changes, "encoder", recipe.encoder, encoder, start.source)
        recipe = replace(recipe, encoder=encoder)
    cache, cache_note = run_config.open_cache(train)
    clips = TrainClips(train, recipe.clips, seed=recipe.seed, cache=cache)  # it keeps the cache from being dropped
    validation_cache, validation_note = run_config.open_cache(splits.validation)
    test_cache = validation_cache if splits.validation is test else None
    group_clips = recipe.mixup.group_clips if recipe.mixup else 1
    session = TrainingSession(
        "finetune", recipe, clips, run_config, runtime, group_clips, "--mixup.group-clips", changes
    )
    recipe = session.recipe
    config = recipe.build_classifier_config(len(train.classes), multi_label=train.multi_label)
    flops_per_clip = session.dry_run(lambda: build_task(recipe, config.build())).flops_per_clip
    check_decodes(ViewClips(test, recipe.views, cache=test_cache), f"{test.noun}s", run_config)
    if splits.validation is not test:
        clips_to_validate = ViewClips(splits.validation, recipe.views, cache=validation_cache)
        check_decodes(clips_to_validate, f"{splits.validation.noun}s", run_config)
    model = build_classifier(recipe, config, start)
    score = partial(score_classifier, model, classes=train.classes, runtime=runtime, multi_label=train.multi_label)
    one_view = replace(recipe.views, temporal_clips=1, spatial_crops=1)  # costs little in every epoch
    batch = session.plan.clips_per_microbatch
    batches = replace(run_config, device_batch=batch)

    def score_epoch(epoch: int) -> dict[str, float]:
        workers, num_held = batches, validation_cache.count_videos() if validation_cache else 0
        if num_held == len(splits.validation) <= batch:  # to start a process takes longer than to copy these
            workers = replace(batches, workers=0)
        scored = score(splits.validation, views=one_view, workers=workers, cache=validation_cache, show_progress=False)
        metrics = scored.metrics
        return {name: value for name, value in metrics.items() if name != "top5" or len(train.classes) > 5}

    validation = Validation(
        score_epoch=score_epoch,
        metric="mean_average_precision" if train.multi_label else "top1",
        keep_best=recipe.keeps_best,
        patience=recipe.patience,
    )
    if recipe.keeps_best and splits.validation.fingerprint == test.fingerprint:
        test_others = f"test on other {test.noun}s: --test-data"
        other = test_others if run_config.val_share else "hold out others: --val-share 0.2"
        notes = [*notes, f"the epoch is selected on the test set, so the test score is optimistic; {other}"]
    metadata = {
        "kind": "classifier",
        "encoder": to_dict(recipe.encoder),
        "classifier": to_dict(config),
        "classes": list(train.classes),
        "views": to_dict(recipe.views),
        "recipe": to_dict(recipe),
    }

    def evaluate() -> tuple[Any, Any]:
        result, averaged = score(test, views=recipe.views, workers=batches, cache=test_cache), None
        if recipe.ema_decay is not None:
            ema_selection = load_average(run_config.out, model, runtime)
            averaged = score(test, views=recipe.views, workers=batches, cache=test_cache).to_dict()
            averaged |= {"model_selection": ema_selection} if ema_selection else {}
        return result, averaged

    with session.lock():
        selection = session.run(
            build_task(recipe, model),
            model,
            metadata,
            sources={"init": WeightsSource(init, start)} if init and start else {},
            flops_per_clip=flops_per_clip,
            test_set=test,
            validation_set=splits.validation,
            validation=validation,
            settings={"val_share": run_config.val_share},
            notes=[*notes, cache_note, validation_note and f"validation {validation_note}"],
        )
        session.test_once(evaluate, lambda results: write_classification_result(run_config.out, *results, selection))
    return run_config.out


def build_task(recipe: FinetuneRecipe, model: Classifier) -> ClassificationTask:
    """Build the training of a classifier with the recipe's regularization."""
    return ClassificationTask(
        model,
        mixup=recipe.mixup,
        random_erasing=recipe.random_erasing,
        label_smoothing=recipe.label_smoothing,
        mask_ratio=recipe.mask_ratio,
        color_jitter=recipe.color_jitter,
    )


def build_classifier(recipe: FinetuneRecipe, config: ClassifierConfig, start: Checkpoint | None) -> Classifier:
    """Build a classifier whose weights are drawn by the recipe's seed; its encoder starts from a checkpoint, if given.

    Raises:
        InputError: The checkpoint's tensors do not fit.
    """
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        norm = model.norm if config.norm == "pretrained" and config.pooling != "first" else None
        init_encoder(model.encoder, start, recipe.encoder, head_norm=norm)
    return model


def open_run_splits(run_config: FinetuneRunConfig, *, fold: int) -> LabeledSplits:
    """Open the videos that a fine-tuning trains on, validates on and tests on, as `open_labeled_splits` does."""
    return open_labeled_splits(
        run_config.data,
        test_data=run_config.test_data,
        val_data=run_config.val_data,
        val_share=run_config.val_share,
        fold=fold,
        multi_label=True,
    )
