"""`vidstill bench infer`: a classifier's forward pass, beside the yardstick's and transformers'."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from vidstill.bench.eager.methods import explain_missing_eager
from vidstill.bench.forward_sides import EagerForward, ForwardWork, VidstillForward
from vidstill.bench.measure import measure_sides
from vidstill.bench.measurement_config import MeasurementConfig
from vidstill.bench.model_report import EAGER, OURS, TRANSFORMERS, ModelReport
from vidstill.bench.side import Side
from vidstill.engine.distributed import FixedPrecision
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL
from vidstill.recipes.recipe import NUM_CLASSES, FinetuneRecipe
from vidstill.recipes.sources import open_recipe
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.files import get_package_version
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.types import InputError

_CLASSES = NUM_CLASSES["kinetics400"]
_SIZES = {"small": SMALL, "base": BASE, "large": LARGE, "huge": HUGE}


def measure_inference(model: str, config: MeasurementConfig, *, command: str) -> ModelReport:
    """Time the forward pass of a classifier of random weights on random clips.

    Args:
        model: A recipe of `finetune`, whose test clips it takes; or small, base, large or huge: a ViT of VideoMAE on
            16 × 224² with 400 classes.
        config: What is measured how often.
        command: What measures the same again.

    Raises:
        InputError: There is no such model, or the memory does not suffice.
    """
    work = ForwardWork(*_find_model(model), config.device_batch, "fp32")
    frames, rows, columns = work.clip_size
    reasons = {
        EAGER: explain_missing_eager(work.model_config),
        TRANSFORMERS: explain_missing_transformers(work.model_config, work.clip_size),
    }
    builds: dict[tuple[str, FixedPrecision], Callable[[], Side]] = {}
    for precision in config.list_precisions():
        work = replace(work, precision=precision)
        builds[OURS, precision] = partial(VidstillForward, work)
        if not config.alone and not reasons[EAGER]:
            builds[EAGER, precision] = partial(EagerForward, work)
        if not config.alone and not reasons[TRANSFORMERS]:
            from vidstill.bench.transformers_sides import TransformersForward  # imports an optional package

            builds[TRANSFORMERS, precision] = partial(TransformersForward, work)
    cost = compute_model_cost(work.model_config, num_frames=frames, size=(rows, columns))
    return measure_sides(
        builds,
        config,
        command=command,
        title=f"{model}, forward pass of {config.device_batch} clips of {frames} × {rows} × {columns}",
        flops_per_clip=2 * cost.multiply_adds,
        missing_sides={} if config.alone else {side: reason for side, reason in reasons.items() if reason},
    )


def _find_model(model: str) -> tuple[ClassifierConfig, tuple[int, int, int]]:
    if model in _SIZES:
        return ClassifierConfig(encoder=_SIZES[model], num_classes=_CLASSES), (16, 224, 224)
    recipe = open_recipe(model)
    if not isinstance(recipe, FinetuneRecipe):
        raise InputError(f"{model} has no classifier; give a recipe of finetune, or {', '.join(_SIZES)}")
    config = recipe.build_classifier_config(NUM_CLASSES.get(recipe.clips.dataset, _CLASSES))
    return config, (recipe.views.sampling.num_frames, *recipe.views.size)


def explain_missing_transformers(config: Any, clip_size: tuple[int, int, int]) -> str:
    """Return why transformers has no such model, or cannot be compared; an empty string: it has."""
    if get_package_version("transformers") == "unknown":
        return "it is not installed (pip install transformers)"
    if not isinstance(config, VideoMAEConfig | ClassifierConfig):
        return "it has VideoMAE and its fine-tuning only"
    is_plain = config.encoder.positions == "sinusoid" and config.encoder.attention_bias == "qv"
    is_plain &= clip_size[1] == clip_size[2]
    if isinstance(config, VideoMAEConfig):
        is_plain &= config.decoder.positions == "sinusoid"
    return "" if is_plain and not explain_missing_eager(config) else "its VideoMAE has other settings"
