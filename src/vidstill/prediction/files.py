"""Where predictions go: one file, by its suffix, or a folder with files for each video; all complete or absent."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from vidstill.data.pictures import is_picture
from vidstill.data.words import counted
from vidstill.figures.annotate import annotate
from vidstill.figures.timeline import plot
from vidstill.folder import check_folder, check_new_file, stems, unwritable, write_below
from vidstill.prediction.answers import Prediction, Predictions
from vidstill.prediction.tables import as_csv, as_json, as_plain, shares, video_plain
from vidstill.prediction.videos import Videos
from vidstill.types import InputError

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
