"""Where features go: one file for all videos, or a folder with an npy file for each."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from vidstill.pipelines.infer.writers.feature_formats import FILE_FORMATS, import_pyarrow
from vidstill.pipelines.infer.writers.features import FeatureKey, FeatureTable, FileStamp
from vidstill.utils.files import atomic_write, write_json
from vidstill.utils.output_dir import check_output_dir
from vidstill.utils.types import InputError

FormatName = Literal["npz", "safetensors", "parquet", "npy"]

FEATURES_FILE = "features.json"
"""In a folder of npy files: what it holds."""


def open_feature_store(out: Path, format: FormatName | None, row_dtype: np.dtype) -> "SingleFile | NpyFolder":
    """Return the output for a format; None: the suffix decides.

    Args:
        row_dtype: The columns of a row.

    Raises:
        InputError: The suffix says nothing, pyarrow is missing, or a folder would hold several layers.
    """
    name = format or out.suffix.removeprefix(".") or "npy"
    if name == "npy" and (format or not out.suffix):
        return NpyFolder(out, row_dtype)
    if name not in FILE_FORMATS:
        raise InputError(f"{out.name} has no known suffix; use .npz, .safetensors or .parquet, or --format")
    if name == "parquet":
        import_pyarrow()
    return SingleFile(out, name, row_dtype)


class SingleFile:
    """One file with all videos."""

    column = None  # that the file of a video's rows has: all

    def __init__(self, out: Path, format: str, row_dtype: np.dtype):
        self.out, self.format, self.row_dtype = out, format, row_dtype

    @cached_property
    def stored(self) -> FeatureTable | None:
        """What the output holds; an InputError if it is something else."""
        if not self.out.exists():
            return None
        table = FILE_FORMATS[self.format].read(self.out) if self.out.is_file() else None
        if table is None:
            raise InputError(f"{self.out} exists and holds no features ({self.format}); choose another path with --out")
        return table

    def check(self, keys: Collection[FeatureKey], *, resumes: bool) -> None:
        """Raise an InputError if videos that the file holds would be lost."""
        named = set(keys)
        lost = [key.name for key in self.stored.keys if key not in named] if self.stored else []
        if lost:
            raise InputError(
                f"{self.out} holds {len(lost)} videos that this command does not name, first {lost[0]}, and would lose "
                "them; name them too, or choose another path with --out"
            )

    def get_row_path(self, journal_dir: Path, key: FeatureKey, stamp: FileStamp) -> Path:
        """Return the npy file in which a video's rows are until the output is complete."""
        return journal_dir / f"{name_video_state(key, stamp)}.npy"

    def write(self, table: FeatureTable, *, changed: bool) -> None:
        """Write all videos, unless the file would stay the same: `changed` means that rows differ."""
        if changed or self.stored is None or _describe(self.stored) != _describe(table):
            with atomic_write(self.out) as file:
                FILE_FORMATS[self.format].write(file, table)


def _describe(table: FeatureTable) -> tuple[Any, ...]:
    """Return all but the rows, for comparison."""
    labels = None if table.labels is None else table.labels.tolist()
    return table.keys, table.stamps, table.classes, labels, table.metadata["broken"]


class NpyFolder:
    """A folder with one npy file per video, and `features.json`; tools for temporal localisation read it."""

    format = "npy"

    def __init__(self, out: Path, row_dtype: np.dtype):
        layers = [name for name in row_dtype.names or () if name not in ("starts", "ends")]
        if len(layers) > 1:
            raise InputError(f"a folder of npy files holds one layer, not {len(layers)}; choose one, or another format")
        self.out, self.row_dtype, self.column = out, row_dtype, layers[0]

    @cached_property
    def _listing(self) -> dict[str, Any]:
        path = self.out / FEATURES_FILE
        if not path.is_file():
            return {}
        try:
            listing = json.loads(path.read_text("utf-8"))
            if listing["kind"] == "features" and listing["settings"] and isinstance(listing["videos"], list):
                return dict(listing)
        except (ValueError, KeyError, TypeError):
            pass
        raise InputError(f"{path} is damaged; choose another folder with --out")

    @cached_property
    def stored(self) -> FeatureTable | None:
        """The videos whose files exist."""
        if not self._listing:
            return None
        videos = [each for each in self._listing["videos"] if (self.out / each["file"]).is_file()]
        return FeatureTable(
            metadata={name: value for name, value in self._listing.items() if name != "videos"},
            keys=[_parse_key(each) for each in videos],
            stamps=[FileStamp(each["num_bytes"], each["mtime_ns"]) for each in videos],
            labels=None,
            classes=tuple(self._listing.get("classes", ())),
            offsets=np.cumsum([0, *(each["rows"] for each in videos)]),
            row_dtype=self.row_dtype,
            segments=(),
        )

    def check(self, keys: Collection[FeatureKey], *, resumes: bool) -> None:
        """Raise an InputError if the folder holds something else, or if two videos would have one file.

        Args:
            resumes: A journal of unfinished work exists, so that the folder may hold files without a list.
        """
        if not resumes:
            check_output_dir(self.out, "features", FEATURES_FILE)
        files = {key: npy_file_name(key) for key in [*map(_parse_key, self._listing.get("videos", ())), *keys]}
        for file, count in Counter(files.values()).items():
            if count > 1:
                one, two = [key.name for key, each in files.items() if each == file][:2]
                raise InputError(f"{one} and {two} would both be {self.out / file}; choose another format, such as npz")

    def get_row_path(self, journal_dir: Path, key: FeatureKey, stamp: FileStamp) -> Path:
        """Return a video's file in the folder."""
        return self.out / npy_file_name(key)

    def write(self, table: FeatureTable, *, changed: bool) -> None:
        """Write `features.json`, with the videos of earlier calls."""
        listed = {_parse_key(each): each for each in self._listing.get("videos", ())}
        for index, (key, stamp) in enumerate(zip(table.keys, table.stamps, strict=True)):
            rows = int(table.offsets[index + 1] - table.offsets[index])
            listed[key] = {"file": npy_file_name(key), "name": key.name, "rows": rows, **stamp._asdict()}
            listed[key] |= {"split": key.split} if key.split else {}
            if table.labels is not None and table.labels.ndim == 2:
                listed[key] |= {"labels": np.flatnonzero(table.labels[index]).tolist()}
            elif table.labels is not None and table.labels[index] >= 0:
                listed[key] |= {"label": int(table.labels[index])}
        classes = list(table.classes or self._listing.get("classes", ()))
        listing = {**table.metadata, **({"classes": classes} if classes else {}), "videos": list(listed.values())}
        listing = json.loads(json.dumps(listing))  # as it is read
        names = ("settings", "videos", "broken", "classes")
        if any(listing.get(name) != self._listing.get(name) for name in names):
            write_json(self.out / FEATURES_FILE, listing)


def name_video_state(key: FeatureKey, stamp: FileStamp) -> str:
    """Return a file name, without suffix, for a video in this state."""
    return hashlib.sha256(json.dumps([*key, *stamp]).encode()).hexdigest()[:24]


def npy_file_name(key: FeatureKey) -> str:
    """Return a video's path in the folder: where its data set has it, below its split, and never outside.

    Of absolute paths and URLs, and of paths that lead upwards, only the last name is kept.
    """
    path = PurePosixPath(os.path.normpath(key.name))
    if path.is_absolute() or "://" in key.name or path.parts[:1] == ("..",):
        path = PurePosixPath(path.name)
    split = "" if path.parts[:1] == (key.split,) else key.split
    return str(split / path.parent / f"{path.stem}.npy")


def _parse_key(video: Mapping[str, Any]) -> FeatureKey:
    return FeatureKey(video.get("split", ""), video["name"])
