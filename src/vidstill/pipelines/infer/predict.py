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

from vidstill.data.datasets.windows import Window, WindowsConfig, iter_windows
from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, count_frames, read_frame_rate
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, VideoSource, fetch_source
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.figures.timeline import Timeline
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.infer.run import ProgressFn, score_videos
from vidstill.pipelines.infer.videos import InputVideos, SplitChoice, find_videos
from vidstill.utils.types import InputError, check_range

_IMAGE_WINDOW_SECONDS = 1.0  # a window of a model of images, which has no length of its own
_WINDOW_BATCH = 16  # windows that the device takes, where it is not said


@dataclass(frozen=True, kw_only=True)
class TimelineConfig:
    """How a video is looked at over time.

    Args:
        window: seconds; None: as long as a clip that the model was trained on.
        hop: seconds from the start of a window to the next one's; None: half a window.
    """

    window: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        check_range(1e-3, math.inf, window=self.window, hop=self.hop)


@dataclass(frozen=True)
class VideoPrediction:
    """What one video shows.

    Args:
        probabilities: of the classes, merged over all the views of the test.
        timeline: over time, one view a window, if that was asked for; None too for a picture.
        error: why the timeline ends before the video does, where that does not decode to its end.
    """

    video: str
    row: VideoRow
    probabilities: Float[Tensor, "classes"]
    timeline: Timeline | None = None
    error: str = ""

    def topk(self, k: int) -> list[int]:
        """The most probable classes, the first first."""
        return self.probabilities.argsort(descending=True, stable=True)[:k].tolist()


@dataclass(frozen=True)
class Predictions:
    """What was found of many videos, in the order of their names.

    Args:
        skipped: what could not be asked about, and why.
        multi_label: a video may show several classes: each has a probability of its own, and they do not sum to 1.
    """

    model: str
    classes: tuple[str, ...]
    videos: tuple[VideoPrediction, ...]
    skipped: Mapping[str, str]
    multi_label: bool = False

    @property
    def problems(self) -> dict[str, str]:
        """All that is not as it was asked for: what was left out, and what ends early."""
        return {**self.skipped, **{each.video: each.error for each in self.videos if each.error}}


def predict_videos(
    encoder: VideoEncoder,
    videos: InputVideos,
    *,
    workers: int = 0,
    progress: ProgressFn | None = None,
) -> Predictions:
    """What each video shows on the whole, as a test scores it; every process does its share and knows all.

    Args:
        workers: processes that decode, for each process.
        progress: is told how many of its videos this process has done, and how many there are.

    Raises:
        InputError: the encoder was not fine-tuned, or not one video decodes.
    """
    classifier, views = encoder.require_classifier()
    scored, broken = score_videos(
        classifier,
        videos.manifest,
        views,
        encoder.runtime,
        workers=workers,
        batch=encoder.device_batch,
        multi_label=encoder.multi_label,
        progress=progress,
    )
    if not scored:
        raise InputError(f"none of the {len(broken)} videos could be asked about; {broken[min(broken)]}")
    rows = videos.manifest.rows
    left_out = {**videos.skipped, **{videos.names[place]: broken[place] for place in sorted(broken)}}
    found = (VideoPrediction(videos.names[place], rows[place], scored[place]) for place in sorted(scored))
    return Predictions(encoder.source, encoder.classes, tuple(found), left_out, encoder.multi_label)


def predict_timelines(
    encoder: VideoEncoder,
    predictions: Predictions,
    config: TimelineConfig,
    *,
    progress: Callable[[int, float], None] = lambda place, seconds: None,
) -> Iterator[VideoPrediction]:
    """Each video of this process's share, with its timeline; pictures have none.

    Args:
        progress: is told which video of the share is looked at, and how many seconds of it are done.
    """
    share = predictions.videos[encoder.runtime.rank :: encoder.runtime.world_size]
    for place, prediction in enumerate(share):
        if is_image_file(prediction.row.name):
            yield prediction
        else:
            timeline, wrong = predict_timeline(encoder, prediction.row, config, progress=partial(progress, place))
            yield replace(prediction, timeline=timeline, error=wrong)


def predict_timeline(
    encoder: VideoEncoder,
    row: VideoRow,
    config: TimelineConfig,
    *,
    progress: Callable[[float], None] = lambda seconds: None,
) -> tuple[Timeline | None, str]:
    """A video's classes in its windows, and why they end before it does, if they do; only the answers are kept.

    Args:
        progress: is told how many seconds there are so far.
    """
    spans: list[tuple[float, float]] = []
    found: list[Tensor] = []
    here, wrong = fetch_source(row.source), ""
    try:
        seconds = config.window or choose_window_seconds(encoder, here, row.frame_rate)
        cut = WindowsConfig(window_seconds=seconds, hop_seconds=config.hop or seconds / 2)
        coming = iter_windows(here, cut, encoder.views, default_frame_rate=row.frame_rate)
        for some in _batch_windows(coming, encoder.device_batch or _WINDOW_BATCH):
            logits = encoder.predict_logits(torch.cat([window.clip for window in some]))
            found += [encoder.merge_views(each[None]).float() for each in logits]
            spans += [(window.start, window.end) for window in some]
            progress(spans[-1][1])
    except BrokenVideo as error:
        wrong = str(BrokenVideo(row.source, error.reason))
    if not found:
        return None, wrong
    starts, ends = np.array(spans).T
    return Timeline(starts, ends, torch.stack(found).numpy()), wrong


def _batch_windows(windows: Iterator[Window], batch_size: int) -> Iterator[list[Window]]:
    """Windows by the batch; those before one that breaks come still."""
    some: list[Window] = []
    try:
        for window in windows:
            some.append(window)
            if len(some) == batch_size:
                yield some
                some = []
    except BrokenVideo:
        if some:
            yield some
        raise
    if some:
        yield some


def read_duration(source: VideoSource, frame_rate: float | None) -> float:
    """How long a video is, by the rate that its header states, else by this one.

    Raises:
        BrokenVideo: it does not decode.
    """
    return count_frames(source) / (read_frame_rate(source) or frame_rate or DEFAULT_FRAME_RATE)


def choose_window_seconds(encoder: VideoEncoder, source: VideoSource, frame_rate: float | None) -> float:
    """The length of a window that suits the model and this video.

    Raises:
        BrokenVideo: it does not decode.
    """
    sampling = encoder.views.sampling
    if sampling.num_frames == 1:
        return _IMAGE_WINDOW_SECONDS
    seconds = encoder.clip_seconds(read_frame_rate(source) or frame_rate or DEFAULT_FRAME_RATE)
    return min(seconds, read_duration(source, frame_rate)) if isinstance(sampling, SegmentSampling) else seconds


def predict(
    source: str | Path | VideoEncoder,
    videos: PathOrUrl | Sequence[PathOrUrl],
    *,
    timeline: TimelineConfig | None = None,
    split: SplitChoice = "all",
    root: PathOrUrl | None = None,
    workers: int = 0,
) -> Predictions:
    """What videos show, in the order of their names; what cannot be asked about is in `left_out`, with the reason.

    Args:
        source: a run's folder, a file of weights, or an encoder that is loaded already; fine-tuned.
        videos: files, folders, lists, packs, or pictures for a model of images; one or several.
        timeline: how to look at them over time as well; None: on the whole only.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        workers: processes that decode.

    Raises:
        InputError: the model has no classes, or not one video can be asked about.
    """
    encoder = source if isinstance(source, VideoEncoder) else load_encoder(str(source))
    places = [videos] if isinstance(videos, str | Path) else videos
    found = find_videos(places, split=split, root=root, clip_frames=encoder.require_classifier()[1].sampling.num_frames)
    answers = predict_videos(encoder, found, workers=workers)
    if timeline is None:
        return answers
    shares = encoder.runtime.all_gather(list(predict_timelines(encoder, answers, timeline)))
    seen = sorted((each for share in shares for each in share), key=lambda each: each.video)
    return replace(answers, videos=tuple(seen))
