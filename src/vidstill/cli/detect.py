"""`vidstill detect …`: the options of each verb are its function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from vidstill.cli.infer import echo_results
from vidstill.cli.options import NO_PREFIX, Json, Root, SplitOption
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import BrokenVideo, parse_path
from vidstill.engine.distributed import Precision, Runtime
from vidstill.figures.tracks import PersonTracks
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.evaluate.detector import run_detector_evaluation
from vidstill.pipelines.infer.detect import DetectRequest, VideoDetections, build_detect_request, detect_video
from vidstill.pipelines.infer.find_persons import CONFIDENT_SCORE, PersonBoxReport, find_person_boxes
from vidstill.pipelines.infer.keyframe_sets import find_keyframes
from vidstill.pipelines.infer.person_detector import DEFAULT_PERSON_DETECTOR, load_person_detector
from vidstill.pipelines.infer.run import gather
from vidstill.pipelines.infer.videos import VideoSelection, find_videos
from vidstill.pipelines.infer.writers.outputs import DetectionOutput
from vidstill.pipelines.infer.writers.text import DetectionFormatter
from vidstill.pipelines.run_config import DetectRunConfig, Workers
from vidstill.pipelines.train.detector import run_detector_training
from vidstill.pipelines.trained_models import load_detector
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.metrics.ava_map import MatchingOrder, format_frame_map
from vidstill.utils.output_dir import read_result
from vidstill.utils.terminal import echo, echo_skipped, show_progress_bar
from vidstill.utils.text import format_one_line, pluralize
from vidstill.utils.types import InputError, check_range


def detect_train_command(
    recipe: DetectionRecipe, run_config: DetectRunConfig, init: str | None, *, changes: Mapping[str, Any] = {}
) -> None:
    """Train an action detector by a recipe and test it; the same command again resumes the run."""
    out = run_detector_training(recipe, run_config, init=init, changes=changes)
    echo(f"trained: {out}\n{format_frame_map(read_result(out))}")


def detect_evaluate_command(
    source: Positional[str],
    /,
    *,
    boxes: Annotated[BoxDataConfig, NO_PREFIX],
    split: Literal["val", "train"] = "val",
    matching: MatchingOrder | None = None,
    crop: Literal["full", "center"] | None = None,
    out: Path | None = None,
    workers: Annotated[Workers, NO_PREFIX] = Workers(),  # it is frozen
    json: Json = False,
) -> None:
    """Test a detector, or score a file of detections: AVA's mean average precision, each action, its curve.

    The device takes 8 key frames at once unless --device-batch says otherwise.

    Args:
        source: Run directory or checkpoint; or the detections of any detector, a .csv of
            video,second,x1,y1,x2,y2,action,score, which needs no videos.
        split: The split that is tested on.
        matching: The order in which a key frame's detections are matched to ground-truth boxes: score_order_top50, by
            score, the 50 best rows alone (AVA's own script); score_order; file_order (PySlowFast's). None: the model's
            recipe's, and AVA's own for a .csv.
        crop: The whole frame, or its central square of the training's size; None: the recipe's.
        out: Directory for all results: test.json, detections.csv, actions.csv, curves.png. None: they are printed only.
    """
    result = run_detector_evaluation(source, boxes, workers=workers, split=split, matching=matching, crop=crop, out=out)
    echo(jsons.dumps(result, indent=1) if json else format_frame_map(result))


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
    device_batch: int = 8,
    workers: int = -1,
    json: Json = False,
) -> None:
    """Find the persons in key frames, and write a CSV of their boxes; the same command resumes.

    The exit code is 1 if a video could not be read, or not to its end; all others are done.

    Args:
        data: A data set with boxes, for its key frames; or a video, a folder of videos or a list of them.
        out: The CSV to write: video,second,x1,y1,x2,y2,,score; unfinished work is in OUT.journal.
        split: The split of a data set with boxes.
        interval: Seconds from one key frame to the next; None: a data set's own key frames, or 1.
        person_detector: Name of one of torchvision's detectors, such as fasterrcnn_mobilenet_v3_large_fpn.
        weights: A .pth or .safetensors of the detector, your own or downloaded by hand; None: torchvision's for COCO.
        min_person_score: Persons with a higher score are written.
        max_persons: Persons per key frame, those with the highest scores.
        device_batch: Key frames that go through the detector at once.
        workers: Decoding processes; -1: the CPU cores minus one.
    """
    runtime, machine = Runtime("fp32"), Workers(workers=workers, device_batch=device_batch, precision="fp32")
    detector = load_person_detector(
        person_detector, weights, runtime=runtime, min_score=min_person_score, max_persons=max_persons
    )
    keyframes = find_keyframes(parse_path(data), split=split, interval=interval, workers=max(1, machine.num_workers))
    if runtime.is_main:
        print(f"detect boxes: {pluralize(len(keyframes), 'key frame')}; {keyframes.description}", file=sys.stderr)
    with show_progress_bar("key frames", visible=runtime.is_main) as progress:
        report = find_person_boxes(detector, keyframes, out, runtime=runtime, workers=machine, progress=progress)
    if not runtime.is_main:
        return
    if json:
        echo(jsons.dumps(asdict(report), indent=1, default=str))
    else:
        echo(_format_person_boxes(report))
        echo_skipped(report.broken, "skipped or incomplete")
    if report.broken:
        sys.exit(1)


def _format_person_boxes(report: PersonBoxReport) -> str:
    text = (
        f"persons: {format_one_line(str(report.out))}; {pluralize(report.boxes, 'person')} in "
        f"{pluralize(report.keyframes, 'key frame')}, {report.empty_keyframes:,} of them without any"
    )
    if report.recall is not None and report.confident_recall is not None:
        text += (
            f"\nannotated persons: {report.recall:.1%} of {report.annotated_boxes:,} are found (IoU 0.5), "
            f"{report.confident_recall:.1%} with a score of {CONFIDENT_SCORE:g} or more"
        )
    return text


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
    split: SplitOption = "all",
    root: Root = None,
    precision: Precision = "auto",
    json: Json = False,
) -> None:
    """Detect what the persons in videos do, key frame by key frame: table, JSON, AVA's rows, or annotated video.

    The exit code is 1 if a video could not be read, or not to its end; all others are done.

    Args:
        source: Run directory or checkpoint of a detector of actions.
        videos: Videos, folders or lists of them, local or behind URLs.
        person_boxes: File of person boxes by whole seconds, as `detect boxes` writes it, or annotations as AVA has
            them.
            None: a person detector finds them.
        person_detector: Name of one of torchvision's detectors.
        weights: Its .pth or .safetensors; None: torchvision's for COCO, downloaded once.
        min_person_score: Persons with this score or more are used; None: as in the model's own test.
        start_second: The second of the boxes at which the videos begin, such as 900 for AVA's quarters of an hour.
        interval: Seconds from one key frame to the next.
        out: A .json or .csv (AVA's rows: every action of every box) of all videos; an .mp4, one video again with boxes
            and actions drawn over it, without sound; or a folder with all three for each video. None: the terminal
            alone.
        topk: Actions that are named per person.
        min_action_score: Actions with this score or more are named.
        precision: auto: bf16 where the device computes it fast, else fp32.
    """
    check_range(1, sys.maxsize, topk=topk)
    check_range(0, 1, min_action_score=min_action_score)
    output = DetectionOutput(out, interval=interval)
    detector, runtime = load_detector(source), Runtime(precision)
    selection = find_videos(videos, split=split, root=root, clip_frames=detector.recipe.views.sampling.num_frames)
    runtime.run_on_main(lambda: output.check_output(selection))
    request = build_detect_request(
        detector,
        selection,
        runtime,
        person_boxes=person_boxes,
        person_detector=person_detector,
        weights=weights,
        min_person_score=min_person_score,
        start_second=start_second,
        interval=interval,
    )
    formatter = DetectionFormatter(detector, topk, min_action_score, selection.stems, interval, start_second)
    with runtime.enter_on_main(output.lock()):
        _detect_videos(request, output, formatter, selection, json)


def _detect_videos(
    request: DetectRequest, output: DetectionOutput, formatter: DetectionFormatter, videos: VideoSelection, json: bool
) -> None:
    """Detect in this rank's share; the files of a folder are written one by one, and the detections are not kept."""
    runtime, rows = request.runtime, videos.manifest.rows
    share: dict[str, VideoDetections] = {}
    skipped = dict(videos.skipped)
    for index in range(runtime.rank, len(rows), runtime.world_size):
        name, number = videos.names[index], f" {index + 1} of {len(rows)}" if len(rows) > 1 else ""
        try:
            with show_progress_bar(f"detecting{number}", visible=runtime.is_main) as progress:
                detections = detect_video(request, name, rows[index], progress=progress)
        except BrokenVideo as error:
            skipped[name] = str(error)
            continue
        if output.format in ("folder", "mp4"):
            if runtime.is_main and not share:
                output.write_summary(formatter, (), skipped)  # by which the folder is known as one of detections
            with show_progress_bar(f"drawing{number}", visible=runtime.is_main) as progress:
                output.write_video(formatter, detections, videos.stems[name], progress)
        keep = json or output.format != "folder"
        share[name] = detections if keep else replace(detections, tracks=PersonTracks(()))
        if runtime.is_main:
            output.write_summary(formatter, share, skipped)
    every, skipped = gather(runtime, share), gather(runtime, skipped)
    if not runtime.is_main:
        return
    if not every:
        raise InputError(f"none of {len(skipped)} videos can be used; {next(iter(skipped.values()))}")
    results = list(every.values())
    output.write_summary(formatter, every, skipped)
    output.write_all(formatter, results, skipped)
    echo_results(output, formatter, results, skipped, json=json)
