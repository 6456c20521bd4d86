"""What `vidstill detect train` and `detect evaluate` do: their options are the functions' signatures, read by tyro."""

import json as jsons
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.cli.predict import echo_problems
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, count_frames, read_frame_rate
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import BrokenVideo, parse_path
from vidstill.engine.distributed import Precision, Runtime
from vidstill.figures.tracks import PersonTracks
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.detector_checkpoint import load_detector
from vidstill.pipelines.evaluate import detector as scoring
from vidstill.pipelines.infer.detect import DetectRequest, VideoDetections, detect_video, read_video_persons
from vidstill.pipelines.infer.find_persons import CONFIDENT_SCORE, PersonBoxReport, find_keyframes, find_person_boxes
from vidstill.pipelines.infer.person_detector import DEFAULT_PERSON_DETECTOR, load_person_detector
from vidstill.pipelines.infer.videos import InputVideos, SplitChoice, find_videos
from vidstill.pipelines.infer.writers.outputs import DetectionOutput as Target
from vidstill.pipelines.infer.writers.outputs import detections_to_dict
from vidstill.pipelines.infer.writers.text import DetectionFormatter
from vidstill.pipelines.train import detector as training
from vidstill.pipelines.train.run_config import DetectRunConfig
from vidstill.pipelines.workers import Workers
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.metrics.ava_map import MatchingOrder, format_frame_map
from vidstill.utils.files import TEST_FILE, make_file_stems
from vidstill.utils.terminal import echo, show_progress_bar
from vidstill.utils.text import format_one_line, pluralize
from vidstill.utils.types import InputError, check_range

_NO_PREFIX = tyro.conf.arg(name="")  # its fields are options without a prefix


def detect_train_command(recipe: DetectionRecipe, run_config: DetectRunConfig, init: str | None) -> None:
    """Train an action detector by a recipe and test it; the same command again resumes the run."""
    out = training.train_detector(recipe, run_config, init=init)
    echo(f"trained: {out}\n{format_frame_map(jsons.loads((out / TEST_FILE).read_text()))}")


def detect_evaluate_command(
    source: Positional[str],
    /,
    *,
    data: str,
    person_boxes: str | None = None,
    actions: str | None = None,
    start_second: float | None = None,
    fps: float = 30.0,
    split: Literal["val", "train"] = "val",
    matching: MatchingOrder | None = None,
    crop: Literal["full", "center"] | None = None,
    out: Path | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Tests a detector, or scores a file of detections: AVA's mean average precision, each action, its curve.

    Args:
        source: a run's folder or a file of weights; or the rows that any detector gave, a .csv of
            video,second,x1,y1,x2,y2,action,score.
        data: a folder with `annotations` in AVA's formats and videos beside them; of a .csv no videos are needed.
        person_boxes: boxes that a detector of persons found, which are asked about; None: the file that the data have;
            annotated: the annotated boxes themselves, which is an easier test.
        actions: a list of the actions; None: the data's.
        start_second: the second of the annotations' time at which the videos' files begin; None: it is found.
        fps: frames per second, where videos are folders of frames.
        split: whose annotations.
        matching: in which order a key frame's detections choose their annotated boxes: score_order_top50, by score,
            the 50 best rows alone (AVA's own script); score_order; file_order (PySlowFast's). None: the model's
            recipe's, and AVA's own for a .csv.
        crop: the whole frame, or a square in its middle of the size that was trained on; None: the recipe's.
        out: a folder to leave all findings in: test.json, detections.csv, actions.csv, curves.png. None: they are told.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: key frames that a device takes at once; None: 8.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    boxes = BoxDataConfig(
        data=data,
        person_boxes=person_boxes,
        actions=actions,
        start_second=start_second,
        fps=fps,
    )
    machine = Workers(workers=workers, device_batch=device_batch, precision=precision)
    found = scoring.evaluate_detector(
        source, boxes, workers=machine, split=split, matching=matching, crop=crop, out=out
    )
    echo(jsons.dumps(found, indent=1) if json else format_frame_map(found))


_MAX_MESSAGES = 10  # of many sentences


def detect_boxes_command(
    data: Positional[str],
    /,
    *,
    out: Path,
    split: Split = "val",
    interval: int | None = None,
    person_detector: str = DEFAULT_PERSON_DETECTOR,
    weights: str | None = None,
    min_person_score: float = 0.05,
    max_persons: int = 100,
    batch: int = 8,
    workers: int = -1,
    json: bool = False,
) -> None:
    """Finds the persons in key frames, and writes a csv of their boxes; the same command again goes on.

    It ends with exit code 1 if a video could not be read, or not to its end; all others are done.

    Args:
        data: a data set with boxes, for its key frames; or a video, a folder of videos or a list of them.
        out: the csv to write: video,second,x1,y1,x2,y2,,score; unfinished work lies in OUT.begun.
        split: of a data set with boxes.
        interval: seconds from one key frame to the next; None: a data set's own key frames, else 1.
        person_detector: one of torchvision's, by its name there, such as fasterrcnn_mobilenet_v3_large_fpn.
        weights: a .pth or .safetensors of the detector, one's own or fetched by hand; None: torchvision's of COCO.
        min_person_score: persons with a higher score are written.
        max_persons: persons of a key frame, those with the highest scores.
        batch: key frames that go through the detector at once.
        workers: processes that decode; -1: one less than there are cores.
        json: as JSON, for programs.
    """
    runtime = Runtime("fp32")
    decoders = Workers(workers=workers).num_workers
    found = load_person_detector(
        person_detector, weights, runtime=runtime, min_score=min_person_score, max_persons=max_persons
    )
    moments = find_keyframes(parse_path(data), split=split, interval=interval, workers=max(1, decoders))
    if runtime.is_main:
        print(f"detect boxes: {pluralize(len(moments), 'key frame')}; {moments.description}", file=sys.stderr)
    bar: Any = show_progress_bar("key frames") if runtime.is_main else nullcontext()
    with bar as done:
        written = find_person_boxes(found, moments, out, runtime=runtime, batch=batch, workers=decoders, progress=done)
    if runtime.is_main:
        echo(jsons.dumps(written.to_dict(), indent=1) if json else _format_person_boxes(written))
        if written.broken:
            sys.exit(1)


def _format_person_boxes(report: PersonBoxReport) -> str:
    lines = [
        f"persons: {format_one_line(str(report.out))}; {pluralize(report.boxes, 'person')} in "
        f"{pluralize(report.keyframes, 'key frame')}, {report.empty_keyframes:,} of them without any"
    ]
    if report.recall is not None and report.confident_recall is not None:
        lines.append(
            f"annotated persons: {report.recall:.1%} of {report.annotated_boxes:,} are found (IoU 0.5), "
            f"{report.confident_recall:.1%} with a score of {CONFIDENT_SCORE:g} or more"
        )
    if report.broken:
        lines.append(f"left out, wholly or in part: {pluralize(len(report.broken), 'video')}")
        lines += [f"  {format_one_line(sentence)}" for sentence in report.broken[:_MAX_MESSAGES]]
        if len(report.broken) > _MAX_MESSAGES:
            lines.append(f"  and {len(report.broken) - _MAX_MESSAGES} more, which --json names")
    return "\n".join(lines)


_MIN_PERSON_SCORE = 0.05  # score of a person below which nobody is looked for, if that is not asked for


def detect_predict_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    person_boxes: str | None = None,
    person_detector: str = DEFAULT_PERSON_DETECTOR,
    weights: str | None = None,
    min_person_score: float | None = None,
    start_second: int = 0,
    interval: float = 1.0,
    out: Path | None = None,
    topk: int = 3,
    min_action_score: float = 0.1,
    split: SplitChoice = "all",
    root: str | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Says what the persons in videos do, moment by moment: table, JSON, AVA's rows, or the video with it drawn over.

    It ends with exit code 1 if a video could not be asked about, or not to its end; all others are done.

    Args:
        source: the run's folder or the file of weights of a detector of actions.
        videos: any number of videos, folders or lists of them, here or behind an address.
        person_boxes: a file of persons' boxes by whole seconds, as `detect boxes` writes it, or annotations as AVA has them.
            None: a detector of persons finds them.
        person_detector: one of torchvision's detectors, by its name there.
        weights: its .pth or .safetensors; None: torchvision's of COCO, fetched once.
        min_person_score: boxes of persons with this score or more; None: as in the model's own test.
        start_second: the second of the boxes at which the videos begin, such as 900 of AVA's quarters of an hour.
        interval: seconds from one moment to the next.
        out: a .json or .csv (AVA's rows: every action of every box) of all videos; an .mp4, one video again with the
            boxes and actions drawn over, without sound; or a folder with all three for each video. None: the terminal
            alone.
        topk: how many actions of a person are named.
        min_action_score: actions with this score or more are named.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    check_range(1, sys.maxsize, top=topk)
    check_range(0, 1, least=min_action_score, score=min_person_score)
    check_range(0.01, math.inf, every=interval)
    if not videos:
        raise InputError("no videos are named; give files, folders or lists: vidstill detect predict RUN VIDEO…")
    if person_boxes is not None and weights is not None:
        raise InputError("the persons are those of --persons or those that --weights find; give one of the two")
    if person_boxes is not None and not float(interval).is_integer():
        raise InputError(f"boxes of a file are of whole seconds, and --every is {interval:g}; take a whole number")
    target = Target(out, interval, start_second)
    loaded = load_detector(source)
    runtime = Runtime(precision)
    found = find_videos(
        [parse_path(video) for video in videos],
        split=split,
        root=None if root is None else parse_path(root),
        clip_frames=loaded.views.sampling.frames,
    )
    runtime.run_on_main(lambda: target.check_output(found.names, found.manifest.rows))
    sure = loaded.views.min_person_score if min_person_score is None else min_person_score
    asker = DetectRequest(replace(loaded, model=loaded.model.to(runtime.device).eval()), runtime, interval, sure)
    if person_boxes is None:
        finder = load_person_detector(person_detector, weights, runtime=runtime, min_score=min(sure, _MIN_PERSON_SCORE))
        asker = replace(asker, person_detector=finder)
    else:
        known = read_video_persons(
            parse_path(person_boxes), found.names, loaded, min_score=sure, start_second=start_second
        )
        asker = replace(asker, person_boxes=known)
    telling = DetectionFormatter(source, loaded.actions, topk, min_action_score)
    _detect_videos(asker, target, telling, found, json)


def _detect_videos(
    request: DetectRequest, output: Target, formatter: DetectionFormatter, videos: InputVideos, json: bool
) -> None:
    """Asks about this process's share of the videos; a folder's files are written one after another, and not kept."""
    runtime, rows = request.runtime, videos.manifest.rows
    found: dict[str, VideoDetections] = {}
    left_out = dict(videos.skipped)
    files = make_file_stems(videos.names)
    for place in range(runtime.rank, len(rows), runtime.world_size):
        name = videos.names[place]
        try:
            with _video_progress_bar(runtime, videos, place, "asking") as done:
                answer = detect_video(request, name, rows[place], progress=done)
        except BrokenVideo as error:
            left_out[name] = str(error)
            continue
        if output.format in ("folder", "mp4"):
            if runtime.is_main and not found:
                output.write_summary(formatter, videos.names, left_out)
            with _video_progress_bar(runtime, videos, place, "drawing") as done:
                output.write_video(formatter, answer, files[place], done)
        found[name] = answer if json or output.format != "folder" else replace(answer, tracks=PersonTracks(()))
    for their_found, their_left_out in runtime.all_gather((found, left_out)):
        found |= their_found
        left_out |= their_left_out
    if not runtime.is_main:
        return
    if not found:
        raise InputError(f"none of the {len(left_out)} videos could be asked about; {next(iter(left_out.values()))}")
    answers = [found[name] for name in sorted(found)]
    output.write_summary(formatter, sorted(found), left_out)
    output.write_detections(formatter, answers, left_out)
    if json:
        echo(jsons.dumps(detections_to_dict(formatter, answers, left_out)))
    elif output.out is None:
        echo("\n\n".join(map(formatter.format_video, answers)))
    else:
        echo(f"detections: {format_one_line(str(output.out))}, {pluralize(len(answers), 'video')}")
    wrong = {**left_out, **{each.video: each.error for each in answers if each.error}}
    if wrong and not json:
        echo_problems(wrong)
    if wrong:
        sys.exit(1)


@contextmanager
def _video_progress_bar(
    runtime: Runtime, videos: InputVideos, index: int, title: str
) -> Iterator[Callable[[float], None]]:
    """A progress bar of the seconds of a single video; of many, their number is said by the bar's title."""
    if not runtime.is_main:
        yield lambda seconds: None
        return
    row, many = videos.manifest.rows[index], len(videos.names)
    try:
        of = round(count_frames(row.source) / (read_frame_rate(row.source) or row.frame_rate or DEFAULT_FRAME_RATE))
    except BrokenVideo:  # which is said where it is asked about
        of = 0
    with show_progress_bar(title if many == 1 else f"{title} {index + 1} of {many}") as done:
        yield lambda seconds: done(round(seconds), of)
        done(of, of)  # the last moment is before the end
