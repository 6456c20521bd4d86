"""What is wrong with a data set's rows, as far as it shows without a look at the files: a sentence each."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from vidstill.data.annotations import Listing
from vidstill.data.words import counted

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
