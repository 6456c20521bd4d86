"""The tables of docs/evidence.md, from the raw results of docs/evidence.csv."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from vidstill.utils.files import write_bytes

START, END = "<!-- by scripts/evidence.py table -->\n", "<!-- end -->\n"
COLUMNS = (
    *("data", "arm", "budget", "seed", "metric", "value", "setting", "tested"),
    *("clips", "multiply_adds", "seconds"),  # of the pre-training
    *("commit", "correct"),
)

STUDENTS = ("scratch", "videomae", "mvd", "amd", "maskagain", "dmae")
DISTILLED = STUDENTS[2:]
LONGER = ("videomae", "maskagain", "dmae")
"""Students of table 2 that have more epochs than in table 1; of the others table 2 shows the same runs."""

METRICS = {"linear": "linear probe", "attentive": "attentive probe", "few": "600 labels", "many": "2,400 labels"}
REAL_METRICS = {"linear": "linear probe", "attentive": "attentive probe", "all": "fine-tuned"}
NAMES = {
    "scratch": "scratch",
    "videomae": "VideoMAE",
    "mvd": "MVD",
    "amd": "AMD",
    "maskagain": "MaskAgain",
    "dmae": "DMAE",
    "teacher": "the teacher",
    "student": "the shipped student",
}

Row = Mapping[str, Any]
Ablation = tuple[str, str, tuple[tuple[str, str, str], ...]]  # heading; what was published; label, number, arm

ABLATIONS: tuple[Ablation, ...] = (
    (
        "AMD: how much the teacher sees (tables 1c and 7)",
        "SSv2 top-1",
        (("teacher ratio 0.75", "72.38", "amd_75"), ("0.45", "72.48", "amd_45"), ("0", "72.1", "amd_0")),
    ),
    (
        "AMD: how features are aligned (table 1d)",
        "SSv2 top-1",
        (("serial", "72.38", "amd_75"), ("parallel", "72.25", "amd_parallel"), ("direct only", "71.97", "amd_direct")),
    ),
    (
        "MVD: teachers (tables 11 and 12)",
        "K400, SSv2 top-1",
        (("both", "82.7, 72.1", "mvd"), ("video", "82.1, 71.8", "mvd_video"), ("image", "not at hand", "mvd_image")),
    ),
    (
        "MaskAgain: terms (table 3)",
        "UCF101 top-1",
        (
            ("all", "89.8", "maskagain"),
            ("Hint", "88.1", "hint"),
            ("MAHint", "88.5", "mahint"),
            ("MAHint, MARel", "88.7", "mahint_marel"),
            ("MAHint, MALocal", "89.2", "mahint_malocal"),
            ("MAHint, MAGlobal", "89.6", "mahint_maglobal"),
        ),
    ),
)
"""The first row of each table is the paper's default; the others are compared with it."""

# ---- The raw results ------------------------------------------------------------------------------------------------


def encode_bits(bits: Bool[np.ndarray, "n"]) -> str:
    """Return one bit per clip as hexadecimal digits; the first clip is the highest bit of the first digit."""
    return np.packbits(bits).tobytes().hex()


def decode_bits(text: str, count: int) -> Bool[np.ndarray, "n"]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write the CSV, sorted by data, budget, arm, seed and metric."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    order = ("data", "budget", "arm", "seed", "metric")
    writer.writerows(sorted(rows, key=lambda row: tuple(row[name] for name in order)))
    write_bytes(path, file.getvalue().encode())
    return path


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Results:
    """The results of one data set, by arm, metric and seed.

    Args:
        rows: All rows of the CSV.
        data: Name of the set.
        longer: Arms that are taken at equal compute, the others at equal epochs.
    """

    def __init__(self, rows: Sequence[Row], data: str = "drawn", longer: Sequence[str] = ()):
        budgets = dict.fromkeys(longer, "compute")
        chosen = [r for r in rows if r["data"] == data and r["budget"] == budgets.get(r["arm"], "epochs")]
        self.rows: dict[tuple[str, str], dict[int, Row]] = {}
        for row in chosen:
            self.rows.setdefault((row["arm"], row["metric"]), {})[int(row["seed"])] = row

    def list_seeds(self, metric: str, *arms: str) -> list[int]:
        """Return the seeds of which all these arms have results."""
        return sorted(set.intersection(*(set(self.rows.get((arm, metric), {})) for arm in arms)))

    def read_correct(self, arm: str, metric: str, seeds: Sequence[int]) -> Bool[np.ndarray, "seeds clips"]:
        rows = [self.rows[arm, metric][seed] for seed in seeds]
        return np.stack([decode_bits(row["correct"], int(row["tested"])) for row in rows])

    def format_mean(self, arm: str, metric: str, seeds: Sequence[int] | None = None) -> str:
        """Return the mean and the standard deviation over the seeds, in percent."""
        seeds = self.list_seeds(metric, arm) if seeds is None else seeds
        values = [float(self.rows[arm, metric][seed]["value"]) for seed in seeds]
        if not values:
            return "–"
        return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")

    def format_difference(self, first: str, second: str, metric: str) -> str:
        """Return the mean difference, its interval, and on how many seeds the first is better."""
        seeds = self.list_seeds(metric, first, second)
        if not seeds:
            return "–"
        pair = [self.read_correct(arm, metric, seeds) for arm in (first, second)]
        mean, low, high = bootstrap_difference(*pair)
        better = int((pair[0].mean(axis=1) > pair[1].mean(axis=1)).sum())
        return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}; {better} of {len(seeds)})"

    def format_cost(self, arm: str) -> tuple[str, str, str]:
        """Return clips met, multiply-adds and seconds of the pre-training, the mean over the seeds."""
        rows = list(self.rows.get((arm, "linear"), {}).values())
        if not rows or not int(rows[0]["clips"]):
            return "–", "–", "–"
        seconds = statistics.fmean(float(row["seconds"]) for row in rows)
        return f"{int(rows[0]['clips']):,}", f"{int(rows[0]['multiply_adds']) / 1e12:.1f}", f"{seconds:.0f}"


# ---- The interval ---------------------------------------------------------------------------------------------------

_NUM_RESAMPLES = 10_000


@cache
def _draw_counts(n: int, purpose: int) -> Float32[np.ndarray, "resamples n"]:
    """Return how often each of n is drawn, n times with replacement; `RandomState` gives the same for ever."""
    draws = np.random.RandomState(purpose).randint(0, n, (_NUM_RESAMPLES, n))
    return np.stack([np.bincount(row, minlength=n) for row in draws]).astype(np.float32)


def bootstrap_difference(
    first: Bool[np.ndarray, "seeds clips"], second: Bool[np.ndarray, "seeds clips"]
) -> tuple[float, float, float]:
    """Return the difference of two top-1 in points, and its 95 % interval by the paired bootstrap.

    A resample draws seeds and, independently, test clips, with replacement, and takes the same ones of both students;
    the interval ends at the 2.5th and the 97.5th percentile of 10,000 resamples.

    Args:
        first, second: Which clips each student classifies correctly, with the same seeds and clips.
    """
    difference = first.astype(np.float32) - second.astype(np.float32)
    seeds, clips = difference.shape
    by_seed = _draw_counts(clips, 1) @ difference.T  # whole numbers below 2**24: exact on every machine
    totals = (_draw_counts(seeds, 0) * by_seed).sum(axis=1)
    low, high = np.percentile(100 * totals.astype(np.float64) / (seeds * clips), [2.5, 97.5])
    return 100 * float(difference.mean(dtype=np.float64)), float(low), float(high)


# ---- The page -------------------------------------------------------------------------------------------------------


def write_page(page: Path, tables: str) -> None:
    """Replace what stands between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    write_bytes(page, (before + START + tables + END + rest.partition(END)[2]).encode())


def format_tables(rows: Sequence[Row]) -> str:
    """Return all tables of which there are results."""
    equal_epochs, equal_compute = Results(rows), Results(rows, longer=LONGER)
    sections = [
        *_format_comparison("Table 1: equal epochs", equal_epochs),
        *(
            _format_comparison("Table 2: equal compute", equal_compute)
            if equal_compute.rows.keys() >= {(arm, "linear") for arm in LONGER}
            else []
        ),
    ]
    sections += [_format_ablation(equal_epochs, *ablation) for ablation in ABLATIONS]
    for name in sorted({row["data"] for row in rows} - {"drawn"}):
        sections += _format_real(name, Results(rows, name))
    return "\n".join(section for section in sections if section) or "There are no results yet.\n"


def _format_comparison(title: str, results: Results) -> list[str]:
    if not results.list_seeds("linear", "scratch"):
        return []
    arms = [arm for arm in (*STUDENTS, "teacher") if results.list_seeds("linear", arm)]
    header = ["student", *METRICS.values(), "clips met", "T multiply-adds", "seconds"]
    lines = [
        [NAMES[arm], *(results.format_mean(arm, metric) for metric in METRICS), *results.format_cost(arm)]
        for arm in arms
    ]
    pairs = [("videomae", "scratch"), *((arm, other) for other in ("scratch", "videomae") for arm in DISTILLED)]
    pairs += combinations(DISTILLED, 2)
    return [
        f"### {title}\n\n{_format_table(header, lines)}",
        _format_table(["difference", *METRICS.values()], _format_differences(results, pairs, METRICS)),
    ]


def _format_ablation(results: Results, heading: str, published: str, rows: tuple[tuple[str, str, str], ...]) -> str:
    default, metrics = rows[0][2], [metric for metric in METRICS if metric != "many"]
    lines = []
    for label, number, arm in rows:
        seeds = {each: results.list_seeds(each, arm, *(row[2] for row in rows)) for each in metrics}
        if not all(seeds.values()):
            return ""
        cells = [results.format_mean(arm, metric, seeds[metric]) for metric in metrics]
        if arm != default:
            cells = [
                f"{cell}; {results.format_difference(arm, default, metric)}"
                for cell, metric in zip(cells, metrics, strict=True)
            ]
        lines.append([label, number, *cells])
    return f"### {heading}\n\n" + _format_table(["", f"paper: {published}", *(METRICS[m] for m in metrics)], lines)


def _format_real(name: str, results: Results) -> list[str]:
    arms = [arm for arm in ("scratch", "student", "teacher", "videomae", "dmae") if results.list_seeds("linear", arm)]
    lines = [[NAMES[arm], *(results.format_mean(arm, metric) for metric in REAL_METRICS)] for arm in arms]
    pairs = [(arm, "scratch") for arm in arms if arm != "scratch"]
    return [
        f"### Real clips: `{name}`\n\n" + _format_table(["start", *REAL_METRICS.values()], lines),
        _format_table(["difference", *REAL_METRICS.values()], _format_differences(results, pairs, REAL_METRICS)),
    ]


def _format_differences(
    results: Results, pairs: Sequence[tuple[str, str]], metrics: Mapping[str, str]
) -> list[list[str]]:
    return [
        [f"{NAMES[a]} − {NAMES[b]}", *(results.format_difference(a, b, metric) for metric in metrics)]
        for a, b in pairs
        if results.list_seeds("linear", a, b)
    ]


def _format_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines)) + "\n"
