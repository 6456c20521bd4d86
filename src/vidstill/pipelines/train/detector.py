"""Train an action detector by a recipe, from a pre-trained or fine-tuned encoder, and test it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder, load_checkpoint, merge_encoder_config
from vidstill.data.ava.samples import KeyframeTrainDataset
from vidstill.engine.distributed import Runtime
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.box_data import parse_optional_path
from vidstill.pipelines.evaluate.classifier import check_decodes
from vidstill.pipelines.evaluate.detector import DetectionResult, DetectionTest, score_detector
from vidstill.pipelines.run_config import DetectRunConfig
from vidstill.pipelines.run_dir import WeightsSource, load_average
from vidstill.pipelines.session import TrainingSession
from vidstill.pipelines.trained_models import DETECTOR_KIND
from vidstill.recipes.change import check_changes
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.detection import DetectionTask, Detector
from vidstill.utils.config_io import to_dict


def run_detector_training(
    recipe: DetectionRecipe,
    run_config: DetectRunConfig,
    *,
    init: str | None = None,
    changes: Mapping[str, Any] = {},
) -> Path:
    """Train a detector to the recipe's end, from the last checkpoint if there is one, and test it.

    Args:
        recipe: The settings.
        run_config: Data and run directory.
        init: Run directory or weights file that the encoder starts from; None: random weights.
        changes: The settings that the user gave, of those in `recipe`: values by field, parts as dicts.

    Returns:
        The run directory.

    Raises:
        InputError: Something that the user gave cannot be used; nothing has been written.
    """
    data = run_config.open_dataset()
    keyframes = data.load_split("train").load_train_keyframes(
        recipe.clips.person_boxes, parse_optional_path(run_config.train_person_boxes)
    )
    runtime = Runtime(run_config.precision)
    start = load_checkpoint(init, recipe.encoder) if init else None
    if start is not None:
        encoder = _resolve_encoder_config(start, recipe.encoder)
        check_changes(changes, "encoder", recipe.encoder, encoder, start.source)
        recipe = replace(recipe, encoder=encoder)
    clips = KeyframeTrainDataset(keyframes, recipe.clips, seed=recipe.seed)
    session = TrainingSession("detect train", recipe, clips, run_config, runtime, changes=changes)
    recipe = session.recipe
    config, actions = recipe.build_detector_config(len(keyframes.label_map)), keyframes.label_map

    def build_task(model: Detector) -> DetectionTask:
        boxes_per_clip = len(keyframes.boxes) / len(keyframes)
        return DetectionTask(model, jitter=recipe.box_jitter, loss_per=recipe.loss_per, boxes_per_clip=boxes_per_clip)

    flops = session.dry_run(lambda: build_task(config.build())).flops_per_clip
    val = data.load_split("val")
    test = DetectionTest(val, run_config.select_test_keyframes(val, recipe.views.min_person_score), recipe)
    check_decodes(test.samples, "key frames", run_config)
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        norm = model.encoder.norm if recipe.norm == "pretrained" else None
        init_encoder(model.encoder, start, recipe.encoder, head_norm=norm)
    metadata = {
        "kind": DETECTOR_KIND,
        "encoder": to_dict(recipe.encoder),
        "detector": to_dict(config),
        "actions": [[number, name] for number, name in actions.names.items()],
        "evaluated": sorted(actions.evaluated_ids),
        "recipe": to_dict(recipe),
    }
    sources = {"init": WeightsSource(init, start)} if init and start else {}

    def evaluate() -> tuple[DetectionResult, dict[str, Any] | None]:
        result, averaged = score_detector(model, test, run_config, runtime), None
        if recipe.ema_decay is not None:
            load_average(run_config.out, model, runtime)
            averaged = score_detector(model, test, run_config, runtime).to_dict()
        return result, averaged

    with session.lock():
        task = build_task(model)
        session.run(task, model, metadata, sources=sources, flops_per_clip=flops, test_set=test.keyframes)
        session.test_once(evaluate, lambda results: results[0].write(run_config.out, averaged=results[1]))
    return run_config.out


def _resolve_encoder_config(checkpoint: Checkpoint, recipe_encoder: ViTConfig) -> ViTConfig:
    """Return the file's encoder with the recipe's mean and std, and with position embeddings that are resized.

    They are those of the grid that the file's encoder was trained on, if the file states it, as our files do.
    """
    config = merge_encoder_config(checkpoint, recipe_encoder)
    grid, clips = config.learned_grid, checkpoint.metadata.get("recipe", {}).get("clips")
    if grid is None and clips is not None:
        num_frames = clips["sampling"].get("num_frames", clips["sampling"].get("frames"))
        trained_on = config.grid(torch.empty(1, 3, num_frames, *clips["size"], device="meta"))
        grid = trained_on.t, trained_on.h, trained_on.w
    grid = grid or recipe_encoder.learned_grid
    return replace(config, mean=recipe_encoder.mean, std=recipe_encoder.std, learned_grid=grid)
