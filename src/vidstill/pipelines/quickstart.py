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

from vidstill.checkpoints.io import read_weights
from vidstill.checkpoints.load import encoder_config, load_exactly, start_encoder
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import view_batches
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.open import read_listing
from vidstill.engine.distributed import Runtime, cores
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.figures import quickstart as figures
from vidstill.figures.curves import read_log, seconds
from vidstill.figures.page import Picture
from vidstill.figures.quickstart import Contender, Findings
from vidstill.figures.reconstruction import honesty, picture, rebuild
from vidstill.figures.similarity import similarity
from vidstill.models.vit import ViT, ViTConfig
from vidstill.pipelines.train.finetune import finetune
from vidstill.pipelines.train.pretrain import pretrain
from vidstill.pipelines.train.session import Launch
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.synthetic.clips import MadeConfig, make_clips
from vidstill.tasks.probes.linear import features, linear_probe
from vidstill.utils.config_io import from_plain
from vidstill.utils.files import TEST_FILE, version_of, write_json, write_whole
from vidstill.utils.flops import cost
from vidstill.utils.types import InputError

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

Distillation = Literal["amd", "mvd", "maskagain", "dmae"]

_DISTILLED: dict[Distillation, Pretrain] = {
    "amd": recipes.amd,
    "mvd": recipes.mvd,
    "maskagain": recipes.maskagain,
    "dmae": recipes.dmae,
}
_TEACHER, _IMAGE_TEACHER = "teacher", "image_teacher"
_SAVE_SECONDS = 20.0  # between two saved states: stages are short
_AT_ONCE = 32  # videos whose features are read together
_COMPARED = 64  # clips on which features are compared
_SHOWN = 3  # clips whose reconstruction is shown

Facts = list[tuple[str, str]]
Some = TypeVar("Some", Pretrain, Finetune)


def quickstart(
    out: Path, *, method: Distillation = "amd", smallest: bool = False, seed: int = 0, workers: int = -1
) -> Findings:
    """Walks the road in `out`, where each stage is a run; the same call again goes on where one was stopped.

    Leaves `report.html` and `results.json`, and prints the table.

    Args:
        method: the distillation that the student is taught by; in the same folder, another one keeps what it shares.
        smallest: a few steps of everything, to see that it runs; the numbers mean nothing then.
        seed: of the clips and of every run.
        workers: processes that decode; -1: one less than there are cores.

    Raises:
        InputError: `out` holds something else, or there are several processes.
    """
    begun = time.monotonic()
    runtime = Runtime("auto")
    if runtime.world > 1:
        raise InputError(
            f"the quickstart walks in one process and {runtime.world} were started; start it without torchrun"
        )
    road = _Road(out, method, smallest, seed, workers, runtime, Console(stderr=True))
    road.launch(out, out)  # so that what it refuses is met before clips are drawn
    road.draw()
    road.pretrain(_TEACHER, recipes.teacher)
    if road.images:
        road.pretrain(_IMAGE_TEACHER, recipes.image_teacher)
    road.pretrain("videomae", recipes.videomae)
    road.pretrain(method, replace(_DISTILLED[method], method=road.taught(_DISTILLED[method].method)))
    for key in road.contenders:
        road.finetune(key, recipes.finetune_teacher if key == _TEACHER else recipes.finetune)
    road.say("probes the encoders and draws the figures")
    found = road.findings()
    page = road.page(found, facts=[("this call", f"{(time.monotonic() - begun) / 60:.1f} minutes"), *road.facts()])
    write_json(out / RESULTS_FILE, asdict(found))
    write_whole(out / REPORT_FILE, page.encode())
    shown = Console()
    shown.print(figures.terminal(found), highlight=False)
    shown.print(f"Curves and pictures: {out / REPORT_FILE}", markup=False, highlight=False, soft_wrap=True)
    return found


@dataclass
class _Road:
    """The stages, and what is read from them afterwards."""

    out: Path
    method: Distillation
    smallest: bool
    seed: int
    workers: int
    runtime: Runtime
    console: Console
    stage: int = 0

    def say(self, sentence: str) -> None:
        self.stage += 1
        stages = 9 + self.images
        self.console.print(f"[bold]{self.stage}/{stages}[/bold] {sentence}", highlight=False)

    @property
    def contenders(self) -> tuple[str, ...]:
        return ("scratch", "videomae", self.method, _TEACHER)

    @property
    def teachers(self) -> dict[str, str]:
        """The method's fields that hold a teacher, and whose run it learns from."""
        runs = {"teacher": _TEACHER, "video_teacher": _TEACHER, "image_teacher": _IMAGE_TEACHER}
        return {field: run for field, run in runs.items() if hasattr(_DISTILLED[self.method].method, field)}

    @property
    def images(self) -> bool:
        """Whether the method has a teacher of images besides."""
        return _IMAGE_TEACHER in self.teachers.values()

    def taught(self, method: Any) -> Any:
        """The method's configuration with the weights of the teachers that were pre-trained here."""
        return replace(
            method,
            **{
                field: replace(getattr(method, field), weights=str(self.run(run)))
                for field, run in self.teachers.items()
            },
        )

    def run(self, key: str) -> Path:
        return self.out / (key if key in (_TEACHER, _IMAGE_TEACHER) else f"student_{key}")

    def tuned(self, key: str) -> Path:
        return self.out / f"finetune_{key}"

    @property
    def clips(self) -> Path:
        return self.out / "clips"

    @property
    def made(self) -> MadeConfig:
        made = replace(recipes.made, seed=self.seed)
        return replace(made, train=16, val=16, unlabelled=32) if self.smallest else made

    def recipe(self, recipe: Some) -> Some:
        """With this seed; at the smallest setting, of four short steps."""
        recipe = replace(recipe, seed=self.seed)
        return replace(recipe, schedule=CosineConfig(epochs=2), batch=8) if self.smallest else recipe

    def draw(self) -> None:
        made = self.made
        self.say(f"draws {made.unlabelled} clips without labels, {made.train} with labels, {made.val} to test on")
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("draw", total=made.unlabelled + made.train + made.val)
            make_clips(self.clips, made, made=lambda done, total: bar.update(task, completed=done, total=total))

    def pretrain(self, key: str, recipe: Pretrain) -> None:
        self.say(f"pre-trains: {figures.NAMES[key]}")
        pretrain(self.recipe(recipe), self.launch(self.clips / "unlabelled.txt", self.run(key)), runtime=self.runtime)

    def finetune(self, key: str, recipe: Finetune) -> None:
        self.say(f"fine-tunes and tests: {figures.NAMES[key]}")
        init = None if key == "scratch" else str(self.run(key))
        finetune(self.recipe(recipe), self.launch(self.clips, self.tuned(key)), init=init, runtime=self.runtime)

    def launch(self, data: Path, out: Path) -> Launch:
        return Launch(data=data, out=out, workers=self.workers, save_seconds=_SAVE_SECONDS)

    def findings(self) -> Findings:
        return Findings(
            contenders=tuple(self.contender(key) for key in self.contenders),
            method=self.method,
            classes=len(self.made.classes),
            labelled=self.made.train,
            unlabelled=self.made.unlabelled,
            videos=len(self.val.labels),
            seed=self.seed,
            image_teacher_seconds=seconds(read_log(self.run(_IMAGE_TEACHER))) if self.images else 0.0,
        )

    def contender(self, key: str) -> Contender:
        tested = json.loads((self.tuned(key) / TEST_FILE).read_text())
        views = recipes.finetune.views
        classes = len(self.made.classes)
        encoder = self.encoder(key)
        price = cost(
            replace(recipes.finetune, encoder=encoder.config).classifier(classes),
            frames=views.sampling.frames,
            size=views.size,
        )
        probe = linear_probe(*self.vectors(encoder, self.train), *self.vectors(encoder, self.val), classes)
        return Contender(
            key=key,
            name=figures.NAMES[key],
            top1=tested["top1"],
            top5=tested["top5"],
            probe=probe.top1,
            parameters=price.parameters,
            operations=price.operations,
            pretraining_seconds=0.0 if key == "scratch" else seconds(read_log(self.run(key))),
            finetuning_seconds=seconds(read_log(self.tuned(key))),
        )

    def encoder(self, key: str) -> ViT:
        """A model's encoder before fine-tuning: for "scratch", a random one of the student's size."""
        if key == "scratch":
            torch.manual_seed(self.seed)
            return recipes.finetune.encoder.build().to(self.runtime.device).eval()
        weights = read_weights(self.run(key))
        config = encoder_config(weights, recipes.finetune.encoder)
        encoder = config.build()
        start_encoder(encoder, weights, config)
        return encoder.to(self.runtime.device).eval()

    @cached_property
    def train(self) -> "Looked":
        return self.looked("train")

    @cached_property
    def val(self) -> "Looked":
        return self.looked("val")

    def looked(self, split: Split) -> "Looked":
        """A labelled split as the test looks at it."""
        batches = list(
            view_batches(
                ViewClips(read_listing(self.clips, split=split), recipes.finetune.views),
                videos_per_batch=_AT_ONCE,
                broken={},
                workers=self.launch(self.clips, self.out).decoders,
                device=self.runtime.device,
            )
        )
        return Looked(torch.cat([batch.clip for batch in batches]), torch.cat([batch.label for batch in batches]))

    def vectors(self, encoder: ViT, looked: "Looked") -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """Each video's features, the mean over its views; and its label."""
        views = looked.clips.shape[1]
        parts = zip(looked.clips.split(_AT_ONCE), looked.labels.split(_AT_ONCE), strict=True)
        batches = ((rearrange(c, "b v ... -> (b v) ..."), labels.repeat_interleave(views)) for c, labels in parts)
        with self.runtime.autocast():
            found, labels = features(encoder, batches)
        return reduce(found, "(n v) d -> n d", "mean", v=views), labels[::views]

    def page(self, found: Findings, facts: Facts) -> str:
        clips = self.val.clips[:, 0]
        teacher = self.encoder("teacher")
        compared = clips[:_COMPARED].split(_AT_ONCE)
        alike = {key: similarity(self.encoder(key), teacher, compared) for key in self.contenders if key != _TEACHER}
        return figures.report(
            found,
            rebuilt=self.rebuilt(clips[:_SHOWN]),
            near=figures.nearness(alike, self.method, read_log(self.run(self.method))),
            curves=figures.losses(
                {key: read_log(self.run(key)) for key in self.contenders if key != "scratch"},
                {key: read_log(self.tuned(key)) for key in self.contenders},
            ),
            facts=facts,
        )

    def rebuilt(self, clips: Float[Tensor, "b 3 t h w"]) -> Picture:
        """What the distilled student makes of test clips; where it rebuilds no pixels, the one taught by them alone."""
        settings = _DISTILLED[self.method].method
        key = self.method if hasattr(settings, "target") and settings.decoder is not None else "videomae"
        weights = read_weights(self.run(key))
        method = from_plain(Pretrain, weights.about["recipe"]).method.build().to(self.runtime.device).eval()
        load_exactly(method, weights.tensors, weights.source)
        seeds = torch.arange(len(clips), device=clips.device)
        grid = method.encoder.grid(clips)
        shown = method.config.mask.draw(seeds, grid).visible.shape[1] / grid.tokens
        instead = "" if key == self.method else f"{figures.METHODS[self.method]} rebuilds no pixels, this one does. "
        return Picture(
            picture(rebuild(method, clips, seeds)),
            "Test clips, what the student sees of them, and what it rebuilds",
            f"{figures.NAMES[key]}, sees {shown:.0%} of each test clip. {instead}{honesty(method.config.target)}",
        )

    def facts(self) -> Facts:
        """What was run, and on what."""
        made, runtime = self.made, self.runtime
        machine = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.machine()
        (rows, columns), frames = made.size, recipes.finetune.views.sampling.frames
        command = (
            "vidstill quickstart"
            + f" --method {self.method}" * (self.method != "amd")
            + " --smallest" * self.smallest
            + f" --seed {self.seed}" * bool(self.seed)
        )
        return [
            ("command", command),
            ("clips", f"{made.frames} frames of {rows} × {columns} pixels, H.264; {frames} of them are looked at"),
            ("classes", ", ".join(made.classes)),
            ("teacher", _described(recipes.teacher.method.encoder)),
            *([("image teacher", _described(recipes.image_teacher.method.encoder))] if self.images else []),
            ("student", _described(recipes.finetune.encoder)),
            *(
                (f"steps, {figures.NAMES[key]}", str(len(read_log(self.run(key)))))
                for key in (*self.contenders, *([_IMAGE_TEACHER] if self.images else []))
                if key != "scratch"
            ),
            ("steps, each fine-tuning", str(len(read_log(self.tuned("scratch"))))),
            ("machine", f"{machine}, {cores()} cores, {runtime.precision}"),
            ("versions", ", ".join(f"{name} {version_of(name)}" for name in ("vidstill", "torch", "av"))),
        ]


@dataclass(frozen=True)
class Looked:
    """A split in memory; colours in [0, 1]."""

    clips: Float[Tensor, "n v 3 t h w"]
    labels: Int[Tensor, "n"]


def _described(model: ViTConfig) -> str:
    t, h, w = model.tubelet
    return f"{model.depth} blocks of width {model.dim}, {model.heads} heads, tubelets of {t} × {h} × {w}"
