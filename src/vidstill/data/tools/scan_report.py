"""The report of a scan: the numbers, and the same as lines for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, starmap
from pathlib import Path

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.tools.near_duplicates import group_near_duplicates
from vidstill.data.tools.probe import ScanRecord
from vidstill.data.tools.stats import VideoStats, format_bullets, format_counts
from vidstill.utils.text import format_one_line, join_first, pluralize

_MAX_LINES, _MAX_PATHS = 20, 4  # lines of a kind, and paths in a line

DuplicateGroup = dict[str, tuple[str, ...]]
"""The paths of videos that are equal or nearly equal, by split."""


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """The files of a dataset, each counted once, and their problems.

    Args:
        manifest_path: The list that was written.
        num_videos: Of each split, or of "all"; one file may be several videos.
        num_missing: Videos that an official list names and that do not exist.
        num_decoded: Files that were decoded in this scan; the others were known from an earlier one.
        num_bytes: Size of all files.
        frame_rate_counts, resolution_counts, codec_counts: Files by frames per second, `width x height` and codec.
        errors: The reason, by path.
        short_videos: The number of frames, by path, of videos that have fewer than `min_frames`; images are left out.
        header_mismatches: The number of frames that the header states and that decode, by path.
        exact_duplicates: Groups of files with the same bytes, and files that are in more than one split.
        near_duplicates: Groups of files that look the same, see `vidstill.data.tools.near_duplicates`.
    """

    manifest_path: Path
    num_videos: dict[str, int]
    num_missing: int
    num_files: int
    num_decoded: int
    num_frames: int
    seconds: float
    num_bytes: int
    frame_rate_counts: dict[str, int]
    resolution_counts: dict[str, int]
    codec_counts: dict[str, int]
    min_frames: int
    errors: dict[str, str]
    short_videos: dict[str, int]
    header_mismatches: dict[str, tuple[int, int]]
    exact_duplicates: tuple[DuplicateGroup, ...]
    near_duplicates: tuple[DuplicateGroup, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every file decodes, and no video is in more than one split."""
        return not self.errors and not any(map(_spans_splits, self.exact_duplicates + self.near_duplicates))


class ScanReportBuilder:
    """Collects the rows of a dataset into a report."""

    def __init__(self, manifest_path: Path, manifests: Mapping[str, Manifest], min_frames: int, *, num_decoded: int):
        self._manifest_path, self._manifests = manifest_path, manifests
        self._min_frames, self._num_decoded = min_frames, num_decoded
        self._stats, self._seconds = VideoStats(), 0.0
        self._key_to_idx: dict[tuple[str, str, int], int] = {}
        self._paths: list[str] = []
        self._splits: list[tuple[str, ...]] = []
        self._digests: list[bytes] = []
        self._signatures: list[str] = []
        self._errors: dict[str, str] = {}
        self._short_videos: dict[str, int] = {}
        self._header_mismatches: dict[str, tuple[int, int]] = {}

    def add(self, key: tuple[str, str, int], split: str, record: ScanRecord) -> None:
        """Add a row, by the path, shard and offset that its list states."""
        index = self._key_to_idx.setdefault(key, len(self._paths))
        if index < len(self._paths):
            if split not in self._splits[index]:
                self._splits[index] += (split,)
            return
        path = key[0]
        self._paths.append(path)
        self._splits.append((split,))
        self._digests.append(bytes.fromhex(record.get("sha256", "")))
        self._signatures.append(record.get("signature", ""))
        self._seconds += record.get("seconds", 0)
        size = (record["width"], record["height"]) if "width" in record else None
        self._stats.add(record["frames"], record.get("rate"), size, record.get("codec", ""), record["bytes"])
        if "error" in record:
            self._errors[path] = record["error"]
            return
        if record["frames"] < self._min_frames and not is_image_file(path):
            self._short_videos[path] = record["frames"]
        if "header_frames" in record:
            self._header_mismatches[path] = record["header_frames"], record["frames"]

    def build(self) -> ScanReport:
        exact, near = self._find_duplicates()
        return ScanReport(
            manifest_path=self._manifest_path,
            num_videos={split: len(manifest) for split, manifest in self._manifests.items()},
            num_missing=sum(manifest.num_missing for manifest in self._manifests.values()),
            num_files=len(self._paths),
            num_decoded=self._num_decoded,
            num_frames=sum(self._stats.frames),
            seconds=round(self._seconds, 3),
            num_bytes=sum(self._stats.file_sizes),
            frame_rate_counts=self._stats.frame_rate_counts,
            resolution_counts=self._stats.resolution_counts,
            codec_counts=self._stats.codec_counts,
            min_frames=self._min_frames,
            errors=self._errors,
            short_videos=self._short_videos,
            header_mismatches=self._header_mismatches,
            exact_duplicates=exact,
            near_duplicates=near,
        )

    def _find_duplicates(self) -> tuple[tuple[DuplicateGroup, ...], tuple[DuplicateGroup, ...]]:
        """Return the groups of the same bytes, and those of the same look, of which some may have the same bytes."""
        digests = self._digests
        order = sorted((i for i in range(len(digests)) if digests[i]), key=lambda i: digests[i])
        equal = [list(group) for _, group in groupby(order, key=lambda i: digests[i])]
        exact = [group for group in equal if len(group) > 1 or len(self._splits[group[0]]) > 1]
        signed = [group for group in equal if self._signatures[group[0]]]
        near = group_near_duplicates([self._signatures[group[0]] for group in signed])
        return self._group_paths(exact), self._group_paths(
            [[i for index in group for i in signed[index]] for group in near]
        )

    def _group_paths(self, groups: Sequence[list[int]]) -> tuple[DuplicateGroup, ...]:
        """Return the groups of more than one split first, otherwise in the order of the dataset."""
        named = []
        for group in sorted(map(sorted, groups)):
            splits = [split for split in self._manifests if any(split in self._splits[i] for i in group)]
            named.append({split: tuple(self._paths[i] for i in group if split in self._splits[i]) for split in splits})
        return tuple(sorted(named, key=lambda group: not _spans_splits(group)))


def _spans_splits(group: DuplicateGroup) -> bool:
    return len(group) > 1


def format_scan_report(report: ScanReport) -> str:
    """Format a report as lines; of many, the first."""
    return "\n".join(map(format_one_line, _format_lines(report)))


def _format_lines(scan: ScanReport) -> Iterator[str]:
    splits = ", ".join(f"{pluralize(number, 'video')} in {split}" for split, number in scan.num_videos.items())
    yield f"{pluralize(scan.num_files, 'file')}, {scan.num_decoded:,} of them decoded in this scan: {splits}"
    rows = {
        "frames": f"{scan.num_frames:,}",
        "hours": f"{scan.seconds / 3600:,.2f}",
        "megabytes": f"{scan.num_bytes / 1e6:,.1f}",
        "frames per second": format_counts(scan.frame_rate_counts),
        "width x height": format_counts(scan.resolution_counts),
        "codec": format_counts(scan.codec_counts),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    if scan.num_missing:
        yield f"{pluralize(scan.num_missing, 'video')} of the official list: missing"
    yield from _format_files("broken", [f"{path} {reason}" for path, reason in scan.errors.items()])
    yield from _format_files(
        f"shorter than {pluralize(scan.min_frames, 'frame')}",
        [f"{path} has {pluralize(frames, 'frame')}" for path, frames in scan.short_videos.items()],
    )
    yield from _format_files(
        "whose header is wrong",
        [
            f"{path} states {stated_frames:,} frames, {frames:,} decode"
            for path, (stated_frames, frames) in scan.header_mismatches.items()
        ],
    )
    yield from _format_groups("the same bytes", scan.exact_duplicates)
    yield from _format_groups("nearly the same frames", scan.near_duplicates)
    yield f"list: {scan.manifest_path}, a dataset: --data {scan.manifest_path}"


def _format_files(what: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield f"{pluralize(len(sentences), 'file')} {what}:"
        yield from format_bullets(sentences, _MAX_LINES)


def _format_groups(what: str, groups: Sequence[DuplicateGroup]) -> Iterator[str]:
    if groups:
        files = len({path for group in groups for paths in group.values() for path in paths})
        between = sum(map(_spans_splits, groups))
        across = f"; {between:,} of them in more than one split" if between else ""
        yield f"{pluralize(len(groups), 'group')} of {what}, {pluralize(files, 'file')}{across}:"
        lines = ["; ".join(starmap(_format_split_paths, group.items())) for group in groups]
        yield from format_bullets(lines, _MAX_LINES)


def _format_split_paths(split: str, paths: Sequence[str]) -> str:
    return ("" if split == "all" else f"{split}: ") + join_first(paths, _MAX_PATHS)
