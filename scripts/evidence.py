"""Run the comparison of docs/evidence.md, whose protocol says what it is; every command resumes.

    python scripts/evidence.py run OUT                    pre-train and fine-tune the students of table 1
    python scripts/evidence.py run OUT --part compute     the same at equal compute; also: ablations, real
    python scripts/evidence.py test OUT                   select settings on validation clips, and test: once
    python scripts/evidence.py table OUT                  write docs/evidence.csv, and the tables of docs/evidence.md
    python scripts/evidence.py table docs/evidence.csv    the tables alone

Processes with different --seeds may work on one OUT side by side.
"""

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import evidence_tables
import torch
import tyro
from evidence_arms import (
    IMAGE_TEACHER_CLIPS,
    SEEDS,
    Arm,
    ClipSet,
    Part,
    Protocol,
    adapt_to_real_clips,
    build_finetuning,
    choose_drawn_clips,
    count_operations,
    list_arms,
    list_real_clips,
    set_epochs,
    write_still_clips,
)
from evidence_scores import name_finetuning, score_student

import vidstill
from vidstill.checkpoints.load import load_checkpoint
from vidstill.checkpoints.shipped import STUDENT, TEACHER
from vidstill.data.manifest.open import open_manifest
from vidstill.figures.charts import read_log, sum_step_seconds
from vidstill.recipes import quickstart as recipes
from vidstill.utils.files import write_json
from vidstill.utils.types import InputError

PROTOCOL = Protocol()
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
ARM_FILE, RESULTS_FILE = "arm.json", "results.json"

_RUN_OPTIONS: dict[str, Any] = {"workers": 0, "save_seconds": 20.0, "keep_states": 1}

# ---- Pre-training and fine-tuning -----------------------------------------------------------------------------------


def run(
    out: Annotated[Path, tyro.conf.Positional],
    *,
    part: Part = "main",
    seeds: tuple[int, ...] = (),
    only: str | None = None,
    teacher: str = TEACHER,
    student: str = STUDENT,
    data: Path | None = None,
) -> None:
    """Pre-train and fine-tune the students of a part; nothing of the test clips is looked at.

    Args:
        part: main: equal epochs; compute: equal compute; ablations; real: real clips.
        seeds: Of initialisation, order, masks and drawn clips; none: the protocol's.
        only: One of the part's students.
        teacher: Run directory or weights file of the teacher.
        student: The same of the distilled student that real clips start from.
        data: Directory of the real clips: `actions/` and `images/`.
    """
    if (part == "real") != (data is not None):
        raise InputError("the part real, and no other, needs --data DIR, with actions/ and images/")
    for source in (teacher, student) if data else (teacher,):
        load_checkpoint(source)  # refused before anything is trained
    image_teacher, still_clips = out / "image_teacher", out / "still_clips"
    if data is None:
        train_image_teacher(image_teacher)
    else:
        with wait_for_others(still_clips):
            if not (still_clips / "val.csv").exists():
                write_still_clips(data / "images" / "sign_digits", still_clips)
    arms = list_arms(part, PROTOCOL, teacher, student, image_teacher)
    if only is not None and only not in [arm.key for arm in arms]:
        raise InputError(f"--only is {only!r}; the part {part} has {', '.join(arm.key for arm in arms)}")
    for seed in seeds or SEEDS[part]:
        sets = [choose_drawn_clips(PROTOCOL, seed)] if data is None else list_real_clips(data, still_clips)
        for clips in sets:
            for arm in arms:
                if only in (None, arm.key):
                    train_arm(out, arm, clips, seed, budget="compute" if part == "compute" else "epochs")


def train_image_teacher(out: Path) -> None:
    """Pre-train MVD's teacher of frames."""
    clips = f"made:unlabelled={PROTOCOL.num_unlabelled},{recipes.CLIPS},seed={IMAGE_TEACHER_CLIPS}"
    with wait_for_others(out):
        recipe = set_epochs(recipes.image_teacher, PROTOCOL, PROTOCOL.image_teacher_epochs)
        vidstill.pretrain(recipe, data=clips, out=out, **_RUN_OPTIONS)


@contextmanager
def wait_for_others(path: Path) -> Iterator[None]:
    """Hold a lock beside `path` during the block; another process waits for its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.wait").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def train_arm(out: Path, arm: Arm, clips: ClipSet, seed: int, budget: str) -> None:
    """Pre-train one student with one seed, fine-tune it with every learning rate, and record what was done."""
    name = f"{budget}/{arm.key}_{seed}"
    run_dir, init = out / clips.name / name, arm.start
    if (run_dir / ARM_FILE).exists():
        return
    cost = {"clips": 0, "multiply_adds": 0, "seconds": 0.0}
    if arm.recipe is not None:
        recipe = replace(arm.recipe, seed=seed)
        num_clips = len(open_manifest(clips.unlabelled, split="train"))
        if clips.validation is None:
            recipe = adapt_to_real_clips(recipe, PROTOCOL, num_clips)
        pretrained = out / clips.pretraining / name / "pretrained"
        init = str(vidstill.pretrain(recipe, data=clips.unlabelled, out=pretrained, **_RUN_OPTIONS))
        log = read_log(pretrained)
        met = len(log) * recipe.batch
        cost = {"clips": met, "multiply_adds": met * count_operations(recipe), "seconds": sum_step_seconds(log)}
    rates = PROTOCOL.learning_rates if clips.validation else PROTOCOL.real_learning_rates
    finetuned = clips.labelled if arm.finetuned is None else arm.finetuned
    for labels, lr in ((labels, lr) for labels in finetuned for lr in rates):
        vidstill.finetune(
            replace(build_finetuning(PROTOCOL, clips, labels, lr), seed=seed),
            data=clips.labelled[labels],
            test_data=clips.monitored,
            init=init,
            out=run_dir / name_finetuning(labels, lr),
            **_RUN_OPTIONS,
        )
    facts = {"arm": arm.key, "budget": budget, "seed": seed, "init": init, "clip_set": asdict(clips)}
    facts |= {"finetuned": list(finetuned), "learning_rates": rates, "commit": describe_commit()}
    write_json(run_dir / ARM_FILE, {**facts, **cost})


def describe_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=PAGE.parent, capture_output=True, text=True).stdout.strip()


# ---- Test -----------------------------------------------------------------------------------------------------------


def run_test(out: Annotated[Path, tyro.conf.Positional], *, seeds: tuple[int, ...] = ()) -> None:
    """Fit the probes, select settings on validation clips, and test each student that is trained; once.

    Args:
        seeds: Students of these seeds; none: all.
    """
    for path in sorted(out.glob(f"*/*/*/{ARM_FILE}")):
        arm = json.loads(path.read_text())
        results = path.with_name(RESULTS_FILE)
        if (not seeds or arm["seed"] in seeds) and not results.exists():
            shared = {name: arm[name] for name in ("arm", "budget", "seed", "clips", "multiply_adds", "commit")}
            shared |= {"data": arm["clip_set"]["name"], "seconds": round(arm["seconds"], 1)}
            write_json(results, [{**shared, **row} for row in score_student(arm, path.parent)])


# ---- Tables ---------------------------------------------------------------------------------------------------------


def table(source: Annotated[Path, tyro.conf.Positional], *, page: Path = PAGE) -> None:
    """Write the tables of the page, and its CSV beside it if `source` is the directory of the runs.

    Args:
        source: Directory of the runs, or a CSV.
        page: The page.
    """
    if source.is_dir():
        files = sorted(source.glob(f"*/*/*/{RESULTS_FILE}"))
        rows = [row for path in files for row in json.loads(path.read_text())]
        source = evidence_tables.write_rows(page.with_suffix(".csv"), rows)
    evidence_tables.write_page(page, evidence_tables.format_tables(evidence_tables.read_rows(source)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        tyro.extras.subcommand_cli_from_dict({"run": run, "test": run_test, "table": table})
    except InputError as error:
        sys.exit(print(f"evidence.py: {error}", file=sys.stderr) or 2)
