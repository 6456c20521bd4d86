"""What the automatic recipe decides by: what can be counted of videos and of a machine, and nothing that takes time."""

import os
import re
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from vidstill.data.decode.images import is_picture
from vidstill.data.manifest.manifest import Listing
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.preview import look_at
from vidstill.data.tools.stats import Facts, stated_by
from vidstill.engine.distributed import cores
from vidstill.recipes.auto.defaults import RULES, Kind
from vidstill.utils.rng import numpy_chance
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What is known of the videos to train on.

    Args:
        of_class: clips of each class.
        frames, seconds, rate, short_side, wide: of a clip in the middle of those that were looked at; how many times
            as long the longer side is as the shorter one. Without a frame rate, no seconds.
        handed: a class is called left or right, so that a mirrored clip may be another class's.
        looked_at: files.
    """

    clips: int
    of_class: tuple[int, ...]
    pictures: bool
    frames: int
    seconds: float | None
    rate: float | None
    short_side: int
    wide: float
    handed: bool
    looked_at: int


EXAMPLE = DataFacts(
    clips=400,
    of_class=(100, 100, 100, 100),
    pictures=False,
    frames=100,
    seconds=4.0,
    rate=25.0,
    short_side=240,
    wide=1.33,
    handed=False,
    looked_at=0,
)
"""What stands for the data where there are none to look at."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    kind: Kind
    count: int  # cores, or GPUs
    processes: int = 1

    def __str__(self) -> str:
        noun = "core" if self.kind == "cpu" else "GPU"
        return f"{self.count} {noun}{'' if self.count == 1 else 's'}"


def facts_of(listing: Listing, *, files: int = RULES.looked_at) -> DataFacts:
    """What a list states of its videos, or what some of their files are.

    Raises:
        InputError: none of those that were looked at decodes.
    """
    rows = listing.rows
    known, wrong = stated_by([listing.source]), ""
    if not len(known) or not known.sizes:
        known = Facts()
        for place in sorted(numpy_chance(0, "auto").permutation(len(rows))[:files].tolist()):
            try:
                look_at(rows[place], known)
            except BrokenVideo as error:
                wrong = wrong or str(error)
    if not len(known):
        raise InputError(f"none of the videos of {listing.source} that were looked at decodes; {wrong}")
    sizes = [tuple(map(int, size.split("x"))) for size, count in known.sizes.items() for _ in range(count)]
    words = {word for name in listing.classes for word in re.findall(r"[a-z]+", name.lower())}
    return DataFacts(
        clips=len(rows),
        of_class=tuple(np.bincount(rows.pairs()[1], minlength=len(listing.classes)).tolist()),
        pictures=is_picture(rows.name(0)),
        frames=int(median(known.frames)),
        seconds=float(np.median(known.seconds)) if len(known.seconds) else None,
        rate=float(next(iter(known.rates))) if known.rates else None,
        short_side=int(median(map(min, sizes))),
        wide=round(median(max(size) / min(size) for size in sizes), 2),
        handed=bool(words & {"left", "right", "leftwards", "rightwards"}),
        looked_at=min(files, len(known)),
    )


def machine() -> Machine:
    """This one, and the processes that were started on it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.accelerator.is_available():
        return Machine(kind="gpu", count=processes, processes=processes)
    return Machine(kind="cpu", count=cores(), processes=processes)
