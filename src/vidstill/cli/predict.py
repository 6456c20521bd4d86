"""What `vidstill predict` does: its options are the function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from vidstill.data.decode.images import is_picture
from vidstill.data.storage.fetch import BrokenVideo, place_of
from vidstill.engine.distributed import Precision, Runtime
from vidstill.pipelines.infer.encoder import Encoder, load
from vidstill.pipelines.infer.predict import (
    OverTime,
    Prediction,
    Predictions,
    overall,
    seconds_of,
    timed_predictions,
    window_seconds,
)
from vidstill.pipelines.infer.videos import Videos, WhichSplit, find_videos
from vidstill.pipelines.infer.writers.outputs import Target
from vidstill.pipelines.infer.writers.text import as_plain, in_words
from vidstill.pipelines.train.session import Launch
from vidstill.utils.files import stems
from vidstill.utils.terminal import progress_bar, tell
from vidstill.utils.text import counted, one_line
from vidstill.utils.types import within

_SHOWN = 10  # of many sentences


def predict(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    annotate: bool = False,
    over_time: bool = False,
    window: float | None = None,
    hop: float | None = None,
    top: int = 5,
    split: WhichSplit = "all",
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
        over_time: also what is seen in each window of time; on by itself where a plot or a video is drawn and, but for
            a .csv, of a single video that is longer than two windows.
        window: seconds of a window, and turns --over-time on; None: as long as a clip that the model was trained on.
        hop: seconds from the start of a window to the start of the next, and turns --over-time on; None: half a window.
        top: how many classes are named.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: views that a device takes at once; None: all of a video's, and 16 windows.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = Launch(data=Path(), out=Path(), workers=workers, device_batch=device_batch, precision=precision)
    within(1, sys.maxsize, top=top)
    target, asked = Target(out, plot, annotate), OverTime(window=window, hop=hop)
    encoder = replace(load(source, runtime=Runtime(precision)), device_batch=device_batch)
    frames = encoder.fine_tuned()[1].sampling.frames
    places = [place_of(video) for video in videos]
    found = find_videos(places, split=split, root=None if root is None else place_of(root), frames=frames)
    encoder.runtime.first(lambda: target.check(found))
    timed = over_time or (window or hop) is not None or target.needs_time
    if not timed and target.kind != "csv":
        timed = _long(encoder, found)
    with _bar(encoder, "videos") as done:
        answers = overall(encoder, found, workers=launch.decoders, done=done)
    if encoder.runtime.is_main and target.kind == "folder":
        target.write_table(answers, top, over_time=False)
    if timed:
        answers = _over_time(encoder, answers, asked, target, top)
    if encoder.runtime.is_main:  # the others end well: were one to fail first, this one would be ended
        if target.kind != "folder":
            target.write_table(answers, top, over_time=timed)
        _tell(answers, target, top, json)
        if answers.wrong:
            sys.exit(1)


def _long(encoder: Encoder, videos: Videos) -> bool:
    """Whether it is a single video that is longer than two windows."""
    row = videos.listing.rows[0]
    if len(videos.names) > 1 or is_picture(row.name):
        return False
    try:
        return seconds_of(row.source, row.rate) > 2 * window_seconds(encoder, row.source, row.rate)
    except BrokenVideo:  # which is said where it is asked about
        return False


def _over_time(encoder: Encoder, answers: Predictions, asked: OverTime, target: Target, top: int) -> Predictions:
    """The answers with their timelines; a folder's are written one after another, and not kept."""
    runtime = encoder.runtime
    names = dict(
        zip([each.video for each in answers.videos], stems([each.video for each in answers.videos]), strict=True)
    )
    seen: list[Prediction] = []
    with _clock(encoder, answers, "over time") as done:
        for each in timed_predictions(encoder, answers, asked, done=done):
            if target.kind == "folder":
                target.write_video(answers, each, top, names[each.video])
                seen.append(replace(each, timeline=None))
            else:
                seen.append(each)
    if target.kind != "folder" and target.needs_time and runtime.is_main:
        with _clock(encoder, answers, "drawing") as done:
            target.write_video(answers, seen[0], top, "", lambda seconds: done(0, seconds))
    every = [each for share in runtime.gathered(seen) for each in share]
    return replace(answers, videos=tuple(sorted(every, key=lambda each: each.video)))


@contextmanager
def _bar(encoder: Encoder, title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in the first process, of its own share."""
    if encoder.runtime.is_main:
        with progress_bar(title) as done:
            yield done
    else:
        yield lambda done, of: None


@contextmanager
def _clock(encoder: Encoder, answers: Predictions, title: str) -> Iterator[Callable[[int, float], None]]:
    """A progress bar that counts videos, or the seconds of a single one."""
    one = len(answers.videos) == 1
    row = answers.videos[0].row
    of = round(seconds_of(row.source, row.rate)) if one and not is_picture(row.name) else len(answers.videos)
    with _bar(encoder, title) as done:
        yield lambda place, seconds: done(round(seconds) if one else place * encoder.runtime.world, of)


def _tell(answers: Predictions, target: Target, top: int, json: bool) -> None:
    if json:
        tell(jsons.dumps(as_plain(answers, top), indent=1))
        return
    if target.out is None:
        tell(in_words(answers, top))
    for path in (target.out, target.plot):
        if path is not None:
            tell(f"predictions: {one_line(str(path))}, {counted(len(answers.videos), 'video')}")
    if answers.wrong:
        tell_problems(answers.wrong)


def tell_problems(wrong: Mapping[str, str]) -> None:
    """The sentences of videos that could not be asked about, or not to their end."""
    tell(f"\nproblems: {counted(len(wrong), 'video')}")
    for sentence in list(wrong.values())[:_SHOWN]:
        tell(f"  {one_line(sentence)}")
    if len(wrong) > _SHOWN:
        tell(f"  and {len(wrong) - _SHOWN} more, which --json and a .json name")


VERBS: dict[str, Callable[..., None]] = {"predict": predict}
