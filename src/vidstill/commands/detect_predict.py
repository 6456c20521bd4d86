"""What `vidstill detect predict` does: its options are the function's signature, read by tyro."""

import json as jsons
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from vidstill.commands.predict import tell_problems
from vidstill.data.sources import BrokenVideo, place_of
from vidstill.data.video import USUAL_RATE, count_frames, frame_rate
from vidstill.data.words import counted, one_line
from vidstill.detection.files import Target, as_plain
from vidstill.detection.load import load_detector
from vidstill.detection.persons import USUAL, load_persons
from vidstill.detection.predict import Asker, Detected, detected, known_persons
from vidstill.detection.told import Telling
from vidstill.engine.runtime import Precision, Runtime
from vidstill.figures.tracks import Tracks
from vidstill.folder import stems
from vidstill.prediction.videos import Videos, WhichSplit, find_videos
from vidstill.terminal import progress_bar, tell
from vidstill.types import InputError, within

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
        tell(jsons.dumps(as_plain(telling, answers, left_out)))
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


VERBS: dict[str, Callable[..., None]] = {"detect predict": predict}
"""What the persons in any videos do, moment by moment; as tables, JSON, AVA's rows and annotated videos."""
