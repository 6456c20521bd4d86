"""What a run of a recipe would do."""

from vidstill.engine.schedule import Plan, make_plan
from vidstill.recipes.recipe import find

KINETICS = 240_436  # training videos of Kinetics-400


def plan(name: str) -> Plan:
    """Steps, batches and rates on Kinetics-400."""
    recipe = find(name)
    return make_plan(
        videos=KINETICS,
        batch=recipe.batch,
        optim=recipe.optim,
        schedule=recipe.schedule,
        repeats=recipe.clips.repeats,
    )
