"""One training step: by the trainer that a run uses, and by the plain loop of the yardstick and of transformers."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from vidstill.bench.counts import count_step
from vidstill.bench.eager.methods import build_eager
from vidstill.bench.measurement_config import StepConfig
from vidstill.bench.parts import time_parts
from vidstill.bench.random_clips import RandomClips
from vidstill.bench.side import Side
from vidstill.data.loader.loader import iter_train_batches
from vidstill.engine.cpu import count_cores, set_num_threads
from vidstill.engine.distributed import FixedPrecision, Runtime
from vidstill.engine.lr_schedule import CosineConfig, plan_training
from vidstill.engine.optimizer import OptimConfig
from vidstill.engine.trainer import Trainer
from vidstill.pipelines.run_config import BaseRunConfig
from vidstill.pipelines.train.finetune import build_classifier, build_task
from vidstill.recipes.recipe import NUM_CLASSES, FinetuneRecipe, PretrainRecipe
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

_STEPS = 1_000_000  # that are planned; half of them are warm-up, so that random clips do not make the loss explode
_DESCRIBED_STEPS = 3


@dataclass(frozen=True)
class StepWork:
    """A training step, as all sides take it."""

    recipe: PretrainRecipe | FinetuneRecipe
    batch: int  # clips
    precision: FixedPrecision

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES.get(self.recipe.clips.dataset, NUM_CLASSES["kinetics400"])

    @property
    def grid(self) -> Grid:
        encoder = self.recipe.encoder if isinstance(self.recipe, FinetuneRecipe) else self.recipe.method.encoder
        return Grid.from_clip(torch.empty(1, 3, *self.clip_size, device="meta"), encoder.tubelet)

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        return (self.recipe.clips.sampling.num_frames, *self.recipe.clips.size)

    @property
    def model_config(self) -> Any:
        """The config of the method, or of the classifier."""
        if isinstance(self.recipe, PretrainRecipe):
            return self.recipe.method
        return self.recipe.build_classifier_config(self.num_classes)

    def build_task(self) -> nn.Module:
        """Build what a run trains, teachers too, of random weights."""
        if isinstance(self.recipe, PretrainRecipe):
            torch.manual_seed(self.recipe.seed)
            return self.recipe.method.build()
        return build_task(self.recipe, build_classifier(self.recipe, self.model_config, None))


@dataclass(frozen=True, kw_only=True)
class StepDescription:
    """What one of our steps consists of."""

    part_seconds: dict[str, float]  # of one step, waiting for the device after each part
    kernels: int  # see StepCounts
    casts: int
    synchronizations: int
    kernel_names: dict[str, int]  # how often each kernel runs


class VidstillStep(Side):
    """The step of a run: its trainer, optimizer and loader, on random clips.

    Args:
        work: What is computed.
        config: How it is compiled, and whether activations are kept.
        run_dir: Of the trainer, which writes nothing into it while only steps are taken.
    """

    def __init__(self, work: StepWork, config: StepConfig, run_dir: Path):
        self.runtime = Runtime(work.precision)
        super().__init__(self.runtime.device)
        workers = 1 if self.device.type == "cpu" else min(4, max(1, count_cores() - 1))
        set_num_threads(self.device.type, workers)
        recipe = work.recipe
        clips = RandomClips(recipe.clips, count=work.batch, num_classes=work.num_classes)
        plan = plan_training(
            num_videos=len(clips),
            batch=work.batch,
            optim=recipe.optim,
            schedule=CosineConfig(epochs=_STEPS, warmup_epochs=_STEPS // 2),
        )
        task, self.compile = work.build_task(), config.compile
        run_config = BaseRunConfig(
            data=clips.source,
            out=run_dir,
            compile=config.compile,
            activation_checkpointing=config.activation_checkpointing,
        )
        run_config.prepare_task(task, self.runtime)
        self.trainer = Trainer(
            task,
            lambda start: iter(()),
            plan=plan,
            optim=recipe.optim,
            runtime=self.runtime,
            run_dir=run_dir,
            seed=recipe.seed,
            ema_decay=recipe.ema_decay,
        )
        self.batches: Iterator[tuple[Any, ...]] = iter_train_batches(
            clips,
            videos_per_step=work.batch,
            steps_per_epoch=1,
            total_steps=_STEPS,
            workers=workers,
            device=self.device,
        )

    def run(self) -> None:
        self.trainer.train_step(self.batches)

    def describe(self) -> StepDescription | None:
        """Time the parts of some steps and count what one step does; the steps take longer than others.

        One graph of everything has no parts: None.
        """
        if self.compile == "full":
            return None
        with count_step() as counts:
            self.run()
        data_seconds = 0.0
        with time_parts(self.trainer.task, self.runtime, self.device) as seconds:
            for _ in range(_DESCRIBED_STEPS):
                record = self.trainer.train_step(self.batches)  # of the step before
                data_seconds += record.data_seconds if record else 0.0
        seconds["data"] = data_seconds
        seconds["loop"] -= data_seconds
        return StepDescription(
            part_seconds={part: each / _DESCRIBED_STEPS for part, each in seconds.items()},
            kernels=counts.kernels,
            casts=counts.casts,
            synchronizations=counts.synchronizations,
            kernel_names=dict(counts.kernel_names),
        )


class PlainStep(Side):
    """A training loop as it is written in a minute: autocast, zero_grad, backward, step, and the loss for the log.

    Args:
        work: What is computed.
        device: Where.
        model: Returns the loss of `inputs`.
        inputs: On the device.
        optimizer: Of the model.
    """

    def __init__(
        self,
        work: StepWork,
        device: torch.device,
        model: nn.Module,
        inputs: dict[str, Tensor],
        optimizer: Optimizer,
    ):
        super().__init__(device)
        self.precision, self.max_grad_norm = work.precision, work.recipe.optim.max_grad_norm
        self.model, self.inputs, self.optimizer = model, inputs, optimizer

    def run(self) -> None:
        with autocast(self.device, self.precision):
            loss = self.compute_loss()
        self.optimizer.zero_grad()
        loss.backward()
        if self.max_grad_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        loss.item()

    def compute_loss(self) -> Tensor:
        return self.model(**self.inputs)


class EagerStep(PlainStep):
    """The yardstick's step: its model, and AdamW's loop over the parameters."""

    def __init__(self, work: StepWork):
        device = start_plain_process(work.precision)
        model = build_eager(work.model_config, work.grid).train().to(device)
        optimizer = AdamW(list_decay_groups(model, work.recipe.optim), foreach=False, fused=False)
        super().__init__(
            work,
            device,
            model,
            {"clip": draw_normalized_clips(work.batch, work.clip_size, device), **draw_masks(work, device)},
            optimizer,
        )


def start_plain_process(precision: FixedPrecision) -> torch.device:
    """Return the device, and give the model all cores."""
    device = Runtime(precision).device
    set_num_threads(device.type, 0)
    return device


def autocast(device: torch.device, precision: FixedPrecision) -> Any:
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


def list_decay_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices, which decay, and vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def draw_normalized_clips(batch: int, clip_size: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return random clips of so many frames, rows and columns, as they enter a model."""
    return torch.randn(batch, 3, *clip_size, generator=torch.Generator().manual_seed(0)).to(device)


def draw_masks(work: StepWork, device: torch.device) -> dict[str, Tensor]:
    """Return the yardstick's other inputs: the method's masks as booleans, or labels."""
    if isinstance(work.model_config, ClassifierConfig):
        return {"label": torch.arange(work.batch, device=device) % work.num_classes}
    mask = work.model_config.mask.draw(torch.arange(work.batch), work.grid)
    indices = {"masked": mask.masked, "teacher_only": mask.teacher_only}
    nothing = torch.zeros(work.batch, work.grid.num_tokens, dtype=torch.bool)
    return {name: nothing.scatter(1, each, True).to(device) for name, each in indices.items() if each is not None}
