"""What a scan found in a data set, in numbers, and the same in words for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, starmap
from pathlib import Path

from vidstill.data.decode.images import is_picture
from vidstill.data.manifest.manifest import Listing
from vidstill.data.tools.near_duplicates import near_groups
from vidstill.data.tools.probe import Found
from vidstill.data.tools.stats import Facts
from vidstill.utils.text import counted, one_line

_SHOWN, _NAMED = 20, 4  # lines of a kind, and names in a line
_VALUES = 5  # of frame rates, sizes and codecs

Group = dict[str, tuple[str, ...]]
"""Paths of videos that are alike, by the split that they are in."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the files of a data set are, each counted once, and what is wrong with them.

    Args:
        manifest: the list that was written.
        videos: of each split, or of "all"; one file may be several.
        missing: videos that an official list names and that are not there.
        decoded: how many files were decoded this time; of the others it was known.
        bytes: of the files.
        rates, sizes, codecs: how many files have which frames per second, which `width x height`, which codec.
        broken: why, by path.
        short: frames, by path, of videos that have fewer than `min_frames`; pictures are none.
        misstated: by path, the frames that the header states, and those that there are.
        same: groups of files of the same bytes, and files that are in more than one split.
        near: groups of files that look alike, as `vidstill.data.tools.near_duplicates` says.
    """

    manifest: Path
    videos: dict[str, int]
    missing: int
    files: int
    decoded: int
    frames: int
    seconds: float
    bytes: int
    rates: dict[str, int]
    sizes: dict[str, int]
    codecs: dict[str, int]
    min_frames: int
    broken: dict[str, str]
    short: dict[str, int]
    misstated: dict[str, tuple[int, int]]
    same: tuple[Group, ...]
    near: tuple[Group, ...]

    @property
    def good(self) -> bool:
        """Whether every file decodes, and nothing that is trained on is tested on."""
        return not self.broken and not any(map(_across, self.same + self.near))


class Findings:
    """Is told of every row of a data set, and gives a scan."""

    def __init__(self, manifest: Path, listings: Mapping[str, Listing], min_frames: int, *, decoded: int):
        self._manifest, self._listings, self._min_frames, self._decoded = manifest, listings, min_frames, decoded
        self._facts, self._seconds = Facts(), 0.0
        self._number: dict[tuple[str, str, int], int] = {}
        self._paths: list[str] = []
        self._splits: list[tuple[str, ...]] = []
        self._digests: list[bytes] = []
        self._looks: list[str] = []
        self._broken: dict[str, str] = {}
        self._short: dict[str, int] = {}
        self._misstated: dict[str, tuple[int, int]] = {}

    def add(self, key: tuple[str, str, int], split: str, found: Found) -> None:
        """A row, by what its list calls it."""
        number = self._number.setdefault(key, len(self._paths))
        if number < len(self._paths):
            if split not in self._splits[number]:
                self._splits[number] += (split,)
            return
        path = key[0]
        self._paths.append(path)
        self._splits.append((split,))
        self._digests.append(bytes.fromhex(found.get("sha256", "")))
        self._looks.append(found.get("looks", ""))
        self._seconds += found.get("seconds", 0)
        size = (found["width"], found["height"]) if "width" in found else None
        self._facts.add(found["frames"], found.get("rate"), size, found.get("codec", ""), found["bytes"])
        if "wrong" in found:
            self._broken[path] = found["wrong"]
            return
        if found["frames"] < self._min_frames and not is_picture(path):
            self._short[path] = found["frames"]
        if "stated" in found:
            self._misstated[path] = found["stated"], found["frames"]

    def scan(self) -> Scan:
        same, near = self._copies()
        return Scan(
            manifest=self._manifest,
            videos={split: len(listing.rows) for split, listing in self._listings.items()},
            missing=sum(listing.missing for listing in self._listings.values()),
            files=len(self._paths),
            decoded=self._decoded,
            frames=sum(self._facts.frames),
            seconds=round(self._seconds, 3),
            bytes=sum(self._facts.bytes),
            rates=self._facts.rates,
            sizes=self._facts.sizes,
            codecs=self._facts.codecs,
            min_frames=self._min_frames,
            broken=self._broken,
            short=self._short,
            misstated=self._misstated,
            same=same,
            near=near,
        )

    def _copies(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """The groups of the same bytes, and those of the same looks, of which some may have the same bytes as well."""
        digests = self._digests
        order = sorted((i for i in range(len(digests)) if digests[i]), key=lambda i: digests[i])
        alike = [list(group) for _, group in groupby(order, key=lambda i: digests[i])]
        same = [group for group in alike if len(group) > 1 or len(self._splits[group[0]]) > 1]
        seen = [group for group in alike if self._looks[group[0]]]
        near = near_groups([self._looks[group[0]] for group in seen])
        return self._named(same), self._named([[i for each in group for i in seen[each]] for group in near])

    def _named(self, groups: Sequence[list[int]]) -> tuple[Group, ...]:
        """Those that are in more than one split first, else in the order of the data set."""
        named = []
        for group in sorted(map(sorted, groups)):
            splits = [split for split in self._listings if any(split in self._splits[i] for i in group)]
            named.append({split: tuple(self._paths[i] for i in group if split in self._splits[i]) for split in splits})
        return tuple(sorted(named, key=lambda group: not _across(group)))


def _across(group: Group) -> bool:
    return len(group) > 1


def in_words(scan: Scan) -> str:
    """The scan as lines; of many, the first."""
    return "\n".join(map(one_line, _lines(scan)))


def _lines(scan: Scan) -> Iterator[str]:
    splits = ", ".join(f"{counted(number, 'video')} in {split}" for split, number in scan.videos.items())
    yield f"{counted(scan.files, 'file')}, {scan.decoded:,} of them decoded now: {splits}"
    rows = {
        "frames": f"{scan.frames:,}",
        "hours": f"{scan.seconds / 3600:,.2f}",
        "megabytes": f"{scan.bytes / 1e6:,.1f}",
        "frames per second": _most(scan.rates),
        "width x height": _most(scan.sizes),
        "codec": _most(scan.codecs),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    if scan.missing:
        yield f"{counted(scan.missing, 'video')} of the official list: missing"
    yield from _named("broken", [f"{path} {why}" for path, why in scan.broken.items()])
    yield from _named(
        f"shorter than {counted(scan.min_frames, 'frame')}",
        [f"{path} has {counted(frames, 'frame')}" for path, frames in scan.short.items()],
    )
    yield from _named(
        "whose header is wrong",
        [f"{path} states {stated:,} frames, {there:,} decode" for path, (stated, there) in scan.misstated.items()],
    )
    yield from _groups("the same bytes", scan.same)
    yield from _groups("nearly the same pictures", scan.near)
    yield f"list: {scan.manifest}, a data set: --data {scan.manifest}"


def _most(counts: Mapping[str, int]) -> str:
    """`25 (30), 29.97 (2)`, the most frequent first."""
    named = [f"{name} ({count:,})" for name, count in list(counts.items())[:_VALUES]]
    return ", ".join(named + ([f"{len(counts) - _VALUES:,} more"] if len(counts) > _VALUES else []))


def _named(what: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield f"{counted(len(sentences), 'file')} {what}:"
        yield from _first(sentences)


def _groups(what: str, groups: Sequence[Group]) -> Iterator[str]:
    if groups:
        files = len({path for group in groups for paths in group.values() for path in paths})
        between = sum(map(_across, groups))
        across = f"; {between:,} of them in more than one split" if between else ""
        yield f"{counted(len(groups), 'group')} of {what}, {counted(files, 'file')}{across}:"
        yield from _first(["; ".join(starmap(_of_split, group.items())) for group in groups])


def _of_split(split: str, paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return f"{'' if split == 'all' else f'{split}: '}{', '.join(paths[:_NAMED])}{more}"


def _first(sentences: list[str]) -> Iterator[str]:
    yield from (f"- {sentence}" for sentence in sentences[:_SHOWN])
    if len(sentences) > _SHOWN:
        yield f"- … {len(sentences) - _SHOWN:,} more (--json shows all)"
