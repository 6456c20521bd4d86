"""Write the tables of docs/finetuning.md and docs/detection.md, one row per recipe; takes no arguments."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe, FinetuneRecipe, load_recipes
from vidstill.recipes.show import compute_recipe_cost

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
    *("epochs × copies", "videos per step", "peak learning rate", "published"),
)
COLUMNS_OF_DETECTORS = (
    *("recipe", "parameters, 10⁶", "10⁹ multiply-adds", "optimizer"),
    *("epochs", "keyframes per step", "peak learning rate", "layer decay", "published"),
)


def format_finetune_tables() -> str:
    """Return one table per data set, with its recipes in the order of their files."""
    rows_of = dict.fromkeys(TITLES, "")
    for name, recipe in load_recipes().items():
        if isinstance(recipe, FinetuneRecipe) and recipe.clips.dataset in TITLES:
            rows_of[recipe.clips.dataset] += format_finetune_row(name, recipe)
    head = _line(COLUMNS) + _line(["---"] * len(COLUMNS))
    return "\n".join(
        f"### {TITLES[dataset]}\n\n{NUM_CLASSES[dataset]} classes.\n\n{head}{rows}" for dataset, rows in rows_of.items()
    )


def format_finetune_row(name: str, recipe: FinetuneRecipe) -> str:
    cost, clips = compute_recipe_cost(recipe), recipe.clips
    videos = recipe.batch // clips.repeats
    _, lr, _ = recipe.optim.compute_lrs(num_videos=videos, num_clips=recipe.batch)
    frames = f"{clips.sampling.num_frames} × " if clips.sampling.num_frames > 1 else ""
    cells = [
        f"`{name}`",
        f"{frames}{clips.size[0]}²",
        f"{cost['parameters_millions']:.1f}",
        f"{cost['gflops_per_view']:g} × {cost['temporal_clips']} × {cost['spatial_crops']}",
        f"{recipe.schedule.epochs} × {clips.repeats}",
        str(videos),
        _format_lr(lr),
        recipe.published_result,
    ]
    return _line(cells)


def format_detector_table() -> str:
    """Return AVA's recipes as one table, in the order of their files; all clips are 16 × 224²."""
    recipes = {
        n: r for n, r in load_recipes().items() if isinstance(r, DetectionRecipe) and r.clips.dataset in NUM_CLASSES
    }
    head = _line(COLUMNS_OF_DETECTORS) + _line(["---"] * len(COLUMNS_OF_DETECTORS))
    return head + "".join(format_detector_row(name, recipe) for name, recipe in recipes.items())


def format_detector_row(name: str, recipe: DetectionRecipe) -> str:
    cost = compute_recipe_cost(recipe)
    _, lr, _ = recipe.optim.compute_lrs(num_videos=recipe.batch, num_clips=recipe.batch)
    cells = [
        f"`{name}`",
        f"{cost['parameters_millions']:.1f}",
        f"{cost['gflops_per_clip']:g}",
        type(recipe.optim).__name__.removesuffix("Config"),
        str(recipe.schedule.epochs),
        str(recipe.batch),
        _format_lr(lr),
        f"{recipe.optim.layer_decay:g}",
        recipe.published_result,
    ]
    return _line(cells)


def _format_lr(lr: float) -> str:
    if lr >= 0.1:
        return f"{lr:g}"
    return np.format_float_scientific(lr, precision=2, unique=False, trim="-", exp_digits=1).replace(".e", "e")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


TABLES = {PAGES / "finetuning.md": format_finetune_tables, PAGES / "detection.md": format_detector_table}
"""By page, the text between its START and END marks."""


def main() -> None:
    for page, make in TABLES.items():
        before, _, rest = page.read_text().partition(START)
        page.write_text(before + START + make() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
