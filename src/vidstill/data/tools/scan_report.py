"""The report of a scan: the numbers, and the same as lines for a terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.tools.near_duplicates import group_near_duplicates
from vidstill.data.tools.probe import ScanRecord, VideoCounts, VideoStats, format_bullets, format_counts
from vidstill.utils.text import format_one_line, join_first, pluralize

_MAX_LINES, _MAX_PATHS = 20, 4  # lines of a kind, and paths in a line

VideoKey = tuple[str, str, int]
"""A video as a list names it: its path, and for a packed one the path of the shard and the offset in it."""

DuplicateGroup = dict[str, tuple[str, ...]]
"""The paths of videos that are equal or nearly equal, by split."""


@dataclass(frozen=True, kw_only=True)
class ScanReport(VideoCounts):
    """The files of a dataset, each counted once, and their problems."""

    manifest_path: Path  # the list that was written
    num_videos: dict[str, int]  # of each split, or of "all"; one file may be several videos
    num_missing: int  # videos that an official list names and that do not exist
    num_links_outside: int  # videos that lie outside the dataset behind links
    first_link_outside: str
    num_files: int
    num_decoded: int  # files that were decoded in this scan; the others were known from an earlier one
    num_frames: int
    seconds: float
    num_bytes: int  # of all files
    min_frames: int  # videos with fewer are short
    errors: dict[str, str]  # the reason, by path
    short_videos: dict[str, int]  # the number of frames, by path; images are left out
    header_mismatches: dict[str, tuple[int, int]]  # the number of frames that the header states and that decode
    exact_duplicates: tuple[DuplicateGroup, ...]  # files with the same bytes, and files in more than one split
    near_duplicates: tuple[DuplicateGroup, ...]  # files that look the same, see `near_duplicates.py`

    @property
    def is_clean(self) -> bool:
        """Whether every file decodes, and no video is in more than one split."""
        return not self.errors and not any(map(_spans_splits, self.exact_duplicates + self.near_duplicates))


def build_scan_report(
    manifest_path: Path,
    manifests: Mapping[str, Manifest],
    rows: Iterable[tuple[VideoKey, str, ScanRecord]],
    *,
    min_frames: int,
    num_decoded: int,
) -> ScanReport:
    """Build the report of a scan.

    Args:
        manifests: The splits of the dataset.
        rows: The key, the split and the record of each row; a file may be in several.
        manifest_path, min_frames, num_decoded: As in `ScanReport`.
    """
    stats, seconds = VideoStats(), 0.0
    splits: dict[VideoKey, list[str]] = {}  # of each file
    digests, signatures = list[bytes](), list[str]()
    errors, short_videos = dict[str, str](), dict[str, int]()
    header_mismatches: dict[str, tuple[int, int]] = {}
    for key, split, record in rows:
        if split in splits.setdefault(key, []):
            continue
        splits[key].append(split)
        if len(splits[key]) > 1:
            continue
        path = key[0]
        digests.append(bytes.fromhex(record.get("sha256", "")))
        signatures.append(record.get("signature", ""))
        seconds += record.get("seconds", 0)
        stats.add(record)
        if "error" in record:
            errors[path] = record["error"]
            continue
        if record["frames"] < min_frames and not is_image_file(path):
            short_videos[path] = record["frames"]
        if "header_frames" in record:
            header_mismatches[path] = record["header_frames"], record["frames"]
    files = [(path, each) for (path, _, _), each in splits.items()]
    order = sorted((i for i, digest in enumerate(digests) if digest), key=digests.__getitem__)
    equal = [list(group) for _, group in groupby(order, key=digests.__getitem__)]
    exact = [group for group in equal if len(group) > 1 or len(files[group[0]][1]) > 1]
    signed = [group for group in equal if signatures[group[0]]]
    near = group_near_duplicates([signatures[group[0]] for group in signed])
    near = [[i for index in group for i in signed[index]] for group in near]
    return ScanReport(
        manifest_path=manifest_path,
        num_videos={split: len(manifest) for split, manifest in manifests.items()},
        num_missing=sum(manifest.num_missing for manifest in manifests.values()),
        num_links_outside=sum(manifest.num_links_outside for manifest in manifests.values()),
        first_link_outside=next(filter(None, (each.first_link_outside for each in manifests.values())), ""),
        num_files=len(files),
        num_decoded=num_decoded,
        num_frames=sum(stats.frames),
        seconds=round(seconds, 3),
        num_bytes=sum(stats.file_sizes),
        min_frames=min_frames,
        errors=errors,
        short_videos=short_videos,
        header_mismatches=header_mismatches,
        exact_duplicates=_group_paths(files, exact, list(manifests)),
        near_duplicates=_group_paths(files, near, list(manifests)),
        **vars(stats.count()),
    )


def _group_paths(
    files: Sequence[tuple[str, list[str]]], groups: Sequence[list[int]], split_names: Sequence[str]
) -> tuple[DuplicateGroup, ...]:
    """Return the groups of more than one split first, otherwise in the order of the dataset."""
    named: list[DuplicateGroup] = []
    for group in sorted(map(sorted, groups)):
        paths = {split: tuple(files[i][0] for i in group if split in files[i][1]) for split in split_names}
        named.append({split: inside for split, inside in paths.items() if inside})
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
        **format_counts(scan),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    if scan.num_missing:
        yield f"{pluralize(scan.num_missing, 'video')} of the official list: missing"
    if scan.num_links_outside:
        videos = pluralize(scan.num_links_outside, "video")
        yield f"{videos} outside the dataset behind links, first {scan.first_link_outside}"
    mismatches = scan.header_mismatches.items()
    problems = {
        "broken": [f"{path} {reason}" for path, reason in scan.errors.items()],
        f"shorter than {pluralize(scan.min_frames, 'frame')}": [
            f"{path} has {pluralize(frames, 'frame')}" for path, frames in scan.short_videos.items()
        ],
        "whose header is wrong": [
            f"{path} states {header:,} frames, {frames:,} decode" for path, (header, frames) in mismatches
        ],
    }
    for problem, sentences in problems.items():
        if sentences:
            yield f"{pluralize(len(sentences), 'file')} {problem}:"
            yield from format_bullets(sentences, _MAX_LINES)
    yield from _format_groups("the same bytes", scan.exact_duplicates)
    yield from _format_groups("nearly the same frames", scan.near_duplicates)
    yield f"list: {scan.manifest_path}, a dataset: --data {scan.manifest_path}"


def _format_groups(what: str, groups: Sequence[DuplicateGroup]) -> Iterator[str]:
    if groups:
        files = len({path for group in groups for paths in group.values() for path in paths})
        between = sum(map(_spans_splits, groups))
        across = f"; {between:,} of them in more than one split" if between else ""
        yield f"{pluralize(len(groups), 'group')} of {what}, {pluralize(files, 'file')}{across}:"
        for_splits = (
            [("" if split == "all" else f"{split}: ") + join_first(paths, _MAX_PATHS) for split, paths in group.items()]
            for group in groups
        )
        yield from format_bullets(map("; ".join, for_splits), _MAX_LINES)
