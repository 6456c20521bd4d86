"""`vidstill bench …`; a function's signature is its options."""

import json as jsons
import shlex
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from tyro.conf import Positional

from vidstill.bench.measurement_config import MeasurementConfig, StepConfig
from vidstill.cli.options import NO_PREFIX, Json
from vidstill.data.storage.fetch import parse_path
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.terminal import echo, to_json_value

_DEFAULTS = MeasurementConfig()


@dataclass(frozen=True, kw_only=True)
class StepOptions(StepConfig):
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


def bench_infer_command(
    model: Positional[str], /, *, config: Annotated[MeasurementConfig, NO_PREFIX] = _DEFAULTS, json: Json = False
) -> None:
    """Measure the forward pass of a classifier, beside a plain reading of the model and transformers' VideoMAE.

    Args:
        model: A recipe of `finetune`, or small, base, large or huge (VideoMAE's, for 16 × 224² and 400 classes); its
            weights are random, and so are the clips.
    """
    from vidstill.bench.infer import measure_inference
    from vidstill.bench.model_report import format_model_report

    words = ["vidstill", "bench", "infer", model, "--device-batch", config.device_batch, "--rounds", config.rounds]
    words += ["--precision", *config.precision] if config.precision else []
    report = measure_inference(model, config, command=shlex.join(map(str, words)))
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if json else format_model_report(report))


def bench_attention_command(
    *,
    lengths: tuple[int, ...] = (160, 392, 784, 1568),
    head_dims: tuple[int, ...] = (64,),
    heads: int = 6,
    batch: int = 4,
    precision: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32"),
    rounds: int = 5,
    json: Json = False,
) -> None:
    """Measure every kernel of attention on this machine, forward and backward: the source of the table that selects.

    Args:
        lengths: Numbers of tokens.
        head_dims: Channels of a head.
        heads: Attention heads.
        batch: Clips.
        precision: Of queries, keys and values.
        rounds: In each of which every kernel has its turn.
    """
    from vidstill.bench.attention import AttentionBenchmark, format_attention_report, measure_attention

    report = measure_attention(
        AttentionBenchmark(
            lengths=lengths, head_dims=head_dims, heads=heads, batch=batch, precisions=precision, rounds=rounds
        )
    )
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if json else format_attention_report(report))


def bench_data_command(
    data: Positional[str | None] = None, /, *, max_videos: int = 8, rounds: int = 10, json: Json = False
) -> None:
    """Measure decoding, augmentation and loading of clips from videos and packed shards, beside decord and torchcodec.

    Args:
        data: Videos to measure with, as for `vidstill data inspect`; None: synthetic videos.
        max_videos: Videos to use.
        rounds: Clips to read from each.
    """
    from vidstill.bench.report import format_benchmark_report
    from vidstill.bench.run import BenchmarkConfig, benchmark_data

    config = BenchmarkConfig(num_videos=max_videos, clips_per_video=rounds)
    report = benchmark_data(None if data is None else parse_path(data), config)
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if json else format_benchmark_report(report))
