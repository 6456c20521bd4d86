"""A dataset before training: the splits and classes that are found, the facts of its videos, and its problems."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl
from vidstill.data.tools.probe import VideoCounts, format_bullets, format_counts, read_manifest_stats, read_video_facts
from vidstill.utils.rng import numpy_rng
from vidstill.utils.text import format_one_line, join_first, pluralize
from vidstill.utils.types import check_range

_MAX_CLASS_LINES, _NUM_END_LINES = 12, 5  # of more classes, so many of the largest and of the smallest are shown
_MAX_CLASS_NAMES, _MAX_PROBLEMS = 5, 20


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """A split, or the whole dataset where it has none."""

    description: str
    noun: Literal["image", "video"]  # what the files are
    num_videos: int  # or images
    class_counts: dict[str, int]  # videos of each class, by its name; empty where there are no labels
    majority_share: float | None  # of the largest class, in [0, 1]: the accuracy of always predicting it
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ValueStats:
    """The range and the median of some values."""

    min: float
    median: float
    max: float

    @classmethod
    def from_values(cls, values: np.ndarray) -> "ValueStats | None":
        if not values.size:
            return None
        low, median, high = (round(float(q), 3) for q in np.quantile(values, (0, 0.5, 1)))
        return cls(min=low, median=median, max=high)


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(VideoCounts):
    """The content of a dataset."""

    source: PathOrUrl
    splits: dict[str, SplitSummary]  # by name, or "all"
    num_from_manifest: int  # videos whose facts the list states; no file is opened then
    num_probed: int  # files that were opened for the facts
    frames: ValueStats | None  # of a video
    seconds: ValueStats | None  # of a video; None where no video has a frame rate
    file_sizes: ValueStats | None  # in bytes
    problems: tuple[str, ...]  # one sentence each


def summarize_dataset(
    path: PathOrUrl, manifests: Mapping[str, Manifest], *, max_files: int = 32, progress: Callable[[int, int], None]
) -> DatasetSummary:
    """Summarize all rows, and the facts that their list states; where it does not, the facts of some files.

    Args:
        max_files: How many files are opened at most, the same number from each split.
        progress: Called with the number of videos whose facts are known, and of those that will be.

    Raises:
        StorageUnreachable: A URL does not answer.
    """
    check_range(0, math.inf, max_files=max_files)
    problems = list(_find_problems(manifests))
    stats = read_manifest_stats(manifest.rows for manifest in manifests.values())
    num_stated = len(stats)
    progress(num_stated, num_stated)
    sample: list[VideoRow] = []  # random rows, as many of each split; the last splits take the remainder
    for split, manifest in enumerate(() if num_stated else manifests.values()):
        indices = numpy_rng(0, "inspect").permutation(len(manifest))[: (max_files + split) // len(manifests)]
        sample += [row for index in sorted(indices.tolist()) if not (row := manifest.rows[index]).error]
    for number, row in enumerate(sample, 1):
        try:
            stats.add(read_video_facts(row))
        except BrokenVideo as error:
            problems.append(str(error))
        progress(number, len(sample))
    return DatasetSummary(
        source=path,
        splits={name: summarize_split(manifest) for name, manifest in manifests.items()},
        num_from_manifest=num_stated,
        num_probed=len(sample),
        frames=ValueStats.from_values(np.array(stats.frames)),
        seconds=ValueStats.from_values(stats.seconds),
        file_sizes=ValueStats.from_values(np.array(stats.file_sizes)),
        problems=tuple(problems),
        **vars(stats.count()),
    )


def summarize_split(manifest: Manifest) -> SplitSummary:
    """Summarize the rows of one split."""
    classes, duplicates, counts = manifest.classes, _find_duplicates(manifest.classes), _count_labels(manifest).tolist()
    return SplitSummary(
        description=manifest.description,
        noun=manifest.noun,
        num_videos=len(manifest),
        class_counts={f"{name} ({i})" if name in duplicates else name: counts[i] for i, name in enumerate(classes)},
        majority_share=max(counts) / len(manifest) if any(counts) else None,
        fingerprint=manifest.fingerprint,
    )


def _count_labels(manifest: Manifest) -> np.ndarray:
    return np.bincount(manifest.rows.list_label_pairs()[1], minlength=len(manifest.classes))


def _find_duplicates(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _find_problems(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Yield sentences about each split, by its name, and about videos that splits share."""
    previous: dict[str, set[str]] = {}
    for split, manifest in manifests.items():
        rows, root = manifest.rows, f"{manifest.rows.root}/"
        yield from (f"{split}: {problem}" for problem in _find_split_problems(manifest))
        # full paths; of a packed video, its name in the root of the packs
        names = [
            name if name[0] == "/" or "://" in name else root + name for name in map(rows.get_name, range(len(rows)))
        ]
        if duplicates := _find_duplicates(names):
            yield f"{split}: {pluralize(len(duplicates), manifest.noun)} listed more than once, first {duplicates[0]}"
        for other, other_names in previous.items():
            if shared := other_names.intersection(names):
                first = next(name for name in names if name in shared)
                yield f"{split}: {pluralize(len(shared), manifest.noun)} also in {other}, first {first}"
        previous[split] = set(names)


def _find_split_problems(manifest: Manifest) -> Iterator[str]:
    rows, classes, noun = manifest.rows, manifest.classes, manifest.noun
    num_labelled = int((rows.labels >= 0).sum())
    if num_labelled:
        if num_labelled < len(rows):
            yield f"{pluralize(len(rows) - num_labelled, noun)} without a label, beside {num_labelled:,} with one"
        if empty := [classes[label] for label in np.flatnonzero(_count_labels(manifest) == 0)]:
            more = " classes" if len(empty) > _MAX_CLASS_NAMES else ""
            yield f"no {noun} of {join_first(empty, _MAX_CLASS_NAMES)}{more}"
        if duplicates := _find_duplicates(classes):
            yield f"more than one class is called {duplicates[0]}"
    if manifest.num_missing:
        total = pluralize(len(rows) + manifest.num_missing, noun)
        yield f"{manifest.num_missing:,} of the {total} that the official list names are missing"
    if rows.errors:
        first = rows[min(rows.errors)]
        yield f"{pluralize(len(rows.errors), noun)} stated to be broken, first {first.name}, which {first.error}"


def format_dataset_summary(summary: DatasetSummary) -> str:
    """Format a summary as lines; of many classes, the largest and the smallest."""
    return "\n".join(map(format_one_line, _format_lines(summary)))


def _format_lines(summary: DatasetSummary) -> Iterator[str]:
    yield str(summary.source)
    for name, split in summary.splits.items():
        yield ""
        yield f"{name}: {format_split(split)}"
        yield f"  {split.description}; fingerprint {split.fingerprint[:12]}"
        yield from _format_class_counts(split.class_counts)
    yield ""
    if summary.num_from_manifest:
        yield f"stated by the list for {pluralize(summary.num_from_manifest, 'file')}:"
    else:
        yield f"{pluralize(summary.num_probed, 'file')} opened" + (":" if summary.frames else "")
    rows = {
        "frames": _format_stats(summary.frames),
        "seconds": _format_stats(summary.seconds),
        **format_counts(summary),
        "bytes": _format_stats(summary.file_sizes),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    yield ""
    yield f"{pluralize(len(summary.problems), 'problem')}:" if summary.problems else "no problems found"
    yield from format_bullets(summary.problems, _MAX_PROBLEMS)


def format_split(split: SplitSummary) -> str:
    """Return the numbers of videos and classes in one line."""
    videos = pluralize(split.num_videos, split.noun)
    if split.majority_share is None:
        return f"{videos} without labels"
    low, high = min(split.class_counts.values()), max(split.class_counts.values())
    each = f"{high:,} each" if low == high else f"{low:,} to {high:,} each"
    majority = f"; always predicting the largest: {100 * split.majority_share:.1f} % accuracy" if low < high else ""
    return f"{videos} in {pluralize(len(split.class_counts), 'class')}, {each}{majority}"


def _format_class_counts(counts: Mapping[str, int]) -> list[str]:
    """Return a line for each class, the largest first; of many classes, those at both ends."""
    rows = [f"  {count:>9,}  {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    if len(rows) > _MAX_CLASS_LINES:
        num_hidden = len(rows) - 2 * _NUM_END_LINES
        rows[_NUM_END_LINES:-_NUM_END_LINES] = [f"  {'…':>9}  {num_hidden:,} more classes (--json shows all)"]
    return rows


def _format_stats(stats: ValueStats | None) -> str:
    if stats is None:
        return ""
    low, median, high = (
        f"{value:,.0f}" if value >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")
        for value in (stats.min, stats.median, stats.max)
    )
    return low if low == high else f"{low} to {high}, median {median}"
