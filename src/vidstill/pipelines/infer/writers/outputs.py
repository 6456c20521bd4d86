"""Where predictions go: one file, by its suffix, or a folder with files for each video; all complete or absent."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vidstill.data.ava.box_table import write_rows
from vidstill.data.decode.images import is_picture
from vidstill.data.manifest.table import Row
from vidstill.figures.annotate import annotate
from vidstill.figures.boxes import annotate_boxes
from vidstill.figures.timeline import plot
from vidstill.pipelines.infer.detect import Detected
from vidstill.pipelines.infer.predict import Prediction, Predictions
from vidstill.pipelines.infer.videos import Videos
from vidstill.pipelines.infer.writers.text import Telling, as_csv, as_json, as_plain, ava_rows, shares, video_plain
from vidstill.utils.files import check_folder, check_new_file, stems, unwritable, write_below
from vidstill.utils.text import counted
from vidstill.utils.types import InputError

TABLE = "predictions.csv"
"""In a folder of predictions: a line for each video. By it such a folder is known."""

Kind = Literal["csv", "json", "mp4", "folder"]

_SHOWN = 3  # classes that are drawn over a video, or named above a plot


@dataclass(frozen=True)
class Target:
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
        if self.out is not None and self.kind is None:
            raise InputError(
                f"{self.out} is neither .csv, .json nor .mp4; name one of these, or a folder without a dot"
            )
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"{self.plot} does not end in .png, and a plot is a PNG; name another file")
        if self.annotate and self.kind != "folder":
            raise InputError(
                "--annotate puts a video beside each answer in a folder: --out FOLDER; of one video, --out FILE.mp4"
            )

    @cached_property
    def kind(self) -> Kind | None:
        if self.out is None:
            return None
        suffixes: dict[str, Kind] = {".csv": "csv", ".json": "json", ".mp4": "mp4", "": "folder"}
        return suffixes.get(self.out.suffix.lower(), "folder" if self.out.is_dir() else None)

    @property
    def needs_time(self) -> bool:
        """Whether it shows when something is seen."""
        return self.kind in ("mp4", "folder") or self.plot is not None

    def check(self, videos: Videos) -> None:
        """
        Raises:
            InputError: it cannot be written, or must not.
        """
        single = [path for path in (self.out if self.kind == "mp4" else None, self.plot) if path is not None]
        if single and len(videos.names) > 1:
            raise InputError(
                f"{single[0]} shows one video, and {counted(len(videos.names), 'video')} are named; take --out FOLDER"
            )
        if single and is_picture(videos.names[0]):
            raise InputError(
                f"{single[0]} shows what is seen when, and {videos.names[0]} is a picture; take a .csv or .json"
            )
        if self.out is not None and self.kind == "folder":
            check_folder(self.out, TABLE, "predictions")
        for path in [self.plot, None if self.kind == "folder" else self.out]:
            if path is not None:
                check_new_file(path)
        theirs = {os.path.realpath(row.source) for row in videos.listing.rows if isinstance(row.source, Path)}
        for path in self._paths(videos.names):
            if os.path.realpath(path) in theirs:
                raise InputError(f"{path} is one of the videos; write to another place with --out")

    def _paths(self, names: Sequence[str]) -> list[Path]:
        named = [path for path in (self.out, self.plot) if path is not None]
        if self.out is None or self.kind != "folder":
            return named
        return [
            *named,
            *(self.out / f"{stem}{suffix}" for stem in stems(names) for suffix in (".json", ".png", ".mp4")),
        ]

    def write_table(self, found: Predictions, top: int, *, over_time: bool) -> None:
        """Of all videos: the CSV or the JSON; of a folder, its table."""
        if self.out is not None and self.kind == "csv":
            write_below(self.out, as_csv(found, top, over_time=over_time))
        elif self.out is not None and self.kind == "json":
            write_below(self.out, (as_json(as_plain(found, top)) + "\n").encode())
        elif self.out is not None and self.kind == "folder":
            write_below(self.out / TABLE, as_csv(found, top, over_time=False))

    def write_video(
        self,
        found: Predictions,
        video: Prediction,
        top: int,
        stem: str,
        done: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Of one video: what a folder holds of it, or the plot and the MP4.

        Args:
            stem: of its files' names in a folder.
            done: is told how many seconds are drawn so far.
        """
        plotted, drawn = self.plot, self.out if self.kind == "mp4" else None
        if self.out is not None and self.kind == "folder":
            plain = {"model": found.model, "classes": list(found.classes), "several": found.several}
            write_below(
                self.out / f"{stem}.json", (as_json({**plain, **video_plain(found, video, top)}) + "\n").encode()
            )
            plotted, drawn = self.out / f"{stem}.png", self.out / f"{stem}.mp4" if self.annotate else None
        if video.timeline is None:
            return
        if plotted is not None:
            note = f"on the whole: {', '.join(shares(found, video, _SHOWN))}"
            write_below(plotted, plot(video.video, video.timeline, found.classes, note))
        if drawn is not None:
            try:
                annotate(
                    video.row.source,
                    drawn,
                    video.timeline,
                    found.classes,
                    top=min(top, _SHOWN),
                    rate=video.row.rate,
                    done=done,
                )
            except OSError as error:
                raise unwritable(drawn, error) from error


SUMMARY = "detections.json"


_DECIMALS = 5, 5  # of coordinates and scores


@dataclass(frozen=True)
class Target_of_files:
    """What is to be written.

    Args:
        out: a .json, .csv or .mp4, or a folder; None: nothing.
        every: seconds from one moment to the next.
        start: the second of AVA's rows at which the videos begin.

    Raises:
        InputError: there is no such kind of file, or its moments are of whole seconds and these are not.
    """

    out: Path | None
    every: float
    start: int

    def __post_init__(self) -> None:
        if self.out is not None and self.kind is None:
            raise InputError(
                f"{self.out} is neither .json, .csv nor .mp4; name one of these, or a folder without a dot"
            )
        if self.kind == "csv" and not self._whole:
            raise InputError(
                f"{self.out} has rows of whole seconds, and there are {self.every:g} from one moment to the next; take "
                "a whole number of them with --every, or a .json"
            )

    @cached_property
    def kind(self) -> Literal["json", "csv", "mp4", "folder"] | None:
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
    def _whole(self) -> bool:
        return float(self.every).is_integer()

    def check(self, names: Sequence[str], rows: Sequence[Row]) -> None:
        """
        Raises:
            InputError: it cannot be written, or must not.
        """
        if self.out is None:
            return
        if self.kind == "mp4" and len(names) > 1:
            raise InputError(
                f"{self.out} shows one video, and {counted(len(names), 'video')} are named; take --out FOLDER"
            )
        if self.kind == "folder":
            check_folder(self.out, SUMMARY, "detections")
        else:
            check_new_file(self.out)
        paths = [self.out]
        if self.kind == "folder":
            paths += [self.out / f"{stem}{suffix}" for stem in stems(names) for suffix in (".json", ".csv", ".mp4")]
        theirs = {os.path.realpath(row.source) for row in rows if isinstance(row.source, Path)}
        for path in paths:
            if os.path.realpath(path) in theirs:
                raise InputError(f"{path} is one of the videos; write to another place with --out")

    def write_summary(self, telling: Telling, names: Sequence[str], left_out: dict[str, str]) -> None:
        """Of a folder."""
        if self.out is not None and self.kind == "folder":
            files = [{"video": name, "files": stem} for name, stem in zip(names, stems(names), strict=True)]
            plain = {**telling.head(), "videos": files, "left_out": _named(left_out)}
            write_below(self.out / SUMMARY, _as_json(plain))

    def write_all(self, telling: Telling, found: Sequence[Detected], left_out: dict[str, str]) -> None:
        """All videos' answers in one file."""
        if self.out is not None and self.kind == "json":
            write_below(self.out, _as_json(detections_plain(telling, found, left_out)))
        elif self.out is not None and self.kind == "csv":
            self._write_rows(self.out, telling, found)

    def write_video(
        self, telling: Telling, found: Detected, stem: str, done: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """What a folder holds of one video, or its MP4.

        Args:
            stem: of its files' names in a folder.
            done: is told how many seconds are drawn so far.
        """
        drawn = self.out
        if self.out is not None and self.kind == "folder":
            write_below(self.out / f"{stem}.json", _as_json({**telling.head(), **telling.plain(found)}))
            if self._whole:
                self._write_rows(self.out / f"{stem}.csv", telling, [found])
            drawn = self.out / f"{stem}.mp4"
        if drawn is None or self.kind not in ("folder", "mp4"):
            return
        try:
            drawn.parent.mkdir(parents=True, exist_ok=True)
            annotate_boxes(
                found.row.source,
                drawn,
                found.tracks,
                telling.names,
                top=telling.top,
                least=telling.least,
                rate=found.rate,
                done=done,
            )
        except OSError as error:
            raise unwritable(drawn, error) from error

    def _write_rows(self, path: Path, telling: Telling, found: Sequence[Detected]) -> None:
        """A video is called as its files in a folder are."""
        names = stems([each.video for each in found])
        rows = ava_rows(found, names, telling.actions, every=int(self.every), start=self.start)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, rows, decimals=_DECIMALS)


def detections_plain(telling: Telling, found: Sequence[Detected], left_out: dict[str, str]) -> dict[str, Any]:
    """All answers as JSON has them."""
    return {**telling.head(), "videos": [telling.plain(each) for each in found], "left_out": _named(left_out)}


def _named(left_out: dict[str, str]) -> list[dict[str, str]]:
    return [{"video": video, "why": why} for video, why in left_out.items()]


def _as_json(plain: dict[str, Any]) -> bytes:
    return (json.dumps(plain) + "\n").encode()
