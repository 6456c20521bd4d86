"""The videos that a command takes: of files, folders, lists and data sets."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from vidstill.data.decode.images import IMAGE_EXTENSIONS, is_image_file
from vidstill.data.decode.reader import VIDEO_EXTENSIONS, read_stream_metadata
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Manifest, Split
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import PathOrUrl, ShardMember, StorageUnreachable, parse_path, source_name
from vidstill.data.storage.filesystem import base_name, is_file, parent_path
from vidstill.utils.files import make_file_stems
from vidstill.utils.types import InputError

SplitChoice = Literal["all", "train", "val"]

_LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".list"})


@dataclass(frozen=True)
class VideoSelection:
    """The videos that a command takes, each once.

    Args:
        manifest: Their rows; with labels if their data sets have the same classes.
        splits: The split of each; "" where the data set has none.
        names: What each is called in the output.
        skipped: What cannot be used, by its name, and the reason.
    """

    manifest: Manifest
    splits: tuple[str, ...]
    names: tuple[str, ...]
    skipped: Mapping[str, str]

    @cached_property
    def stems(self) -> dict[str, str]:
        """File name without suffix of each video's own files, by its name; all different."""
        return dict(zip(self.names, make_file_stems(self.names), strict=True))


def find_videos(
    paths: Sequence[PathOrUrl],
    *,
    split: SplitChoice = "all",
    fold: int = 1,
    root: PathOrUrl | None = None,
    clip_frames: int = 1,
    by_dataset_name: bool = False,
) -> VideoSelection:
    """Find the videos of paths; what cannot be read is skipped.

    Args:
        paths: Files, folders, lists, packs and data sets.
        split: The split of data sets that have several.
        fold: Which of the three official splits of UCF101 and HMDB51.
        root: The folder that a list's paths are relative to; None: the list's own.
        clip_frames: Frames of a clip; pictures are clips of one frame, and skipped for longer clips.
        by_dataset_name: Name videos as their data sets do, in their order, with labels. Otherwise only those of a
            single path have these names, all others are named by their own paths, and the videos are sorted by name.

    Raises:
        InputError: There are no videos; by dataset name also: two videos have one name, or classes differ.
    """
    if not paths:
        raise InputError("no videos are named; give files, folders or lists of them")
    rows: dict[tuple[str, str], VideoRow] = {}
    skipped: dict[str, str] = {}
    labeled: list[Manifest] = []
    for path in map(parse_path, paths):
        try:
            manifests = _open_manifests(path, split, fold, root)
        except InputError as error:
            if isinstance(error, StorageUnreachable):
                raise
            skipped[str(path)] = str(error)
            continue
        labeled += [manifest for _, manifest in manifests if manifest.classes and by_dataset_name]
        is_file_itself = [row.source for _, manifest in manifests for row in manifest.rows[:2]] == [path]
        for part, row in ((part, row) for part, manifest in manifests for row in manifest.rows):
            if by_dataset_name:
                data = row.name.encode("utf-8", "surrogateescape")
                name = data.decode("utf-8", "backslashreplace")  # bytes as `\\xff`
            elif len(paths) == 1 and not is_file_itself:
                name = row.name
            else:
                name = f"{path}/{row.name}" if isinstance(row.source, ShardMember) else source_name(row.source)
            if clip_frames > 1 and is_image_file(row.name):
                reason = f"is a picture, and the model needs clips of {clip_frames} frames"
                skipped[name] = f"{source_name(row.source)} {reason}"
                continue
            first = rows.setdefault((part if by_dataset_name else "", name), row)
            if by_dataset_name and first.source != row.source:
                raise InputError(
                    f"{source_name(first.source)} and {source_name(row.source)} have one name, {name}; give them "
                    "in separate commands, with separate files for --out"
                )
    if not rows:
        more = f"; {len(skipped) - 1} more cannot be used either" if len(skipped) > 1 else ""
        raise InputError(next(iter(skipped.values())) + more)
    keys = list(rows) if by_dataset_name else sorted(rows)
    classes = labeled[0].classes if labeled else ()
    for other in labeled:
        if other.classes != classes:
            raise InputError(
                f"{labeled[0].source} and {other.source} have different classes; give them in separate commands, "
                "with separate files for --out"
            )
    manifest = build_row_manifest((rows[key] for key in keys), classes, any(each.multi_label for each in labeled))
    return VideoSelection(manifest, tuple(part for part, _ in keys), tuple(name for _, name in keys), skipped)


def build_row_manifest(rows: Iterable[VideoRow], classes: tuple[str, ...] = (), multi_label: bool = False) -> Manifest:
    """Build a manifest of videos from anywhere; with their labels if classes are given."""
    table = VideoTable.from_rows(row if classes else replace(row, label=None, extra_labels=()) for row in rows)
    return Manifest(table, classes, "videos", "the requested videos", table.compute_fingerprint(), 0, multi_label)


def _open_manifests(
    path: PathOrUrl, split: SplitChoice, fold: int, root: PathOrUrl | None
) -> list[tuple[str, Manifest]]:
    """Return the manifests of a path, each with the name of its split.

    A file with an unknown suffix that no list reader reads is a video if it decodes.
    """
    if is_file(path) and has_suffix(base_name(path), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS):
        return [("", _build_single(path))]
    try:
        splits = list_splits(path)
        if not splits:
            return [("", open_manifest(path, root=root, fold=fold))]
        selected: Sequence[Split] = splits if split == "all" else (split,)
        return [(each, open_manifest(path, split=each, root=root, fold=fold)) for each in selected]
    except InputError as error:
        is_unknown_file = is_file(path) and not has_suffix(base_name(path), _LIST_SUFFIXES)
        if is_unknown_file and not isinstance(error, StorageUnreachable):
            with suppress(InputError):
                read_stream_metadata(path)
                return [("", _build_single(path))]
        raise


def _build_single(path: PathOrUrl) -> Manifest:
    table = VideoTable(parent_path(path), [base_name(path)])
    return Manifest(table, (), "one video", path, table.compute_fingerprint())
