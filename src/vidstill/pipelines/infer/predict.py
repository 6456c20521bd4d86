"""What a fine-tuned model sees in videos: class probabilities of each video as in a test, and over time."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig
from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, VideoReader
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.figures.timeline import Timeline
from vidstill.pipelines.infer.encoder import VideoEncoder, rank_classes
from vidstill.pipelines.infer.run import ProgressFn, iter_window_clips, run, run_dataset
from vidstill.pipelines.infer.videos import VideoSelection
from vidstill.pipelines.run_config import Workers
from vidstill.utils.types import InputError, check_range

_IMAGE_WINDOW_SECONDS = 1.0  # for a model of images, whose clips have no length
_WINDOW_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class TimelineConfig:
    """The windows of a timeline.

    Args:
        window: Length in seconds; None: as long as a training clip.
        hop: Seconds from the start of a window to the next start; None: half a window.
    """

    window: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        check_range(1e-3, math.inf, window=self.window, hop=self.hop)


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """The views over which the prediction for a video is merged: temporal clips × spatial crops.

    Args:
        views: Clips at different times of a video; None: as many as in the model's test. A single one is in its middle.
        crops: Crops of each clip; None: as many as in the model's test.
        fast: One clip from the middle of a video, and one crop.
    """

    views: int | None = None
    crops: int | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        check_range(1, math.inf, views=self.views, crops=self.crops)
        if self.fast and (self.views or self.crops) is not None:
            raise InputError("--fast is one view; leave it out, or --views and --crops")

    def apply(self, test_views: ViewsConfig) -> ViewsConfig:
        """Return the views, given those of the model's test."""
        default = (1, 1) if self.fast else (test_views.temporal_clips, test_views.spatial_crops)
        return replace(test_views, temporal_clips=self.views or default[0], spatial_crops=self.crops or default[1])


@dataclass(frozen=True)
class VideoPrediction:
    """The prediction for one video.

    Args:
        probabilities: Of the classes, merged over all views.
        timeline: Over time, one view per window, if requested; None also for an image.
        error: Why the timeline ends early, if the video does not decode to its end.
    """

    video: str
    row: VideoRow
    probabilities: Float[Tensor, "classes"]
    timeline: Timeline | None = None
    error: str = ""

    @property
    def frame_rate(self) -> float | None:
        return self.row.frame_rate

    @property
    def end_seconds(self) -> float:
        """Where the timeline ends."""
        return 0.0 if self.timeline is None else float(self.timeline.ends[-1])


@dataclass(frozen=True)
class Predictions:
    """The predictions for many videos, sorted by name.

    Args:
        skipped: Videos without a prediction, and the reason.
        views: Those over which a video's probabilities are merged.
        multi_label: A video may show several classes: their probabilities do not sum to 1.
    """

    model: str
    classes: tuple[str, ...]
    videos: tuple[VideoPrediction, ...]
    skipped: Mapping[str, str]
    views: ViewsConfig
    multi_label: bool = False

    def top(self, k: int = 5) -> dict[str, list[tuple[str, float]]]:
        """Return each video's most probable classes with their probabilities, the best first."""
        return {each.video: rank_classes(each.probabilities, self.classes, k) for each in self.videos}


def predict_videos(
    encoder: VideoEncoder,
    videos: VideoSelection,
    *,
    view_options: ViewOptions = ViewOptions(),
    workers: Workers = Workers(),
    progress: ProgressFn = lambda done, total: None,
) -> Predictions:
    """Predict the classes of each video; each rank does its share, and knows all.

    Args:
        view_options: The default is to score a video as a test does.
        workers: Decoding processes, and views per batch (None: those of one video).
        progress: Called with the number of finished videos of this rank, and the number in its share.

    Raises:
        InputError: The encoder was not fine-tuned, or no video decodes.
    """
    views = view_options.apply(encoder.require_classifier()[1])
    centered = view_options.fast or view_options.views == 1
    records, broken = run_dataset(
        lambda clip: {"logits": encoder.predict_logits(clip)},
        ViewClips(videos.manifest, views, centered=centered),
        encoder.runtime,
        workers,
        merge=encoder.merge_views,
        require_finite=True,
        progress=progress,
    )
    if not records:
        raise InputError(f"none of {len(broken)} {videos.manifest.noun}s can be used; {next(iter(broken.values()))}")
    rows, names = videos.manifest.rows, videos.names
    skipped = {**videos.skipped, **{names[index]: reason for index, reason in broken.items()}}
    predictions = tuple(
        VideoPrediction(names[index], rows[index], torch.from_numpy(record.arrays["probabilities"]))
        for index, record in records.items()
    )
    return Predictions(encoder.source, encoder.classes, predictions, skipped, views, encoder.multi_label)


def predict_timelines(
    encoder: VideoEncoder,
    predictions: Predictions,
    config: TimelineConfig,
    *,
    workers: Workers = Workers(),
    progress: ProgressFn = lambda done, total: None,
) -> Iterator[VideoPrediction]:
    """Yield each video of this rank's share with its timeline; images have none.

    Args:
        workers: Windows per batch (None: 16); they are decoded in this process.
        progress: Called with the number of finished videos of this rank, with fractions, and the number in its share.
    """
    share = predictions.videos[encoder.runtime.rank :: encoder.runtime.world_size]
    for done, prediction in enumerate(share):

        def report(fraction: float, done: int = done) -> None:
            progress(done + fraction, len(share))

        is_image = is_image_file(prediction.row.name)
        yield prediction if is_image else _add_timeline(encoder, prediction, config, workers, report)
        report(1.0)


def _add_timeline(
    encoder: VideoEncoder,
    prediction: VideoPrediction,
    config: TimelineConfig,
    workers: Workers,
    progress: Callable[[float], None],
) -> VideoPrediction:
    """Return a prediction with the class probabilities in windows, and why they end early, if they do."""
    row, duration = prediction.row, math.inf
    broken: dict[int, str] = {}

    def choose_windows(video: VideoReader) -> WindowsConfig:
        nonlocal duration
        duration = video.metadata.duration_seconds or math.inf
        seconds = config.window or _choose_window_seconds(encoder, video, row)
        return WindowsConfig(window_seconds=seconds, hop_seconds=config.hop or seconds / 2)

    records = []
    for record in run(
        lambda clip: {"logits": encoder.predict_logits(clip)},
        iter_window_clips(0, row, choose_windows, encoder.views, broken=broken),
        encoder.runtime,
        batch=workers.device_batch or _WINDOW_BATCH,
        merge=encoder.merge_views,
    ):
        records.append(record)
        progress(min(1.0, (record.end or 0.0) / duration))
    timeline = None
    if records:
        starts, ends = (np.array(times) for times in zip(*((each.start, each.end) for each in records), strict=True))
        timeline = Timeline(
            starts, ends, np.stack([each.arrays["probabilities"] for each in records]).astype(np.float32)
        )
    return replace(prediction, timeline=timeline, error=broken.get(0, ""))


def is_long_video(encoder: VideoEncoder, videos: VideoSelection) -> bool:
    """Return whether there is a single video that is longer than two of its windows."""
    row = videos.manifest.rows[0]
    if len(videos.names) > 1 or is_image_file(row.name):
        return False
    try:
        with VideoReader(row.source) as video:
            return _read_duration(video, row) > 2 * _choose_window_seconds(encoder, video, row)
    except BrokenVideo:  # reported when it is predicted
        return False


def _choose_window_seconds(encoder: VideoEncoder, video: VideoReader, row: VideoRow) -> float:
    """Return the length of a window that suits the model and the video."""
    sampling = encoder.views.sampling
    if sampling.num_frames == 1:
        return _IMAGE_WINDOW_SECONDS
    seconds = encoder.clip_seconds(video.frame_rate or row.frame_rate or DEFAULT_FRAME_RATE)
    return min(seconds, _read_duration(video, row)) if isinstance(sampling, SegmentSampling) else seconds


def _read_duration(video: VideoReader, row: VideoRow) -> float:
    return video.num_frames / (video.frame_rate or row.frame_rate or DEFAULT_FRAME_RATE)
