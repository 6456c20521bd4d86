"""Looks at a data set before anything is trained on it: what it is taken for, what it holds, what is wrong with it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidstill.chance import numpy_chance
from vidstill.data.annotations import Listing, read_listing, splits_of
from vidstill.data.sources import BrokenVideo, name_of
from vidstill.data.video import VideoFacts, describe


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split, or the whole where there are none: its videos, and how many of them each class has."""

    kind: str
    videos: int
    classes: dict[str, int]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far values reach, and what half of them stay below."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread | None":
        if not values:
            return None
        least, median, most = (round(float(q), 3) for q in np.quantile(values, (0, 0.5, 1)))
        return cls(least=least, median=median, most=most)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a data set holds.

    Args:
        parts: by the name of the split, or "all".
        looked_at: how many files were opened for what follows.
        frames, seconds: of those files; no seconds where none has a frame rate.
        sizes: how many of them have which size, `width x height`, upright.
        problems: a sentence each.
    """

    source: Path
    parts: dict[str, Part]
    looked_at: int
    frames: Spread | None
    seconds: Spread | None
    sizes: dict[str, int]
    problems: tuple[str, ...]


def inspect(path: Path, *, root: Path | None = None, files: int = 32) -> Summary:
    """A summary of the data set, from all its rows and from `files` of its files, drawn evenly from its splits.

    Raises:
        InputError: it is no data set, or its list cannot be read.
    """
    listings: dict[str, Listing] = {split: read_listing(path, split=split, root=root) for split in splits_of(path)}
    named = listings or {"all": read_listing(path, root=root)}
    facts: list[VideoFacts] = []
    problems = _problems_of_rows(named)
    for listing in named.values():
        count = min(len(listing.rows), max(1, files // len(named)))
        for index in sorted(numpy_chance(0, "inspect").permutation(len(listing.rows))[:count]):
            try:
                facts.append(describe(listing.rows[int(index)].source))
            except BrokenVideo as error:
                problems.append(str(error))
    return Summary(
        source=path,
        parts={name: _part(listing) for name, listing in named.items()},
        looked_at=len(facts),
        frames=Spread.of([float(each.frames) for each in facts]),
        seconds=Spread.of([each.frames / each.rate for each in facts if each.rate]),
        sizes=dict(Counter(f"{each.width}x{each.height}" for each in facts).most_common()),
        problems=tuple(problems),
    )


def _part(listing: Listing) -> Part:
    counts = Counter(listing.rows.labels.tolist())
    classes = {name: counts[label] for label, name in enumerate(listing.classes)}
    return Part(kind=listing.kind, videos=len(listing.rows), classes=classes, fingerprint=listing.fingerprint)


def _problems_of_rows(listings: dict[str, Listing]) -> list[str]:
    problems = []
    seen: dict[str, str] = {}
    for split, listing in listings.items():
        empty = [name for name, count in _part(listing).classes.items() if count == 0]
        if empty:
            problems.append(f"{split}: no video of {', '.join(empty[:5])}{' …' if len(empty) > 5 else ''}")
        names = Counter(name_of(row.source) for row in listing.rows)
        if twice := [path for path, count in names.items() if count > 1]:
            problems.append(f"{split}: {len(twice)} videos are listed more than once, first {twice[0]}")
        if shared := [path for path in names if path in seen]:
            problems.append(f"{len(shared)} videos of {split} are in {seen[shared[0]]} too, first {shared[0]}")
        seen |= dict.fromkeys(names, split)
    return problems
