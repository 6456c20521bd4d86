"""Features as a folder with an npy file for each video: what tools for temporal localisation read."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.embed_config import FeatureKey, FileStamp, VideoIndex
from vidstill.pipelines.infer.journal import Journal, JournalEntry, move_file
from vidstill.pipelines.infer.writers.feature_table import FEATURE_DTYPE, build_npy_header
from vidstill.utils.files import convert_write_errors, write_json
from vidstill.utils.types import InputError

FEATURES_FILE = "features.json"


class NpyFolderStore:
    """A folder with the features of each video in a file of its own, and of what they are, in `features.json`.

    Args:
        out: the folder; `OUT.part` beside it is where the work is done.
    """

    def __init__(self, out: Path, shapes: Mapping[str, tuple[int, ...]]):
        if len(shapes) > 1:
            raise InputError(f"a folder of npy files holds one layer, not {len(shapes)}; take one, or another format")
        self.out, self.journal = out, Journal.for_output(out)
        ((self._layer, self._shape),) = shapes.items()

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """What the folder says of itself; None if it is not there, or begun.

        Raises:
            InputError: what is there is something else.
        """
        path = self.out / FEATURES_FILE
        if path.is_file():
            try:
                found = json.loads(path.read_text("utf-8"))
                if found["kind"] == "features" and found["settings"] and isinstance(found["videos"], list):
                    return dict(found)
            except (ValueError, KeyError, TypeError):
                pass
            raise InputError(f"{path} is not as it was written here; choose another folder with --out")
        empty = not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir()))
        if not empty and not (self.out.is_dir() and self.journal.read_metadata()):
            raise InputError(f"{self.out} is there and holds no features; choose another folder with --out")
        return None

    def read_entries(self, videos: VideoIndex) -> dict[tuple[FeatureKey, FileStamp], JournalEntry]:
        """The videos that are done and whose files are there, of each video as it was then.

        Raises:
            InputError: two videos would have the same file.
        """
        known = {_parse_key(each): each for each in (self.metadata or {}).get("videos", ())}
        files = {key: npy_file_name(key) for key in {**known, **videos.locations}}
        for file, times in Counter(files.values()).items():
            if times > 1:
                one, two = [key.name for key, each in files.items() if each == file][:2]
                raise InputError(f"{one} and {two} would both be {self.out / file}; take another format, such as npz")
        found = {
            (key, stamp): JournalEntry(stamp, each["rows"])
            for key, each in known.items()
            for stamp in [_parse_stamp(each)]
        }
        found |= self.journal.read_entries()
        return {both: entry for both, entry in found.items() if (self.out / npy_file_name(both[0])).is_file()}

    def open_writer(self, rank: int) -> "_NpyWriter":
        return _NpyWriter(self.journal.folder / f"row-{rank}", self.out, self._layer, self._shape)

    def finish(self, videos: VideoIndex, entries: Mapping[FeatureKey, JournalEntry], about: Mapping[str, Any]) -> None:
        """Says in `features.json` what there is, of earlier calls too."""
        told = self.metadata or {}
        listed = {_parse_key(each): each for each in told.get("videos", ())}
        for key, entry in entries.items():
            each = {"file": npy_file_name(key), "name": key.name, "rows": entry.num_rows, **entry.stamp._asdict()}
            row = videos.get_row(key)
            each |= {"split": key.split} if key.split else {}
            each |= {"labels": row.labels} if videos.multi_label else {} if row.label is None else {"label": row.label}
            listed[key] = each
        classes = videos.classes or told.get("classes", ())
        whole = {**about, **({"classes": classes} if classes else {}), "videos": list(listed.values())}
        whole = json.loads(json.dumps(whole))  # as it is read back
        if any(whole.get(word) != told.get(word) for word in ("settings", "videos", "broken", "classes")):
            with convert_write_errors(self.out / FEATURES_FILE):
                self.out.mkdir(parents=True, exist_ok=True)
                write_json(self.out / FEATURES_FILE, whole)
        self.journal.remove()


class _NpyWriter:
    """Rows go into a file that is no npy file before its end."""

    def __init__(self, path: Path, out: Path, layer: str, shape: tuple[int, ...]):
        self._path, self._out, self._layer, self._shape = path, out, layer, shape
        self._num_rows = 0
        self._file: BinaryIO | None = None

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        with convert_write_errors(self._path):
            if self._file is None:
                self._file = self._path.open("wb")
                self._file.write(build_npy_header(FEATURE_DTYPE, (0, *self._shape)))
            self._file.write(np.ascontiguousarray(arrays[self._layer], FEATURE_DTYPE).tobytes())
        self._num_rows += len(arrays[self._layer])

    def finish_video(self, key: FeatureKey, stamp: FileStamp) -> JournalEntry:
        assert self._file is not None
        rows = self._num_rows
        with convert_write_errors(self._path):
            self._file.seek(0)
            self._file.write(build_npy_header(FEATURE_DTYPE, (rows, *self._shape)))
            self._file.flush()
        self.discard_video()
        move_file(self._path, self._out / npy_file_name(key))
        return JournalEntry(stamp, rows)

    def discard_video(self) -> None:
        self.close()
        self._file, self._num_rows = None, 0

    def close(self) -> None:
        if self._file is not None:
            with convert_write_errors(self._path):
                self._file.close()


def npy_file_name(key: FeatureKey) -> str:
    """A video's file below the folder: where its data set has it, in its split's folder; never anywhere else.

    Of an absolute path or an address, and of one that leads upwards, the last name alone is kept.
    """
    path = PurePosixPath(os.path.normpath(key.name))
    if path.is_absolute() or "://" in key.name or path.parts[:1] == ("..",):
        path = PurePosixPath(path.name)
    split = "" if path.parts[:1] == (key.split,) else key.split
    return str(split / path.parent / f"{path.stem}.npy")


def _parse_key(video: Mapping[str, Any]) -> FeatureKey:
    return FeatureKey(video.get("split", ""), video["name"])


def _parse_stamp(video: Mapping[str, Any]) -> FileStamp:
    return FileStamp(video["bytes"], video["modified"])
