"""Print the tables of docs/quickstart.md from several seeds of the quickstart.

for seed in 0 1 2 3 4; do vidstill quickstart --seed $seed --out runs/quickstart$seed; done
python scripts/quickstart_seeds.py runs/quickstart?
"""

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

from vidstill.bench.report import format_markdown_table
from vidstill.figures.quickstart import MODELS

T_QUANTILES = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Of 97.5 %, by the number of seeds."""

METRICS = {"probe": "frozen probe, %", "few": "600 labels, %", "many": "2,400 labels, %"}


def read_scores(run: Path) -> dict[str, dict[str, float]]:
    """Return top-1 by model and metric."""
    models = json.loads((run / "results.json").read_text())["models"]
    return {each["key"]: {"probe": each["probe_top1"], **each["top1"]} for each in models}


def format_scores(values: list[float]) -> str:
    return f"**{fmean(values):.1f}** ({', '.join(f'{value:.1f}' for value in values)})" if values else "–"


def format_difference(values: list[float]) -> str:
    """Format the mean of paired differences and its 95 % interval, by the t distribution over seeds."""
    margin = T_QUANTILES[len(values)] * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):+.1f} ({fmean(values) - margin:+.1f} to {fmean(values) + margin:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="directories of the quickstart, one for each seed")
    seeds = [read_scores(run) for run in parser.parse_args().runs]
    models = list(seeds[0])
    rows = [
        [
            MODELS[key].name,
            *(format_scores([seed[key][name] for seed in seeds if name in seed[key]]) for name in METRICS),
        ]
        for key in models
    ]
    print(format_markdown_table(["model", *METRICS.values()], rows), end="\n\n")
    method = next(key for key in models if key not in ("scratch", "videomae", "teacher"))
    pairs = [(method, "videomae"), (method, "scratch"), ("videomae", "scratch")]
    rows = [
        [
            f"{MODELS[first].short_name} − {MODELS[second].short_name}",
            *(format_difference([seed[first][name] - seed[second][name] for seed in seeds]) for name in METRICS),
        ]
        for first, second in pairs
    ]
    print(format_markdown_table(["difference", *METRICS.values()], rows))


if __name__ == "__main__":
    main()
