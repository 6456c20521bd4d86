"""Writes the tables of docs/finetuning.md and docs/detection.md, a row for each of the papers' recipes; run it without
arguments.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe, FinetuneRecipe, compute_recipe_cost, load_recipes

PAGES = Path(__file__).parents[1] / "docs"
START, END = "<!-- by scripts/finetuning_table.py -->\n", "<!-- end -->\n"

TITLES = {
    "kinetics400": "Kinetics-400",
    "kinetics600": "Kinetics-600",
    "kinetics700": "Kinetics-700",
    "ssv2": "Something-Something V2",
    "ucf101": "UCF101",
    "hmdb51": "HMDB51",
    "imagenet": "ImageNet-1K",
}
COLUMNS = (
    *("recipe", "clip", "parameters, 10⁶", "10⁹ multiply-adds × views"),
    *("epochs × copies", "videos a step", "rate", "published"),
)
COLUMNS_OF_DETECTORS = (
    *("recipe", "parameters, 10⁶", "10⁹ multiply-adds", "optimiser"),
    *("epochs", "key frames a step", "rate", "layer decay", "published"),
)


def tables() -> str:
    """A table for each data set, its recipes in the order of their files."""
    found = dict.fromkeys(TITLES, "")
    for name, recipe in load_recipes().items():
        if isinstance(recipe, FinetuneRecipe) and recipe.clips.dataset in TITLES:
            found[recipe.clips.dataset] += row(name, recipe)
    head = _line(COLUMNS) + _line(["---"] * len(COLUMNS))
    return "\n".join(
        f"### {TITLES[dataset]}\n\n{NUM_CLASSES[dataset]} classes.\n\n{head}{rows}" for dataset, rows in found.items()
    )


def row(name: str, recipe: FinetuneRecipe) -> str:
    paid, clips = compute_recipe_cost(recipe), recipe.clips
    videos = recipe.batch // clips.repeats
    _, rate, _ = recipe.optim.compute_lrs(num_videos=videos, num_clips=recipe.batch)
    frames = f"{clips.sampling.num_frames} × " if clips.sampling.num_frames > 1 else ""
    cells = [
        f"`{name}`",
        f"{frames}{clips.size[0]}²",
        f"{paid['parameters_millions']:.1f}",
        f"{paid['gflops_per_view']:g} × {paid['views']} × {paid['crops']}",
        f"{recipe.schedule.epochs} × {clips.repeats}",
        str(videos),
        _rate(rate),
        recipe.published_result,
    ]
    return _line(cells)


def detectors() -> str:
    """One table, the recipes of AVA in the order of their files; each has clips of 16 × 224²."""
    found = {
        n: r for n, r in load_recipes().items() if isinstance(r, DetectionRecipe) and r.clips.dataset in NUM_CLASSES
    }
    head = _line(COLUMNS_OF_DETECTORS) + _line(["---"] * len(COLUMNS_OF_DETECTORS))
    return head + "".join(row_of_detector(name, recipe) for name, recipe in found.items())


def row_of_detector(name: str, recipe: DetectionRecipe) -> str:
    paid = compute_recipe_cost(recipe)
    _, rate, _ = recipe.optim.compute_lrs(num_videos=recipe.batch, num_clips=recipe.batch)
    cells = [
        f"`{name}`",
        f"{paid['parameters_millions']:.1f}",
        f"{paid['gflops_per_clip']:g}",
        type(recipe.optim).__name__.removesuffix("Config"),
        str(recipe.schedule.epochs),
        str(recipe.batch),
        _rate(rate),
        f"{recipe.optim.layer_decay:g}",
        recipe.published_result,
    ]
    return _line(cells)


def _rate(rate: float) -> str:
    if rate >= 0.1:
        return f"{rate:g}"
    return np.format_float_scientific(rate, precision=2, unique=False, trim="-", exp_digits=1).replace(".e", "e")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


MADE = {PAGES / "finetuning.md": tables, PAGES / "detection.md": detectors}
"""By page, what stands between its marks."""


def main() -> None:
    for page, make in MADE.items():
        before, _, rest = page.read_text().partition(START)
        page.write_text(before + START + make() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
