"""The whole road on clips that it draws itself: a teacher, its student, four classifiers, one table and one page."""

import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import Progress
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
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.synthetic.clips import SyntheticClipsConfig, make_clip_dataset
from vidstill.tasks.probes.linear import evaluate_linear_probe, extract_mean_features
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import TEST_FILE, get_package_version, write_bytes, write_json
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.types import InputError

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

DistillationMethod = Literal["amd", "mvd", "maskagain", "dmae"]

_STUDENT_RECIPES: dict[DistillationMethod, PretrainRecipe] = {
    "amd": recipes.amd,
    "mvd": recipes.mvd,
    "maskagain": recipes.maskagain,
    "dmae": recipes.dmae,
}
_TEACHER, _IMAGE_TEACHER = "teacher", "image_teacher"
_SAVE_SECONDS = 20.0  # between two saved states: stages are short
_VIDEO_BATCH = 32  # videos whose features are read together
_NUM_COMPARED_CLIPS = 64  # clips on which features are compared
_NUM_RECONSTRUCTIONS = 3  # clips whose reconstruction is shown

ReportFacts = list[tuple[str, str]]
RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


def quickstart(
    out: Path, *, method: DistillationMethod = "amd", smoke_test: bool = False, seed: int = 0, workers: int = -1
) -> QuickstartResult:
    """Walks the road in `out`, where each stage is a run; the same call again goes on where one was stopped.

    Leaves `report.html` and `results.json`, and prints the table.

    Args:
        method: the distillation that the student is taught by; in the same folder, another one keeps what it shares.
        smoke_test: a few steps of everything, to see that it runs; the numbers mean nothing then.
        seed: of the clips and of every run.
        workers: processes that decode; -1: one less than there are cores.

    Raises:
        InputError: `out` holds something else, or there are several processes.
    """
    begun = time.monotonic()
    runtime = Runtime("auto")
    if runtime.world_size > 1:
        raise InputError(
            f"the quickstart walks in one process and {runtime.world_size} were started; start it without torchrun"
        )
    road = _QuickstartRun(out, method, smoke_test, seed, workers, runtime, Console(stderr=True))
    road.build_run_config(out, out)  # so that what it refuses is met before clips are drawn
    road.draw_clips()
    road.pretrain(_TEACHER, recipes.teacher)
    if road.has_image_teacher:
        road.pretrain(_IMAGE_TEACHER, recipes.image_teacher)
    road.pretrain("videomae", recipes.videomae)
    road.pretrain(
        method, replace(_STUDENT_RECIPES[method], method=road.set_teacher_weights(_STUDENT_RECIPES[method].method))
    )
    for key in road.model_keys:
        road.finetune(key, recipes.finetune_teacher if key == _TEACHER else recipes.finetune)
    road.log_stage("probes the encoders and draws the figures")
    found = road.collect_results()
    page = road.render_report(
        found, facts=[("this call", f"{(time.monotonic() - begun) / 60:.1f} minutes"), *road.describe_run()]
    )
    write_json(out / RESULTS_FILE, asdict(found))
    write_bytes(out / REPORT_FILE, page.encode())
    shown = Console()
    shown.print(figures.make_terminal_table(found), highlight=False)
    shown.print(f"Curves and pictures: {out / REPORT_FILE}", markup=False, highlight=False, soft_wrap=True)
    return found


@dataclass
class _QuickstartRun:
    """The stages, and what is read from them afterwards."""

    out: Path
    method: DistillationMethod
    smoke_test: bool
    seed: int
    workers: int
    runtime: Runtime
    console: Console
    stage: int = 0

    def log_stage(self, message: str) -> None:
        self.stage += 1
        stages = 9 + self.has_image_teacher
        self.console.print(f"[bold]{self.stage}/{stages}[/bold] {message}", highlight=False)

    @property
    def model_keys(self) -> tuple[str, ...]:
        return ("scratch", "videomae", self.method, _TEACHER)

    @property
    def teachers(self) -> dict[str, str]:
        """The method's fields that hold a teacher, and whose run it learns from."""
        runs = {"teacher": _TEACHER, "video_teacher": _TEACHER, "image_teacher": _IMAGE_TEACHER}
        return {field: run for field, run in runs.items() if hasattr(_STUDENT_RECIPES[self.method].method, field)}

    @property
    def has_image_teacher(self) -> bool:
        """Whether the method has a teacher of images besides."""
        return _IMAGE_TEACHER in self.teachers.values()

    def set_teacher_weights(self, method: Any) -> Any:
        """The method's configuration with the weights of the teachers that were pre-trained here."""
        return replace(
            method,
            **{
                field: replace(getattr(method, field), weights=str(self.run_folder(run)))
                for field, run in self.teachers.items()
            },
        )

    def run_folder(self, key: str) -> Path:
        return self.out / (key if key in (_TEACHER, _IMAGE_TEACHER) else f"student_{key}")

    def finetune_folder(self, key: str) -> Path:
        return self.out / f"finetune_{key}"

    @property
    def clips_folder(self) -> Path:
        return self.out / "clips"

    @property
    def clips_config(self) -> SyntheticClipsConfig:
        made = replace(recipes.synthetic_clips, seed=self.seed)
        return replace(made, train=16, val=16, unlabelled=32) if self.smoke_test else made

    def adjust_recipe(self, recipe: RecipeT) -> RecipeT:
        """With this seed; at the smallest setting, of four short steps."""
        recipe = replace(recipe, seed=self.seed)
        return replace(recipe, schedule=CosineConfig(epochs=2), batch=8) if self.smoke_test else recipe

    def draw_clips(self) -> None:
        made = self.clips_config
        self.log_stage(f"draws {made.unlabelled} clips without labels, {made.train} with labels, {made.val} to test on")
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("draw", total=made.unlabelled + made.train + made.val)
            make_clip_dataset(
                self.clips_folder, made, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )

    def pretrain(self, key: str, recipe: PretrainRecipe) -> None:
        self.log_stage(f"pre-trains: {figures.MODEL_NAMES[key]}")
        pretrain(
            self.adjust_recipe(recipe),
            self.build_run_config(self.clips_folder / "unlabelled.txt", self.run_folder(key)),
            runtime=self.runtime,
        )

    def finetune(self, key: str, recipe: FinetuneRecipe) -> None:
        self.log_stage(f"fine-tunes and tests: {figures.MODEL_NAMES[key]}")
        init = None if key == "scratch" else str(self.run_folder(key))
        finetune(
            self.adjust_recipe(recipe),
            self.build_run_config(self.clips_folder, self.finetune_folder(key)),
            init=init,
            runtime=self.runtime,
        )

    def build_run_config(self, data: Path, out: Path) -> RunConfig:
        return RunConfig(data=data, out=out, workers=self.workers, save_seconds=_SAVE_SECONDS)

    def collect_results(self) -> QuickstartResult:
        return QuickstartResult(
            models=tuple(self.evaluate_model(key) for key in self.model_keys),
            method=self.method,
            num_classes=len(self.clips_config.classes),
            num_finetune_clips=self.clips_config.train,
            num_pretrain_clips=self.clips_config.unlabelled,
            num_test_clips=len(self.val_split.labels),
            seed=self.seed,
            image_teacher_seconds=sum_step_seconds(read_log(self.run_folder(_IMAGE_TEACHER)))
            if self.has_image_teacher
            else 0.0,
        )

    def evaluate_model(self, key: str) -> ModelResult:
        tested = json.loads((self.finetune_folder(key) / TEST_FILE).read_text())
        views = recipes.finetune.views
        classes = len(self.clips_config.classes)
        encoder = self.load_encoder(key)
        price = compute_model_cost(
            replace(recipes.finetune, encoder=encoder.config).build_classifier_config(classes),
            num_frames=views.sampling.num_frames,
            size=views.size,
        )
        probe = evaluate_linear_probe(
            *self.extract_features(encoder, self.train_split), *self.extract_features(encoder, self.val_split), classes
        )
        return ModelResult(
            key=key,
            name=figures.MODEL_NAMES[key],
            top1=tested["top1"],
            top5=tested["top5"],
            probe_top1=probe.top1,
            num_params=price.num_parameters,
            flops=price.multiply_adds,
            pretraining_seconds=0.0 if key == "scratch" else sum_step_seconds(read_log(self.run_folder(key))),
            finetuning_seconds=sum_step_seconds(read_log(self.finetune_folder(key))),
        )

    def load_encoder(self, key: str) -> ViT:
        """A model's encoder before fine-tuning: for "scratch", a random one of the student's size."""
        if key == "scratch":
            torch.manual_seed(self.seed)
            return recipes.finetune.encoder.build().to(self.runtime.device).eval()
        weights = read_checkpoint(self.run_folder(key))
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
        """A labelled split as the test looks at it."""
        batches = list(
            iter_view_batches(
                ViewClips(open_manifest(self.clips_folder, split=split), recipes.finetune.views),
                videos_per_batch=_VIDEO_BATCH,
                broken_videos={},
                workers=self.build_run_config(self.clips_folder, self.out).num_workers,
                device=self.runtime.device,
            )
        )
        return LoadedSplit(torch.cat([batch.clip for batch in batches]), torch.cat([batch.label for batch in batches]))

    def extract_features(self, encoder: ViT, split: "LoadedSplit") -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """Each video's features, the mean over its views; and its label."""
        views = split.clips.shape[1]
        parts = zip(split.clips.split(_VIDEO_BATCH), split.labels.split(_VIDEO_BATCH), strict=True)
        batches = ((rearrange(c, "b v ... -> (b v) ..."), labels.repeat_interleave(views)) for c, labels in parts)
        with self.runtime.autocast():
            found, labels = extract_mean_features(encoder, batches)
        return reduce(found, "(n v) d -> n d", "mean", v=views), labels[::views]

    def render_report(self, results: QuickstartResult, facts: ReportFacts) -> str:
        clips = self.val_split.clips[:, 0]
        teacher = self.load_encoder("teacher")
        compared = clips[:_NUM_COMPARED_CLIPS].split(_VIDEO_BATCH)
        alike = {
            key: compute_layer_similarity(self.load_encoder(key), teacher, compared)
            for key in self.model_keys
            if key != _TEACHER
        }
        return figures.render_quickstart_page(
            results,
            reconstruction=self.draw_reconstructions(clips[:_NUM_RECONSTRUCTIONS]),
            similarity_charts=figures.draw_similarity_charts(
                alike, self.method, read_log(self.run_folder(self.method))
            ),
            loss_charts=figures.draw_loss_charts(
                {key: read_log(self.run_folder(key)) for key in self.model_keys if key != "scratch"},
                {key: read_log(self.finetune_folder(key)) for key in self.model_keys},
            ),
            facts=facts,
        )

    def draw_reconstructions(self, clips: Float[Tensor, "b 3 t h w"]) -> PageImage:
        """What the distilled student makes of test clips; where it rebuilds no pixels, the one taught by them alone."""
        settings = _STUDENT_RECIPES[self.method].method
        key = self.method if hasattr(settings, "target") and settings.decoder is not None else "videomae"
        weights = read_checkpoint(self.run_folder(key))
        method = from_dict(PretrainRecipe, weights.metadata["recipe"]).method.build().to(self.runtime.device).eval()
        load_state_dict_strict(method, weights.tensors, weights.source)
        seeds = torch.arange(len(clips), device=clips.device)
        grid = method.encoder.grid(clips)
        shown = method.config.mask.draw(seeds, grid).visible.shape[1] / grid.num_tokens
        instead = (
            "" if key == self.method else f"{figures.METHOD_NAMES[self.method]} rebuilds no pixels, this one does. "
        )
        return PageImage(
            draw_reconstruction(reconstruct_clips(method, clips, seeds)),
            "Test clips, what the student sees of them, and what it rebuilds",
            f"{figures.MODEL_NAMES[key]}, sees {shown:.0%} of each test clip. {instead}{describe_pixel_source(method.config.target)}",
        )

    def describe_run(self) -> ReportFacts:
        """What was run, and on what."""
        made, runtime = self.clips_config, self.runtime
        machine = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.machine()
        (rows, columns), frames = made.size, recipes.finetune.views.sampling.num_frames
        command = (
            "vidstill quickstart"
            + f" --method {self.method}" * (self.method != "amd")
            + " --smallest" * self.smoke_test
            + f" --seed {self.seed}" * bool(self.seed)
        )
        return [
            ("command", command),
            ("clips", f"{made.frames} frames of {rows} × {columns} pixels, H.264; {frames} of them are looked at"),
            ("classes", ", ".join(made.classes)),
            ("teacher", _describe_encoder(recipes.teacher.method.encoder)),
            *(
                [("image teacher", _describe_encoder(recipes.image_teacher.method.encoder))]
                if self.has_image_teacher
                else []
            ),
            ("student", _describe_encoder(recipes.finetune.encoder)),
            *(
                (f"steps, {figures.MODEL_NAMES[key]}", str(len(read_log(self.run_folder(key)))))
                for key in (*self.model_keys, *([_IMAGE_TEACHER] if self.has_image_teacher else []))
                if key != "scratch"
            ),
            ("steps, each fine-tuning", str(len(read_log(self.finetune_folder("scratch"))))),
            ("machine", f"{machine}, {count_cores()} cores, {runtime.precision}"),
            ("versions", ", ".join(f"{name} {get_package_version(name)}" for name in ("vidstill", "torch", "av"))),
        ]


@dataclass(frozen=True)
class LoadedSplit:
    """A split in memory; colours in [0, 1]."""

    clips: Float[Tensor, "n v 3 t h w"]
    labels: Int[Tensor, "n"]


def _describe_encoder(config: ViTConfig) -> str:
    t, h, w = config.tubelet
    return f"{config.depth} blocks of width {config.dim}, {config.heads} heads, tubelets of {t} × {h} × {w}"
