"""One comparison at 16 frames of 112 × 112 for one GPU: a student from scratch, pre-trained by VideoMAE, and distilled.

    python scripts/evidence_gpu.py run OUT [--seed 0]     trains and tests all models; the same command resumes
    python scripts/evidence_gpu.py run OUT --toy          the same with tiny models, in a minute on a CPU
    python scripts/evidence_gpu.py plan                   clips, operations and expected seconds of each stage

VideoMAE pre-trains a ViT-S teacher and a ViT-Ti student; DMAE and AMD distil the same student from this teacher, on as
many clips. Each encoder is probed while frozen, and fine-tuned with few and with many labels. OUT gets the table
(`table.md`), every prediction for the test clips (`predictions.json`) and a run directory for each training.

Clips are drawn on the device, from seeds of their own in each split. No unlabelled clip comes twice in a training, so
that none is augmented; labelled ones do, and are cropped on the device. Batches are a function of seed and step, and a
training resumes from its last state, with the same result to the bit where kernels add in a fixed order, as on a CPU.

What `plan` expects, no GPU has confirmed. MULTIPLY_ADD_RATE is 2 % of an H100's peak in bf16: the models are narrow,
and nothing is compiled. To draw a batch, 1,700 operations read and write 0.4 GB a clip, 0.2 ms at 2 TB/s. Each clip
that is being drawn takes 11.6 MiB (by this a process on a CPU grows), a batch of 256 2.9 GiB. Learning rates are lower
than the quickstart's, for the greater depth; they and AMD's loss weights, the quickstart's, were not tuned.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vidstill.bench.report import format_markdown_table
from vidstill.engine.distributed import Runtime
from vidstill.engine.interruption import RunStopped
from vidstill.engine.lr_schedule import CosineConfig, plan_training
from vidstill.engine.optimizer import OptimConfig
from vidstill.engine.trainer import Trainer
from vidstill.methods.common.masking import NestedTubeMask
from vidstill.methods.common.teacher import TeacherConfig, list_teachers
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import SMALL, ViT, ViTConfig
from vidstill.recipes import quickstart
from vidstill.synthetic.dataset import DRAWING_VERSION
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clips
from vidstill.tasks.classification import ClassificationTask
from vidstill.tasks.metrics.accuracy import compute_accuracy, predict_classes
from vidstill.tasks.probes.linear import fit_logistic_regression
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import write_bytes, write_json
from vidstill.utils.flops import count_training_multiply_adds
from vidstill.utils.output_dir import open_output_dir
from vidstill.utils.rng import draw_permutation, draw_uniform
from vidstill.utils.types import InputError

MULTIPLY_ADD_RATE = 1e13  # multiply-adds a second
DRAWING_SECONDS = 2e-4  # of a clip of 16 × 112 × 112
OTHER_SECONDS = 40.0  # imports, labelled and test clips, features, probes, states
SAVE_SECONDS = 30.0

CLASSES = MOTION_CLASSES[:8]  # the quickstart's, pairs of opposite motions
SPLITS = ("unlabelled", "labelled", "test", "crops")
MODELS = ("scratch", "videomae", "dmae", "amd", "teacher")
MEASURES = ("probe", "few", "many")
_VIT = replace(SMALL, tubelet=(4, 16, 16), positions="sincos3d")  # 196 tokens

Clips = UInt8[Tensor, "n 3 t h w"]
Batch = tuple[Float[Tensor, "b 3 t h w"], Int[Tensor, "b"], Int[Tensor, "b"]]
"""Clips of colours in [0, 1], their labels, and their seeds."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Sizes of a comparison; the defaults are for 12 minutes of an H100 or H200."""

    frames: int = 16
    size: tuple[int, int] = (112, 112)
    teacher: ViTConfig = _VIT  # ViT-S
    student: ViTConfig = replace(_VIT, dim=192, heads=3)  # ViT-Ti
    batch: int = 256  # of a pre-training; it is drawn at once
    teacher_steps: int = 1700
    student_steps: int = 650  # of each student
    finetune_batch: int = 64
    finetune_steps: int = 300  # with few labels and with many
    few: int = 600
    many: int = 2400  # the few among them
    test: int = 3000

    def count_steps(self, name: str) -> int:
        """Return the steps of a pre-training."""
        return self.teacher_steps if name == "teacher" else self.student_steps


_TOY_VIT = replace(_VIT, dim=64, depth=2, heads=2, tubelet=(4, 8, 8))
TOY = Setup(frames=8, size=(32, 32), teacher=_TOY_VIT, student=replace(_TOY_VIT, dim=32), few=16, many=32, test=48)
TOY = replace(TOY, batch=8, teacher_steps=6, student_steps=4, finetune_batch=8, finetune_steps=4)


def build_method_configs(setup: Setup) -> dict[str, Any]:
    """Return the quickstart's methods at this size, by model; all students see about a quarter of a clip."""
    depth, teacher = setup.student.depth, TeacherConfig(model=setup.teacher)

    def resize(method: Any, encoder: ViTConfig, **changes: Any) -> Any:
        decoder = DecoderConfig(dim=encoder.dim // 2, depth=2, heads=encoder.heads, positions=encoder.positions)
        return replace(method, encoder=encoder, decoder=decoder, **changes)

    return {
        "teacher": resize(quickstart.teacher.method, setup.teacher),
        "videomae": resize(quickstart.videomae.method, setup.student),
        "dmae": resize(quickstart.dmae.method, setup.student, teacher=teacher, layer_pairs=((depth, depth),)),
        "amd": resize(
            quickstart.amd.method,
            setup.student,
            teacher=teacher,
            layer_pairs=((depth // 2, depth // 2), (depth, depth)),
            mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.5),
        ),
    }


def build_classification_task(encoder: ViTConfig) -> ClassificationTask:
    recipe = replace(quickstart.finetune, encoder=encoder)
    model, smoothing = recipe.build_classifier_config(len(CLASSES)).build(), recipe.label_smoothing
    return ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=smoothing)


def list_seeds(split: str, first: int, count: int, run_seed: int = 0) -> Int[Tensor, "n"]:
    """Return the seeds of a split's clips from number `first` on; no two splits or runs share one."""
    return torch.arange(first, first + count) + ((run_seed * len(SPLITS) + SPLITS.index(split)) << 40)


def list_labels(count: int) -> Int[Tensor, "n"]:
    """Return the labels of clips of all classes in turn."""
    return torch.arange(count) % len(CLASSES)


def crop_clips(clips: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]) -> Float[Tensor, "b 3 t h w"]:
    """Crop 80 to 100 % of each clip's area, the same of all its frames, and resize it to the whole."""
    area, right, down = draw_uniform(seeds, "crop", 3).unbind(1)
    side = (0.8 + 0.2 * area).sqrt()
    matrix = clips.new_zeros(len(clips), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = side
    matrix[:, :, 2] = (2 * torch.stack([right, down], dim=1) - 1) * (1 - side)[:, None]
    images = clips.flatten(1, 2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).view_as(clips)


@dataclass(frozen=True)
class Comparison:
    """One run of a setup in a directory."""

    setup: Setup
    out: Path
    seed: int
    runtime: Runtime

    @cached_property
    def labelled(self) -> Clips:
        return self.draw(list_seeds("labelled", 0, self.setup.many))

    @cached_property
    def test(self) -> Clips:
        return self.draw(list_seeds("test", 0, self.setup.test))

    def draw(self, seeds: Int[Tensor, "n"]) -> Clips:
        """Draw clips of all classes in turn on the device, a batch at a time."""
        actions = [CLASSES[label] for label in list_labels(len(seeds))]
        parts = (slice(start, start + self.setup.batch) for start in range(0, len(seeds), self.setup.batch))
        seeds, sizes = seeds.to(self.runtime.device), (self.setup.frames, self.setup.size)
        return torch.cat([draw_clips(actions[part], seeds[part], *sizes) for part in parts])

    def run(self) -> dict[str, list[int]]:
        """Train what is not trained yet; return the predictions for the test clips, by model and measure."""
        encoders, path = self.pretrain(), self.out / "predictions.json"
        predictions: dict[str, list[int]] = json.loads(path.read_text()) if path.exists() else {}
        for name, measure in product(MODELS, MEASURES):
            if (key := f"{name} {measure}") not in predictions:
                encoder = encoders[name]
                scores = self.probe(encoder) if measure == "probe" else self.finetune(encoder, name, measure)
                predictions[key] = predict_classes(scores).tolist()
                write_json(path, predictions)
        return predictions

    def pretrain(self) -> dict[str, ViT]:
        """Return the encoder of each model."""
        setup, batch = self.setup, self.setup.batch

        def make_batch(step: int) -> Batch:
            seeds = list_seeds("unlabelled", step * batch, batch, self.seed)
            clips, labels = self.draw(seeds), list_labels(batch)
            return clips.float().div_(255), labels.to(clips.device), seeds.to(clips.device)

        torch.manual_seed(self.seed)
        encoders = {"scratch": setup.student.build().to(self.runtime.device)}
        for name, config in build_method_configs(setup).items():
            torch.manual_seed(self.seed)
            method = config.build()
            for teacher in list_teachers(method).values():
                teacher.set_model(encoders["teacher"])
            optim = replace(quickstart.teacher.optim, base_lr=1.5e-3 if name == "teacher" else 2e-3)
            self.train(method, make_batch, optim, setup.count_steps(name), batch, name)
            encoders[name] = method.encoder.eval().requires_grad_(False)
        return encoders

    def train(
        self, task: nn.Module, make_batch: Callable[[int], Batch], optim: OptimConfig, steps: int, batch: int, name: str
    ) -> None:
        """Train for these steps, a tenth of them warm-up, or for what is left of them."""
        schedule = CosineConfig(epochs=1, warmup_steps=steps // 10)
        plan = plan_training(num_videos=steps * batch, batch=batch, optim=optim, schedule=schedule)
        settings: dict[str, Any] = {"optim": optim, "runtime": self.runtime, "seed": self.seed}
        settings |= {"save_seconds": SAVE_SECONDS, "keep_states": 1, "title": name}
        Trainer(
            task, lambda start: map(make_batch, range(start, steps)), plan=plan, run_dir=self.out / name, **settings
        ).train()

    def finetune(self, encoder: ViT, name: str, measure: str) -> Float[Tensor, "n classes"]:
        """Fine-tune a copy of an encoder on few or many of the labelled clips; return the scores of the test clips."""
        count, batch, device = getattr(self.setup, measure), self.setup.finetune_batch, self.runtime.device
        labels = list_labels(count).to(device)

        def make_batch(step: int) -> Batch:
            seeds = list_seeds("crops", step * batch, batch, self.seed).to(device)
            chosen = draw_permutation(seeds[:1], "clips", count)[0, :batch]
            return crop_clips(self.labelled[chosen].float().div_(255), seeds), labels[chosen], seeds

        torch.manual_seed(self.seed)
        task = build_classification_task(encoder.config)
        weights = encoder.state_dict()  # of the final norm, too: here a new one comes after the mean
        task.model.encoder.load_state_dict({key: weights[key] for key in task.model.encoder.state_dict()})
        optim = replace(quickstart.finetune.optim, base_lr=2e-3)
        self.train(task, make_batch, optim, self.setup.finetune_steps, batch, f"{name}_{measure}")
        return self.apply(task.model.eval(), self.test)

    def probe(self, encoder: ViT) -> Float[Tensor, "n classes"]:
        """Return the test clips' scores by logistic regression on the mean of the frozen encoder's tokens."""
        sets = self.labelled, self.test
        train, test = (self.apply(lambda clips: encoder(clips).tokens.mean(dim=1), each) for each in sets)
        return fit_logistic_regression(train, list_labels(len(train)), len(CLASSES)).predict_logits(test)

    @torch.no_grad()
    def apply(self, function: Callable[[Tensor], Tensor], clips: Clips) -> Float[Tensor, "n d"]:
        with self.runtime.autocast():
            return torch.cat([function(each.float().div_(255)).float().cpu() for each in clips.split(self.setup.batch)])


def format_table(predictions: dict[str, list[int]]) -> str:
    """Return top-1 in percent with half the width of its binomial 95 % interval, one row per model."""

    def format_cell(predicted: list[int]) -> str:
        scores = F.one_hot(torch.tensor(predicted), len(CLASSES)).double()
        accuracy = compute_accuracy(scores, list_labels(len(predicted)))
        return f"{accuracy.top1:.1f} ± {1.96 * accuracy.standard_error:.1f}"

    rows = [[model, *(format_cell(predictions[f"{model} {measure}"]) for measure in MEASURES)] for model in MODELS]
    return format_markdown_table(["model", *MEASURES], rows)


def plan() -> None:
    """Print what a run consists of, and what it is expected to take."""
    setup, total, rows = Setup(), OTHER_SECONDS, []
    stages: list[tuple[str, Callable[[], nn.Module], int, float]] = []
    for name, config in build_method_configs(setup).items():
        stages.append((name, config.build, setup.count_steps(name) * setup.batch, DRAWING_SECONDS))
    for name, encoder, runs in (("students", setup.student, 8), ("teacher", setup.teacher, 2)):
        clips = runs * setup.finetune_steps * setup.finetune_batch
        stages.append((f"fine-tuning, {name}", partial(build_classification_task, encoder), clips, 0.0))
    for name, build, clips, drawing in stages:
        cost = count_training_multiply_adds(build, num_frames=setup.frames, size=setup.size)
        seconds = clips * (cost / MULTIPLY_ADD_RATE + drawing)
        total += seconds
        rows.append([name, f"{clips:,}", f"{cost / 1e9:.2f}", f"{seconds:.0f}"])
    print(format_markdown_table(["stage", "clips", "G multiply-adds a clip", "seconds"], rows))
    print(f"\nWith {OTHER_SECONDS:.0f} seconds of all else: {total / 60:.1f} minutes")


def run(out: Annotated[Path, tyro.conf.Positional], *, seed: int = 0, toy: bool = False) -> None:
    """Train and test all models.

    Args:
        out: New, or of the same run.
        seed: Of weights, masks, crops and unlabelled clips; labelled clips and test clips are the same for all seeds.
        toy: Tiny models and few clips, to see that everything runs.
    """
    setup = TOY if toy else Setup()
    identity = {"setup": to_dict(setup), "seed": seed, "drawing": DRAWING_VERSION}
    with open_output_dir(out, identity, kind="a comparison", marker="comparison.json"):
        table = format_table(Comparison(setup, out, seed, Runtime("bf16")).run())
        write_bytes(out / "table.md", f"{table}\n".encode())
        print(table)


if __name__ == "__main__":
    try:
        tyro.extras.subcommand_cli_from_dict({"run": run, "plan": plan})
    except (InputError, RunStopped) as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
