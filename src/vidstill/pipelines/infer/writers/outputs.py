"""Where predictions and detections go: one file, by its suffix, or a folder with files for each video."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from vidstill.data.ava.box_table import format_box_csv
from vidstill.data.decode.images import is_image_file
from vidstill.figures.annotate import ClassPainter, redraw_video
from vidstill.figures.boxes import BoxPainter
from vidstill.figures.timeline import draw_timeline
from vidstill.pipelines.infer.detect import VideoDetections
from vidstill.pipelines.infer.predict import Predictions, VideoPrediction
from vidstill.pipelines.infer.videos import VideoSelection
from vidstill.pipelines.infer.writers.text import (
    DetectionFormatter,
    build_box_scores,
    format_predictions_csv,
    format_top_classes,
    prediction_to_dict,
    predictions_to_dict,
)
from vidstill.utils.files import check_output_dir, check_output_file, make_file_stems, write_bytes
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

PREDICTIONS_FILE = "predictions.csv"
"""In a folder of predictions: one line per video."""

DETECTIONS_SUMMARY_FILE = "detections.json"
"""In a folder of detections: the files of each video."""

_MAX_DRAWN_CLASSES = 3  # over a video, and above a plot
_DECIMALS = 5, 5  # of coordinates and scores


@dataclass(frozen=True)
class OutputWriter:
    """One file for all videos, one MP4 of a single video, or a folder with files for each video.

    Args:
        out: A .csv, .json or .mp4, or a folder; None: nothing is written.

    Raises:
        InputError: The suffix is another.
    """

    out: Path | None = None

    kind: ClassVar[str]
    folder_file: ClassVar[str]  # by which a folder of these is recognised
    video_suffixes: ClassVar[tuple[str, ...]]  # of the files of a video

    def __post_init__(self) -> None:
        if self.out is not None and self.format is None:
            raise InputError(f"{self.out} is not a .csv, .json or .mp4; choose one, or a folder without a dot")

    @cached_property
    def format(self) -> str | None:
        """One of csv, json, mp4 and folder."""
        if self.out is None:
            return None
        formats = {".csv": "csv", ".json": "json", ".mp4": "mp4", "": "folder"}
        return formats.get(self.out.suffix.lower(), "folder" if self.out.is_dir() else None)

    @property
    def single_video_files(self) -> list[Path]:
        """The files that show one video."""
        return [self.out] if self.out is not None and self.format == "mp4" else []

    @property
    def files(self) -> list[Path]:
        """All files that do not lie in the folder."""
        return [self.out] if self.out is not None and self.format != "folder" else []

    def check_output(self, videos: VideoSelection) -> None:
        """Raise an InputError if the output cannot be written, would replace an input, or shows a single video only."""
        if self.single_video_files and len(videos.names) > 1:
            raise InputError(
                f"{self.single_video_files[0]} shows one video, and {pluralize(len(videos.names), 'video')} are named; "
                "choose a folder with --out"
            )
        paths = list(self.files)
        if self.out is not None and self.format == "folder":
            check_output_dir(self.out, self.kind, self.folder_file)
            stems = make_file_stems(videos.names)
            paths += [self.out / f"{stem}{suffix}" for stem in stems for suffix in self.video_suffixes]
        for path in self.files:
            check_output_file(path)
        inputs = {os.path.realpath(row.source) for row in videos.manifest.rows if isinstance(row.source, Path)}
        for path in paths:
            if os.path.realpath(path) in inputs:
                raise InputError(f"{path} is one of the videos; choose another path with --out")


@dataclass(frozen=True)
class PredictionOutput(OutputWriter):
    """Where predictions go.

    Args:
        plot: A PNG of one video's classes over time.
        annotate: Write an MP4 of each video to the folder.

    Raises:
        InputError: A file has another suffix, or an option does not suit the other.
    """

    plot: Path | None = None
    annotate: bool = False

    kind = "predictions"
    folder_file = PREDICTIONS_FILE
    video_suffixes = (".json", ".png", ".mp4")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"{self.plot} does not end in .png; choose a PNG file with --plot")
        if self.annotate and self.format != "folder":
            raise InputError("--annotate needs a folder: --out FOLDER; for one video, --out FILE.mp4")

    @property
    def needs_timeline(self) -> bool:
        """Whether it shows classes over time."""
        return self.format in ("mp4", "folder") or self.plot is not None

    @property
    def single_video_files(self) -> list[Path]:
        return [*super().single_video_files, *([self.plot] if self.plot is not None else [])]

    @property
    def files(self) -> list[Path]:
        return [*super().files, *([self.plot] if self.plot is not None else [])]

    def check_output(self, videos: VideoSelection) -> None:
        super().check_output(videos)
        if self.single_video_files and is_image_file(videos.names[0]):
            raise InputError(
                f"{self.single_video_files[0]} shows classes over time, and {videos.names[0]} is a picture; choose a "
                ".csv or "
                ".json with --out"
            )

    def write_all(self, predictions: Predictions, topk: int, *, timeline: bool) -> None:
        """Write the CSV or the JSON of all videos; in a folder, its CSV."""
        if self.out is None:
            return
        if self.format == "json":
            write_bytes(self.out, _encode_json(predictions_to_dict(predictions, topk), indent=1))
        elif self.format == "csv":
            write_bytes(self.out, format_predictions_csv(predictions, topk, timeline=timeline))
        elif self.format == "folder":
            write_bytes(self.out / PREDICTIONS_FILE, format_predictions_csv(predictions, topk, timeline=False))

    def write_video(
        self,
        predictions: Predictions,
        prediction: VideoPrediction,
        topk: int,
        stem: str,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Write the files of one video: its JSON, plot and MP4 in a folder, or the plot and the MP4.

        Args:
            predictions: All, for the model and its classes.
            topk: Classes that are named.
            stem: Of the file names in a folder.
            progress: Called with the seconds of the MP4 that are written.
        """
        plot, annotated = self.plot, self.out if self.format == "mp4" else None
        if self.out is not None and self.format == "folder":
            model = {
                "model": predictions.model,
                "classes": list(predictions.classes),
                "multi_label": predictions.multi_label,
            }
            record = {**model, **prediction_to_dict(predictions, prediction, topk)}
            write_bytes(self.out / f"{stem}.json", _encode_json(record, indent=1))
            plot, annotated = self.out / f"{stem}.png", self.out / f"{stem}.mp4" if self.annotate else None
        if prediction.timeline is None:
            return
        if plot is not None:
            note = f"whole video: {', '.join(format_top_classes(predictions, prediction, _MAX_DRAWN_CLASSES))}"
            write_bytes(plot, draw_timeline(prediction.video, prediction.timeline, predictions.classes, note))
        if annotated is not None:
            painter = partial(ClassPainter, prediction.timeline, predictions.classes, min(topk, _MAX_DRAWN_CLASSES))
            rate = prediction.row.frame_rate
            redraw_video(prediction.row.source, annotated, painter, default_frame_rate=rate, progress=progress)


@dataclass(frozen=True)
class DetectionOutput(OutputWriter):
    """Where detections go.

    Args:
        interval: Seconds from one key frame to the next.
        start_second: The second of AVA's rows at which the videos begin.

    Raises:
        InputError: The file has another suffix, or whole seconds and the interval is not.
    """

    interval: float = 1.0
    start_second: int = 0

    kind = "detections"
    folder_file = DETECTIONS_SUMMARY_FILE
    video_suffixes = (".json", ".csv", ".mp4")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format == "csv" and not self._has_whole_seconds:
            raise InputError(
                f"{self.out} has rows of whole seconds, and --interval is {self.interval:g}; choose a whole number, or "
                "a "
                ".json with --out"
            )

    @property
    def _has_whole_seconds(self) -> bool:
        return float(self.interval).is_integer()

    def write_summary(self, formatter: DetectionFormatter, names: Sequence[str], skipped: Mapping[str, str]) -> None:
        """Write the list of a folder's files."""
        if self.out is not None and self.format == "folder":
            files = [{"video": name, "files": stem} for name, stem in zip(names, make_file_stems(names), strict=True)]
            summary = {**formatter.build_header(), "videos": files, "skipped": _skipped_to_list(skipped)}
            write_bytes(self.out / DETECTIONS_SUMMARY_FILE, _encode_json(summary))

    def write_all(
        self, formatter: DetectionFormatter, detections: Sequence[VideoDetections], skipped: Mapping[str, str]
    ) -> None:
        """Write the JSON or the CSV of all videos."""
        if self.out is not None and self.format == "json":
            write_bytes(self.out, _encode_json(detections_to_dict(formatter, detections, skipped)))
        elif self.out is not None and self.format == "csv":
            self._write_rows(self.out, formatter, detections)

    def write_video(
        self,
        formatter: DetectionFormatter,
        detections: VideoDetections,
        stem: str,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Write the files of one video in a folder, or its MP4.

        Args:
            formatter: Which actions are named.
            stem: Of the file names in a folder.
            progress: Called with the seconds of the MP4 that are written.
        """
        annotated = self.out
        if self.out is not None and self.format == "folder":
            record = {**formatter.build_header(), **formatter.video_to_dict(detections)}
            write_bytes(self.out / f"{stem}.json", _encode_json(record))
            if self._has_whole_seconds:
                self._write_rows(self.out / f"{stem}.csv", formatter, [detections])
            annotated = self.out / f"{stem}.mp4"
        if annotated is not None and self.format in ("folder", "mp4"):
            actions, rate = formatter.action_names, detections.frame_rate
            painter = partial(BoxPainter, detections.tracks, actions, formatter.topk, formatter.min_score)
            redraw_video(detections.row.source, annotated, painter, default_frame_rate=rate, progress=progress)

    def _write_rows(self, path: Path, formatter: DetectionFormatter, detections: Sequence[VideoDetections]) -> None:
        """Write AVA's rows; a video is called as its files in a folder."""
        names = make_file_stems([each.video for each in detections])
        scores = build_box_scores(
            detections, names, formatter.actions, interval=int(self.interval), start_second=self.start_second
        )
        write_bytes(path, format_box_csv(scores, decimals=_DECIMALS))


def detections_to_dict(
    formatter: DetectionFormatter, detections: Sequence[VideoDetections], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Return all detections as JSON values; `docs/detection.md` describes them."""
    videos = [formatter.video_to_dict(each) for each in detections]
    return {**formatter.build_header(), "videos": videos, "skipped": _skipped_to_list(skipped)}


def _skipped_to_list(skipped: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"video": video, "reason": reason} for video, reason in skipped.items()]


def _encode_json(value: dict[str, Any], indent: int | None = None) -> bytes:
    return (json.dumps(value, indent=indent) + "\n").encode()
