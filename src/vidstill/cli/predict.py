"""What `vidstill predict` does: its options are the function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from vidstill.data.decode.images import is_image_file
from vidstill.data.storage.fetch import BrokenVideo, parse_path
from vidstill.engine.distributed import Precision, Runtime
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.infer.predict import (
    Predictions,
    TimelineConfig,
    VideoPrediction,
    choose_window_seconds,
    predict_timelines,
    predict_videos,
    read_duration,
)
from vidstill.pipelines.infer.videos import InputVideos, SplitChoice, find_videos
from vidstill.pipelines.infer.writers.outputs import PredictionOutput
from vidstill.pipelines.infer.writers.text import format_predictions, predictions_to_dict
from vidstill.pipelines.workers import Workers
from vidstill.utils.files import make_file_stems
from vidstill.utils.terminal import echo, show_progress_bar
from vidstill.utils.text import format_one_line, pluralize
from vidstill.utils.types import check_range

_MAX_MESSAGES = 10  # of many sentences


def predict_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    annotate: bool = False,
    timeline: bool = False,
    window: float | None = None,
    hop: float | None = None,
    topk: int = 5,
    split: SplitChoice = "all",
    root: str | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Says what is done in videos, on the whole and over time: table, CSV, JSON, plot or annotated video.

    It ends with exit code 1 if a video could not be asked about, or not to its end; all others are done.

    Args:
        source: a run's folder or a file of weights, fine-tuned.
        videos: any number of files, folders, lists, packs (pictures, of a model of images), here or behind an address.
        out: a .csv or .json for all videos; an .mp4, one video again with the classes of each moment over it, without
            sound; or a folder, with a .json and a plot for each video. None: the terminal alone.
        plot: a PNG of one video's classes over time.
        annotate: an .mp4 for each video too, in the folder of --out.
        timeline: also what is seen in each window of time; on by itself where a plot or a video is drawn and, but for
            a .csv, of a single video that is longer than two windows.
        window: seconds of a window, and turns --over-time on; None: as long as a clip that the model was trained on.
        hop: seconds from the start of a window to the start of the next, and turns --over-time on; None: half a window.
        topk: how many classes are named.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: views that a device takes at once; None: all of a video's, and 16 windows.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = Workers(workers=workers, device_batch=device_batch, precision=precision)
    check_range(1, sys.maxsize, top=topk)
    target, asked = PredictionOutput(out, plot, annotate), TimelineConfig(window=window, hop=hop)
    encoder = replace(load_encoder(source, runtime=Runtime(precision)), device_batch=device_batch)
    frames = encoder.require_classifier()[1].sampling.num_frames
    places = [parse_path(video) for video in videos]
    found = find_videos(places, split=split, root=None if root is None else parse_path(root), clip_frames=frames)
    encoder.runtime.run_on_main(lambda: target.check_output(found))
    timed = timeline or (window or hop) is not None or target.needs_timeline
    if not timed and target.format != "csv":
        timed = _is_long_video(encoder, found)
    with _main_progress_bar(encoder, "videos") as done:
        answers = predict_videos(encoder, found, workers=launch.num_workers, progress=done)
    if encoder.runtime.is_main and target.format == "folder":
        target.write_table(answers, topk, timeline=False)
    if timed:
        answers = _predict_timelines(encoder, answers, asked, target, topk)
    if encoder.runtime.is_main:  # the others end well: were one to fail first, this one would be ended
        if target.format != "folder":
            target.write_table(answers, topk, timeline=timed)
        _echo_predictions(answers, target, topk, json)
        if answers.problems:
            sys.exit(1)


def _is_long_video(encoder: VideoEncoder, videos: InputVideos) -> bool:
    """Whether it is a single video that is longer than two windows."""
    row = videos.manifest.rows[0]
    if len(videos.names) > 1 or is_image_file(row.name):
        return False
    try:
        return read_duration(row.source, row.frame_rate) > 2 * choose_window_seconds(
            encoder, row.source, row.frame_rate
        )
    except BrokenVideo:  # which is said where it is asked about
        return False


def _predict_timelines(
    encoder: VideoEncoder, predictions: Predictions, config: TimelineConfig, output: PredictionOutput, topk: int
) -> Predictions:
    """The answers with their timelines; a folder's are written one after another, and not kept."""
    runtime = encoder.runtime
    names = dict(
        zip(
            [each.video for each in predictions.videos],
            make_file_stems([each.video for each in predictions.videos]),
            strict=True,
        )
    )
    seen: list[VideoPrediction] = []
    with _seconds_progress_bar(encoder, predictions, "over time") as done:
        for each in predict_timelines(encoder, predictions, config, progress=done):
            if output.format == "folder":
                output.write_video(predictions, each, topk, names[each.video])
                seen.append(replace(each, timeline=None))
            else:
                seen.append(each)
    if output.format != "folder" and output.needs_timeline and runtime.is_main:
        with _seconds_progress_bar(encoder, predictions, "drawing") as done:
            output.write_video(predictions, seen[0], topk, "", lambda seconds: done(0, seconds))
    every = [each for share in runtime.all_gather(seen) for each in share]
    return replace(predictions, videos=tuple(sorted(every, key=lambda each: each.video)))


@contextmanager
def _main_progress_bar(encoder: VideoEncoder, title: str) -> Iterator[Callable[[float, float], None]]:
    """A progress bar in the first process, of its own share."""
    if encoder.runtime.is_main:
        with show_progress_bar(title) as done:
            yield done
    else:
        yield lambda done, of: None


@contextmanager
def _seconds_progress_bar(
    encoder: VideoEncoder, predictions: Predictions, title: str
) -> Iterator[Callable[[int, float], None]]:
    """A progress bar that counts videos, or the seconds of a single one."""
    one = len(predictions.videos) == 1
    row = predictions.videos[0].row
    of = (
        round(read_duration(row.source, row.frame_rate))
        if one and not is_image_file(row.name)
        else len(predictions.videos)
    )
    with _main_progress_bar(encoder, title) as done:
        yield lambda place, seconds: done(round(seconds) if one else place * encoder.runtime.world_size, of)


def _echo_predictions(predictions: Predictions, output: PredictionOutput, topk: int, json: bool) -> None:
    if json:
        echo(jsons.dumps(predictions_to_dict(predictions, topk), indent=1))
        return
    if output.out is None:
        echo(format_predictions(predictions, topk))
    for path in (output.out, output.plot):
        if path is not None:
            echo(f"predictions: {format_one_line(str(path))}, {pluralize(len(predictions.videos), 'video')}")
    if predictions.problems:
        echo_problems(predictions.problems)


def echo_problems(problems: Mapping[str, str]) -> None:
    """The sentences of videos that could not be asked about, or not to their end."""
    echo(f"\nproblems: {pluralize(len(problems), 'video')}")
    for sentence in list(problems.values())[:_MAX_MESSAGES]:
        echo(f"  {format_one_line(sentence)}")
    if len(problems) > _MAX_MESSAGES:
        echo(f"  and {len(problems) - _MAX_MESSAGES} more, which --json and a .json name")
