"""Looks at a data set before anything is trained on it: what it is taken for, what it holds, what is wrong with it."""

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
from vidstill.utils.text import pluralize
from vidstill.utils.types import check_range


def open_split_manifests(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> dict[str, Manifest]:
    """A data set's splits by their names, or the whole as "all".

    Raises:
        InputError: it is no data set, or its list cannot be read.
    """
    splits = list_splits(path)
    if not splits:
        return {"all": open_manifest(path, root=root, fold=fold)}
    return {split: open_manifest(path, split=split, root=root, fold=fold) for split in splits}


def summarize_dataset(
    path: PathOrUrl, manifests: Mapping[str, Manifest], *, max_files: int = 32, progress: Callable[[int, int], None]
) -> DatasetSummary:
    """A summary of all rows and of what their list states of their videos, or, if it does not, of some of the files.

    Args:
        manifests: what there is at the path.
        max_files: how many are opened at most, drawn evenly from the splits.
        progress: is told of how many videos it is known what they are, and of how many it will be.

    Raises:
        Unreachable: a place does not answer.
    """
    check_range(0, math.inf, files=max_files)
    problems = find_manifest_problems(manifests)
    facts = read_manifest_stats(dict.fromkeys(listing.source for listing in manifests.values()))
    stated = len(facts)
    progress(stated, stated)
    drawn = [] if stated else _sample_rows(manifests, max_files)
    for number, row in enumerate(drawn, 1):
        try:
            add_video_stats(row, facts)
        except BrokenVideo as error:
            problems.append(str(error))
        progress(number, len(drawn))
    return DatasetSummary(
        source=path,
        splits={name: _summarize_split(listing) for name, listing in manifests.items()},
        num_from_manifest=stated,
        num_probed=len(drawn),
        frames=ValueStats.from_values(np.array(facts.frames)),
        seconds=ValueStats.from_values(facts.seconds),
        file_sizes=ValueStats.from_values(np.array(facts.file_sizes)),
        frame_rate_counts=facts.frame_rate_counts,
        resolution_counts=facts.resolution_counts,
        codec_counts=facts.codec_counts,
        problems=tuple(problems),
    )


def _summarize_split(listing: Manifest) -> SplitSummary:
    counts = np.bincount(listing.rows.list_label_pairs()[1], minlength=len(listing.classes)).tolist()
    twice = {name for name, number in Counter(listing.classes).items() if number > 1}
    return SplitSummary(
        description=listing.description,
        num_videos=len(listing.rows),
        class_counts={f"{name} ({i})" if name in twice else name: counts[i] for i, name in enumerate(listing.classes)},
        majority_share=max(counts) / len(listing.rows) if any(counts) else None,
        fingerprint=listing.fingerprint,
    )


def _sample_rows(listings: Mapping[str, Manifest], files: int) -> list[VideoRow]:
    """So many rows, evenly from the splits, less those of which a scan has said what is wrong with them."""
    rows = []
    for part, listing in enumerate(listings.values()):
        share = (files + part) // len(listings)  # the last take what is left over
        places = numpy_rng(0, "inspect").permutation(len(listing.rows))[:share]
        rows += [row for place in sorted(places.tolist()) if not (row := listing.rows[place]).error]
    return rows


_MAX_CLASS_NAMES = 5  # classes that a sentence names


def find_manifest_problems(manifests: Mapping[str, Manifest]) -> list[str]:
    """Sentences on each split, by its name, and on what splits have in common."""
    found = []
    earlier: dict[str, set[str]] = {}
    for split, listing in manifests.items():
        found += [*_find_class_problems(split, listing), *_find_file_problems(split, listing)]
        names = _list_full_names(listing)
        unique = set(names)
        if len(unique) < len(names):
            twice = [name for name, number in Counter(names).items() if number > 1]
            found.append(f"{split}: {pluralize(len(twice), 'video')} listed more than once, first {twice[0]}")
        for other, theirs in earlier.items():
            if shared := unique & theirs:
                first = next(name for name in names if name in shared)
                found.append(f"{split}: {pluralize(len(shared), 'video')} also in {other}, first {first}")
        earlier[split] = unique
    return found


def _find_class_problems(split: str, listing: Manifest) -> Iterator[str]:
    rows, labels = listing.rows, listing.rows.labels
    if not (labels >= 0).any():
        return
    if unlabelled := int((labels < 0).sum()):
        yield f"{split}: {pluralize(unlabelled, 'video')} without a label, beside {len(labels) - unlabelled:,} with one"
    counts = np.bincount(rows.list_label_pairs()[1], minlength=len(listing.classes))
    if empty := [listing.classes[label] for label in np.flatnonzero(counts == 0)]:
        more = f" and {len(empty) - _MAX_CLASS_NAMES:,} more classes" if len(empty) > _MAX_CLASS_NAMES else ""
        yield f"{split}: no video of {', '.join(empty[:_MAX_CLASS_NAMES])}{more}"
    if twice := [name for name, number in Counter(listing.classes).items() if number > 1]:
        yield f"{split}: more than one class is called {twice[0]}"


def _find_file_problems(split: str, listing: Manifest) -> Iterator[str]:
    if listing.num_missing:
        total = len(listing.rows) + listing.num_missing
        yield f"{split}: {listing.num_missing:,} of the {pluralize(total, 'video')} that the official list names are missing"
    if listing.rows.num_broken:
        first = next(row for row in listing.rows if row.error)
        told = f"first {first.name}, which {first.error}"
        yield f"{split}: {pluralize(listing.rows.num_broken, 'video')} stated to be broken, {told}"


def _list_full_names(listing: Manifest) -> list[str]:
    """Every video's whole path, or its name in the root that the packs lie in."""
    root = f"{listing.rows.root}/"
    names = map(listing.rows.get_name, range(len(listing.rows)))
    return [name if name[0] == "/" or "://" in name else root + name for name in names]
