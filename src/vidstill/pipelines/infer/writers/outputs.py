"""Where predictions go: one file, by its suffix, or a folder with files for each video; all complete or absent."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vidstill.data.ava.box_table import write_box_csv
from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.table import VideoRow
from vidstill.figures.annotate import annotate_video
from vidstill.figures.boxes import annotate_boxes
from vidstill.figures.timeline import draw_timeline
from vidstill.pipelines.infer.detect import VideoDetections
from vidstill.pipelines.infer.predict import Predictions, VideoPrediction
from vidstill.pipelines.infer.videos import InputVideos
from vidstill.pipelines.infer.writers.text import (
    DetectionFormatter,
    build_box_scores,
    dump_json,
    format_predictions_csv,
    format_top_classes,
    prediction_to_dict,
    predictions_to_dict,
)
from vidstill.utils.files import (
    check_output_dir,
    check_output_file,
    make_file_stems,
    write_bytes,
)
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

PREDICTIONS_FILE = "predictions.csv"
"""In a folder of predictions: a line for each video. By it such a folder is known."""

PredictionFormat = Literal["csv", "json", "mp4", "folder"]

_MAX_DRAWN_CLASSES = 3  # classes that are drawn over a video, or named above a plot


@dataclass(frozen=True)
class PredictionOutput:
    """What is to be written.

    Args:
        out: a .csv, .json or .mp4, or a folder; None: nothing.
        plot: a PNG of one video's classes over time.
        annotate: an MP4 for each video, in the folder.

    Raises:
        InputError: there is no such kind of file, or one asks for what the other does not give.
    """

    out: Path | None = None
    plot: Path | None = None
    annotate: bool = False

    def __post_init__(self) -> None:
        if self.out is not None and self.format is None:
            raise InputError(
                f"{self.out} is neither .csv, .json nor .mp4; name one of these, or a folder without a dot"
            )
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"{self.plot} does not end in .png, and a plot is a PNG; name another file")
        if self.annotate and self.format != "folder":
            raise InputError(
                "--annotate puts a video beside each answer in a folder: --out FOLDER; of one video, --out FILE.mp4"
            )

    @cached_property
    def format(self) -> PredictionFormat | None:
        if self.out is None:
            return None
        suffixes: dict[str, PredictionFormat] = {".csv": "csv", ".json": "json", ".mp4": "mp4", "": "folder"}
        return suffixes.get(self.out.suffix.lower(), "folder" if self.out.is_dir() else None)

    @property
    def needs_timeline(self) -> bool:
        """Whether it shows when something is seen."""
        return self.format in ("mp4", "folder") or self.plot is not None

    def check_output(self, videos: InputVideos) -> None:
        """
        Raises:
            InputError: it cannot be written, or must not.
        """
        single = [path for path in (self.out if self.format == "mp4" else None, self.plot) if path is not None]
        if single and len(videos.names) > 1:
            raise InputError(
                f"{single[0]} shows one video, and {pluralize(len(videos.names), 'video')} are named; take --out FOLDER"
            )
        if single and is_image_file(videos.names[0]):
            raise InputError(
                f"{single[0]} shows what is seen when, and {videos.names[0]} is a picture; take a .csv or .json"
            )
        if self.out is not None and self.format == "folder":
            check_output_dir(self.out, "predictions", PREDICTIONS_FILE)
        for path in [self.plot, None if self.format == "folder" else self.out]:
            if path is not None:
                check_output_file(path)
        theirs = {os.path.realpath(row.source) for row in videos.manifest.rows if isinstance(row.source, Path)}
        for path in self._list_paths(videos.names):
            if os.path.realpath(path) in theirs:
                raise InputError(f"{path} is one of the videos; write to another place with --out")

    def _list_paths(self, names: Sequence[str]) -> list[Path]:
        named = [path for path in (self.out, self.plot) if path is not None]
        if self.out is None or self.format != "folder":
            return named
        return [
            *named,
            *(self.out / f"{stem}{suffix}" for stem in make_file_stems(names) for suffix in (".json", ".png", ".mp4")),
        ]

    def write_table(self, predictions: Predictions, topk: int, *, timeline: bool) -> None:
        """Of all videos: the CSV or the JSON; of a folder, its table."""
        if self.out is not None and self.format == "csv":
            write_bytes(self.out, format_predictions_csv(predictions, topk, timeline=timeline))
        elif self.out is not None and self.format == "json":
            write_bytes(self.out, (dump_json(predictions_to_dict(predictions, topk)) + "\n").encode())
        elif self.out is not None and self.format == "folder":
            write_bytes(self.out / PREDICTIONS_FILE, format_predictions_csv(predictions, topk, timeline=False))

    def write_video(
        self,
        predictions: Predictions,
        prediction: VideoPrediction,
        topk: int,
        stem: str,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Of one video: what a folder holds of it, or the plot and the MP4.

        Args:
            stem: of its files' names in a folder.
            progress: is told how many seconds are drawn so far.
        """
        plotted, drawn = self.plot, self.out if self.format == "mp4" else None
        if self.out is not None and self.format == "folder":
            plain = {
                "model": predictions.model,
                "classes": list(predictions.classes),
                "several": predictions.multi_label,
            }
            write_bytes(
                self.out / f"{stem}.json",
                (dump_json({**plain, **prediction_to_dict(predictions, prediction, topk)}) + "\n").encode(),
            )
            plotted, drawn = self.out / f"{stem}.png", self.out / f"{stem}.mp4" if self.annotate else None
        if prediction.timeline is None:
            return
        if plotted is not None:
            note = f"on the whole: {', '.join(format_top_classes(predictions, prediction, _MAX_DRAWN_CLASSES))}"
            write_bytes(plotted, draw_timeline(prediction.video, prediction.timeline, predictions.classes, note))
        if drawn is not None:
            annotate_video(
                prediction.row.source,
                drawn,
                prediction.timeline,
                predictions.classes,
                top_k=min(topk, _MAX_DRAWN_CLASSES),
                default_frame_rate=prediction.row.frame_rate,
                progress=progress,
            )


DETECTIONS_SUMMARY_FILE = "detections.json"


_DECIMALS = 5, 5  # of coordinates and scores


@dataclass(frozen=True)
class DetectionOutput:
    """What is to be written.

    Args:
        out: a .json, .csv or .mp4, or a folder; None: nothing.
        interval: seconds from one moment to the next.
        start_second: the second of AVA's rows at which the videos begin.

    Raises:
        InputError: there is no such kind of file, or its moments are of whole seconds and these are not.
    """

    out: Path | None
    interval: float
    start_second: int

    def __post_init__(self) -> None:
        if self.out is not None and self.format is None:
            raise InputError(
                f"{self.out} is neither .json, .csv nor .mp4; name one of these, or a folder without a dot"
            )
        if self.format == "csv" and not self._has_whole_seconds:
            raise InputError(
                f"{self.out} has rows of whole seconds, and there are {self.interval:g} from one moment to the next; take "
                "a whole number of them with --every, or a .json"
            )

    @cached_property
    def format(self) -> Literal["json", "csv", "mp4", "folder"] | None:
        if self.out is None:
            return None
        suffixes: dict[str, Literal["json", "csv", "mp4", "folder"]] = {
            ".json": "json",
            ".csv": "csv",
            ".mp4": "mp4",
            "": "folder",
        }
        return suffixes.get(self.out.suffix.lower(), "folder" if self.out.is_dir() else None)

    @property
    def _has_whole_seconds(self) -> bool:
        return float(self.interval).is_integer()

    def check_output(self, names: Sequence[str], rows: Sequence[VideoRow]) -> None:
        """
        Raises:
            InputError: it cannot be written, or must not.
        """
        if self.out is None:
            return
        if self.format == "mp4" and len(names) > 1:
            raise InputError(
                f"{self.out} shows one video, and {pluralize(len(names), 'video')} are named; take --out FOLDER"
            )
        if self.format == "folder":
            check_output_dir(self.out, "detections", DETECTIONS_SUMMARY_FILE)
        else:
            check_output_file(self.out)
        paths = [self.out]
        if self.format == "folder":
            paths += [
                self.out / f"{stem}{suffix}" for stem in make_file_stems(names) for suffix in (".json", ".csv", ".mp4")
            ]
        theirs = {os.path.realpath(row.source) for row in rows if isinstance(row.source, Path)}
        for path in paths:
            if os.path.realpath(path) in theirs:
                raise InputError(f"{path} is one of the videos; write to another place with --out")

    def write_summary(self, formatter: DetectionFormatter, names: Sequence[str], skipped: dict[str, str]) -> None:
        """Of a folder."""
        if self.out is not None and self.format == "folder":
            files = [{"video": name, "files": stem} for name, stem in zip(names, make_file_stems(names), strict=True)]
            plain = {**formatter.build_header(), "videos": files, "left_out": _skipped_to_list(skipped)}
            write_bytes(self.out / DETECTIONS_SUMMARY_FILE, _encode_json(plain))

    def write_detections(
        self, formatter: DetectionFormatter, detections: Sequence[VideoDetections], skipped: dict[str, str]
    ) -> None:
        """All videos' answers in one file."""
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
        """What a folder holds of one video, or its MP4.

        Args:
            stem: of its files' names in a folder.
            progress: is told how many seconds are drawn so far.
        """
        drawn = self.out
        if self.out is not None and self.format == "folder":
            write_bytes(
                self.out / f"{stem}.json",
                _encode_json({**formatter.build_header(), **formatter.video_to_dict(detections)}),
            )
            if self._has_whole_seconds:
                self._write_rows(self.out / f"{stem}.csv", formatter, [detections])
            drawn = self.out / f"{stem}.mp4"
        if drawn is None or self.format not in ("folder", "mp4"):
            return
        annotate_boxes(
            detections.row.source,
            drawn,
            detections.tracks,
            formatter.action_names,
            top_k=formatter.topk,
            min_score=formatter.min_score,
            default_frame_rate=detections.frame_rate,
            progress=progress,
        )

    def _write_rows(self, path: Path, formatter: DetectionFormatter, detections: Sequence[VideoDetections]) -> None:
        """A video is called as its files in a folder are."""
        names = make_file_stems([each.video for each in detections])
        rows = build_box_scores(
            detections, names, formatter.actions, interval=int(self.interval), start_second=self.start_second
        )
        write_box_csv(path, rows, decimals=_DECIMALS)


def detections_to_dict(
    formatter: DetectionFormatter, detections: Sequence[VideoDetections], skipped: dict[str, str]
) -> dict[str, Any]:
    """All answers as JSON has them."""
    return {
        **formatter.build_header(),
        "videos": [formatter.video_to_dict(each) for each in detections],
        "left_out": _skipped_to_list(skipped),
    }


def _skipped_to_list(skipped: dict[str, str]) -> list[dict[str, str]]:
    return [{"video": video, "why": why} for video, why in skipped.items()]


def _encode_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()
