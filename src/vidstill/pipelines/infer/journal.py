"""The folder beside what is written: which videos are done, so that a kill costs no more than the one in hand."""

import fcntl
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, write_box_csv
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.pipelines.infer.embed_config import FeatureKey, FileStamp, describe_difference
from vidstill.pipelines.infer.person_detector import PersonDetections
from vidstill.pipelines.infer.writers.feature_table import ColumnSpecs
from vidstill.utils.files import PARTIAL_SUFFIX, convert_write_errors, rename_durably, write_json
from vidstill.utils.types import InputError

_METADATA_FILE = "about.json"
_LOG_PREFIX = "done-"  # a list for each process, of what it has done


@dataclass(frozen=True)
class JournalEntry:
    """A video that is done.

    Args:
        spool: whose columns its features are in; nothing where they are in a file of their own.
        first, rows: where in them.
    """

    stamp: FileStamp
    num_rows: int
    first_row: int = 0
    spool: str = ""


@runtime_checkable
class FeatureWriter(Protocol):
    """Takes the features of one video after the other; a process has its own."""

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """More rows of the video in hand, by column."""

    def finish_video(self, key: FeatureKey, stamp: FileStamp) -> JournalEntry:
        """The video in hand is done."""

    def discard_video(self) -> None:
        """The video in hand is broken: forgets its rows."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Journal:
    """What is done and not yet where it belongs."""

    folder: Path

    @classmethod
    def for_output(cls, out: Path) -> "Journal":
        return cls(out.with_name(out.name + PARTIAL_SUFFIX))

    def open(self, metadata: Mapping[str, Any]) -> None:
        """Makes the folder, for features with these settings.

        Raises:
            InputError: it holds the beginning of others, or cannot be made.
        """
        self.check_settings(metadata)
        with convert_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _METADATA_FILE, metadata)

    def check_settings(self, metadata: Mapping[str, Any]) -> None:
        """
        Raises:
            InputError: the folder holds what is not of these settings.
        """
        told = self.read_metadata()
        if told is None or "settings" not in told:
            if self.folder.exists() and not self._is_empty():
                raise InputError(f"{self.folder} is in the way and no beginning of features; move it away")
        elif other := describe_difference(told["settings"], metadata["settings"]):
            raise InputError(
                f"{self.folder} holds the beginning of features {other}; delete it, or choose another place with --out"
            )

    def read_metadata(self) -> Mapping[str, Any] | None:
        """What `open_output_dir` wrote; None where it did not."""
        try:
            return dict(json.loads((self.folder / _METADATA_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def read_entries(self) -> dict[tuple[FeatureKey, FileStamp], JournalEntry]:
        """All that is done, of each file as it was then; what is no line, such as one that was cut, is passed by."""
        found = {}
        for path in sorted(self.folder.glob(f"{_LOG_PREFIX}*.jsonl")):
            for line in path.read_bytes().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    each = json.loads(line)
                    key, stamp = FeatureKey(*each.pop("key")), FileStamp(*each.pop("stamp"))
                    found[key, stamp] = JournalEntry(stamp, **each)
        return found

    def _is_empty(self) -> bool:
        return self.folder.is_dir() and not any(
            each.name != _METADATA_FILE + PARTIAL_SUFFIX for each in self.folder.iterdir()
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class JournalLog:
    """A process's list of what it has done, for it alone to append to.

    Raises:
        InputError: another process does.
    """

    def __init__(self, journal: Journal, name: str):
        self.path = journal.folder / f"{_LOG_PREFIX}{name}.jsonl"
        with convert_write_errors(self.path):
            self._file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{journal.folder} is being written by another process; wait for its end") from None
        except OSError:
            pass  # not every network drive knows how
        if self._file.tell():
            self._write_line(b"\n")  # what was cut stays a line of its own

    def append(self, key: FeatureKey, entry: JournalEntry) -> None:
        self._write_line((json.dumps({"key": key, **asdict(entry)}) + "\n").encode())

    def _write_line(self, line: bytes) -> None:
        with convert_write_errors(self.path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


class ColumnSpool:
    """A process's columns of features: rows are appended, and cut off again where a video turns out to be broken.

    What a kill has left behind the last video that is done is cut off at once.

    Args:
        columns: the kind and the shape of each column's rows.
    """

    def __init__(self, journal: Journal, name: str, columns: ColumnSpecs):
        self.name, self._columns = name, columns
        ends = (entry.first_row + entry.num_rows for entry in journal.read_entries().values() if entry.spool == name)
        self._first_row = self._num_rows = max(ends, default=0)
        self._files: dict[str, BinaryIO] = {}
        with convert_write_errors(journal.folder):
            for column in columns:
                self._files[column] = spool_path(journal, name, column).open("ab")
        self.discard_video()

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        for column, (kind, shape) in self._columns.items():
            with convert_write_errors(Path(self._files[column].name)):
                self._files[column].write(np.ascontiguousarray(arrays[column], kind).reshape(-1, *shape).tobytes())
        self._num_rows += len(next(iter(arrays.values())))

    def finish_video(self, key: FeatureKey, stamp: FileStamp) -> JournalEntry:
        """The video whose rows these were is done."""
        for file in self._files.values():
            with convert_write_errors(Path(file.name)):
                file.flush()
        first, self._first_row = self._first_row, self._num_rows
        return JournalEntry(stamp, self._num_rows - first, first, self.name)

    def discard_video(self) -> None:
        """Cuts off what was appended since the last end."""
        self._num_rows = self._first_row
        for column, (kind, shape) in self._columns.items():
            with convert_write_errors(Path(self._files[column].name)):
                self._files[column].flush()
                self._files[column].truncate(self._num_rows * count_row_bytes(kind, shape))

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # of a full disk, which was said
                file.close()


def spool_path(journal: Journal, spool: str, column: str) -> Path:
    return journal.folder / f"{column}-{spool}"


def count_row_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def move_file(source: Path, target: Path) -> None:
    """Moves a finished file to where it belongs."""
    with convert_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        rename_durably(source, target)


PERSON_JOURNAL_SUFFIX = ".begun"


_DECIMALS = 5  # a fiftieth of a pixel in a frame of 1,920 columns


class KeyframeKey(NamedTuple):
    """A key frame."""

    video: str
    second: int


@dataclass(frozen=True)
class PersonJournal:
    """The folder beside the file: what is found, a line for each work, until the file is whole.

    Args:
        metadata: what the boxes depend on, but for the films.
        stamps: of the films, by their names; what was found in others of these names does not count.
    """

    folder: Path
    metadata: Mapping[str, Any]
    stamps: Mapping[str, str]

    @classmethod
    def for_output(cls, out: Path, metadata: Mapping[str, Any], videos: Sequence[KeyframeVideo]) -> "PersonJournal":
        return cls(
            out.with_name(out.name + PERSON_JOURNAL_SUFFIX),
            metadata,
            {film.name: _stamp_video(film) for film in videos},
        )

    def open(self, out: Path) -> dict[KeyframeKey, PersonDetections]:
        """What is found already.

        Raises:
            InputError: there is no place for more.
        """
        if out.exists():
            raise InputError(f"{out} is there already; move it away, or choose another file with --out")
        try:
            told = json.loads((self.folder / _METADATA_FILE).read_text("utf-8")) if self.folder.exists() else None
        except (OSError, ValueError):
            raise InputError(f"{self.folder} is in the way and no beginning of boxes; move it away") from None
        if told is not None and told != self.metadata:
            raise InputError(
                f"{self.folder} holds the beginning of boxes by other settings ({told}); delete it, or choose another "
                "file with --out"
            )
        with convert_write_errors(out):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _METADATA_FILE, self.metadata)
        found: dict[KeyframeKey, PersonDetections] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError):  # one that a kill has cut
                    for film, stamp, second, boxes, scores in json.loads(line):
                        if self.stamps.get(film) != stamp:
                            continue
                        persons = PersonDetections(
                            np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64)
                        )
                        found[KeyframeKey(film, second)] = persons
        return found

    def append(self, rank: int, detections: Mapping[KeyframeKey, PersonDetections]) -> None:
        line = json.dumps(
            [
                [film, self.stamps[film], second, each.boxes.tolist(), each.scores.tolist()]
                for (film, second), each in detections.items()
            ]
        )
        path = self.folder / f"{rank}.jsonl"
        with convert_write_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # what was cut stays a line of its own

    def write_boxes(
        self,
        out: Path,
        keys: Sequence[KeyframeKey],
        detections: Mapping[KeyframeKey, PersonDetections],
        broken: Sequence[str],
    ) -> int:
        """Writes the file; gives how many boxes it has.

        Raises:
            InputError: there is nothing to write, or it cannot be written.
        """
        if not keys:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise InputError(f"not one key frame can be read; {broken[0]}" if broken else "there are no key frames")
        rows = _build_box_rows(out, keys, detections)
        write_box_csv(out, rows, decimals=(_DECIMALS, _DECIMALS))
        shutil.rmtree(self.folder, ignore_errors=True)
        return len(rows)


def _build_box_rows(
    out: Path, keys: Sequence[KeyframeKey], detections: Mapping[KeyframeKey, PersonDetections]
) -> BoxTable:
    """Boxes that have no width or no height as they are written are left out."""
    names = {name: place for place, name in enumerate(dict.fromkeys(key.video for key in keys))}
    counts = [len(detections[key].scores) for key in keys]
    box = np.concatenate([detections[key].boxes for key in keys]).round(_DECIMALS)
    there = (box[:, 2:] > box[:, :2]).all(axis=1)
    n = int(there.sum())
    return BoxTable(
        source=out,
        video_names=tuple(names),
        video_index=np.repeat(np.array([names[key.video] for key in keys], np.int32), counts)[there],
        second=np.repeat(np.array([key.second for key in keys], np.int32), counts)[there],
        box=box[there],
        action_id=np.full(n, NO_ACTION, np.int32),
        score=np.concatenate([detections[key].scores for key in keys])[there],
        line_number=np.arange(1, n + 1, dtype=np.int32),
    )


def _stamp_video(video: KeyframeVideo) -> str:
    """Where it is, and of a file its size and time."""
    stamp = f"{video.path} {video.start_second:g} {video.frame_rate:g}"
    if isinstance(video.path, Path) and video.path.is_file():
        stamp += f" {(facts := video.path.stat()).st_size} {facts.st_mtime_ns}"
    return stamp
