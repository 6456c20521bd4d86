"""Writes the tables of docs/finetuning.md, a row for each of the papers' fine-tunings; run it without arguments."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidstill.recipes.recipe import CLASSES, Finetune, every_recipe
from vidstill.recipes.show import price

PAGE = Path(__file__).parents[1] / "docs" / "finetuning.md"
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


def tables() -> str:
    """A table for each data set, its recipes in the order of their files."""
    found = dict.fromkeys(CLASSES, "")
    for name, recipe in every_recipe().items():
        if isinstance(recipe, Finetune) and recipe.clips.dataset in CLASSES:
            found[recipe.clips.dataset] += row(name, recipe)
    head = _line(COLUMNS) + _line(["---"] * len(COLUMNS))
    return "\n".join(
        f"### {TITLES[dataset]}\n\n{CLASSES[dataset]} classes.\n\n{head}{rows}" for dataset, rows in found.items()
    )


def row(name: str, recipe: Finetune) -> str:
    paid, clips = price(recipe), recipe.clips
    videos = recipe.batch // clips.repeats
    _, rate, _ = recipe.optim.rates(videos=videos, clips=recipe.batch)
    frames = f"{clips.sampling.frames} × " if clips.sampling.frames > 1 else ""
    cells = [
        f"`{name}`",
        f"{frames}{clips.size[0]}²",
        f"{paid['parameters_millions']:.1f}",
        f"{paid['gflops_per_view']:g} × {paid['views']} × {paid['crops']}",
        f"{recipe.schedule.epochs} × {clips.repeats}",
        str(videos),
        np.format_float_scientific(rate, precision=2, unique=False, trim="-", exp_digits=1),
        recipe.expects,
    ]
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + tables() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
