"""The table of docs/performance.md: our step beside the yardstick and transformers, for each method, in 10 minutes.

    python scripts/gpu_report.py [--out speed] [--batch 32]     # on one GPU; the same command again resumes

Each row is a `vidstill bench step`, kept as OUT/ROW.json. On a CPU it measures the rows of the page's table for CPUs,
with their batches. `--toy` shows in a minute that everything runs; its numbers mean nothing.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vidstill.bench.measurement_config import StepConfig
from vidstill.bench.model_report import EAGER, OURS, TRANSFORMERS
from vidstill.bench.report import format_markdown_table
from vidstill.bench.step import measure_step
from vidstill.recipes.change import change_recipe, nest_changes
from vidstill.recipes.recipe import FinetuneRecipe, find_recipe
from vidstill.utils.files import write_bytes
from vidstill.utils.terminal import to_json_value


@dataclass(frozen=True)
class Row:
    """A step of a recipe."""

    recipe: str
    batch: int = 32  # clips
    teacher: str = ""  # of which size, if not the recipe's: its field


GPU_ROWS = {
    "VideoMAE-S": Row("videomae.small_k400"),
    "VideoMAE-B": Row("videomae.base_k400"),
    "AMD-B←L": Row("amd.base_k400"),
    "MVD-B←L": Row("mvd.base_k400_from_large"),
    "MaskAgain-B←B": Row("maskagain.base_k400"),
}
CPU_ROWS = {
    "VideoMAE-S": Row("videomae.small_k400", 4),
    "VideoMAE-B": Row("videomae.base_k400", 4),
    "MVD-S←B": Row("mvd.small_k400", 2),
    "AMD-S←B": Row("amd.small_k400", 4, teacher="base"),
    "MaskAgain-S←B": Row("maskagain.small_k400", 4),
    "fine-tune ViT-S": Row("videomae.small_k400_finetune", 2),
}
_BASE_TEACHER = {"dim": 768, "depth": 12, "heads": 12}
_TOY_MODEL = {"dim": 48, "depth": 2, "heads": 2}


def list_changes(row: Row, toy: bool) -> dict[str, Any]:
    """Return what a row changes in its recipe, by the names of the options."""
    changes: dict[str, Any] = {}
    if row.teacher == "base":
        changes |= {f"method.teacher.model.{name}": value for name, value in _BASE_TEACHER.items()}
        changes["method.layer_pairs"] = ((6, 6), (12, 12))
    if toy:
        recipe = find_recipe(row.recipe)
        changes |= {"clips.size": (64, 64), "clips.sampling.num_frames": 4}
        if isinstance(recipe, FinetuneRecipe):
            return changes | {f"encoder.{name}": value for name, value in _TOY_MODEL.items()}
        parts = [name for name in ("teacher", "image", "video") if hasattr(recipe.method, name)]
        parts = ["encoder", *(f"{name}.model" for name in parts)]
        changes |= {f"method.{part}.{name}": value for part in parts for name, value in _TOY_MODEL.items()}
        if getattr(recipe.method, "decoder", None) is not None:
            changes |= {"method.decoder.dim": 32, "method.decoder.depth": 1, "method.decoder.heads": 2}
        if hasattr(recipe.method, "layer_pairs"):
            changes["method.layer_pairs"] = ((1, 1), (2, 2))
    return changes


def measure_row(name: str, row: Row, *, batch: int, toy: bool, compile: str) -> dict[str, Any]:
    """Measure a row in bf16, and return its report as JSON has it."""
    changes = list_changes(row, toy)
    recipe = change_recipe(find_recipe(row.recipe), nest_changes(changes))
    config = StepConfig(
        device_batch=batch,
        precision=("bf16",),
        rounds=1 if toy else 5,
        turn_seconds=0.0 if toy else 2.0,
        compile=compile,
    )
    options = " ".join(f"--{key.replace('_', '-')} {format_value(value)}" for key, value in changes.items())
    command = f"vidstill bench step {row.recipe} --device-batch {batch} --precision bf16 --compile {compile} {options}"
    return to_json_value(asdict(measure_step(recipe, config, name=row.recipe, command=command.strip())))


def format_value(value: Any) -> str:
    return " ".join(map(format_value, value)) if isinstance(value, tuple) else str(value)


def format_rows(reports: dict[str, dict[str, Any]]) -> str:
    """Return one line per row, then where it was measured, and the commands that measure single rows again."""
    header = ("step in bf16", "batch", "clips/s", "share of limit", "memory, GB", "yardstick", "× as fast", "memory")
    header = (*header, "transformers", "× as fast")
    lines: list[Sequence[str]] = []
    for name, report in reports.items():
        sides = {result["side"]: result for result in report["results"]}
        ours, batch = sides[OURS], report["command"].split("--device-batch ")[1].split()[0]
        cells = [name, batch, f"{ours['clips_per_second']:.3g}", f"{100 * ours['limit_share']:.0f} %"]
        cells.append(f"{ours['memory_bytes'] / 1e9:.2f}")
        for side in (EAGER, TRANSFORMERS):
            other = sides.get(side)
            cells.append("–" if other is None else f"{other['clips_per_second']:.3g}")
            cells.append("–" if other is None else f"{ours['clips_per_second'] / other['clips_per_second']:.2f}")
            if side == EAGER:
                cells.append("–" if other is None else f"{ours['memory_bytes'] / other['memory_bytes']:.2f}")
        lines.append(cells)
    report = next(iter(reports.values()))
    machine = report["machine"]
    limit = ", ".join(f"{sorted(each['limit_flops']['bf16'])[-1] / 1e12:.2f}" for each in reports.values())
    conditions = f"{machine['cpu']}, {machine['num_cores']} cores; {report['device']}; torch "
    conditions += f"{machine['versions']['torch']}; commit {machine['commit']}; limit in TFLOP/s, row by row: {limit}"
    commands = "\n".join(report["command"] for report in reports.values())
    return "\n\n".join([format_markdown_table(header, lines), conditions, commands])


def run(out: Path, *, batch: int | None = None, toy: bool = False, compile: str = "auto") -> str:
    """Measure the rows that `out` does not hold yet, and return the table."""
    rows, reports = GPU_ROWS if torch.cuda.is_available() else CPU_ROWS, {}
    out.mkdir(parents=True, exist_ok=True)
    for name, row in rows.items():
        file = out / f"{name.replace(' ', '-')}.json"
        if not file.exists():
            report = measure_row(name, row, batch=batch or (2 if toy else row.batch), toy=toy, compile=compile)
            write_bytes(file, json.dumps(report, indent=1).encode())
        reports[name] = json.loads(file.read_text())
    return format_rows(reports)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("speed"), help="directory of the rows")
    parser.add_argument("--batch", type=int, help="clips of a step; without it 32, on a CPU 2 or 4")
    parser.add_argument("--compile", default="auto", help="as in `vidstill bench step`")
    parser.add_argument("--toy", action="store_true", help="tiny models and clips")
    args = parser.parse_args()
    print(run(args.out, batch=args.batch, toy=args.toy, compile=args.compile))


if __name__ == "__main__":
    main()
