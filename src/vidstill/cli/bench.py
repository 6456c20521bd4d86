"""`vidstill bench …`; a function's signature is its options."""

import json as jsons
from dataclasses import asdict, dataclass

from tyro.conf import Positional

from vidstill.bench.measurement_config import MeasurementConfig
from vidstill.data.storage.fetch import parse_path
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.terminal import echo, to_json_value


@dataclass(frozen=True, kw_only=True)
class StepOptions(MeasurementConfig):
    """The options of `bench step` beside those of the recipe."""

    json: bool = False  # print JSON, with every single time


def bench_step_command(
    recipe: PretrainRecipe | FinetuneRecipe, run_config: StepOptions, *, name: str, command: str
) -> None:
    """Measure a recipe's training step, beside a plain reading of its method and transformers' VideoMAE.

    Clips are random, and so are all weights, the teachers' too: no data set or checkpoint is read. A step is what a run
    does in a step: loader, forward pass, backward pass, optimizer. The recipe's batch is not used. It needs an idle
    machine.
    """
    from vidstill.bench.model_report import format_model_report
    from vidstill.bench.step import measure_step

    report = measure_step(recipe, run_config, name=name, command=command)
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if run_config.json else format_model_report(report))


def bench_data_command(
    data: Positional[str | None] = None, /, *, max_videos: int = 8, rounds: int = 10, json: bool = False
) -> None:
    """Measure decoding, augmentation and loading of clips from videos and packed shards, beside decord and torchcodec.

    Args:
        data: Videos to measure with, as for `vidstill data inspect`; None: synthetic videos.
        max_videos: Videos to use.
        rounds: Clips to read from each.
        json: Print JSON, with every single measurement.
    """
    from vidstill.bench.report import format_benchmark_report
    from vidstill.bench.run import BenchmarkConfig, benchmark_data

    config = BenchmarkConfig(num_videos=max_videos, clips_per_video=rounds)
    report = benchmark_data(None if data is None else parse_path(data), config)
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if json else format_benchmark_report(report))
