"""What probes have found, for people and for programs: tables, rows of a CSV, JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidstill.pipelines.probe.config import ProbeSplit
from vidstill.tasks.metrics.accuracy import Accuracy

_MAX_MESSAGES = 10  # sentences on single videos


@dataclass(frozen=True)
class ProbeResult:
    """What one probe found in one kind of features of an encoder, on one data set.

    Args:
        features: `final`, or `block_6`.
        setting: what the probe was set to, or has chosen.
        std: of few shots, the standard deviation of top-1 over the draws, in points; the score is their mean.
    """

    encoder: str
    data: str
    features: str
    probe: str
    setting: str
    score: Accuracy
    std: float | None = None

    def to_dict(self) -> dict[str, Any]:
        named = {name: value for name, value in asdict(self).items() if name not in ("score", "spread")}
        return {**named, **asdict(self.score), "spread": self.std}


@dataclass(frozen=True)
class ProbeReport:
    """All that was found, and what was left out.

    Args:
        broken: a sentence for each video that does not decode, by data set and split.
        missing: how many videos an official list names that are not there, likewise.
    """

    results: tuple[ProbeResult, ...]
    broken: Mapping[str, Mapping[ProbeSplit, Sequence[str]]]
    missing: Mapping[str, Mapping[ProbeSplit, int]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"probed": [each.to_dict() for each in self.results], "broken": self.broken, "missing": self.missing}

    def to_csv(self) -> str:
        """A line for each probe of each encoder on each data set."""
        text = io.StringIO()
        rows = [each.to_dict() for each in self.results]
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def format_table(self) -> str:
        """A line for each probe, with all that it scores; then what was left out."""
        lines = [("encoder", "data", "features", "probe", "setting", "top-1", "top-5", "mean class", "videos")]
        for each in self.results:
            score = each.score
            numbers = _format_top1(each), f"{score.top5:.1f}", f"{score.mean_class_accuracy:.1f}", f"{score.videos}"
            lines.append((each.encoder, each.data, each.features, each.probe, each.setting, *numbers))
        return "\n".join([*_align_columns(lines), *self._format_skipped()])

    def format_comparison(self) -> str:
        """A line for each encoder and data set, the top-1 of the probes side by side; then what was left out."""
        probes = list(dict.fromkeys(each.probe for each in self.results))
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for each in self.results:
            row = each.encoder, each.data, each.features, f"{each.score.videos}"
            found.setdefault(row, {})[each.probe] = _format_top1(each)
        lines = [("encoder", "data", "features", "videos", *probes)]
        lines += [(*row, *(tops.get(probe, "") for probe in probes)) for row, tops in found.items()]
        return "\n".join([*_align_columns(lines), *self._format_skipped()])

    def _format_skipped(self) -> list[str]:
        """Of each data set, how many videos had no part in this, and why."""
        lines = []
        for data, parts in self.broken.items():
            for part, why in parts.items():
                then = "left out of the training" if part == "train" else "not scored"
                if missing := self.missing[data][part]:
                    lines.append(f"{data}: {missing} videos of its {part} list are not there, and {then}")
                lines += [f"{data}: {each}; {then}" for each in why[:_MAX_MESSAGES]]
                if len(why) > _MAX_MESSAGES:
                    lines.append(f"{data}: {len(why) - _MAX_MESSAGES} more do not decode, and are {then}")
        return lines


def _format_top1(result: ProbeResult) -> str:
    """With the standard error over the videos; of few shots, with the deviation over the draws."""
    spread = result.score.standard_error if result.std is None else result.std
    return f"{result.score.top1:.1f} ± {spread:.1f}"


def _align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in rows]
