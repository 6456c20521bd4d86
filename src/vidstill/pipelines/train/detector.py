"""Trains a detector of actions by a recipe, from a pre-trained or fine-tuned encoder, and tests it."""

from dataclasses import replace
from pathlib import Path

import torch

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.licences import build_provenance, describe_licence_restrictions
from vidstill.checkpoints.load import init_encoder, load_checkpoint, merge_encoder_config
from vidstill.data.ava.samples import KeyframeTrainDataset
from vidstill.engine.distributed import Runtime
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.box_data import parse_optional_path
from vidstill.pipelines.detector_checkpoint import DETECTOR_KIND
from vidstill.pipelines.evaluate.detector import (
    DetectionTest,
    check_detection_test,
    score_detector,
    write_detection_result,
)
from vidstill.pipelines.session import TrainingSession
from vidstill.pipelines.train.run_config import DetectRunConfig
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.detection import DetectionTask, Detector
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import TEST_FILE


def train_detector(
    recipe: DetectionRecipe, run_config: DetectRunConfig, *, init: str | None, runtime: Runtime | None = None
) -> Path:
    """Trains to the recipe's end, from the newest saved state where there is one, and tests; gives the run's folder.

    Args:
        init: a run's folder or a file of weights that the encoder starts from; None: from scratch.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(run_config.precision)
    data = run_config.open_dataset()
    frames = data.load_split("train").load_train_keyframes(
        recipe.clips.person_boxes, parse_optional_path(run_config.train_person_boxes)
    )
    start = load_checkpoint(init, recipe.encoder) if init else None
    if start is not None:
        recipe = replace(recipe, encoder=_resolve_encoder_config(start, recipe.encoder))
    training = TrainingSession(
        "detect train", recipe, KeyframeTrainDataset(frames, recipe.clips, seed=recipe.seed), run_config, runtime
    )
    config = recipe.build_detector_config(len(frames.label_map))

    def task(model: Detector) -> DetectionTask:
        per_clip = len(frames.boxes) / len(frames)
        return DetectionTask(model, jitter=recipe.box_jitter, loss_per=recipe.loss_per, boxes_per_clip=per_clip)

    training.dry_run(lambda: task(config.build()))
    val = data.load_split("val")
    asked = DetectionTest(
        val,
        run_config.select_test_keyframes(val, recipe.views.min_person_score),
        recipe.views,
        times_person_score=recipe.use_person_scores,
        matching=recipe.matching_rule,
    )
    check_detection_test(asked, min(1, run_config.num_workers))
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        own = model.encoder.norm if recipe.norm == "pretrained" else None
        init_encoder(model.encoder, start, recipe.encoder, head_norm=own)
    actions = frames.label_map
    about = {
        "kind": DETECTOR_KIND,
        "encoder": to_dict(recipe.encoder),
        "detector": to_dict(config),
        "actions": [[number, name] for number, name in actions.names.items()],
        "evaluated": sorted(actions.evaluated_ids),
        "recipe": to_dict(recipe),
    }
    sources = {"init": start} if start else {}
    about |= build_provenance(sources)
    training.run(
        task(model),
        model,
        about,
        test_manifest=asked.keyframes,
        init=init or "",
        notes=describe_licence_restrictions(sources),
    )
    if not runtime.broadcast((run_config.out / TEST_FILE).exists()):
        tested = score_detector(
            model, asked, runtime, workers=run_config.num_workers, device_batch=run_config.device_batch
        )
        if runtime.is_main:
            write_detection_result(run_config.out, tested)
        runtime.barrier()
    return run_config.out


def _resolve_encoder_config(checkpoint: Checkpoint, recipe_encoder: ViTConfig) -> ViTConfig:
    """The file's encoder, with the recipe's colours taken off at its door, and with positions that are resized.

    They are those of the grid that the file's encoder was trained on, where it says so.
    """
    found = merge_encoder_config(checkpoint, recipe_encoder)
    grid = found.learned_grid or _infer_training_grid(checkpoint, found) or recipe_encoder.learned_grid
    return replace(found, mean=recipe_encoder.mean, std=recipe_encoder.std, learned_grid=grid)


def _infer_training_grid(checkpoint: Checkpoint, encoder: ViTConfig) -> tuple[int, int, int] | None:
    """The tokens of the clips that our file's encoder was last trained on; None: it is not ours."""
    clips = checkpoint.metadata.get("recipe", {}).get("clips")
    if clips is None:
        return None
    grid = encoder.grid(torch.empty(1, 3, clips["sampling"]["frames"], *clips["size"], device="meta"))
    return grid.t, grid.h, grid.w
