"""What a run of a recipe would do, and which recipes are looked at in a plain run of the tests."""

from collections.abc import Iterable
from typing import Any

import pytest

from vidstill.engine.lr_schedule import Plan, make_plan
from vidstill.recipes.recipe import Detect, Finetune, every_recipe, find

KINETICS = 240_436  # training videos of Kinetics-400
_PAPERS = {n: r for n, r in every_recipe().items() if not n.startswith(("quickstart.", "laptop."))}  # these are ours
FINETUNINGS = [name for name, recipe in _PAPERS.items() if isinstance(recipe, Finetune)]
KEY_FRAMES = 211_000  # about as many of AVA's training videos
DETECTORS = [name for name, recipe in _PAPERS.items() if isinstance(recipe, Detect)]


def plan(name: str) -> Plan:
    """Steps, batches and rates on Kinetics-400; of a detector on AVA, whose key frames give one clip each."""
    recipe = find(name)
    if isinstance(recipe, Detect):
        return make_plan(videos=KEY_FRAMES, batch=recipe.batch, optim=recipe.optim, schedule=recipe.schedule)
    return make_plan(
        videos=KINETICS,
        batch=recipe.batch,
        optim=recipe.optim,
        schedule=recipe.schedule,
        repeats=recipe.clips.repeats,
    )


def ablations_slowly(names: Iterable[str]) -> list[Any]:
    """The names as parameters; variants of a paper's tables, which are many, are left to the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if ".ablation_" in name else name for name in names]
