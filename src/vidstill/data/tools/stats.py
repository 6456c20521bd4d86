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
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import is_file, read_lines
from vidstill.utils.text import format_one_line, pluralize

_MAX_CLASS_LINES, _NUM_END_LINES = 12, 5  # so many classes are shown; of more, the first and the last few
_MAX_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """A split, or the whole where there are none.

    Args:
        class_counts: how many videos each class has, by its name; empty where there are no labels.
        majority_share: of the largest class, in [0, 1]: how often it is right to guess that one always.
    """

    description: str
    num_videos: int
    class_counts: dict[str, int]
    majority_share: float | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ValueStats:
    """How far values reach, and what half of them stay below."""

    min: float
    median: float
    max: float

    @classmethod
    def from_values(cls, values: np.ndarray) -> "ValueStats | None":
        if not values.size:
            return None
        least, median, most = (round(float(q), 3) for q in np.quantile(values, (0, 0.5, 1)))
        return cls(min=least, median=median, max=most)


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What a data set holds.

    Args:
        splits: by the name of the split, or "all".
        num_from_manifest: of how many videos the list itself states what follows; no file is opened then.
        num_probed: how many files were opened for what follows.
        frames, seconds: a video's length; no seconds where none has a frame rate.
        file_sizes: of a file.
        frame_rate_counts: how many videos have which mean frames per second.
        resolution_counts: how many have which size, `width x height`, upright.
        codec_counts: how many have which, by FFmpeg's name.
        problems: a sentence each.
    """

    source: PathOrUrl
    splits: dict[str, SplitSummary]
    num_from_manifest: int
    num_probed: int
    frames: ValueStats | None
    seconds: ValueStats | None
    file_sizes: ValueStats | None
    frame_rate_counts: dict[str, int]
    resolution_counts: dict[str, int]
    codec_counts: dict[str, int]
    problems: tuple[str, ...]


def format_dataset_summary(summary: DatasetSummary) -> str:
    """The summary as lines; of many classes the largest and the smallest."""
    return "\n".join(map(format_one_line, _format_lines(summary)))


def _format_lines(summary: DatasetSummary) -> Iterator[str]:
    yield str(summary.source)
    for name, part in summary.splits.items():
        yield ""
        yield f"{name}: {_format_counts(part)}"
        yield f"  {part.description}; fingerprint {part.fingerprint[:12]}"
        yield from _format_class_counts(part.class_counts)
    yield ""
    if summary.num_from_manifest:
        yield f"as the list states of {pluralize(summary.num_from_manifest, 'video')}:"
    else:
        yield f"{pluralize(summary.num_probed, 'file')} looked at" + (":" if summary.frames else "")
    rows = {
        "frames": _format_stats(summary.frames),
        "seconds": _format_stats(summary.seconds),
        "frames per second": _format_top_values(summary.frame_rate_counts),
        "width x height": _format_top_values(summary.resolution_counts),
        "codec": _format_top_values(summary.codec_counts),
        "bytes": _format_stats(summary.file_sizes),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    yield ""
    yield f"{pluralize(len(summary.problems), 'problem')}:" if summary.problems else "no problems found"
    yield from (f"- {problem}" for problem in summary.problems[:_MAX_PROBLEMS])
    if len(summary.problems) > _MAX_PROBLEMS:
        yield f"- … {len(summary.problems) - _MAX_PROBLEMS:,} more (--json shows all)"


def _format_counts(part: SplitSummary) -> str:
    videos = pluralize(part.num_videos, "video")
    if part.majority_share is None:
        return f"{videos} without labels"
    least, most = min(part.class_counts.values()), max(part.class_counts.values())
    each = f"{most:,} each" if least == most else f"{least:,} to {most:,} each"
    always = f"; always guessing the largest is right for {100 * part.majority_share:.1f} %" if least < most else ""
    return f"{videos} in {pluralize(len(part.class_counts), 'class')}, {each}{always}"


def _format_class_counts(counts: Mapping[str, int]) -> Iterator[str]:
    """A line for each class, the largest first; of many, those at both ends."""
    rows = [f"  {count:>9,}  {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    if len(rows) > _MAX_CLASS_LINES:
        rows[_NUM_END_LINES:-_NUM_END_LINES] = [
            f"  {'…':>9}  {len(rows) - 2 * _NUM_END_LINES:,} more classes (--json shows all)"
        ]
    yield from rows


def _format_stats(spread: ValueStats | None) -> str:
    if spread is None:
        return ""
    least, median, most = map(_format_value, (spread.min, spread.median, spread.max))
    return least if least == most else f"{least} to {most}, median {median}"


def _format_value(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")


def _format_top_values(counts: Mapping[str, int]) -> str:
    """`25 (30), 29.97 (2)`, the most frequent first."""
    named = [f"{name} ({count:,})" for name, count in list(counts.items())[:_NUM_END_LINES]]
    more = [f"{len(counts) - _NUM_END_LINES:,} more"] if len(counts) > _NUM_END_LINES else []
    return ", ".join(named + more)


class VideoStats:
    """Columns of facts about videos; what is not known of one is left out."""

    def __init__(self) -> None:
        self.frames, self.file_sizes, self._frame_rates = array("q"), array("q"), array("d")
        self._resolutions: Counter[tuple[int, int]] = Counter()
        self._codecs: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self,
        frames: int,
        frame_rate: float | None,
        resolution: tuple[int, int] | None,
        codec: str,
        num_bytes: int | None,
    ) -> None:
        """
        Args:
            frame_rate: mean frames per second.
            resolution: width and height, upright.
            codec: as FFmpeg calls it, or nothing.
            num_bytes: of the file.
        """
        self.frames.append(frames)
        self._frame_rates.append(frame_rate or 0)
        if num_bytes is not None:
            self.file_sizes.append(num_bytes)
        if resolution:
            self._resolutions[resolution] += 1
        if codec:
            self._codecs[codec] += 1

    @property
    def seconds(self) -> Float[np.ndarray, "n"]:
        frames, rates = np.array(self.frames, float), np.array(self._frame_rates)
        return frames[rates > 0] / rates[rates > 0]

    @property
    def frame_rate_counts(self) -> dict[str, int]:
        """How many videos have which, to three digits, the most frequent first."""
        found, numbers = np.unique(np.round(self._frame_rates, 3), return_counts=True)
        order = np.argsort(-numbers, kind="stable")
        return {f"{found[i]:.3f}".rstrip("0").rstrip("."): int(numbers[i]) for i in order if found[i] > 0}

    @property
    def resolution_counts(self) -> dict[str, int]:
        return {f"{width}x{height}": number for (width, height), number in self._resolutions.most_common()}

    @property
    def codec_counts(self) -> dict[str, int]:
        return dict(self._codecs.most_common())


def read_manifest_stats(paths: Iterable[PathOrUrl]) -> VideoStats:
    """What JSON lines state of every video that decodes; no facts where another form of list is among them, or where
    the length of one video, or the size by which it is believed, is not stated.
    """
    found = VideoStats()
    return found if all(_add_manifest_stats(place, found) for place in paths) else VideoStats()


def _add_manifest_stats(place: PathOrUrl, found: VideoStats) -> bool:
    lines = read_lines(place) if is_file(place) else iter(())
    first = next(lines, (0, ""))
    if not first[1] or not is_json_lines(place, first[1]):
        return False
    for _, line in chain([first], lines):
        entry = json.loads(line)
        if entry.get("wrong"):
            continue
        frames, size = _get_number(entry, "frames"), _get_number(entry, "bytes")
        if not frames or size is None:
            return False
        width, height, codec = _get_number(entry, "width"), _get_number(entry, "height"), entry.get("codec")
        found.add(
            int(frames),
            _get_number(entry, "rate"),
            (int(width), int(height)) if width and height else None,
            codec if isinstance(codec, str) else "",
            int(size),
        )
    return True


def _get_number(entry: dict[str, Any], key: str) -> float | None:
    """What a line states under a name that others may use for something else."""
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else None
