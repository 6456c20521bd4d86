"""What was asked about: files, folders, lists, pictures and addresses become one listing, each video once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vidstill.data.annotations import Listing, Row, read_listing, splits_of
from vidstill.data.folders import has_suffix
from vidstill.data.pictures import PICTURES, is_picture
from vidstill.data.places import is_file, last_name
from vidstill.data.sources import Piece, Place, Unreachable, name_of, place_of
from vidstill.data.video import VIDEOS, facts
from vidstill.encoders.videos import listing_of
from vidstill.types import InputError

WhichSplit = Literal["all", "train", "val"]

_LISTS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".list"})


@dataclass(frozen=True)
class Videos:
    """Videos in the order of their names.

    Args:
        names: what answers call them: as the only folder or list that was named calls them, else by their paths.
        left_out: what cannot be asked about, and why.
    """

    listing: Listing
    names: tuple[str, ...]
    left_out: Mapping[str, str]


def find_videos(
    places: Sequence[Place], *, split: WhichSplit = "all", root: Place | None = None, frames: int
) -> Videos:
    """The videos of all that is named; what cannot be read is left out.

    Args:
        split: of what has splits.
        root: the folder that a list's paths start from; None: the list's own.
        frames: of a clip; pictures are clips of one.

    Raises:
        InputError: there is nothing that can be asked about.
    """
    if not places:
        raise InputError("no videos are named; give files, folders or lists of them: vidstill predict RUN VIDEO…")
    found: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    for place in map(place_of, places):
        try:
            found |= _named(place, split, root, alone=len(places) == 1)
        except Unreachable:
            raise
        except InputError as error:
            left_out[str(place)] = str(error)
    for name in [name for name, row in found.items() if frames > 1 and is_picture(row.name)]:
        del found[name]
        left_out[name] = f"{name} is a picture, a clip of one frame, and the model was trained on clips of {frames}"
    if not found:
        more = f"; {len(left_out) - 1} more cannot be asked about either" if len(left_out) > 1 else ""
        raise InputError(next(iter(left_out.values())) + more)
    names = tuple(sorted(found))
    return Videos(listing_of(found[name] for name in names), names, left_out)


def _named(place: Place, split: WhichSplit, root: Place | None, *, alone: bool) -> dict[str, Row]:
    """The videos of one place by their names."""
    single = is_file(place) and has_suffix(last_name(place), VIDEOS | PICTURES)
    rows = [Row(place, None, name=last_name(place))] if single else _rows(place, split, root)
    if [row.source for row in rows] == [place]:
        return {str(place): rows[0]}
    if alone:
        return {row.name: row for row in rows}
    return {f"{place}/{row.name}" if isinstance(row.source, Piece) else name_of(row.source): row for row in rows}


def _rows(place: Place, split: WhichSplit, root: Place | None) -> list[Row]:
    try:
        splits = splits_of(place)
        asked = [None] if not splits else splits if split == "all" else [split]
        return [row for each in asked for row in read_listing(place, split=each, root=root).rows]
    except Unreachable:
        raise
    except InputError as error:
        if is_file(place) and not has_suffix(last_name(place), _LISTS):
            try:
                facts(place)
            except InputError:
                raise error from None
            return [Row(place, None, name=last_name(place))]
        raise
