"""Asks a fine-tuned model about videos: what each shows on the whole, as in a test, and what it shows when."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.windows import Window, WindowsConfig, windows
from vidstill.data.decode.images import is_picture
from vidstill.data.decode.probe import count_frames, frame_rate
from vidstill.data.decode.stream import USUAL_RATE
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Place, Source, fetched, name_of
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.figures.timeline import Timeline
from vidstill.pipelines.evaluate.classifier import video_scores
from vidstill.pipelines.infer.encoder import Encoder, load
from vidstill.pipelines.infer.videos import Videos, WhichSplit, find_videos
from vidstill.utils.types import InputError, within

_IMAGE_SECONDS = 1.0  # a window of a model of images, which has no length of its own
_AT_ONCE = 16  # windows that the device takes, where it is not said


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """How a video is looked at over time.

    Args:
        window: seconds; None: as long as a clip that the model was trained on.
        hop: seconds from the start of a window to the next one's; None: half a window.
    """

    window: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        within(1e-3, math.inf, window=self.window, hop=self.hop)


@dataclass(frozen=True)
class Prediction:
    """What one video shows.

    Args:
        probabilities: of the classes, merged over all the views of the test.
        timeline: over time, one view a window, if that was asked for; None too for a picture.
        wrong: why the timeline ends before the video does, where that does not decode to its end.
    """

    video: str
    row: Row
    probabilities: Float[Tensor, "classes"]
    timeline: Timeline | None = None
    wrong: str = ""

    def top(self, most: int) -> list[int]:
        """The most probable classes, the first first."""
        return self.probabilities.argsort(descending=True, stable=True)[:most].tolist()


@dataclass(frozen=True)
class Predictions:
    """What was found of many videos, in the order of their names.

    Args:
        left_out: what could not be asked about, and why.
        several: a video may show several classes: each has a probability of its own, and they do not sum to 1.
    """

    model: str
    classes: tuple[str, ...]
    videos: tuple[Prediction, ...]
    left_out: Mapping[str, str]
    several: bool = False

    @property
    def wrong(self) -> dict[str, str]:
        """All that is not as it was asked for: what was left out, and what ends early."""
        return {**self.left_out, **{each.video: each.wrong for each in self.videos if each.wrong}}


def overall(
    encoder: Encoder, videos: Videos, *, workers: int = 0, done: Callable[[int, int], None] = lambda done, of: None
) -> Predictions:
    """What each video shows on the whole, as a test scores it; every process does its share and knows all.

    Args:
        workers: processes that decode, for each process.
        done: is told how many of its videos this process has done, and how many there are.

    Raises:
        InputError: the encoder was not fine-tuned, or not one video decodes.
    """
    classifier, views = encoder.fine_tuned()
    scored, broken = video_scores(
        classifier,
        videos.listing,
        views,
        encoder.runtime,
        workers=workers,
        device_batch=encoder.device_batch,
        several=encoder.several,
        done=done,
    )
    if not scored:
        raise InputError(f"none of the {len(broken)} videos could be asked about; {broken[min(broken)]}")
    rows = videos.listing.rows
    left_out = {**videos.left_out, **{videos.names[place]: broken[place] for place in sorted(broken)}}
    found = (Prediction(videos.names[place], rows[place], scored[place]) for place in sorted(scored))
    return Predictions(encoder.source, encoder.classes, tuple(found), left_out, encoder.several)


def timed_predictions(
    encoder: Encoder,
    predictions: Predictions,
    asked: OverTime,
    *,
    done: Callable[[int, float], None] = lambda place, seconds: None,
) -> Iterator[Prediction]:
    """Each video of this process's share, with its timeline; pictures have none.

    Args:
        done: is told which video of the share is looked at, and how many seconds of it are done.
    """
    share = predictions.videos[encoder.runtime.rank :: encoder.runtime.world]
    for place, prediction in enumerate(share):
        if is_picture(prediction.row.name):
            yield prediction
        else:
            timeline, wrong = over_time(encoder, prediction.row, asked, done=partial(done, place))
            yield replace(prediction, timeline=timeline, wrong=wrong)


def over_time(
    encoder: Encoder, row: Row, asked: OverTime, *, done: Callable[[float], None] = lambda seconds: None
) -> tuple[Timeline | None, str]:
    """A video's classes in its windows, and why they end before it does, if they do; only the answers are kept.

    Args:
        done: is told how many seconds there are so far.
    """
    spans: list[tuple[float, float]] = []
    found: list[Tensor] = []
    here, wrong = fetched(row.source), ""
    try:
        seconds = asked.window or window_seconds(encoder, here, row.rate)
        cut = WindowsConfig(seconds=seconds, hop=asked.hop or seconds / 2)
        coming = windows(here, cut, encoder.views, rate=row.rate)
        for some in _batched(coming, encoder.device_batch or _AT_ONCE):
            logits = encoder.scores(torch.cat([window.clip for window in some]))
            found += [encoder.merged(each[None]).float() for each in logits]
            spans += [(window.start, window.end) for window in some]
            done(spans[-1][1])
    except BrokenVideo as error:
        wrong = str(error).replace(name_of(here), name_of(row.source))
    if not found:
        return None, wrong
    starts, ends = np.array(spans).T
    return Timeline(starts, ends, torch.stack(found).numpy()), wrong


def _batched(coming: Iterator[Window], size: int) -> Iterator[list[Window]]:
    """Windows by the batch; those before one that breaks come still."""
    some: list[Window] = []
    try:
        for window in coming:
            some.append(window)
            if len(some) == size:
                yield some
                some = []
    except BrokenVideo:
        if some:
            yield some
        raise
    if some:
        yield some


def seconds_of(source: Source, rate: float | None) -> float:
    """How long a video is, by the rate that its header states, else by this one.

    Raises:
        BrokenVideo: it does not decode.
    """
    return count_frames(source) / (frame_rate(source) or rate or USUAL_RATE)


def window_seconds(encoder: Encoder, source: Source, rate: float | None) -> float:
    """The length of a window that suits the model and this video.

    Raises:
        BrokenVideo: it does not decode.
    """
    sampling = encoder.views.sampling
    if sampling.frames == 1:
        return _IMAGE_SECONDS
    seconds = encoder.seconds(frame_rate(source) or rate or USUAL_RATE)
    return min(seconds, seconds_of(source, rate)) if isinstance(sampling, SegmentSampling) else seconds


def predict(
    source: str | Path | Encoder,
    videos: Place | Sequence[Place],
    *,
    over_time: OverTime | None = None,
    split: WhichSplit = "all",
    root: Place | None = None,
    workers: int = 0,
) -> Predictions:
    """What videos show, in the order of their names; what cannot be asked about is in `left_out`, with the reason.

    Args:
        source: a run's folder, a file of weights, or an encoder that is loaded already; fine-tuned.
        videos: files, folders, lists, packs, or pictures for a model of images; one or several.
        over_time: how to look at them over time as well; None: on the whole only.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        workers: processes that decode.

    Raises:
        InputError: the model has no classes, or not one video can be asked about.
    """
    encoder = source if isinstance(source, Encoder) else load(str(source))
    places = [videos] if isinstance(videos, str | Path) else videos
    found = find_videos(places, split=split, root=root, frames=encoder.fine_tuned()[1].sampling.frames)
    answers = overall(encoder, found, workers=workers)
    if over_time is None:
        return answers
    shares = encoder.runtime.gathered(list(timed_predictions(encoder, answers, over_time)))
    seen = sorted((each for share in shares for each in share), key=lambda each: each.video)
    return replace(answers, videos=tuple(seen))
