"""What a data set holds, in numbers, and the same in words for a terminal."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float

from vidstill.data.manifest.jsonl import is_json_lines
from vidstill.data.storage.fetch import Place
from vidstill.data.storage.filesystem import is_file, lines_of
from vidstill.utils.text import counted, one_line

_WHOLE, _ENDS = 12, 5  # so many classes are shown; of more, the first and the last few
_SENTENCES = 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split, or the whole where there are none.

    Args:
        classes: how many videos each class has, by its name; empty where there are no labels.
        largest_share: of the largest class, in [0, 1]: how often it is right to guess that one always.
    """

    kind: str
    videos: int
    classes: dict[str, int]
    largest_share: float | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far values reach, and what half of them stay below."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread | None":
        if not values.size:
            return None
        least, median, most = (round(float(q), 3) for q in np.quantile(values, (0, 0.5, 1)))
        return cls(least=least, median=median, most=most)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a data set holds.

    Args:
        parts: by the name of the split, or "all".
        stated: of how many videos the list itself states what follows; no file is opened then.
        looked_at: how many files were opened for what follows.
        frames, seconds: a video's length; no seconds where none has a frame rate.
        bytes: of a file.
        rates: how many videos have which mean frames per second.
        sizes: how many have which size, `width x height`, upright.
        codecs: how many have which, by FFmpeg's name.
        problems: a sentence each.
    """

    source: Place
    parts: dict[str, Part]
    stated: int
    looked_at: int
    frames: Spread | None
    seconds: Spread | None
    bytes: Spread | None
    rates: dict[str, int]
    sizes: dict[str, int]
    codecs: dict[str, int]
    problems: tuple[str, ...]


def in_words(summary: Summary) -> str:
    """The summary as lines; of many classes the largest and the smallest."""
    return "\n".join(map(one_line, _lines(summary)))


def _lines(summary: Summary) -> Iterator[str]:
    yield str(summary.source)
    for name, part in summary.parts.items():
        yield ""
        yield f"{name}: {_counts(part)}"
        yield f"  {part.kind}; fingerprint {part.fingerprint[:12]}"
        yield from _table(part.classes)
    yield ""
    if summary.stated:
        yield f"as the list states of {counted(summary.stated, 'video')}:"
    else:
        yield f"{counted(summary.looked_at, 'file')} looked at" + (":" if summary.frames else "")
    rows = {
        "frames": _reach(summary.frames),
        "seconds": _reach(summary.seconds),
        "frames per second": _shares(summary.rates),
        "width x height": _shares(summary.sizes),
        "codec": _shares(summary.codecs),
        "bytes": _reach(summary.bytes),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    yield ""
    yield f"{counted(len(summary.problems), 'problem')}:" if summary.problems else "no problems found"
    yield from (f"- {problem}" for problem in summary.problems[:_SENTENCES])
    if len(summary.problems) > _SENTENCES:
        yield f"- … {len(summary.problems) - _SENTENCES:,} more (--json shows all)"


def _counts(part: Part) -> str:
    videos = counted(part.videos, "video")
    if part.largest_share is None:
        return f"{videos} without labels"
    least, most = min(part.classes.values()), max(part.classes.values())
    each = f"{most:,} each" if least == most else f"{least:,} to {most:,} each"
    always = f"; always guessing the largest is right for {100 * part.largest_share:.1f} %" if least < most else ""
    return f"{videos} in {counted(len(part.classes), 'class')}, {each}{always}"


def _table(counts: Mapping[str, int]) -> Iterator[str]:
    """A line for each class, the largest first; of many, those at both ends."""
    rows = [f"  {count:>9,}  {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    if len(rows) > _WHOLE:
        rows[_ENDS:-_ENDS] = [f"  {'…':>9}  {len(rows) - 2 * _ENDS:,} more classes (--json shows all)"]
    yield from rows


def _reach(spread: Spread | None) -> str:
    if spread is None:
        return ""
    least, median, most = map(_number, (spread.least, spread.median, spread.most))
    return least if least == most else f"{least} to {most}, median {median}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")


def _shares(counts: Mapping[str, int]) -> str:
    """`25 (30), 29.97 (2)`, the most frequent first."""
    named = [f"{name} ({count:,})" for name, count in list(counts.items())[:_ENDS]]
    more = [f"{len(counts) - _ENDS:,} more"] if len(counts) > _ENDS else []
    return ", ".join(named + more)


class Facts:
    """Columns of facts about videos; what is not known of one is left out."""

    def __init__(self) -> None:
        self.frames, self.bytes, self._rates = array("q"), array("q"), array("d")
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._codecs: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self, frames: int, rate: float | None, size: tuple[int, int] | None, codec: str, bytes_: int | None
    ) -> None:
        """
        Args:
            rate: mean frames per second.
            size: width and height, upright.
            codec: as FFmpeg calls it, or nothing.
            bytes_: of the file.
        """
        self.frames.append(frames)
        self._rates.append(rate or 0)
        if bytes_ is not None:
            self.bytes.append(bytes_)
        if size:
            self._sizes[size] += 1
        if codec:
            self._codecs[codec] += 1

    @property
    def seconds(self) -> Float[np.ndarray, "n"]:
        frames, rates = np.array(self.frames, float), np.array(self._rates)
        return frames[rates > 0] / rates[rates > 0]

    @property
    def rates(self) -> dict[str, int]:
        """How many videos have which, to three digits, the most frequent first."""
        found, numbers = np.unique(np.round(self._rates, 3), return_counts=True)
        order = np.argsort(-numbers, kind="stable")
        return {f"{found[i]:.3f}".rstrip("0").rstrip("."): int(numbers[i]) for i in order if found[i] > 0}

    @property
    def sizes(self) -> dict[str, int]:
        return {f"{width}x{height}": number for (width, height), number in self._sizes.most_common()}

    @property
    def codecs(self) -> dict[str, int]:
        return dict(self._codecs.most_common())


def stated_by(places: Iterable[Place]) -> Facts:
    """What JSON lines state of every video that decodes; no facts where another form of list is among them, or where
    the length of one video, or the size by which it is believed, is not stated.
    """
    found = Facts()
    return found if all(_read(place, found) for place in places) else Facts()


def _read(place: Place, found: Facts) -> bool:
    lines = lines_of(place) if is_file(place) else iter(())
    first = next(lines, (0, ""))
    if not first[1] or not is_json_lines(place, first[1]):
        return False
    for _, line in chain([first], lines):
        entry = json.loads(line)
        if entry.get("wrong"):
            continue
        frames, size = _number_of_stated(entry, "frames"), _number_of_stated(entry, "bytes")
        if not frames or size is None:
            return False
        width, height, codec = _number_of_stated(entry, "width"), _number_of_stated(entry, "height"), entry.get("codec")
        found.add(
            int(frames),
            _number_of_stated(entry, "rate"),
            (int(width), int(height)) if width and height else None,
            codec if isinstance(codec, str) else "",
            int(size),
        )
    return True


def _number_of_stated(entry: dict[str, Any], key: str) -> float | None:
    """What a line states under a name that others may use for something else."""
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else None
