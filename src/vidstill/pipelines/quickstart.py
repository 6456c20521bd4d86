"""The quickstart: synthetic clips, a teacher, students with and without it, four classifiers, a table and a report."""

import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from einops import reduce
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_state_dict_strict
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.distributed import Runtime, count_cores
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.figures import quickstart as figures
from vidstill.figures.curves import read_log, sum_step_seconds
from vidstill.figures.page import PageImage
from vidstill.figures.quickstart import ModelResult, QuickstartResult
from vidstill.figures.reconstruction import describe_pixel_source, draw_reconstruction, reconstruct_clips
from vidstill.figures.similarity import compute_layer_similarity
from vidstill.models.vit import ViT, ViTConfig
from vidstill.pipelines.train.finetune import finetune
from vidstill.pipelines.train.pretrain import pretrain
from vidstill.pipelines.train.run_config import FinetuneRunConfig, RunConfig
from vidstill.pipelines.workers import Workers
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.quickstart import DistillationMethod
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.synthetic.clips import SyntheticClipsConfig
from vidstill.synthetic.dataset import make_dataset
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import TEST_FILE, get_package_version, write_bytes, write_json
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

_STUDENT_RECIPES: dict[DistillationMethod, PretrainRecipe] = {
    "amd": recipes.amd,
    "mvd": recipes.mvd,
    "maskagain": recipes.maskagain,
    "dmae": recipes.dmae,
}
_TEACHER, _IMAGE_TEACHER = "teacher", "image_teacher"
_SAVE_SECONDS = 20.0  # between two checkpoints: stages are short
_VIDEO_BATCH = 32  # videos whose features are extracted together
_NUM_COMPARED_CLIPS = 64  # clips for the similarity of features
_NUM_RECONSTRUCTIONS = 3  # clips whose reconstruction is drawn

RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


def quickstart(
    out: Path, *, method: DistillationMethod = "amd", smoke_test: bool = False, seed: int = 0, workers: int = -1
) -> QuickstartResult:
    """Run all stages in `out`, each as a run of its own; the same call again resumes.

    Writes `report.html` and `results.json`, and prints the table.

    Args:
        out: Directory of clips, runs and report.
        method: Distillation method of the student; another one in the same directory reuses what both share.
        smoke_test: Only a few steps of everything, to see that it runs; the numbers then mean nothing.
        seed: Random seed of the clips and of every run.
        workers: Decoding processes; -1: one less than there are cores.

    Raises:
        InputError: `out` holds something else, or there are several processes.
    """
    start_time = time.monotonic()
    config = Workers(workers=workers)
    runtime = Runtime("auto")
    if runtime.world_size > 1:
        raise InputError(f"the quickstart needs one process, not {runtime.world_size}; start it without torchrun")
    run = _QuickstartRun(out, method, smoke_test, seed, config, runtime, Console(stderr=True))
    run.draw_clips()
    run.pretrain(_TEACHER, recipes.teacher)
    if run.has_image_teacher:
        run.pretrain(_IMAGE_TEACHER, recipes.image_teacher)
    run.pretrain("videomae", recipes.videomae)
    student = _STUDENT_RECIPES[method]
    run.pretrain(method, replace(student, method=run.set_teacher_checkpoints(student.method)))
    for key in run.model_keys:
        run.finetune(key, recipes.finetune_teacher if key == _TEACHER else recipes.finetune)
    run.log_stage("probe the encoders and draw the figures")
    result = run.collect_results()
    page = run.render_report(result, f"{(time.monotonic() - start_time) / 60:.1f} minutes")
    write_json(out / RESULTS_FILE, asdict(result))
    write_bytes(out / REPORT_FILE, page.encode())
    terminal = Console()
    terminal.print(figures.make_terminal_table(result), highlight=False)
    terminal.print(
        f"report with curves and pictures: {out / REPORT_FILE}", markup=False, highlight=False, soft_wrap=True
    )
    return result


@dataclass
class _QuickstartRun:
    """The stages, and what is read from their runs afterwards; a model's key is "scratch", "teacher" or its method."""

    out: Path
    method: DistillationMethod
    smoke_test: bool
    seed: int
    workers: Workers
    runtime: Runtime
    console: Console
    stage: int = 0

    def log_stage(self, message: str) -> None:
        self.stage += 1
        self.console.print(f"[bold]{self.stage}/{9 + self.has_image_teacher}[/bold] {message}", highlight=False)

    @property
    def model_keys(self) -> tuple[str, ...]:
        return ("scratch", "videomae", self.method, _TEACHER)

    @property
    def teachers(self) -> dict[str, str]:
        """The runs of the method's teachers, by the field that names them."""
        runs = {"teacher": _TEACHER, "video": _TEACHER, "image": _IMAGE_TEACHER}
        return {field: run for field, run in runs.items() if hasattr(_STUDENT_RECIPES[self.method].method, field)}

    @property
    def has_image_teacher(self) -> bool:
        return _IMAGE_TEACHER in self.teachers.values()

    def set_teacher_checkpoints(self, method: Any) -> Any:
        teachers = {
            field: replace(getattr(method, field), checkpoint=str(self.run_dir(run)))
            for field, run in self.teachers.items()
        }
        return replace(method, **teachers)

    def run_dir(self, key: str) -> Path:
        return self.out / (key if key in (_TEACHER, _IMAGE_TEACHER) else f"student_{key}")

    def finetune_dir(self, key: str) -> Path:
        return self.out / f"finetune_{key}"

    def read_logs(self, *, finetuning: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Return the logged steps of each model's fine-tuning, or of each pre-training."""
        if finetuning:
            return {key: read_log(self.finetune_dir(key)) for key in self.model_keys}
        keys = [*self.model_keys[1:], *([_IMAGE_TEACHER] if self.has_image_teacher else [])]
        return {key: read_log(self.run_dir(key)) for key in keys}

    @property
    def clips_dir(self) -> Path:
        return self.out / "clips"

    @property
    def clips_config(self) -> SyntheticClipsConfig:
        config = replace(recipes.synthetic_clips, seed=self.seed)
        return replace(config, train=16, val=16, unlabelled=32) if self.smoke_test else config

    def adjust_recipe(self, recipe: RecipeT) -> RecipeT:
        recipe = replace(recipe, seed=self.seed)
        return replace(recipe, schedule=CosineConfig(epochs=2), batch=8) if self.smoke_test else recipe

    def draw_clips(self) -> None:
        config = self.clips_config
        self.log_stage(f"draw {config.unlabelled} unlabelled, {config.train} training and {config.val} test clips")
        with show_progress_bar("clips") as progress:
            make_dataset(self.clips_dir, config, progress=progress)

    def pretrain(self, key: str, recipe: PretrainRecipe) -> None:
        self.log_stage(f"pre-train: {figures.MODEL_NAMES[key]}")
        config = RunConfig(
            data=self.clips_dir / "unlabelled.txt",
            out=self.run_dir(key),
            workers=self.workers.workers,
            save_seconds=_SAVE_SECONDS,
        )
        pretrain(self.adjust_recipe(recipe), config, runtime=self.runtime)

    def finetune(self, key: str, recipe: FinetuneRecipe) -> None:
        self.log_stage(f"fine-tune and test: {figures.MODEL_NAMES[key]}")
        config = FinetuneRunConfig(
            data=self.clips_dir,
            out=self.finetune_dir(key),
            workers=self.workers.workers,
            save_seconds=_SAVE_SECONDS,
        )
        init = None if key == "scratch" else str(self.run_dir(key))
        finetune(self.adjust_recipe(recipe), config, init=init, runtime=self.runtime)

    def collect_results(self) -> QuickstartResult:
        pretraining = {key: sum_step_seconds(steps) for key, steps in self.read_logs().items()}
        finetuning = {key: sum_step_seconds(steps) for key, steps in self.read_logs(finetuning=True).items()}
        return QuickstartResult(
            models=tuple(
                self.evaluate_model(key, pretraining.get(key, 0.0), finetuning[key]) for key in self.model_keys
            ),
            method=self.method,
            num_classes=len(self.clips_config.classes),
            num_finetune_clips=self.clips_config.train,
            num_pretrain_clips=self.clips_config.unlabelled,
            num_test_clips=len(self.val_split.labels),
            seed=self.seed,
            image_teacher_seconds=pretraining.get(_IMAGE_TEACHER, 0.0),
        )

    def evaluate_model(self, key: str, pretraining_seconds: float, finetuning_seconds: float) -> ModelResult:
        test = json.loads((self.finetune_dir(key) / TEST_FILE).read_text())
        views, num_classes = recipes.finetune.views, len(self.clips_config.classes)
        encoder = self.load_encoder(key)
        cost = compute_model_cost(
            replace(recipes.finetune, encoder=encoder.config).build_classifier_config(num_classes),
            num_frames=views.sampling.num_frames,
            size=views.size,
        )
        train_features = self.extract_features(encoder, self.train_split)
        probe = evaluate_linear_probe(*train_features, *self.extract_features(encoder, self.val_split), num_classes)
        return ModelResult(
            key=key,
            name=figures.MODEL_NAMES[key],
            top1=test["top1"],
            top5=test["top5"],
            probe_top1=probe.top1,
            num_params=cost.num_parameters,
            flops=cost.multiply_adds,
            pretraining_seconds=pretraining_seconds,
            finetuning_seconds=finetuning_seconds,
        )

    def load_encoder(self, key: str) -> ViT:
        """Return a model's encoder before fine-tuning; for "scratch", one of the student's size with random weights."""
        if key == "scratch":
            torch.manual_seed(self.seed)
            return recipes.finetune.encoder.build().to(self.runtime.device).eval()
        weights = read_checkpoint(self.run_dir(key))
        config = infer_encoder_config(weights, recipes.finetune.encoder)
        encoder = config.build()
        init_encoder(encoder, weights, config)
        return encoder.to(self.runtime.device).eval()

    @cached_property
    def train_split(self) -> "LoadedSplit":
        return self.load_split("train")

    @cached_property
    def val_split(self) -> "LoadedSplit":
        return self.load_split("val")

    def load_split(self, split: Split) -> "LoadedSplit":
        """Load the views of a labelled split."""
        batches = list(
            iter_view_batches(
                ViewClips(open_manifest(self.clips_dir, split=split), recipes.finetune.views),
                videos_per_batch=_VIDEO_BATCH,
                broken_videos={},
                workers=self.workers.num_workers,
                device=self.runtime.device,
            )
        )
        return LoadedSplit(torch.cat([batch.clip for batch in batches]), torch.cat([batch.label for batch in batches]))

    def extract_features(self, encoder: ViT, split: "LoadedSplit") -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """Return each video's features, averaged over its views, and its label."""
        views = split.clips.shape[1]
        with torch.no_grad(), self.runtime.autocast():
            batches = split.clips.flatten(0, 1).split(_VIDEO_BATCH * views)
            features = torch.cat([encoder(clips).tokens.float().mean(dim=1).cpu() for clips in batches])
        return reduce(features, "(n v) d -> n d", "mean", v=views), split.labels.cpu()

    def render_report(self, result: QuickstartResult, duration: str) -> str:
        clips = self.val_split.clips[:, 0]
        teacher, compared = self.load_encoder(_TEACHER), clips[:_NUM_COMPARED_CLIPS].split(_VIDEO_BATCH)
        similarity = {
            key: compute_layer_similarity(self.load_encoder(key), teacher, compared)
            for key in self.model_keys
            if key != _TEACHER
        }
        logs = self.read_logs()
        return figures.render_quickstart_page(
            result,
            reconstruction=self.draw_reconstructions(clips[:_NUM_RECONSTRUCTIONS]),
            similarity_charts=figures.draw_similarity_charts(similarity, self.method, logs[self.method]),
            loss_charts=figures.draw_loss_charts(
                {key: steps for key, steps in logs.items() if key != _IMAGE_TEACHER}, self.read_logs(finetuning=True)
            ),
            facts=[("this call", duration), *self.describe_run()],
        )

    def draw_reconstructions(self, clips: Float[Tensor, "b 3 t h w"]) -> PageImage:
        """Draw test clips as the distilled student reconstructs them, or VideoMAE's where that one has no decoder."""
        settings = _STUDENT_RECIPES[self.method].method
        key = self.method if hasattr(settings, "target") and settings.decoder is not None else "videomae"
        weights = read_checkpoint(self.run_dir(key))
        method = from_dict(PretrainRecipe, weights.metadata["recipe"]).method.build().to(self.runtime.device).eval()
        load_state_dict_strict(method, weights.tensors, weights.source)
        seeds = torch.arange(len(clips), device=clips.device)
        grid = method.encoder.grid(clips)
        visible = method.config.mask.draw(seeds, grid).visible.shape[1] / grid.num_tokens
        note = "" if key == self.method else f"{figures.METHOD_NAMES[self.method]} has no pixel decoder, this one has. "
        return PageImage(
            draw_reconstruction(reconstruct_clips(method, clips, seeds)),
            "Test clips, the tokens visible to the student, and its reconstruction",
            f"{figures.MODEL_NAMES[key]}; {visible:.0%} of each test clip are visible. {note}"
            f"{describe_pixel_source(method.config.target)}",
        )

    def describe_run(self) -> list[tuple[str, str]]:
        """Return what was run, and on what machine."""
        config, runtime = self.clips_config, self.runtime
        machine = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.machine()
        (rows, columns), num_frames = config.size, recipes.finetune.views.sampling.num_frames
        command = (
            "vidstill quickstart"
            + f" --method {self.method}" * (self.method != "amd")
            + " --smoke-test" * self.smoke_test
            + f" --seed {self.seed}" * bool(self.seed)
        )
        encoders = {"teacher": recipes.teacher.method.encoder, "student": recipes.finetune.encoder}
        if self.has_image_teacher:
            encoders["image teacher"] = recipes.image_teacher.method.encoder
        steps = {f"steps, {figures.MODEL_NAMES[key]}": len(steps) for key, steps in self.read_logs().items()}
        steps["steps, each fine-tuning"] = len(read_log(self.finetune_dir("scratch")))
        return [
            ("command", command),
            ("clips", f"{config.frames} frames of {rows} × {columns} pixels, H.264; a model's clip has {num_frames}"),
            ("classes", ", ".join(config.classes)),
            *((name, _describe_encoder(encoder)) for name, encoder in encoders.items()),
            *((name, str(count)) for name, count in steps.items()),
            ("machine", f"{machine}, {count_cores()} cores, {runtime.precision}"),
            ("versions", ", ".join(f"{name} {get_package_version(name)}" for name in ("vidstill", "torch", "av"))),
        ]


@dataclass(frozen=True)
class LoadedSplit:
    """The clips of a split in memory; values in [0, 1]."""

    clips: Float[Tensor, "n v 3 t h w"]
    labels: Int[Tensor, "n"]


def _describe_encoder(config: ViTConfig) -> str:
    t, h, w = config.tubelet
    return f"{config.depth} blocks of width {config.dim}, {config.heads} heads, tubelets of {t} × {h} × {w}"
