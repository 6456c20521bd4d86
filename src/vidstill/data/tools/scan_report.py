"""What a scan found in a data set, in numbers, and the same in words for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, starmap
from pathlib import Path

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.tools.near_duplicates import group_near_duplicates
from vidstill.data.tools.probe import ScanRecord
from vidstill.data.tools.stats import VideoStats
from vidstill.utils.text import format_one_line, pluralize

_MAX_LINES, _MAX_PATHS = 20, 4  # lines of a kind, and names in a line
_MAX_VALUES = 5  # of frame rates, sizes and codecs

DuplicateGroup = dict[str, tuple[str, ...]]
"""Paths of videos that are alike, by the split that they are in."""


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """What the files of a data set are, each counted once, and what is wrong with them.

    Args:
        manifest_path: the list that was written.
        num_videos: of each split, or of "all"; one file may be several.
        num_missing: videos that an official list names and that are not there.
        num_decoded: how many files were decoded this time; of the others it was known.
        num_bytes: of the files.
        rates, sizes, codecs: how many files have which frames per second, which `width x height`, which codec.
        errors: why, by path.
        short_videos: frames, by path, of videos that have fewer than `min_frames`; pictures are none.
        header_mismatches: by path, the frames that the header states, and those that there are.
        exact_duplicates: groups of files of the same bytes, and files that are in more than one split.
        near_duplicates: groups of files that look alike, as `vidstill.data.tools.near_duplicates` says.
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
        """Whether every file decodes, and nothing that is trained on is tested on."""
        return not self.errors and not any(map(_spans_splits, self.exact_duplicates + self.near_duplicates))


class ScanReportBuilder:
    """Is told of every row of a data set, and gives a scan."""

    def __init__(self, manifest_path: Path, manifests: Mapping[str, Manifest], min_frames: int, *, num_decoded: int):
        self._manifest_path, self._manifests, self._min_frames, self._num_decoded = (
            manifest_path,
            manifests,
            min_frames,
            num_decoded,
        )
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
        """A row, by what its list calls it."""
        number = self._key_to_idx.setdefault(key, len(self._paths))
        if number < len(self._paths):
            if split not in self._splits[number]:
                self._splits[number] += (split,)
            return
        path = key[0]
        self._paths.append(path)
        self._splits.append((split,))
        self._digests.append(bytes.fromhex(record.get("sha256", "")))
        self._signatures.append(record.get("looks", ""))
        self._seconds += record.get("seconds", 0)
        size = (record["width"], record["height"]) if "width" in record else None
        self._stats.add(record["frames"], record.get("rate"), size, record.get("codec", ""), record["bytes"])
        if "wrong" in record:
            self._errors[path] = record["wrong"]
            return
        if record["frames"] < self._min_frames and not is_image_file(path):
            self._short_videos[path] = record["frames"]
        if "stated" in record:
            self._header_mismatches[path] = record["stated"], record["frames"]

    def build(self) -> ScanReport:
        same, near = self._find_duplicates()
        return ScanReport(
            manifest_path=self._manifest_path,
            num_videos={split: len(listing.rows) for split, listing in self._manifests.items()},
            num_missing=sum(listing.num_missing for listing in self._manifests.values()),
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
            exact_duplicates=same,
            near_duplicates=near,
        )

    def _find_duplicates(self) -> tuple[tuple[DuplicateGroup, ...], tuple[DuplicateGroup, ...]]:
        """The groups of the same bytes, and those of the same looks, of which some may have the same bytes as well."""
        digests = self._digests
        order = sorted((i for i in range(len(digests)) if digests[i]), key=lambda i: digests[i])
        alike = [list(group) for _, group in groupby(order, key=lambda i: digests[i])]
        same = [group for group in alike if len(group) > 1 or len(self._splits[group[0]]) > 1]
        seen = [group for group in alike if self._signatures[group[0]]]
        near = group_near_duplicates([self._signatures[group[0]] for group in seen])
        return self._group_paths(same), self._group_paths([[i for each in group for i in seen[each]] for group in near])

    def _group_paths(self, groups: Sequence[list[int]]) -> tuple[DuplicateGroup, ...]:
        """Those that are in more than one split first, else in the order of the data set."""
        named = []
        for group in sorted(map(sorted, groups)):
            splits = [split for split in self._manifests if any(split in self._splits[i] for i in group)]
            named.append({split: tuple(self._paths[i] for i in group if split in self._splits[i]) for split in splits})
        return tuple(sorted(named, key=lambda group: not _spans_splits(group)))


def _spans_splits(group: DuplicateGroup) -> bool:
    return len(group) > 1


def format_scan_report(report: ScanReport) -> str:
    """The scan as lines; of many, the first."""
    return "\n".join(map(format_one_line, _format_lines(report)))


def _format_lines(scan: ScanReport) -> Iterator[str]:
    splits = ", ".join(f"{pluralize(number, 'video')} in {split}" for split, number in scan.num_videos.items())
    yield f"{pluralize(scan.num_files, 'file')}, {scan.num_decoded:,} of them decoded now: {splits}"
    rows = {
        "frames": f"{scan.num_frames:,}",
        "hours": f"{scan.seconds / 3600:,.2f}",
        "megabytes": f"{scan.num_bytes / 1e6:,.1f}",
        "frames per second": _format_counts(scan.frame_rate_counts),
        "width x height": _format_counts(scan.resolution_counts),
        "codec": _format_counts(scan.codec_counts),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    if scan.num_missing:
        yield f"{pluralize(scan.num_missing, 'video')} of the official list: missing"
    yield from _format_files("broken", [f"{path} {why}" for path, why in scan.errors.items()])
    yield from _format_files(
        f"shorter than {pluralize(scan.min_frames, 'frame')}",
        [f"{path} has {pluralize(frames, 'frame')}" for path, frames in scan.short_videos.items()],
    )
    yield from _format_files(
        "whose header is wrong",
        [
            f"{path} states {stated:,} frames, {there:,} decode"
            for path, (stated, there) in scan.header_mismatches.items()
        ],
    )
    yield from _format_groups("the same bytes", scan.exact_duplicates)
    yield from _format_groups("nearly the same pictures", scan.near_duplicates)
    yield f"list: {scan.manifest_path}, a data set: --data {scan.manifest_path}"


def _format_counts(counts: Mapping[str, int]) -> str:
    """`25 (30), 29.97 (2)`, the most frequent first."""
    named = [f"{name} ({count:,})" for name, count in list(counts.items())[:_MAX_VALUES]]
    return ", ".join(named + ([f"{len(counts) - _MAX_VALUES:,} more"] if len(counts) > _MAX_VALUES else []))


def _format_files(what: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield f"{pluralize(len(sentences), 'file')} {what}:"
        yield from _format_bullets(sentences)


def _format_groups(what: str, groups: Sequence[DuplicateGroup]) -> Iterator[str]:
    if groups:
        files = len({path for group in groups for paths in group.values() for path in paths})
        between = sum(map(_spans_splits, groups))
        across = f"; {between:,} of them in more than one split" if between else ""
        yield f"{pluralize(len(groups), 'group')} of {what}, {pluralize(files, 'file')}{across}:"
        yield from _format_bullets(["; ".join(starmap(_format_split_paths, group.items())) for group in groups])


def _format_split_paths(split: str, paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _MAX_PATHS:,} more" if len(paths) > _MAX_PATHS else ""
    return f"{'' if split == 'all' else f'{split}: '}{', '.join(paths[:_MAX_PATHS])}{more}"


def _format_bullets(sentences: list[str]) -> Iterator[str]:
    yield from (f"- {sentence}" for sentence in sentences[:_MAX_LINES])
    if len(sentences) > _MAX_LINES:
        yield f"- … {len(sentences) - _MAX_LINES:,} more (--json shows all)"
