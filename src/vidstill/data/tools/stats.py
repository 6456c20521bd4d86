"""Counts of facts about a dataset's videos, and how a terminal shows them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vidstill.data.manifest.table import VideoTable
from vidstill.utils.text import list_first

_MAX_VALUES = 5


@dataclass(frozen=True)
class VideoCounts:
    """How many videos there are of each kind.

    Args:
        frame_rate_counts: Videos by mean frames per second.
        resolution_counts: Videos by `width x height`, upright.
        codec_counts: Videos by codec, as FFmpeg calls it.
    """

    frame_rate_counts: dict[str, int]
    resolution_counts: dict[str, int]
    codec_counts: dict[str, int]


class VideoStats:
    """Facts about videos; unknown facts are left out."""

    def __init__(self) -> None:
        self.frames, self.file_sizes, self._frame_rates = list[int](), list[int](), list[float]()
        self._resolutions: Counter[str] = Counter()
        self._codecs: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add a video by the entries of its `ScanRecord`; all but `frames` may be absent."""
        self.frames.append(facts["frames"])
        self._frame_rates.append(facts.get("rate") or 0)
        if "bytes" in facts:
            self.file_sizes.append(facts["bytes"])
        if facts.get("width") and facts.get("height"):
            self._resolutions[f"{facts['width']}x{facts['height']}"] += 1
        if facts.get("codec"):
            self._codecs[facts["codec"]] += 1

    @property
    def seconds(self) -> Float[np.ndarray, "n"]:
        """The duration of each video that has a frame rate."""
        frames, frame_rates = np.array(self.frames, float), np.array(self._frame_rates)
        return frames[frame_rates > 0] / frame_rates[frame_rates > 0]

    def count(self) -> VideoCounts:
        """Count the videos of each kind, the most frequent first; frame rates are rounded to three digits."""
        rates = Counter(f"{rate:.3f}".rstrip("0").rstrip(".") for rate in sorted(self._frame_rates) if rate)
        return VideoCounts(*(dict(counter.most_common()) for counter in (rates, self._resolutions, self._codecs)))


def read_manifest_stats(tables: Iterable[VideoTable]) -> VideoStats:
    """Return what lists state of all their videos that decode; nothing if the length or size of one is not stated."""
    stats = VideoStats()
    names = {"frames": "frames", "bytes": "file_size", "rate": "frame_rate", "width": "width", "height": "height"}
    for table in tables:
        decodes = np.ones(len(table), bool)
        decodes[list(table.errors)] = False
        columns = [table.column(name)[decodes].tolist() for name in names.values()]
        for *values, codec in zip(*columns, table.column("codec")[decodes].tolist(), strict=True):
            if values[0] <= 0 or values[1] <= 0:
                return VideoStats()
            stats.add(dict(zip(names, values, strict=True)) | ({"codec": table.codecs[codec]} if codec >= 0 else {}))
    return stats


def format_counts(counts: VideoCounts) -> dict[str, str]:
    """Format counts as `25 (30), 29.97 (2)`, by what they count; of many, the first."""
    names = {
        "frames per second": counts.frame_rate_counts,
        "width x height": counts.resolution_counts,
        "codec": counts.codec_counts,
    }
    return {
        name: ", ".join(list_first([f"{value} ({count:,})" for value, count in each.items()], _MAX_VALUES))
        for name, each in names.items()
    }


def format_bullets(sentences: Iterable[str], limit: int) -> list[str]:
    """Return a line for each sentence; of many, the first."""
    lines = [f"- {line}" for line in list_first(list(sentences), limit)]
    return [*lines[:limit], *(f"{line} (--json shows all)" for line in lines[limit:])]
