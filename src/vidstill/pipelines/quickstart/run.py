"""The stages of the quickstart: pre-train, distil, fine-tune with few and with many labels, probe, and report."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.figures.quickstart import MODELS, QuickstartResult, make_terminal_table
from vidstill.pipelines.quickstart.layout import LABELS, QuickstartLayout, choose_drawn_clips, open_own_clips
from vidstill.pipelines.quickstart.report import build_report
from vidstill.pipelines.run_config import RunConfig, Workers
from vidstill.pipelines.train.finetune import run_finetuning
from vidstill.pipelines.train.pretrain import run_pretraining
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.quickstart import DistillationMethod
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.arguments import check_arguments
from vidstill.utils.checksums import forget_checksums, record_checksums
from vidstill.utils.files import write_bytes, write_json
from vidstill.utils.locks import lock_outputs
from vidstill.utils.terminal import TerminalConsole
from vidstill.utils.types import InputError, StrPath

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

_SAVE_SECONDS = 20.0  # between two checkpoints: stages are short

RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


@check_arguments
def quickstart(
    *,
    out: StrPath = "runs/quickstart",
    method: DistillationMethod = "dmae",
    data: StrPath | None = None,
    train_teacher: bool = False,
    smoke_test: bool = False,
    seed: int = 0,
    workers: int = -1,
) -> QuickstartResult:
    """Distil a student from a teacher, pre-train it on pixels, fine-tune both and one from scratch, and compare them.

    Writes `report.html` and `results.json`, and prints the table; the same call again resumes.

    Args:
        out: Directory of the runs and the report.
        method: Distillation method of the student; another one in the same directory reuses what both share.
        data: Labelled clips of your own with a val split, as for `finetune`; None: drawn clips.
        train_teacher: Pre-train the teacher on the same clips as the students, instead of the one that comes with
            vidstill.
        smoke_test: Only a few steps of everything, to see that it runs; the numbers then mean nothing.
        seed: Random seed of the drawn clips and of every run.
        workers: Decoding processes; -1: one less than there are cores.

    Raises:
        InputError: `out` holds something else, the data cannot be used, or there are several processes.
    """
    layout = QuickstartLayout(Path(out), method, train_teacher)
    return _Stages(layout, data, smoke_test, seed, Workers(workers=workers)).run()


class _Stages:
    """The stages of one quickstart."""

    def __init__(self, layout: QuickstartLayout, data: StrPath | None, smoke_test: bool, seed: int, workers: Workers):
        self.layout, self.data, self.smoke_test, self.seed, self.workers = layout, data, smoke_test, seed, workers
        self.runtime = Runtime("auto")
        if (processes := self.runtime.world_size) > 1:
            raise InputError(f"the quickstart needs one process, not {processes}; start it without torchrun")
        self.clips = choose_drawn_clips(seed, smoke_test=smoke_test) if data is None else open_own_clips(str(data))

    def run(self) -> QuickstartResult:
        out = self.layout.out
        stages: list[tuple[str, Callable[[], None]]] = [
            *((f"pre-train: {MODELS[key].name}", partial(self.pretrain, key)) for key in self.layout.pretrained),
            *(
                (f"fine-tune and test: {MODELS[key].name}, {labels} labels", partial(self.finetune, key, labels))
                for key in self.layout.finetuned
                for labels in LABELS
            ),
        ]
        log = partial(TerminalConsole("stderr").print, highlight=False)
        with lock_outputs(out):
            for number, (title, start) in enumerate(stages, 1):
                log(f"[bold]{number}/{len(stages) + 1}[/bold] {title}")
                start()
            log(f"[bold]{len(stages) + 1}/{len(stages) + 1}[/bold] probe the encoders and draw the figures")
            result, page = build_report(self.layout, self.clips, self.runtime, self.workers, self.describe_command())
            files = {out / RESULTS_FILE, out / REPORT_FILE}
            forget_checksums(out, files)
            write_json(out / RESULTS_FILE, asdict(result))
            write_bytes(out / REPORT_FILE, page.encode())
            record_checksums(out, files)
        print_result = partial(TerminalConsole("stdout").print, highlight=False)
        print_result(make_terminal_table(result))
        print_result(f"report with curves and pictures: {out / REPORT_FILE}", markup=False, soft_wrap=True)
        return result

    def describe_command(self) -> str:
        options = {"--method": self.layout.method, "--data": self.data, "--seed": self.seed or None}
        words = [f"{option} {value}" for option, value in options.items() if value is not None]
        words += ["--train-teacher"] * self.layout.train_teacher + ["--smoke-test"] * self.smoke_test
        return " ".join(["vidstill quickstart", *words])

    def pretrain(self, key: str) -> None:
        recipe: PretrainRecipe = getattr(recipes, key)
        if key == "teacher":
            recipe = replace(recipe, schedule=recipes.videomae.schedule)  # minutes, not hours
        if key == self.layout.method:
            recipe = replace(recipe, method=self.set_teachers(recipe.method))
        recipe = self.fit_recipe(recipe, recipes.NUM_UNLABELLED, self.clips.num_unlabelled)
        run_config = RunConfig(
            data=self.clips.unlabelled,
            out=self.layout.get_pretrained(key),
            workers=self.workers.workers,
            save_seconds=_SAVE_SECONDS,
            compile="off",  # would take longer than it saves
        )
        run_pretraining(recipe, run_config, runtime=self.runtime)

    def set_teachers(self, config: Any) -> Any:
        """Return a distillation's config with the weights of its teachers."""
        keys = {"teacher": "teacher", "video": "teacher", "image": "image_teacher"}
        teachers = {
            field: replace(getattr(config, field), checkpoint=self.layout.get_weights(key))
            for field, key in keys.items()
            if hasattr(config, field)
        }
        return replace(config, **teachers)

    def finetune(self, key: str, labels: str) -> None:
        recipe = self.fit_recipe(recipes.finetune, recipes.NUM_FEW, self.clips.num_labelled[labels])
        run_config = replace(
            self.clips.labelled[labels],
            out=self.layout.get_finetuned(key, labels),
            workers=self.workers.workers,
            save_seconds=_SAVE_SECONDS,
            compile="off",
        )
        init = None if key == "scratch" else self.layout.get_weights(key)
        run_finetuning(recipe, run_config, init=init, runtime=self.runtime)

    def fit_recipe(self, recipe: RecipeT, nominal: int, num_clips: int) -> RecipeT:
        """Return a recipe that takes as many steps with other clips.

        Args:
            nominal: The number of clips that the recipe's epochs are for.
            num_clips: Of the data.
        """
        recipe = replace(recipe, seed=self.seed)
        if self.smoke_test:
            return replace(recipe, schedule=CosineConfig(epochs=2), batch=8)
        batch, schedule = min(recipe.batch, num_clips), recipe.schedule
        epochs = ceil(schedule.epochs * (nominal // recipe.batch) / (num_clips // batch))
        warmup = round(schedule.warmup_epochs / schedule.epochs * epochs, 3)
        return replace(recipe, schedule=CosineConfig(epochs=epochs, warmup_epochs=warmup), batch=batch)
