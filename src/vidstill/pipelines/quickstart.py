"""The quickstart: synthetic clips, a teacher, students with and without it, four classifiers, a table and a report."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.load import build_from_state, infer_encoder_config, init_encoder
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.cpu import count_cores
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.figures import quickstart as figures
from vidstill.figures.charts import Log, read_log, sum_step_seconds
from vidstill.figures.page import render_image
from vidstill.figures.quickstart import MODELS, ModelResult, QuickstartResult
from vidstill.figures.reconstruction import describe_pixel_source, draw_reconstruction, reconstruct_clips
from vidstill.figures.similarity import compute_layer_similarity
from vidstill.models.vit import ViT
from vidstill.pipelines.run_config import FinetuneRunConfig, RunConfig, Workers
from vidstill.pipelines.train.finetune import run_finetuning
from vidstill.pipelines.train.pretrain import run_pretraining
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.quickstart import DistillationMethod
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.synthetic.dataset import make_dataset
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.arguments import check_arguments
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import get_package_version, write_bytes, write_json
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.locks import lock_outputs
from vidstill.utils.output_dir import read_result
from vidstill.utils.terminal import TerminalConsole, show_progress_bar
from vidstill.utils.types import InputError, StrPath

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

_SAVE_SECONDS = 20.0  # between two checkpoints: stages are short
_VIDEO_BATCH = 32  # videos whose features are extracted together
_NUM_COMPARED_CLIPS = 64  # clips for the similarity of features
_NUM_RECONSTRUCTIONS = 3  # clips whose reconstruction is drawn

LabelledClips = tuple[Float[Tensor, "n v 3 t h w"], Int[Tensor, "n"]]
"""The views of a split's clips in memory, with values in [0, 1], and their labels."""

RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


@check_arguments
def quickstart(
    *,
    out: StrPath = "runs/quickstart",
    method: DistillationMethod = "amd",
    smoke_test: bool = False,
    seed: int = 0,
    workers: int = -1,
) -> QuickstartResult:
    """Pre-train, distil, fine-tune and test small models on synthetic clips; the same call again resumes.

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
    start_time, out = time.monotonic(), Path(out)
    run = _Quickstart(out, method, smoke_test, seed, Workers(workers=workers))
    clips = run.clips_config
    stages: list[tuple[str, Callable[[], None]]] = [
        (f"draw {clips.unlabelled} unlabelled, {clips.train} training and {clips.val} test clips", run.draw_clips),
        *((f"pre-train: {MODELS[key].name}", partial(run.pretrain, key)) for key in run.pretrained),
        *((f"fine-tune and test: {MODELS[key].name}", partial(run.finetune, key)) for key in run.finetuned),
    ]
    log = partial(TerminalConsole("stderr").print, highlight=False)
    with lock_outputs(out):
        for number, (title, start) in enumerate(stages, 1):
            log(f"[bold]{number}/{len(stages) + 1}[/bold] {title}")
            start()
        log(f"[bold]{len(stages) + 1}/{len(stages) + 1}[/bold] probe the encoders and draw the figures")
        result, page = run.report(start_time)
        write_json(out / RESULTS_FILE, asdict(result))
        write_bytes(out / REPORT_FILE, page.encode())
    print_result = partial(TerminalConsole("stdout").print, highlight=False)
    print_result(figures.make_terminal_table(result))
    print_result(f"report with curves and pictures: {out / REPORT_FILE}", markup=False, soft_wrap=True)
    return result


class _Quickstart:
    """The stages, and what is read from their runs afterwards; a model's key is one of `MODELS`."""

    def __init__(self, out: Path, method: DistillationMethod, smoke_test: bool, seed: int, workers: Workers):
        self.out, self.method, self.smoke_test, self.seed, self.workers = out, method, smoke_test, seed, workers
        self.runtime = Runtime("auto")
        if (processes := self.runtime.world_size) > 1:
            raise InputError(f"the quickstart needs one process, not {processes}; start it without torchrun")
        self.clips_dir, self.clips_config = out / "clips", replace(recipes.synthetic_clips, seed=seed)
        if smoke_test:
            self.clips_config = replace(self.clips_config, train=16, val=16, unlabelled=32)
        self.student: Any = getattr(recipes, method).method
        teachers = {"teacher": "teacher", "video": "teacher", "image": "image_teacher"}
        self.teachers = {field: key for field, key in teachers.items() if hasattr(self.student, field)}
        image_teachers = ["image_teacher"] if "image" in self.teachers else []
        self.pretrained = ["teacher", *image_teachers, "videomae", method]
        self.finetuned = ["scratch", "videomae", method, "teacher"]

    def run_dir(self, key: str) -> Path:
        return self.out / (key if "teacher" in key else f"student_{key}")

    def finetune_dir(self, key: str) -> Path:
        return self.out / f"finetune_{key}"

    def adjust_recipe(self, recipe: RecipeT) -> RecipeT:
        recipe = replace(recipe, seed=self.seed)
        return replace(recipe, schedule=CosineConfig(epochs=2), batch=8) if self.smoke_test else recipe

    def draw_clips(self) -> None:
        with show_progress_bar("clips") as progress:
            make_dataset(self.clips_dir, self.clips_config, progress=progress)

    def pretrain(self, key: str) -> None:
        recipe = getattr(recipes, key)
        if key == self.method:
            teachers = {
                field: replace(getattr(recipe.method, field), checkpoint=str(self.run_dir(teacher)))
                for field, teacher in self.teachers.items()
            }
            recipe = replace(recipe, method=replace(recipe.method, **teachers))
        data, workers = self.clips_dir / "unlabelled.txt", self.workers.workers
        config = RunConfig(data=data, out=self.run_dir(key), workers=workers, save_seconds=_SAVE_SECONDS)
        run_pretraining(self.adjust_recipe(recipe), config, runtime=self.runtime)

    def finetune(self, key: str) -> None:
        recipe = recipes.finetune_teacher if key == "teacher" else recipes.finetune
        out, workers = self.finetune_dir(key), self.workers.workers
        config = FinetuneRunConfig(data=self.clips_dir, out=out, workers=workers, save_seconds=_SAVE_SECONDS)
        init = None if key == "scratch" else str(self.run_dir(key))
        run_finetuning(self.adjust_recipe(recipe), config, init=init, runtime=self.runtime)

    def report(self, start_time: float) -> tuple[QuickstartResult, str]:
        """Return the results, and the report as HTML."""
        train, val = self.load_split("train"), self.load_split("val")
        encoders = {key: self.load_encoder(key) for key in self.finetuned}
        pretraining = {key: read_log(self.run_dir(key)) for key in self.pretrained}
        finetuning = {key: read_log(self.finetune_dir(key)) for key in self.finetuned}
        result = QuickstartResult(
            models=tuple(
                self.evaluate_model(key, encoder, train, val, pretraining.get(key, ()), finetuning[key])
                for key, encoder in encoders.items()
            ),
            method=self.method,
            num_classes=len(self.clips_config.classes),
            num_finetune_clips=self.clips_config.train,
            num_pretrain_clips=self.clips_config.unlabelled,
            num_test_clips=len(val[1]),
            seed=self.seed,
            image_teacher_seconds=sum_step_seconds(pretraining.get("image_teacher", ())),
        )
        clips, teacher = val[0][:, 0], encoders.pop("teacher")
        similarity = {
            key: compute_layer_similarity(encoder, teacher, clips[:_NUM_COMPARED_CLIPS].split(_VIDEO_BATCH))
            for key, encoder in encoders.items()
        }
        steps = {f"steps, {MODELS[key].name}": len(log) for key, log in pretraining.items()}
        steps["steps, each fine-tuning"] = len(finetuning["scratch"])
        pretraining.pop("image_teacher", None)
        page = figures.render_quickstart_page(
            result,
            reconstruction=self.draw_reconstructions(clips[:_NUM_RECONSTRUCTIONS]),
            similarity_charts=figures.draw_similarity_charts(similarity, self.method, pretraining[self.method]),
            loss_charts=figures.draw_loss_charts(pretraining, finetuning),
            facts={"this call": f"{(time.monotonic() - start_time) / 60:.1f} minutes", **self.describe_run(steps)},
        )
        return result, page

    def load_split(self, split: Split) -> LabelledClips:
        manifest, workers = open_manifest(self.clips_dir, split=split), self.workers.num_workers
        cache, _ = open_frame_cache(manifest, workers=workers)  # the fine-tunings have filled it
        batches = list(
            iter_view_batches(
                ViewClips(manifest, recipes.finetune.views, cache=cache),
                videos_per_batch=_VIDEO_BATCH,
                broken_videos={},
                workers=workers,
                device=self.runtime.device,
            )
        )
        return torch.cat([batch.clip for batch in batches]), torch.cat([batch.label for batch in batches])

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

    def evaluate_model(
        self, key: str, encoder: ViT, train: LabelledClips, val: LabelledClips, pretraining: Log, finetuning: Log
    ) -> ModelResult:
        test = read_result(self.finetune_dir(key))
        views, num_classes = recipes.finetune.views, len(self.clips_config.classes)
        classifier = replace(recipes.finetune, encoder=encoder.config).build_classifier_config(num_classes)
        cost = compute_model_cost(classifier, num_frames=views.sampling.num_frames, size=views.size)
        train_features, val_features = self.extract_features(encoder, train), self.extract_features(encoder, val)
        return ModelResult(
            key=key,
            name=MODELS[key].name,
            top1=test["top1"],
            top5=test["top5"],
            probe_top1=evaluate_linear_probe(*train_features, *val_features, num_classes).top1,
            num_params=cost.num_parameters,
            flops=cost.multiply_adds,
            pretraining_seconds=sum_step_seconds(pretraining),
            finetuning_seconds=sum_step_seconds(finetuning),
        )

    def extract_features(self, encoder: ViT, split: LabelledClips) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """Return each video's features, averaged over its views, and its label."""
        clips, labels = split
        with torch.no_grad(), self.runtime.autocast():
            batches = clips.flatten(0, 1).split(_VIDEO_BATCH * clips.shape[1])
            features = torch.cat([encoder(batch).tokens.float().mean(dim=1).cpu() for batch in batches])
        return reduce(features, "(n v) d -> n d", "mean", v=clips.shape[1]), labels.cpu()

    def draw_reconstructions(self, clips: Float[Tensor, "b 3 t h w"]) -> str:
        """Draw test clips as the distilled student reconstructs them, or VideoMAE's where that one has no decoder."""
        has_pixels = hasattr(self.student, "target") and self.student.decoder is not None
        key = self.method if has_pixels else "videomae"
        weights = read_checkpoint(self.run_dir(key))
        config = from_dict(PretrainRecipe, weights.metadata["recipe"]).method
        method = build_from_state(config.build, config.encoder, weights.tensors, weights.source)
        method = method.to(self.runtime.device).eval()
        seeds = torch.arange(len(clips), device=clips.device)
        grid = method.encoder.grid(clips)
        visible = method.config.mask.draw(seeds, grid).visible.shape[1] / grid.num_tokens
        note = "" if has_pixels else f"{MODELS[self.method].short_name} has no pixel decoder, this one has. "
        return render_image(
            draw_reconstruction(reconstruct_clips(method, clips, seeds)),
            "Test clips, the tokens visible to the student, and its reconstruction",
            f"{MODELS[key].name}; {visible:.0%} of each test clip are visible. {note}"
            f"{describe_pixel_source(method.config.target)}",
        )

    def describe_run(self, steps: dict[str, int]) -> dict[str, str]:
        """Return what was run, and on what machine."""
        config, runtime = self.clips_config, self.runtime
        machine = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.machine()
        (rows, columns), num_frames = config.size, recipes.finetune.views.sampling.num_frames
        command = f"vidstill quickstart{f' --method {self.method}' if self.method != 'amd' else ''}"
        command += f"{' --smoke-test' if self.smoke_test else ''}{f' --seed {self.seed}' if self.seed else ''}"
        encoders = {"teacher": recipes.teacher.method.encoder, "student": recipes.finetune.encoder}
        if "image_teacher" in self.pretrained:
            encoders["image teacher"] = recipes.image_teacher.method.encoder
        sizes = {
            name: f"{each.depth} blocks of width {each.dim}, {each.heads} heads, "
            f"tubelets of {' × '.join(map(str, each.tubelet))}"
            for name, each in encoders.items()
        }
        return {
            "command": command,
            "clips": f"{config.frames} frames of {rows} × {columns} pixels, H.264; a model's clip has {num_frames}",
            "classes": ", ".join(config.classes),
            **sizes,
            **{name: str(count) for name, count in steps.items()},
            "machine": f"{machine}, {count_cores()} cores, {runtime.precision}",
            "versions": ", ".join(f"{name} {get_package_version(name)}" for name in ("vidstill", "torch", "av")),
        }
