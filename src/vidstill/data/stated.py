"""What is known of many videos: gathered one by one, or read off a scan's or a pack's list without opening any."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float

from vidstill.data.json_lines import is_json_lines
from vidstill.data.places import is_file, lines_of
from vidstill.data.sources import Place


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
        frames, size = _number(entry, "frames"), _number(entry, "bytes")
        if not frames or size is None:
            return False
        width, height, codec = _number(entry, "width"), _number(entry, "height"), entry.get("codec")
        found.add(
            int(frames),
            _number(entry, "rate"),
            (int(width), int(height)) if width and height else None,
            codec if isinstance(codec, str) else "",
            int(size),
        )
    return True


def _number(entry: dict[str, Any], key: str) -> float | None:
    """What a line states under a name that others may use for something else."""
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else None
