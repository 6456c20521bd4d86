"""A dataset before training: the splits and classes that are found, the facts of its videos, and its problems."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl
from vidstill.data.tools.preview import add_video_stats
from vidstill.data.tools.stats import DatasetSummary, SplitSummary, ValueStats, read_manifest_stats
from vidstill.utils.rng import numpy_rng
from vidstill.utils.text import join_first, pluralize
from vidstill.utils.types import check_range

_MAX_CLASS_NAMES = 5


def open_split_manifests(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> dict[str, Manifest]:
    """Return the splits of a dataset by name, or the whole as "all".

    Raises:
        InputError: It is no dataset, or its list cannot be read.
    """
    splits = list_splits(path)
    if not splits:
        return {"all": open_manifest(path, root=root, fold=fold)}
    return {split: open_manifest(path, split=split, root=root, fold=fold) for split in splits}


def summarize_dataset(
    path: PathOrUrl, manifests: Mapping[str, Manifest], *, max_files: int = 32, progress: Callable[[int, int], None]
) -> DatasetSummary:
    """Summarize all rows, and the facts that their list states; where it does not, the facts of some files.

    Args:
        manifests: The splits of the dataset.
        max_files: How many files are opened at most, the same number from each split.
        progress: Called with the number of videos whose facts are known, and of those that will be.

    Raises:
        StorageUnreachable: A URL does not answer.
    """
    check_range(0, math.inf, max_files=max_files)
    problems = find_manifest_problems(manifests)
    stats = read_manifest_stats(manifest.rows for manifest in manifests.values())
    num_stated = len(stats)
    progress(num_stated, num_stated)
    sample = [] if num_stated else _sample_rows(manifests, max_files)
    for number, row in enumerate(sample, 1):
        try:
            add_video_stats(row, stats)
        except BrokenVideo as error:
            problems.append(str(error))
        progress(number, len(sample))
    return DatasetSummary(
        source=path,
        splits={name: _summarize_split(manifest) for name, manifest in manifests.items()},
        num_from_manifest=num_stated,
        num_probed=len(sample),
        frames=ValueStats.from_values(np.array(stats.frames)),
        seconds=ValueStats.from_values(stats.seconds),
        file_sizes=ValueStats.from_values(np.array(stats.file_sizes)),
        frame_rate_counts=stats.frame_rate_counts,
        resolution_counts=stats.resolution_counts,
        codec_counts=stats.codec_counts,
        problems=tuple(problems),
    )


def _summarize_split(manifest: Manifest) -> SplitSummary:
    classes, duplicates = manifest.classes, _find_duplicates(manifest.classes)
    counts = _count_labels(manifest).tolist()
    return SplitSummary(
        description=manifest.description,
        num_videos=len(manifest),
        class_counts={f"{name} ({i})" if name in duplicates else name: counts[i] for i, name in enumerate(classes)},
        majority_share=max(counts) / len(manifest) if any(counts) else None,
        fingerprint=manifest.fingerprint,
    )


def _count_labels(manifest: Manifest) -> np.ndarray:
    return np.bincount(manifest.rows.list_label_pairs()[1], minlength=len(manifest.classes))


def _find_duplicates(names: tuple[str, ...] | list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _sample_rows(manifests: Mapping[str, Manifest], max_files: int) -> list[VideoRow]:
    """Return random rows, as many of each split, without those that are known to be broken."""
    rows = []
    for split, manifest in enumerate(manifests.values()):
        share = (max_files + split) // len(manifests)  # the last splits take the remainder
        indices = numpy_rng(0, "inspect").permutation(len(manifest))[:share]
        rows += [row for index in sorted(indices.tolist()) if not (row := manifest.rows[index]).error]
    return rows


def find_manifest_problems(manifests: Mapping[str, Manifest]) -> list[str]:
    """Return sentences about each split, by its name, and about videos that splits share."""
    problems: list[str] = []
    previous: dict[str, set[str]] = {}
    for split, manifest in manifests.items():
        problems += [f"{split}: {problem}" for problem in _find_problems(manifest)]
        names = _list_full_names(manifest)
        unique = set(names)
        if len(unique) < len(names):
            duplicates = _find_duplicates(names)
            count = pluralize(len(duplicates), "video")
            problems.append(f"{split}: {count} listed more than once, first {duplicates[0]}")
        for other, other_names in previous.items():
            if shared := unique & other_names:
                first = next(name for name in names if name in shared)
                problems.append(f"{split}: {pluralize(len(shared), 'video')} also in {other}, first {first}")
        previous[split] = unique
    return problems


def _find_problems(manifest: Manifest) -> Iterator[str]:
    rows, classes = manifest.rows, manifest.classes
    num_labelled = int((rows.labels >= 0).sum())
    if num_labelled:
        if num_labelled < len(rows):
            yield f"{pluralize(len(rows) - num_labelled, 'video')} without a label, beside {num_labelled:,} with one"
        if empty := [classes[label] for label in np.flatnonzero(_count_labels(manifest) == 0)]:
            more = " classes" if len(empty) > _MAX_CLASS_NAMES else ""
            yield f"no video of {join_first(empty, _MAX_CLASS_NAMES)}{more}"
        if duplicates := _find_duplicates(classes):
            yield f"more than one class is called {duplicates[0]}"
    if manifest.num_missing:
        total = pluralize(len(rows) + manifest.num_missing, "video")
        yield f"{manifest.num_missing:,} of the {total} that the official list names are missing"
    if rows.errors:
        first = rows[min(rows.errors)]
        yield f"{pluralize(rows.num_broken, 'video')} stated to be broken, first {first.name}, which {first.error}"


def _list_full_names(manifest: Manifest) -> list[str]:
    """Return the full path of every video; of a packed one, its name in the root of the packs."""
    root = f"{manifest.rows.root}/"
    names = map(manifest.rows.get_name, range(len(manifest)))
    return [name if name[0] == "/" or "://" in name else root + name for name in names]
