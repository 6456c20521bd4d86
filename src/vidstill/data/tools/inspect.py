"""Looks at a data set before anything is trained on it: what it is taken for, what it holds, what is wrong with it."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import read_listing, splits_of
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Place
from vidstill.data.tools.preview import look_at
from vidstill.data.tools.stats import Part, Spread, Summary, stated_by
from vidstill.utils.rng import numpy_chance
from vidstill.utils.text import counted
from vidstill.utils.types import within


def listings_of(path: Place, *, root: Place | None = None, fold: int = 1) -> dict[str, Listing]:
    """A data set's splits by their names, or the whole as "all".

    Raises:
        InputError: it is no data set, or its list cannot be read.
    """
    splits = splits_of(path)
    if not splits:
        return {"all": read_listing(path, root=root, fold=fold)}
    return {split: read_listing(path, split=split, root=root, fold=fold) for split in splits}


def inspect(
    path: Place, listings: Mapping[str, Listing], *, files: int = 32, done: Callable[[int, int], None]
) -> Summary:
    """A summary of all rows and of what their list states of their videos, or, if it does not, of some of the files.

    Args:
        listings: what there is at the path.
        files: how many are opened at most, drawn evenly from the splits.
        done: is told of how many videos it is known what they are, and of how many it will be.

    Raises:
        Unreachable: a place does not answer.
    """
    within(0, math.inf, files=files)
    problems = problems_of_rows(listings)
    facts = stated_by(dict.fromkeys(listing.source for listing in listings.values()))
    stated = len(facts)
    done(stated, stated)
    drawn = [] if stated else _drawn(listings, files)
    for number, row in enumerate(drawn, 1):
        try:
            look_at(row, facts)
        except BrokenVideo as error:
            problems.append(str(error))
        done(number, len(drawn))
    return Summary(
        source=path,
        parts={name: _part(listing) for name, listing in listings.items()},
        stated=stated,
        looked_at=len(drawn),
        frames=Spread.of(np.array(facts.frames)),
        seconds=Spread.of(facts.seconds),
        bytes=Spread.of(np.array(facts.bytes)),
        rates=facts.rates,
        sizes=facts.sizes,
        codecs=facts.codecs,
        problems=tuple(problems),
    )


def _part(listing: Listing) -> Part:
    counts = np.bincount(listing.rows.pairs()[1], minlength=len(listing.classes)).tolist()
    twice = {name for name, number in Counter(listing.classes).items() if number > 1}
    return Part(
        kind=listing.kind,
        videos=len(listing.rows),
        classes={f"{name} ({i})" if name in twice else name: counts[i] for i, name in enumerate(listing.classes)},
        largest_share=max(counts) / len(listing.rows) if any(counts) else None,
        fingerprint=listing.fingerprint,
    )


def _drawn(listings: Mapping[str, Listing], files: int) -> list[Row]:
    """So many rows, evenly from the splits, less those of which a scan has said what is wrong with them."""
    rows = []
    for part, listing in enumerate(listings.values()):
        share = (files + part) // len(listings)  # the last take what is left over
        places = numpy_chance(0, "inspect").permutation(len(listing.rows))[:share]
        rows += [row for place in sorted(places.tolist()) if not (row := listing.rows[place]).wrong]
    return rows


_NAMED = 5  # classes that a sentence names


def problems_of_rows(listings: Mapping[str, Listing]) -> list[str]:
    """Sentences on each split, by its name, and on what splits have in common."""
    found = []
    earlier: dict[str, set[str]] = {}
    for split, listing in listings.items():
        found += [*_of_classes(split, listing), *_of_files(split, listing)]
        names = _names(listing)
        unique = set(names)
        if len(unique) < len(names):
            twice = [name for name, number in Counter(names).items() if number > 1]
            found.append(f"{split}: {counted(len(twice), 'video')} listed more than once, first {twice[0]}")
        for other, theirs in earlier.items():
            if shared := unique & theirs:
                first = next(name for name in names if name in shared)
                found.append(f"{split}: {counted(len(shared), 'video')} also in {other}, first {first}")
        earlier[split] = unique
    return found


def _of_classes(split: str, listing: Listing) -> Iterator[str]:
    rows, labels = listing.rows, listing.rows.labels
    if not (labels >= 0).any():
        return
    if unlabelled := int((labels < 0).sum()):
        yield f"{split}: {counted(unlabelled, 'video')} without a label, beside {len(labels) - unlabelled:,} with one"
    counts = np.bincount(rows.pairs()[1], minlength=len(listing.classes))
    if empty := [listing.classes[label] for label in np.flatnonzero(counts == 0)]:
        more = f" and {len(empty) - _NAMED:,} more classes" if len(empty) > _NAMED else ""
        yield f"{split}: no video of {', '.join(empty[:_NAMED])}{more}"
    if twice := [name for name, number in Counter(listing.classes).items() if number > 1]:
        yield f"{split}: more than one class is called {twice[0]}"


def _of_files(split: str, listing: Listing) -> Iterator[str]:
    if listing.missing:
        total = len(listing.rows) + listing.missing
        yield f"{split}: {listing.missing:,} of the {counted(total, 'video')} that the official list names are missing"
    if listing.rows.wrong:
        first = next(row for row in listing.rows if row.wrong)
        told = f"first {first.name}, which {first.wrong}"
        yield f"{split}: {counted(listing.rows.wrong, 'video')} stated to be broken, {told}"


def _names(listing: Listing) -> list[str]:
    """Every video's whole path, or its name in the root that the packs lie in."""
    root = f"{listing.rows.root}/"
    names = map(listing.rows.name, range(len(listing.rows)))
    return [name if name[0] == "/" or "://" in name else root + name for name in names]
