"""What `vidstill detect train` and `detect evaluate` do: their options are the functions' signatures, read by tyro."""

import json as jsons
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.cli.predict import tell_problems
from vidstill.data.decode.probe import count_frames, frame_rate
from vidstill.data.decode.stream import USUAL_RATE
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import BrokenVideo, place_of
from vidstill.engine.distributed import Precision, Runtime
from vidstill.figures.tracks import Tracks
from vidstill.pipelines.detector_checkpoint import load_detector
from vidstill.pipelines.evaluate import detector as scoring
from vidstill.pipelines.infer.detect import Asker, Detected, detected, known_persons
from vidstill.pipelines.infer.find_persons import SURE, Boxes, find_boxes_of_persons, find_moments
from vidstill.pipelines.infer.person_detector import USUAL, load_persons
from vidstill.pipelines.infer.videos import Videos, WhichSplit, find_videos
from vidstill.pipelines.infer.writers.outputs import Target_of_files as Target
from vidstill.pipelines.infer.writers.outputs import detections_plain
from vidstill.pipelines.infer.writers.text import Telling
from vidstill.pipelines.train import detector as training
from vidstill.pipelines.train.detector_data import DetectLaunch
from vidstill.pipelines.train.session import AnyLaunch
from vidstill.recipes.recipe import Detect
from vidstill.tasks.metrics.ava_map import Matching, in_words
from vidstill.utils.files import TEST_FILE, stems
from vidstill.utils.terminal import progress_bar, tell
from vidstill.utils.text import counted, one_line
from vidstill.utils.types import InputError, within

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix


def train(*, launch: Annotated[DetectLaunch, Flat], init: str | None = None, recipe: Annotated[Detect, Flat]) -> None:
    """Trains a detector of what the persons in boxes do, and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from, pre-trained or fine-tuned; None: from scratch.
    """
    out = training.train(recipe, launch, init=init)
    tell(f"trained: {out}\n{in_words(jsons.loads((out / TEST_FILE).read_text()))}")


def evaluate(
    source: Positional[str],
    /,
    *,
    data: str,
    persons: str | None = None,
    actions: str | None = None,
    start: float | None = None,
    frame_rate: float = 30.0,
    split: Literal["val", "train"] = "val",
    matching: Matching | None = None,
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
        persons: boxes that a detector of persons found, which are asked about; None: the file that the data have;
            annotated: the annotated boxes themselves, which is an easier test.
        actions: a list of the actions; None: the data's.
        start: the second of the annotations' time at which the videos' files begin; None: it is found.
        frame_rate: frames per second, where videos are folders of frames.
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
    launch = DetectLaunch(
        data=data,
        out=Path(),
        persons=persons,
        actions=actions,
        start=start,
        frame_rate=frame_rate,
        workers=workers,
        device_batch=device_batch,
        precision=precision,
    )
    found = scoring.evaluate(source, launch, split=split, matching=matching, crop=crop, out=out)
    tell(jsons.dumps(found, indent=1) if json else in_words(found))


_SHOWN = 10  # of many sentences


def boxes(
    data: Positional[str],
    /,
    *,
    out: Path,
    split: Split = "val",
    every: int | None = None,
    detector: str = USUAL,
    weights: str | None = None,
    score: float = 0.05,
    most: int = 100,
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
        every: seconds from one key frame to the next; None: a data set's own key frames, else 1.
        detector: one of torchvision's, by its name there, such as fasterrcnn_mobilenet_v3_large_fpn.
        weights: a .pth or .safetensors of the detector, one's own or fetched by hand; None: torchvision's of COCO.
        score: persons with a higher score are written.
        most: persons of a key frame, those with the highest scores.
        batch: key frames that go through the detector at once.
        workers: processes that decode; -1: one less than there are cores.
        json: as JSON, for programs.
    """
    runtime = Runtime("fp32")
    decoders = AnyLaunch(data=data, out=out, workers=workers).decoders
    found = load_persons(detector, weights, runtime=runtime, score=score, most=most)
    moments = find_moments(place_of(data), split=split, every=every, workers=max(1, decoders))
    if runtime.is_main:
        print(f"detect boxes: {counted(len(moments), 'key frame')}; {moments.kind}", file=sys.stderr)
    bar: Any = progress_bar("key frames") if runtime.is_main else nullcontext()
    with bar as done:
        written = find_boxes_of_persons(found, moments, out, runtime=runtime, batch=batch, workers=decoders, done=done)
    if runtime.is_main:
        tell(jsons.dumps(written.plain(), indent=1) if json else _in_words(written))
        if written.broken:
            sys.exit(1)


def _in_words(found: Boxes) -> str:
    lines = [
        f"persons: {one_line(str(found.out))}; {counted(found.boxes, 'person')} in "
        f"{counted(found.key_frames, 'key frame')}, {found.without:,} of them without any"
    ]
    if found.recall is not None and found.sure is not None:
        lines.append(
            f"annotated persons: {found.recall:.1%} of {found.annotated:,} are found (IoU 0.5), "
            f"{found.sure:.1%} with a score of {SURE:g} or more"
        )
    if found.broken:
        lines.append(f"left out, wholly or in part: {counted(len(found.broken), 'video')}")
        lines += [f"  {one_line(sentence)}" for sentence in found.broken[:_SHOWN]]
        if len(found.broken) > _SHOWN:
            lines.append(f"  and {len(found.broken) - _SHOWN} more, which --json names")
    return "\n".join(lines)


_LEAST = 0.05  # score of a person below which nobody is looked for, if that is not asked for


def predict(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    persons: str | None = None,
    detector: str = USUAL,
    weights: str | None = None,
    score: float | None = None,
    start: int = 0,
    every: float = 1.0,
    out: Path | None = None,
    top: int = 3,
    least: float = 0.1,
    split: WhichSplit = "all",
    root: str | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Says what the persons in videos do, moment by moment: table, JSON, AVA's rows, or the video with it drawn over.

    It ends with exit code 1 if a video could not be asked about, or not to its end; all others are done.

    Args:
        source: the run's folder or the file of weights of a detector of actions.
        videos: any number of videos, folders or lists of them, here or behind an address.
        persons: a file of persons' boxes by whole seconds, as `detect boxes` writes it, or annotations as AVA has them.
            None: a detector of persons finds them.
        detector: one of torchvision's detectors, by its name there.
        weights: its .pth or .safetensors; None: torchvision's of COCO, fetched once.
        score: boxes of persons with this score or more; None: as in the model's own test.
        start: the second of the boxes at which the videos begin, such as 900 of AVA's quarters of an hour.
        every: seconds from one moment to the next.
        out: a .json or .csv (AVA's rows: every action of every box) of all videos; an .mp4, one video again with the
            boxes and actions drawn over, without sound; or a folder with all three for each video. None: the terminal
            alone.
        top: how many actions of a person are named.
        least: actions with this score or more are named.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    within(1, sys.maxsize, top=top)
    within(0, 1, least=least, score=score)
    within(0.01, math.inf, every=every)
    if not videos:
        raise InputError("no videos are named; give files, folders or lists: vidstill detect predict RUN VIDEO…")
    if persons is not None and weights is not None:
        raise InputError("the persons are those of --persons or those that --weights find; give one of the two")
    if persons is not None and not float(every).is_integer():
        raise InputError(f"boxes of a file are of whole seconds, and --every is {every:g}; take a whole number")
    target = Target(out, every, start)
    loaded = load_detector(source)
    runtime = Runtime(precision)
    found = find_videos(
        [place_of(video) for video in videos],
        split=split,
        root=None if root is None else place_of(root),
        frames=loaded.views.sampling.frames,
    )
    runtime.first(lambda: target.check(found.names, found.listing.rows))
    sure = loaded.views.persons if score is None else score
    asker = Asker(replace(loaded, model=loaded.model.to(runtime.device).eval()), runtime, every, sure)
    if persons is None:
        finder = load_persons(detector, weights, runtime=runtime, score=min(sure, _LEAST))
        asker = replace(asker, persons=finder)
    else:
        known = known_persons(place_of(persons), found.names, loaded, least=sure, start=start)
        asker = replace(asker, known=known)
    telling = Telling(source, loaded.actions, top, least)
    _ask(asker, target, telling, found, json)


def _ask(asker: Asker, target: Target, telling: Telling, videos: Videos, json: bool) -> None:
    """Asks about this process's share of the videos; a folder's files are written one after another, and not kept."""
    runtime, rows = asker.runtime, videos.listing.rows
    found: dict[str, Detected] = {}
    left_out = dict(videos.left_out)
    files = stems(videos.names)
    for place in range(runtime.rank, len(rows), runtime.world):
        name = videos.names[place]
        try:
            with _clock(runtime, videos, place, "asking") as done:
                answer = detected(asker, name, rows[place], done=done)
        except BrokenVideo as error:
            left_out[name] = str(error)
            continue
        if target.kind in ("folder", "mp4"):
            if runtime.is_main and not found:
                target.write_summary(telling, videos.names, left_out)
            with _clock(runtime, videos, place, "drawing") as done:
                target.write_video(telling, answer, files[place], done)
        found[name] = answer if json or target.kind != "folder" else replace(answer, tracks=Tracks(()))
    for their_found, their_left_out in runtime.gathered((found, left_out)):
        found |= their_found
        left_out |= their_left_out
    if not runtime.is_main:
        return
    if not found:
        raise InputError(f"none of the {len(left_out)} videos could be asked about; {next(iter(left_out.values()))}")
    answers = [found[name] for name in sorted(found)]
    target.write_summary(telling, sorted(found), left_out)
    target.write_all(telling, answers, left_out)
    if json:
        tell(jsons.dumps(detections_plain(telling, answers, left_out)))
    elif target.out is None:
        tell("\n\n".join(map(telling.in_words, answers)))
    else:
        tell(f"detections: {one_line(str(target.out))}, {counted(len(answers), 'video')}")
    wrong = {**left_out, **{each.video: each.wrong for each in answers if each.wrong}}
    if wrong and not json:
        tell_problems(wrong)
    if wrong:
        sys.exit(1)


@contextmanager
def _clock(runtime: Runtime, videos: Videos, place: int, title: str) -> Iterator[Callable[[float], None]]:
    """A progress bar of the seconds of a single video; of many, their number is said by the bar's title."""
    if not runtime.is_main:
        yield lambda seconds: None
        return
    row, many = videos.listing.rows[place], len(videos.names)
    try:
        of = round(count_frames(row.source) / (frame_rate(row.source) or row.rate or USUAL_RATE))
    except BrokenVideo:  # which is said where it is asked about
        of = 0
    with progress_bar(title if many == 1 else f"{title} {place + 1} of {many}") as done:
        yield lambda seconds: done(round(seconds), of)
        done(of, of)  # the last moment is before the end


VERBS: dict[str, Callable[..., None]] = {"detect boxes": boxes, "detect evaluate": evaluate, "detect predict": predict}
