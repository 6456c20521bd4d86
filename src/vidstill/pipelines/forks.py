"""A run that goes on from one of its states with other settings: a fork, which is checked before it is made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from vidstill.engine.checkpoint import STATE_DIR, find_good_step
from vidstill.engine.distributed import FixedPrecision, Precision
from vidstill.recipes.change import change_recipe, nest_changes
from vidstill.recipes.recipe import Recipe
from vidstill.recipes.run_file import Fork, find_run
from vidstill.utils.types import InputError

RecipeT = TypeVar("RecipeT")

# The optimizer, the learning rates and the end of a run; neither the model nor the order of the samples depends on them
_CHANGEABLE = ("optim.", "schedule.", "patience", "precision")
_GROUPING = ("optim.layer_decay", "optim.no_weight_decay")  # they decide which parameters a state groups
_CONSTANTS = {"None": None, "True": True, "False": False}


@dataclass(frozen=True)
class ForkRequest:
    """What the user requested.

    Args:
        step: Completed steps of the state to go on from; None: the newest good one.
        changes: Settings by their dotted names.
    """

    step: int | None
    changes: Mapping[str, Any]


def parse_fork_request(resume_from: int | None, resume_with: Sequence[str]) -> ForkRequest | None:
    """Return the request of `--resume-from STEP` and `--resume-with KEY=VALUE …`; None: neither is given.

    Raises:
        InputError: A word is no KEY=VALUE, or the setting cannot change in the middle of a run.
    """
    changes = dict[str, Any]()
    for word in resume_with:
        key, equals, text = word.partition("=")
        name = key.strip().lstrip("-").replace("-", "_")
        if not equals or not name:
            raise InputError(f"--resume-with {word} changes nothing; give KEY=VALUE, such as optim.base_lr=1e-4")
        if not can_change(name):
            raise InputError(
                f"--resume-with {name} cannot change in the middle of a run; optim.* can (without layer_decay and "
                "no_weight_decay), schedule.*, patience and precision; start another run with it"
            )
        try:
            changes[name] = _CONSTANTS[text] if text in _CONSTANTS else json.loads(text)
        except ValueError:
            changes[name] = text
    precisions = get_args(FixedPrecision)
    if "precision" in changes and changes["precision"] not in precisions:
        raise InputError(f"--resume-with precision={changes['precision']} is none of {', '.join(precisions)}")
    return ForkRequest(resume_from, changes) if changes or resume_from is not None else None


def can_change(name: str) -> bool:
    """Return whether a setting, by its dotted name, can change in the middle of a run."""
    return name.startswith(_CHANGEABLE) and name not in _GROUPING


def plan_forks(out: Path, recipe: Any, request: ForkRequest | None) -> tuple[Fork, ...]:
    """Return the forks of the run in a directory, and after them the requested one, unless it is the last one.

    Args:
        out: The run directory.
        recipe: As the run was begun.
        request: The one that the user requested; None: none.

    Raises:
        InputError: There is no run, no such state, or a change that does not fit.
    """
    run = find_run(out)
    forks = run.forks if run else ()
    if request is None:
        return forks
    if run is None:
        raise InputError(
            f"{out} holds no run that could go on with other settings; leave out --resume-with and --resume-from, and "
            "give the settings as options"
        )
    current, forked = apply_forks(recipe, forks), apply_forks(recipe, (*forks, Fork(0, request.changes)))
    if getattr(current, "keeps_best", None) != getattr(forked, "keeps_best", None):
        raise InputError("--resume-with patience needs the best epoch's weights, which this run has not kept")
    precision = find_precision(forks) or run.content.get("precision")
    is_same = forked == current and request.changes.get("precision", precision) == precision
    if is_same and (request.step is None or (forks and forks[-1].step == request.step)):
        return forks
    return (*forks, Fork(find_good_step(out / STATE_DIR, request.step), request.changes, is_pending=True))


def apply_forks(recipe: RecipeT, forks: Sequence[Fork]) -> RecipeT:
    """Return a recipe with the changes of a run's forks, one after the other."""
    for fork in forks:
        changes = {name: value for name, value in fork.changes.items() if name != "precision"}
        recipe = change_recipe(recipe, nest_changes(changes)) if changes else recipe
    return recipe


def find_precision(forks: Sequence[Fork]) -> FixedPrecision | None:
    """Return the precision that the last fork with one has set."""
    return next((fork.changes["precision"] for fork in reversed(forks) if "precision" in fork.changes), None)


def advise_other_settings(recipe: Any, precision: Precision) -> str:
    """Return what mends a loss that is not finite, as options that the run's command has in the same directory."""
    if not isinstance(recipe, Recipe):
        return "lower the learning rate or train in fp32"
    words = f"optim.base_lr={recipe.optim.base_lr / 10:g}"
    if precision != "fp32":
        words = f"{words}, or --resume-with precision=fp32"
    return f"run the same command with --resume-with {words}"
