"""The statistics of a dataset's videos, and the summary of a dataset for a terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.text import format_one_line, list_first, pluralize

_MAX_CLASS_LINES, _NUM_END_LINES = 12, 5  # of more classes, so many of the largest and of the smallest are shown
_MAX_PROBLEMS, _MAX_VALUES = 20, 5


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """A split, or the whole dataset where it has none.

    Args:
        class_counts: Videos of each class, by its name; empty where there are no labels.
        majority_share: Share of the largest class, in [0, 1]: the accuracy of always predicting it.
    """

    description: str
    num_videos: int
    class_counts: dict[str, int]
    majority_share: float | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ValueStats:
    """The range and the median of some values."""

    min: float
    median: float
    max: float

    @classmethod
    def from_values(cls, values: np.ndarray) -> "ValueStats | None":
        if not values.size:
            return None
        low, median, high = (round(float(q), 3) for q in np.quantile(values, (0, 0.5, 1)))
        return cls(min=low, median=median, max=high)


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """The content of a dataset.

    Args:
        splits: By name, or "all".
        num_from_manifest: Videos whose facts the list states; no file is opened then.
        num_probed: Files that were opened for the facts.
        frames, seconds: Length of a video; no seconds where no video has a frame rate.
        file_sizes: In bytes.
        frame_rate_counts: Videos by mean frames per second.
        resolution_counts: Videos by `width x height`, upright.
        codec_counts: Videos by codec, as FFmpeg calls it.
        problems: One sentence each.
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


class VideoStats:
    """Counts of facts about videos; unknown facts are left out."""

    def __init__(self) -> None:
        self.frames, self.file_sizes, self._frame_rates = list[int](), list[int](), list[float]()
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
        """Add a video.

        Args:
            frame_rate: Mean frames per second.
            resolution: Width and height, upright.
            codec: As FFmpeg calls it, or an empty string.
            num_bytes: Size of the file.
        """
        self.frames.append(frames)
        self._frame_rates.append(frame_rate or 0)
        if num_bytes is not None:
            self.file_sizes.append(num_bytes)
        if resolution:
            self._resolutions[resolution] += 1
        if codec:
            self._codecs[codec] += 1

    def add_table(self, table: VideoTable) -> bool:
        """Add all videos of a list that decode; return False if the length or the size of one is not stated."""
        decodes = np.ones(len(table), bool)
        decodes[list(table.errors)] = False
        frames, sizes, widths, heights, codecs, frame_rates = (
            table.column(name)[decodes] for name in ("frames", "file_size", "width", "height", "codec", "frame_rate")
        )
        self.frames += frames.tolist()
        self.file_sizes += sizes.tolist()
        self._frame_rates += frame_rates.tolist()
        has_size = (widths > 0) & (heights > 0)
        self._resolutions.update(zip(widths[has_size].tolist(), heights[has_size].tolist(), strict=True))
        for index, count in zip(*np.unique(codecs[codecs >= 0], return_counts=True), strict=True):
            self._codecs[table.codecs[index]] += int(count)
        return bool((frames > 0).all() and (sizes > 0).all())

    @property
    def seconds(self) -> Float[np.ndarray, "n"]:
        """The duration of each video that has a frame rate."""
        frames, frame_rates = np.array(self.frames, float), np.array(self._frame_rates)
        return frames[frame_rates > 0] / frame_rates[frame_rates > 0]

    @property
    def frame_rate_counts(self) -> dict[str, int]:
        """Videos by frame rate to three digits, the most frequent first."""
        values, counts = np.unique(np.round(self._frame_rates, 3), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {f"{values[i]:.3f}".rstrip("0").rstrip("."): int(counts[i]) for i in order if values[i] > 0}

    @property
    def resolution_counts(self) -> dict[str, int]:
        return {f"{width}x{height}": count for (width, height), count in self._resolutions.most_common()}

    @property
    def codec_counts(self) -> dict[str, int]:
        return dict(self._codecs.most_common())


def read_manifest_stats(tables: Iterable[VideoTable]) -> VideoStats:
    """Return what lists state of all their videos that decode; nothing if the length or size of one is not stated."""
    stats = VideoStats()
    return stats if all(stats.add_table(table) for table in tables) else VideoStats()


def format_dataset_summary(summary: DatasetSummary) -> str:
    """Format a summary as lines; of many classes, the largest and the smallest."""
    return "\n".join(map(format_one_line, _format_lines(summary)))


def _format_lines(summary: DatasetSummary) -> Iterator[str]:
    yield str(summary.source)
    for name, split in summary.splits.items():
        yield ""
        yield f"{name}: {_format_split(split)}"
        yield f"  {split.description}; fingerprint {split.fingerprint[:12]}"
        yield from _format_class_counts(split.class_counts)
    yield ""
    if summary.num_from_manifest:
        yield f"stated by the list for {pluralize(summary.num_from_manifest, 'video')}:"
    else:
        yield f"{pluralize(summary.num_probed, 'file')} opened" + (":" if summary.frames else "")
    rows = {
        "frames": _format_stats(summary.frames),
        "seconds": _format_stats(summary.seconds),
        "frames per second": format_counts(summary.frame_rate_counts),
        "width x height": format_counts(summary.resolution_counts),
        "codec": format_counts(summary.codec_counts),
        "bytes": _format_stats(summary.file_sizes),
    }
    yield from (f"  {name:17}  {value}" for name, value in rows.items() if value)
    yield ""
    yield f"{pluralize(len(summary.problems), 'problem')}:" if summary.problems else "no problems found"
    yield from format_bullets(summary.problems, _MAX_PROBLEMS)


def _format_split(split: SplitSummary) -> str:
    videos = pluralize(split.num_videos, "video")
    if split.majority_share is None:
        return f"{videos} without labels"
    low, high = min(split.class_counts.values()), max(split.class_counts.values())
    each = f"{high:,} each" if low == high else f"{low:,} to {high:,} each"
    majority = f"; always predicting the largest: {100 * split.majority_share:.1f} % accuracy" if low < high else ""
    return f"{videos} in {pluralize(len(split.class_counts), 'class')}, {each}{majority}"


def _format_class_counts(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each class, the largest first; of many classes, those at both ends."""
    rows = [f"  {count:>9,}  {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    if len(rows) > _MAX_CLASS_LINES:
        num_hidden = len(rows) - 2 * _NUM_END_LINES
        rows[_NUM_END_LINES:-_NUM_END_LINES] = [f"  {'…':>9}  {num_hidden:,} more classes (--json shows all)"]
    yield from rows


def _format_stats(stats: ValueStats | None) -> str:
    if stats is None:
        return ""
    low, median, high = map(_format_value, (stats.min, stats.median, stats.max))
    return low if low == high else f"{low} to {high}, median {median}"


def _format_value(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts as `25 (30), 29.97 (2)`; of many, the first."""
    return ", ".join(list_first([f"{name} ({count:,})" for name, count in counts.items()], _MAX_VALUES))


def format_bullets(sentences: Iterable[str], limit: int) -> list[str]:
    """Return a line for each sentence; of many, the first."""
    lines = [f"- {line}" for line in list_first(list(sentences), limit)]
    return [*lines[:limit], *(f"{line} (--json shows all)" for line in lines[limit:])]
