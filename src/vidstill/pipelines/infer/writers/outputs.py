"""Where predictions and detections go: one file, by its suffix, or a folder with files for each video."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vidstill.data.decode.images import is_image_file
from vidstill.figures.annotate import redraw_video
from vidstill.figures.timeline import draw_timeline
from vidstill.pipelines.infer.detect import VideoDetections
from vidstill.pipelines.infer.predict import VideoPrediction
from vidstill.pipelines.infer.run import ProgressFn
from vidstill.pipelines.infer.videos import VideoSelection
from vidstill.pipelines.infer.writers.text import (
    MAX_DRAWN_CLASSES,
    DetectionFormatter,
    Formatter,
    PredictionFormatter,
    describe_videos,
)
from vidstill.utils.files import check_output_file, write_bytes
from vidstill.utils.locks import lock_outputs
from vidstill.utils.output_dir import check_output_dir
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

PREDICTIONS_FILE = "predictions.csv"
"""In a folder of predictions: one line per video."""

DETECTIONS_SUMMARY_FILE = "detections.json"
"""In a folder of detections: the files of each video."""


@dataclass(frozen=True)
class OutputWriter:
    """One file for all videos, one MP4 of a single video, or a folder with files for each video.

    Args:
        out: A .csv, .json or .mp4, or a folder; None: nothing is written.
        annotate: Write an MP4 of each video to the folder.

    Raises:
        InputError: The suffix is another.
    """

    out: Path | None = None

    kind: ClassVar[str]
    folder_file: ClassVar[str]  # by which a folder of these is recognised
    video_suffixes: ClassVar[tuple[str, ...]]  # of the files of a video
    json_indent: ClassVar[int | None] = None
    annotate: bool = True

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

    def check_output(self, videos: VideoSelection) -> None:
        """Raise an InputError if the output cannot be written, would replace an input, or shows a single video only."""
        if self.single_video_files and len(videos.names) > 1:
            raise InputError(
                f"{self.single_video_files[0]} shows one video, and {pluralize(len(videos.names), 'video')} are named; "
                "choose a folder with --out"
            )
        paths = list(self.single_video_files)
        if self.out is not None and self.format in ("csv", "json"):
            paths.append(self.out)
        for path in paths:
            check_output_file(path)
        if self.out is not None and self.format == "folder":
            check_output_dir(self.out, self.kind, self.folder_file)
            paths += [self.out / f"{stem}{suffix}" for stem in videos.stems.values() for suffix in self.video_suffixes]
        inputs = {os.path.realpath(row.source) for row in videos.manifest.rows if isinstance(row.source, Path)}
        for path in paths:
            if os.path.realpath(path) in inputs:
                raise InputError(f"{path} is one of the videos; choose another path with --out")

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from the output during the block."""
        return lock_outputs(self.out, *self.single_video_files)

    def write_all(self, formatter: Formatter, videos: Sequence[Any], skipped: Mapping[str, str]) -> None:
        """Write the CSV or the JSON of all videos."""
        if self.out is not None and self.format == "json":
            write_bytes(self.out, self.encode_json(describe_videos(formatter, videos, skipped)))
        elif self.out is not None and self.format == "csv":
            write_bytes(self.out, formatter.format_csv(videos))

    def write_video(
        self, formatter: Formatter, video: Any, stem: str, progress: ProgressFn = lambda done, total: None
    ) -> None:
        """Write the files of one video in a folder, or its single files.

        Args:
            formatter: What is written.
            video: A `VideoPrediction` or `VideoDetections`, as the formatter needs.
            stem: Of the file names in a folder.
            progress: Called with the seconds of the MP4 that are written, and all.
        """
        folder = self.out if self.format == "folder" else None
        if folder is not None:
            values = {**formatter.header, **formatter.video_to_dict(video)}
            write_bytes(folder / f"{stem}.json", self.encode_json(values))
        self._write_table_or_plot(formatter, video, folder, stem)
        path = self.out if self.format == "mp4" else folder / f"{stem}.mp4" if folder and self.annotate else None
        painter = formatter.build_painter(video)
        if path is not None and painter is not None:
            redraw_video(
                video.row.source,
                path,
                painter,
                default_frame_rate=video.frame_rate,
                progress=lambda seconds: progress(seconds, max(seconds, video.end_seconds)),
            )

    def _write_table_or_plot(self, formatter: Any, video: Any, folder: Path | None, stem: str) -> None:
        """Write what one video has beside its JSON and its MP4."""

    def encode_json(self, value: Any) -> bytes:
        return (json.dumps(value, indent=self.json_indent) + "\n").encode()


@dataclass(frozen=True)
class PredictionOutput(OutputWriter):
    """Where predictions go.

    Args:
        plot: A PNG of one video's classes over time.

    Raises:
        InputError: A file has another suffix, or an option does not suit the other.
    """

    plot: Path | None = None
    annotate: bool = False

    kind = "predictions"
    folder_file = PREDICTIONS_FILE
    video_suffixes = (".json", ".png", ".mp4")
    json_indent = 1

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

    def check_output(self, videos: VideoSelection) -> None:
        super().check_output(videos)
        if self.single_video_files and is_image_file(videos.names[0]):
            raise InputError(
                f"{self.single_video_files[0]} shows classes over time, and {videos.names[0]} is a picture; choose a "
                ".csv or .json with --out"
            )

    def write_all(self, formatter: Formatter, videos: Sequence[Any], skipped: Mapping[str, str]) -> None:
        """Write the CSV or the JSON of all videos; in a folder, its CSV."""
        super().write_all(formatter, videos, skipped)
        if self.out is not None and self.format == "folder":
            write_bytes(self.out / PREDICTIONS_FILE, formatter.format_csv(videos))

    def _write_table_or_plot(
        self, formatter: PredictionFormatter, video: VideoPrediction, folder: Path | None, stem: str
    ) -> None:
        plot = folder / f"{stem}.png" if folder is not None else self.plot
        if plot is not None and video.timeline is not None:
            note = f"whole video: {', '.join(formatter.format_top_classes(video, MAX_DRAWN_CLASSES))}"
            write_bytes(plot, draw_timeline(video.video, video.timeline, formatter.encoder.classes, note))


@dataclass(frozen=True)
class DetectionOutput(OutputWriter):
    """Where detections go.

    Args:
        interval: Seconds from one key frame to the next.

    Raises:
        InputError: The file has another suffix, or whole seconds and the interval is not.
    """

    interval: float = 1.0

    kind = "detections"
    folder_file = DETECTIONS_SUMMARY_FILE
    video_suffixes = (".json", ".csv", ".mp4")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format == "csv" and not self._has_whole_seconds:
            raise InputError(
                f"{self.out} has rows of whole seconds, and --interval is {self.interval:g}; choose a whole number, or "
                "a .json with --out"
            )

    @property
    def _has_whole_seconds(self) -> bool:
        return float(self.interval).is_integer()

    def write_summary(self, formatter: DetectionFormatter, names: Iterable[str], skipped: Mapping[str, str]) -> None:
        """Write the list of a folder's files, those of the named videos."""
        if self.out is not None and self.format == "folder":
            files = [{"video": name, "files": formatter.stems[name]} for name in names]
            summary = {**describe_videos(formatter, (), skipped), "videos": files}
            write_bytes(self.out / DETECTIONS_SUMMARY_FILE, self.encode_json(summary))

    def _write_table_or_plot(
        self, formatter: DetectionFormatter, video: VideoDetections, folder: Path | None, stem: str
    ) -> None:
        if folder is not None and self._has_whole_seconds:
            write_bytes(folder / f"{stem}.csv", formatter.format_csv([video]))
