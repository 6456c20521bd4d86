"""`vidstill predict` and `vidstill embed`; a function's signature is its options."""

import json as jsons
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from vidstill.cli.options import NO_PREFIX, Fold, Json, Root, SplitOption
from vidstill.data.storage.fetch import parse_path
from vidstill.pipelines.infer.embed import EmbedResult, embed_videos
from vidstill.pipelines.infer.embed_config import EmbedConfig
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.infer.predict import (
    Predictions,
    TimelineConfig,
    VideoPrediction,
    ViewOptions,
    is_long_video,
    predict_timelines,
    predict_videos,
)
from vidstill.pipelines.infer.run import gather
from vidstill.pipelines.infer.videos import find_videos
from vidstill.pipelines.infer.writers.feature_store import FormatName
from vidstill.pipelines.infer.writers.outputs import OutputWriter, PredictionOutput
from vidstill.pipelines.infer.writers.text import Formatter, PredictionFormatter, describe_videos
from vidstill.pipelines.run_config import Workers
from vidstill.utils.terminal import echo, echo_skipped, show_progress_bar
from vidstill.utils.text import format_one_line, pluralize
from vidstill.utils.types import check_range


def predict_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    annotate: bool = False,
    timeline: bool = False,
    windows: Annotated[TimelineConfig, NO_PREFIX] = TimelineConfig(),  # noqa: B008  # it is frozen
    view_options: Annotated[ViewOptions, NO_PREFIX] = ViewOptions(),  # noqa: B008  # it is frozen
    topk: int = 5,
    split: SplitOption = "all",
    root: Root = None,
    workers: Annotated[Workers, NO_PREFIX] = Workers(),
    json: Json = False,
) -> None:
    """Predict what videos show, as a whole and over time: table, CSV, JSON, plot or annotated video.

    The exit code is 1 if a video could not be read, or not to its end; all others are done. Without --device-batch the
    device takes the views of one video at once, or 16 windows.

    Args:
        source: Run directory or checkpoint of a fine-tuned model.
        videos: Files, folders, lists and packs (pictures for a model of images), local or behind URLs.
        out: A .csv or .json for all videos; an .mp4, one video again with its classes drawn over it, without sound; or
            a folder, with a .json and a plot for each video. None: the terminal alone.
        plot: A PNG of one video's classes over time.
        annotate: Also write an .mp4 for each video to the folder of --out.
        timeline: Also predict each window; the default where a plot or a video is drawn, with --window or --hop and,
            unless --out is a .csv, for a single video longer than two windows.
        topk: Classes that are named.
    """
    check_range(1, sys.maxsize, topk=topk)
    output = PredictionOutput(out, plot=plot, annotate=annotate)
    encoder = load_encoder(source, precision=workers.precision)
    views = view_options.apply(encoder.require_classifier()[1])
    clip_frames = views.sampling.num_frames
    selection = find_videos(videos, split=split, root=root, clip_frames=clip_frames)
    encoder.runtime.run_on_main(lambda: output.check_output(selection))
    with encoder.runtime.enter_on_main(output.lock()):
        over_time = timeline or (windows.window or windows.hop) is not None or output.needs_timeline
        if not over_time and output.format != "csv":
            over_time = is_long_video(encoder, selection)
        title = f"{selection.manifest.noun}s, {pluralize(views.num_views, 'view')} each"
        with show_progress_bar(title, visible=encoder.runtime.is_main) as progress:
            predictions = predict_videos(
                encoder, selection, view_options=view_options, workers=workers, progress=progress
            )
        csv_timeline = over_time and output.format == "csv"
        formatter = PredictionFormatter(encoder, predictions.views, topk, timeline=csv_timeline)
        if encoder.runtime.is_main and output.format == "folder":
            output.write_all(formatter, predictions.videos, predictions.skipped)
        if over_time:
            predictions = _predict_timelines(encoder, predictions, windows, workers, output, formatter, selection.stems)
        if encoder.runtime.is_main:  # the other ranks exit with 0: if one failed first, torchrun would end this one
            if output.format != "folder":
                output.write_all(formatter, predictions.videos, predictions.skipped)
            echo_results(
                output,
                formatter,
                predictions.videos,
                predictions.skipped,
                json=json,
                plot=plot,
                noun=selection.manifest.noun,
            )


def _predict_timelines(
    encoder: VideoEncoder,
    predictions: Predictions,
    config: TimelineConfig,
    workers: Workers,
    output: PredictionOutput,
    formatter: PredictionFormatter,
    stems: Mapping[str, str],
) -> Predictions:
    """Add the timelines; those of a folder are written one after the other and are not kept."""
    runtime = encoder.runtime
    share: dict[str, VideoPrediction] = {}
    with show_progress_bar("timelines", visible=runtime.is_main) as progress:
        for each in predict_timelines(encoder, predictions, config, workers=workers, progress=progress):
            if output.format == "folder":
                output.write_video(formatter, each, stems[each.video])
            share[each.video] = replace(each, timeline=None) if output.format == "folder" else each
    if output.format != "folder" and output.needs_timeline and runtime.is_main:
        with show_progress_bar("drawing") as progress:
            output.write_video(formatter, share[predictions.videos[0].video], "", progress)
    return replace(predictions, videos=tuple(gather(runtime, share).values()))


def echo_results(
    output: OutputWriter,
    formatter: Formatter,
    results: Sequence[Any],
    skipped: Mapping[str, str],
    *,
    json: bool,
    plot: Path | None = None,
    noun: str = "video",
) -> None:
    """Print results, or where they are; exit with code 1 if a video was skipped, or ends early.

    Args:
        output: Where they were written.
        formatter: How they are printed.
        results: One for each video.
        skipped: The reason for each video without one.
        json: Print JSON.
        plot: Another file that was written.
        noun: What a result is of.
    """
    errors = {**skipped, **{each.video: each.error for each in results if each.error}}
    if json:
        echo(jsons.dumps(describe_videos(formatter, results, skipped), indent=output.json_indent))
    else:
        if output.out is None:
            echo(formatter.format_text(results))
        for path in filter(None, (output.out, plot)):
            echo(f"{output.kind}: {format_one_line(str(path))}, {pluralize(len(results), noun)}")
        echo_skipped(list(errors.values()), "skipped or incomplete", noun=noun)
    if errors:
        sys.exit(1)


def embed_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    format: FormatName | None = None,
    features: Annotated[EmbedConfig, NO_PREFIX] = EmbedConfig(),  # noqa: B008  # it is frozen
    split: SplitOption = "all",
    fold: Fold = 1,
    workers: Annotated[Workers, NO_PREFIX] = Workers(),
    json: Json = False,
) -> None:
    """Write an encoder's features of videos; the same command resumes, and computes nothing twice.

    The exit code is 1 if a video could not be embedded; all others are. A batch has 16 clips unless --device-batch says
    otherwise, and --precision auto continues with the precision of the output.

    Args:
        source: Run directory or checkpoint.
        videos: Files, folders, lists and data sets, local or behind URLs.
        out: The file to write, or for npy the folder; unfinished work is in OUT.journal.
        format: None: the suffix of OUT decides, .npz, .safetensors or .parquet; without suffix one npy file per video.
    """
    encoder = load_encoder(source, precision=workers.precision)
    with show_progress_bar("embedding", visible=encoder.runtime.is_main) as progress:
        result = embed_videos(
            encoder,
            [parse_path(video) for video in videos],
            out,
            features,
            format=format,
            split=split,
            fold=fold,
            workers=workers,
            progress=progress,
        )
    if json:
        echo(jsons.dumps(asdict(result), indent=1, default=str))
    else:
        echo(_format_result(result))
        echo_skipped(result.broken, noun=result.noun)
    if result.broken:
        sys.exit(1)


def _format_result(result: EmbedResult) -> str:
    unchanged = result.videos - result.new_videos
    summary = f"{pluralize(result.new_videos, result.noun)} embedded" if result.new_videos else "nothing to do"
    summary += f" ({result.changed_videos} of them again, as they have changed)" if result.changed_videos else ""
    summary += f", {pluralize(unchanged, result.noun)} unchanged" if unchanged else ""
    shapes = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in result.shapes.items())
    return f"features: {result.out} ({result.format}); {summary}; {pluralize(result.rows, 'row')} of {shapes}"
