"""Results of probes as tables, CSV and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidstill.pipelines.probe.config import ProbeSplit
from vidstill.tasks.metrics.accuracy import Accuracy
from vidstill.tasks.results import format_csv
from vidstill.utils.terminal import align_columns

_MAX_MESSAGES = 10  # on single videos


@dataclass(frozen=True)
class ProbeResult:
    """The score of one probe of one encoder's features on one dataset.

    Args:
        features: `final`, or `block_6`.
        setting: Of the probe: given, or chosen.
        score: Of few-shot probes, the mean over the trials.
        std: Of few-shot probes, the standard deviation of top-1 over the trials, in percentage points.
    """

    encoder: str
    data: str
    features: str
    probe: str
    setting: str
    score: Accuracy
    std: float | None = None

    def to_dict(self) -> dict[str, Any]:
        names = {name: getattr(self, name) for name in ("encoder", "data", "features", "probe", "setting")}
        return {**names, **asdict(self.score), "std": self.std}


@dataclass(frozen=True)
class ProbeReport:
    """All results, and the videos that were left out.

    Args:
        broken: Why videos do not decode, by dataset and split.
        missing: How many videos of an official list do not exist, by dataset and split.
    """

    results: tuple[ProbeResult, ...]
    broken: Mapping[str, Mapping[ProbeSplit, Sequence[str]]]
    missing: Mapping[str, Mapping[ProbeSplit, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {"results": [each.to_dict() for each in self.results], "broken": self.broken, "missing": self.missing}

    def to_csv(self) -> bytes:
        """Return one line per result."""
        rows = [each.to_dict() for each in self.results]
        return b"".join(format_csv([list(rows[0]), *(list(row.values()) for row in rows)]))

    def format_table(self) -> str:
        """Return one line per result with all its numbers, then the videos that were left out.

        `majority` is the top-1 of always answering the test set's most frequent class, `tested` the number of samples.
        """
        has_top5 = any(
            each.score.num_classes > 5 for each in self.results
        )  # of five it is 100 %, whatever a probe does
        rows = [
            {
                **{name: getattr(each, name) for name in ("encoder", "data", "features", "probe", "setting")},
                "top-1": _format_top1(each),
                **({"top-5": f"{each.score.top5:.1f}"} if has_top5 else {}),
                "majority": f"{each.score.majority_baseline:.1f}",
                "mean class": f"{each.score.mean_class_accuracy:.1f}",
                "tested": f"{each.score.videos}",
            }
            for each in self.results
        ]
        lines = align_columns([list(rows[0]), *(list(row.values()) for row in rows)])
        return "\n".join([*lines, *self._format_skipped()])

    def format_comparison(self) -> str:
        """Return one line per encoder and dataset with the top-1 of all probes, then the videos that were left out."""
        probes = list(dict.fromkeys(each.probe for each in self.results))
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for each in self.results:
            score = each.score
            row = each.encoder, each.data, each.features, f"{score.videos}", f"{score.majority_baseline:.1f}"
            rows.setdefault(row, {})[each.probe] = _format_top1(each)
        lines = [("encoder", "data", "features", "tested", "majority", *probes)]
        lines += [(*row, *(top1s.get(probe, "") for probe in probes)) for row, top1s in rows.items()]
        return "\n".join([*align_columns(lines), *self._format_skipped()])

    def _format_skipped(self) -> list[str]:
        """Return lines on each dataset's videos that were left out, and why."""
        lines = []
        for data, splits in self.broken.items():
            for split, reasons in splits.items():
                effect = "not trained on" if split == "train" else "not scored"
                if missing := self.missing[data][split]:
                    lines.append(f"{data}: {missing} files of the {split} list do not exist; {effect}")
                lines += [f"{data}: {reason}; {effect}" for reason in reasons[:_MAX_MESSAGES]]
                if len(reasons) > _MAX_MESSAGES:
                    lines.append(f"{data}: {len(reasons) - _MAX_MESSAGES} more do not decode; {effect}")
        return lines


def _format_top1(result: ProbeResult) -> str:
    """Return top-1 ± its standard error over the videos, or the standard deviation over the trials."""
    deviation = result.score.standard_error if result.std is None else result.std
    return f"{result.score.top1:.1f} ± {deviation:.1f}"
