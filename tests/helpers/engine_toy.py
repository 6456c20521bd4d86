"""A task of a few weights, to be trained: as a program it is what the tests kill, interrupt and double."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.engine.distributed import Runtime
from vidstill.engine.interruption import RunStopped
from vidstill.engine.lr_schedule import CosineConfig, TrainingPlan, plan_training
from vidstill.engine.optimizer import AdamWConfig
from vidstill.engine.protocols import BatchFactory
from vidstill.engine.trainer import Trainer
from vidstill.engine.validation import Validation
from vidstill.utils.signals import raise_signals
from vidstill.utils.types import Output

OPTIM = AdamWConfig(base_lr=1.0, min_lr=0.01, max_grad_norm=1.0)


class Toy(nn.Module):
    """Learns the sum of its input; its noise falls from `drop`, and depends on torch's default generator."""

    def __init__(self, drop: float = 0.3, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.drop = drop
        self.layers = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Dropout(drop), nn.Linear(width, 1))

    def begin_step(self, progress: float) -> None:
        self.layers[2].p = self.drop * (1 - progress)

    def forward(self, clip: Tensor, label: Tensor) -> Output:
        prediction = self.layers(clip.to(self.layers[0].weight.dtype))[:, 0].float()
        return Output(F.mse_loss(prediction, label), {"prediction": prediction.mean()})


def toy_plan(*, epochs: int = 4, batch: int = 8, at_once: int | None = None, world: int = 1) -> TrainingPlan:
    schedule = CosineConfig(epochs=epochs, warmup_epochs=1)
    return plan_training(
        num_videos=43, batch=batch, optim=OPTIM, schedule=schedule, device_batch=at_once, world_size=world
    )


def toy_batches(
    plan: TrainingPlan,
    runtime: Runtime,
    *,
    poison: tuple[int, ...] = (),
    slow: float = 0.0,
    stop_after: int | None = None,
) -> BatchFactory:
    """A step's clips depend on the step alone; `poison` names the steps (from 0) whose first micro-batch has a NaN."""

    def batches(start: int) -> Iterator[tuple[Any, ...]]:
        size = plan.videos_per_microbatch
        for step in range(start, plan.total_steps):
            if step == stop_after:
                raise RunStopped("the data failed")
            clips = torch.randn(plan.videos_per_step, 6, generator=torch.Generator().manual_seed(step))
            labels = clips.sum(1)
            if step in poison:
                clips[0] = torch.nan
            for micro in range(plan.accumulation_steps):
                time.sleep(slow)
                first = (micro * plan.world_size + runtime.rank) * size
                rows = slice(first, first + size)
                yield clips[rows].to(runtime.device), labels[rows].to(runtime.device)

    return batches


def first_bias(task: Toy) -> dict[str, float]:
    """A score that depends on the weights alone."""
    return {"bias": task.layers[0].bias[0].item()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--poison", type=int, nargs="*", default=())
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--patience", type=int, help="epochs; each is scored by the weights that it ends with")
    parser.add_argument("--own-disks", action="store_true", help="each process has a directory of its own")
    parser.add_argument("--stop-after", type=int, help="steps, after which the data fail")
    parser.add_argument("--largest-file", type=int, help="bytes: what a full disk is like")
    options = parser.parse_args(arguments)
    if options.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.largest_file, options.largest_file))
    runtime = Runtime("fp32")
    plan = toy_plan(epochs=options.epochs, at_once=options.at_once, world=runtime.world_size)
    task = Toy(width=options.width)
    batches = toy_batches(plan, runtime, slow=options.slow, poison=tuple(options.poison), stop_after=options.stop_after)
    folder = options.folder / f"disk{runtime.rank}" if options.own_disks else options.folder
    settings = {"plan": plan, "optim": OPTIM, "runtime": runtime, "seed": 0, "save_steps": 1}
    if options.patience:
        settings["validation"] = Validation(
            score_epoch=lambda epoch: first_bias(task), metric="bias", keep_best=True, patience=options.patience
        )
    try:
        with raise_signals():  # as `vidstill.cli.main.main` does
            Trainer(task, batches, run_dir=folder, **settings).train()
    except RunStopped as error:
        print(error)
        return error.exit_code
    finally:
        runtime.close()
    if runtime.is_main:
        torch.save(task.state_dict(), options.folder / "weights.new")
        os.replace(options.folder / "weights.new", options.folder / "weights.pt")
    return 0


if __name__ == "__main__":
    code = main()
    if "RANK" in os.environ:  # as `vidstill.cli.main.run_and_exit` does
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
