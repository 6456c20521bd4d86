"""`vidstill bench step`: a recipe's training step, beside a plain reading of its method and transformers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from vidstill.bench.eager.methods import explain_missing_eager
from vidstill.bench.infer import explain_missing_transformers
from vidstill.bench.measure import measure_sides
from vidstill.bench.measurement_config import StepConfig
from vidstill.bench.model_report import EAGER, OURS, TRANSFORMERS, ModelReport
from vidstill.bench.side import Side
from vidstill.bench.training_sides import EagerStep, StepWork, VidstillStep
from vidstill.engine.distributed import FixedPrecision
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.flops import count_training_multiply_adds


def measure_step(
    recipe: PretrainRecipe | FinetuneRecipe, config: StepConfig, *, name: str, command: str
) -> ModelReport:
    """Time a recipe's training step on random clips; all weights are random, the teachers' too.

    Args:
        recipe: Its batch is not used: a step takes `config.device_batch` clips.
        config: What is measured how often.
        name: Of the recipe.
        command: What measures the same again.

    Raises:
        InputError: The recipe's parts do not fit one another, or the memory does not suffice.
    """
    works = {precision: StepWork(recipe, config.device_batch, precision) for precision in config.list_precisions()}
    work = next(iter(works.values()))
    frames, rows, columns = work.clip_size
    flops = 2 * count_training_multiply_adds(work.build_task, num_frames=frames, size=(rows, columns))
    reasons = explain_missing_sides(work)
    with TemporaryDirectory(prefix="vidstill-bench-") as directory:
        builds: dict[tuple[str, FixedPrecision], Callable[[], Side]] = {}
        for precision, work in works.items():
            builds[OURS, precision] = partial(VidstillStep, work, config, Path(directory))
            if not config.alone and EAGER not in reasons:
                builds[EAGER, precision] = partial(EagerStep, work)
            if not config.alone and TRANSFORMERS not in reasons:
                from vidstill.bench.transformers_sides import TransformersStep  # imports an optional package

                builds[TRANSFORMERS, precision] = partial(TransformersStep, work)
        return measure_sides(
            builds,
            config,
            command=command,
            title=f"{name}, {config.device_batch} clips of {frames} × {rows} × {columns}, forward, backward, optimizer",
            flops_per_clip=flops,
            missing_sides={} if config.alone else reasons,
        )


def explain_missing_sides(work: StepWork) -> dict[str, str]:
    """Return why sides cannot be compared; empty if all can."""
    reasons = {
        EAGER: explain_missing_eager(work.model_config),
        TRANSFORMERS: explain_missing_transformers(work.model_config, work.clip_size),
    }
    return {side: reason for side, reason in reasons.items() if reason}
