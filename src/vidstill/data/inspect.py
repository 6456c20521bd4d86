"""Looks at a data set before anything is trained on it: what it is taken for, what it holds, what is wrong with it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from vidstill.chance import numpy_chance
from vidstill.data.annotations import Listing, read_listing, splits_of
from vidstill.data.looks import look_at
from vidstill.data.problems import problems_of_rows
from vidstill.data.rows import Row
from vidstill.data.sources import BrokenVideo, Place
from vidstill.data.stated import stated_by
from vidstill.data.summary import Part, Spread, Summary
from vidstill.types import within


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
