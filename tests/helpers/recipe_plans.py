"""What a run of a recipe would do, and which recipes are looked at in a plain run of the tests."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from vidstill.engine.lr_schedule import TrainingPlan, plan_training
from vidstill.recipes.recipe import DetectionRecipe, FinetuneRecipe, find_recipe, load_recipes

KINETICS = 240_436  # training videos of Kinetics-400
_PAPERS = {n: r for n, r in load_recipes().items() if not n.startswith(("quickstart.", "laptop."))}  # these are ours
FINETUNINGS = [name for name, recipe in _PAPERS.items() if isinstance(recipe, FinetuneRecipe)]
KEY_FRAMES = 211_000  # about as many of AVA's training videos
DETECTORS = [name for name, recipe in _PAPERS.items() if isinstance(recipe, DetectionRecipe)]


def plan(name: str) -> TrainingPlan:
    """Steps, batches and rates on Kinetics-400; of a detector on AVA, whose key frames give one clip each."""
    recipe = find_recipe(name)
    if isinstance(recipe, DetectionRecipe):
        return plan_training(num_videos=KEY_FRAMES, batch=recipe.batch, optim=recipe.optim, schedule=recipe.schedule)
    return plan_training(
        num_videos=KINETICS,
        batch=recipe.batch,
        optim=recipe.optim,
        schedule=recipe.schedule,
        repeats=recipe.clips.repeats,
    )


def ablations_slowly(names: Iterable[str]) -> list[Any]:
    """The names as parameters; variants of a paper's tables, which are many, are left to the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if ".ablation_" in name else name for name in names]


def change(config: Any, path: str, value: Any) -> Any:
    """Return a configuration with one field set, however deep in it: `change(recipe, "clips.sampling.stride", 2)`."""
    name, _, rest = path.partition(".")
    return replace(config, **{name: change(getattr(config, name), rest, value) if rest else value})
