"""Trained models applied to videos, from Python: `predict`, `embed`, `detect`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vidstill.engine.distributed import Precision, Runtime
from vidstill.pipelines.api.paths import list_texts, optional_text
from vidstill.pipelines.box_data import parse_optional_path
from vidstill.pipelines.infer.detect import Detections, build_detect_request, detect_videos
from vidstill.pipelines.infer.embed import EmbedResult, embed_videos
from vidstill.pipelines.infer.embed_config import EmbedConfig, Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.infer.person_detector import DEFAULT_PERSON_DETECTOR
from vidstill.pipelines.infer.predict import Predictions, TimelineConfig, ViewOptions, predict_timelines, predict_videos
from vidstill.pipelines.infer.run import gather
from vidstill.pipelines.infer.videos import SplitChoice, find_videos
from vidstill.pipelines.infer.writers.feature_store import FormatName
from vidstill.pipelines.run_config import Workers
from vidstill.pipelines.trained_models import load_detector
from vidstill.utils.arguments import check_arguments
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import StrPath


@check_arguments
def predict(
    model: StrPath | VideoEncoder,
    videos: StrPath | Sequence[StrPath],
    *,
    timeline: bool = False,
    window: float | None = None,
    hop: float | None = None,
    views: int | None = None,
    crops: int | None = None,
    fast: bool = False,
    split: SplitChoice = "all",
    root: StrPath | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
) -> Predictions:
    """Predict the classes of videos, as a whole and, on request, over time.

    Args:
        model: Run directory or weights file of a fine-tuned model, or what `load_encoder` returned.
        videos: Files, folders, lists or packs (images for a model of images), local or behind URLs; one or several.
        timeline: Also predict each window of each video.
        window: Length of a window in seconds; None: as long as a training clip. With it there is a timeline.
        hop: Seconds from the start of a window to the next start; None: half a window. With it there is a timeline.
        views: Clips at different times of a video, over which its prediction is merged; None: as many as in the
            model's test. A single one is in its middle.
        crops: Crops of each clip; None: as many as in the model's test.
        fast: One clip from the middle of a video, and one crop.
        split: Split of data sets that have several.
        root: Directory that a list's paths are relative to; None: the list's own.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Views or windows that a device processes at once; None: the views of a video, or 16 windows.
        precision: auto: bf16 where the device computes it fast, else fp32. A loaded model has its own.

    Returns:
        The predictions, sorted by name: `predictions.top(3)`, `predictions.videos`; what could not be read is in
        `predictions.skipped`, with the reason.

    Raises:
        InputError: The model has no classes, or no video can be used.
    """
    run_config = Workers(workers=workers, device_batch=device_batch, precision=precision)
    windows = TimelineConfig(window=window, hop=hop)
    view_options = ViewOptions(views=views, crops=crops, fast=fast)
    encoder = _load(model, precision)
    clip_frames = encoder.require_classifier()[1].sampling.num_frames
    folder = parse_optional_path(optional_text(root))
    selection = find_videos(list_texts(videos), split=split, root=folder, clip_frames=clip_frames)
    with show_progress_bar("videos", visible=encoder.runtime.is_main) as progress:
        predictions = predict_videos(
            encoder, selection, view_options=view_options, workers=run_config, progress=progress
        )
    if not timeline and windows == TimelineConfig():
        return predictions
    with show_progress_bar("timelines", visible=encoder.runtime.is_main) as progress:
        parts = predict_timelines(encoder, predictions, windows, workers=run_config, progress=progress)
        share = {each.video: each for each in parts}
    return replace(predictions, videos=tuple(gather(encoder.runtime, share).values()))


@check_arguments
def embed(
    model: StrPath | VideoEncoder,
    videos: StrPath | Sequence[StrPath],
    *,
    out: StrPath,
    format: FormatName | None = None,
    layers: Sequence[int] = (),
    pool: Pooling = "mean",
    temporal_clips: int = 1,
    spatial_crops: int = 1,
    window: float | None = None,
    hop: float | None = None,
    split: SplitChoice = "all",
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
) -> EmbedResult:
    """Write the features of videos to a file; the same call again resumes, and computes nothing twice.

    For features in memory: `vidstill.load_encoder(model).embed(videos)`.

    Args:
        model: Run directory or weights file, or what `load_encoder` returned.
        videos: Files, folders, lists and data sets, local or behind URLs; one or several.
        out: The file to write, or for npy the folder.
        format: None: the suffix of `out` decides, .npz, .safetensors or .parquet; without suffix one npy file per
            video.
        layers: Blocks counted from 1, or backwards from -1; none: the final output, after the last norm.
        pool: How the tokens of a clip are pooled: mean, max, the class token, the mean over space or over time, or not.
        temporal_clips: Clips per video; the features are the mean over all views.
        spatial_crops: Crops per clip.
        window: Length of a window in seconds; None: views of the whole video.
        hop: Seconds from the start of a window to the next start; None: the length of a window.
        split: Split of data sets that have several.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Clips that a device processes at once; None: 16.
        precision: auto: that of an `out` that exists, else bf16 where the device computes it fast, else fp32. A loaded
            model has its own.

    Returns:
        What the file holds; videos that could not be read are in `result.broken`, with the reason.

    Raises:
        InputError: `out` holds other features or something else, or no video decodes.
    """
    config = EmbedConfig(
        layers=tuple(layers),
        pool=pool,
        temporal_clips=temporal_clips,
        spatial_crops=spatial_crops,
        window=window,
        hop=hop,
    )
    run_config = Workers(workers=workers, device_batch=device_batch, precision=precision)
    encoder, paths = _load(model, precision), list_texts(videos)
    with show_progress_bar("videos", visible=encoder.runtime.is_main) as progress:
        return embed_videos(
            encoder,
            paths,
            Path(out),
            config,
            format=format,
            split=split,
            fold=fold,
            workers=run_config,
            progress=progress,
        )


@check_arguments
def detect(
    model: StrPath,
    videos: StrPath | Sequence[StrPath],
    *,
    person_boxes: StrPath | None = None,
    person_detector: str = DEFAULT_PERSON_DETECTOR,
    weights: StrPath | None = None,
    min_person_score: float | None = None,
    start_second: int = 0,
    interval: float = 1.0,
    split: SplitChoice = "all",
    root: StrPath | None = None,
    precision: Precision = "auto",
) -> Detections:
    """Detect what the persons in videos do, key frame by key frame.

    Args:
        model: Run directory or weights file of a detector of actions.
        videos: Videos, folders or lists of them, local or behind URLs; one or several.
        person_boxes: File of person boxes by whole seconds, as `vidstill detect boxes` writes it, or annotations as AVA
            has them; None: a person detector finds them.
        person_detector: Name of one of torchvision's detectors.
        weights: Its .pth or .safetensors; None: torchvision's for COCO, downloaded once.
        min_person_score: Persons with this score or more are used; None: as in the model's own test.
        start_second: The second of the boxes at which the videos begin, such as 900 for AVA's quarters of an hour.
        interval: Seconds from one key frame to the next.
        split: Split of data sets that have several.
        root: Directory that a list's paths are relative to; None: the list's own.
        precision: auto: bf16 where the device computes it fast, else fp32.

    Returns:
        The detections, sorted by name; what could not be read is in `detections.skipped`, with the reason.

    Raises:
        InputError: The model is no detector, the boxes are of other videos, or no video can be used.
    """
    detector, folder = load_detector(model), parse_optional_path(optional_text(root))
    clip_frames = detector.recipe.views.sampling.num_frames
    selection = find_videos(list_texts(videos), split=split, root=folder, clip_frames=clip_frames)
    request = build_detect_request(
        detector,
        selection,
        Runtime(precision),
        person_boxes=optional_text(person_boxes),
        person_detector=person_detector,
        weights=optional_text(weights),
        min_person_score=min_person_score,
        start_second=start_second,
        interval=interval,
    )
    with show_progress_bar("videos", visible=request.runtime.is_main) as progress:
        return detect_videos(request, selection, progress=progress)


def _load(model: StrPath | VideoEncoder, precision: Precision) -> VideoEncoder:
    return model if isinstance(model, VideoEncoder) else load_encoder(model, precision=precision)
