"""Trains a detector of actions by a recipe, from a pre-trained or fine-tuned encoder, and tests it."""

from dataclasses import replace
from pathlib import Path

import torch

from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.licences import notes, provenance
from vidstill.checkpoints.load import continued, read_known, start_encoder
from vidstill.data.ava.samples import TrainBoxes
from vidstill.engine.distributed import Runtime
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.detector_checkpoint import KIND
from vidstill.pipelines.evaluate.detector import Asked, check_asked, score, write_test
from vidstill.pipelines.train.detector_data import DetectLaunch, boxes_to_ask, place_or_none
from vidstill.pipelines.train.session import Training
from vidstill.recipes.recipe import Detect
from vidstill.tasks.detection import DetectionTask, Detector
from vidstill.utils.config_io import to_plain
from vidstill.utils.files import TEST_FILE


def train(recipe: Detect, launch: DetectLaunch, *, init: str | None, runtime: Runtime | None = None) -> Path:
    """Trains to the recipe's end, from the newest saved state where there is one, and tests; gives the run's folder.

    Args:
        init: a run's folder or a file of weights that the encoder starts from; None: from scratch.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(launch.precision)
    data = launch.find()
    frames = data.split("train").to_train(recipe.clips.persons, place_or_none(launch.train_persons))
    start = read_known(init, recipe.encoder) if init else None
    if start is not None:
        recipe = replace(recipe, encoder=_continued(start, recipe.encoder))
    training = Training("detect train", recipe, TrainBoxes(frames, recipe.clips, seed=recipe.seed), launch, runtime)
    config = recipe.detector(len(frames.actions))

    def task(model: Detector) -> DetectionTask:
        per_clip = len(frames.boxes) / len(frames)
        return DetectionTask(model, jitter=recipe.jitter, per=recipe.loss_per, boxes_per_clip=per_clip)

    training.rehearse(lambda: task(config.build()))
    val = data.split("val")
    asked = Asked(
        val,
        boxes_to_ask(val, recipe.views.persons, launch.persons),
        recipe.views,
        times_person_score=recipe.times_person_score,
        matching=recipe.matching,
    )
    check_asked(asked, min(1, launch.decoders))
    torch.manual_seed(recipe.seed)
    model = config.build()
    if start is not None:
        own = model.encoder.norm if recipe.norm == "pretrained" else None
        start_encoder(model.encoder, start, recipe.encoder, norm=own)
    actions = frames.actions
    about = {
        "kind": KIND,
        "encoder": to_plain(recipe.encoder),
        "detector": to_plain(config),
        "actions": [[number, name] for number, name in actions.names.items()],
        "evaluated": sorted(actions.evaluated),
        "recipe": to_plain(recipe),
    }
    sources = {"init": start} if start else {}
    about |= provenance(sources)
    training.run(task(model), model, about, val=asked.frames, init=init or "", notes=notes(sources))
    if not runtime.agreed((launch.out / TEST_FILE).exists()):
        tested = score(model, asked, runtime, workers=launch.decoders, device_batch=launch.device_batch)
        if runtime.is_main:
            write_test(launch.out, tested)
        runtime.wait()
    return launch.out


def _continued(start: Weights, asked: ViTConfig) -> ViTConfig:
    """The file's encoder, with the recipe's colours taken off at its door, and with positions that are resized.

    They are those of the grid that the file's encoder was trained on, where it says so.
    """
    found = continued(start, asked)
    grid = found.learned_grid or _trained_on(start, found) or asked.learned_grid
    return replace(found, mean=asked.mean, std=asked.std, learned_grid=grid)


def _trained_on(weights: Weights, encoder: ViTConfig) -> tuple[int, int, int] | None:
    """The tokens of the clips that our file's encoder was last trained on; None: it is not ours."""
    clips = weights.about.get("recipe", {}).get("clips")
    if clips is None:
        return None
    grid = encoder.grid(torch.empty(1, 3, clips["sampling"]["frames"], *clips["size"], device="meta"))
    return grid.t, grid.h, grid.w
