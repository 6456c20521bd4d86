"""Measure what training loop and loader add to a small model: the quickstart's student, VideoMAE on drawn clips.

    OMP_NUM_THREADS=1 python scripts/loop_speed.py [--steps 1000] [--clips 2000] [--batches 16 64]

It prints a table. `overhead` is the median step of the loop (seeds, clipping, log, curves, saver) less the median of
forward, backward and optimizer alone, which is taken in turns with it, on one batch in memory: first of a task of one
linear layer, then of the student. `loader` is what a clip takes whose frames are in the cache: draws, crop, worker,
pipe, batch. Both are processor time of all threads and processes, which a busy machine changes less than the clock's.
By the clock, `model` is the rate of the student alone, and `stage` just after it that of the loop in the second epoch,
with one worker.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.bench.report import describe_machine, format_markdown_table
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig, TrainingPlan, plan_training
from vidstill.engine.trainer import Trainer
from vidstill.recipes.quickstart import videomae
from vidstill.utils.types import Output


class Trivial(nn.Module):
    """A task that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, clip: Tensor, label: Tensor, seed: Tensor) -> Output:
        loss = self.layer(clip[:, 0, 0, 0, :8]).square().mean()
        return Output(loss, {"pixels": loss})


def plan_epochs(num_videos: int, batch: int, epochs: int) -> TrainingPlan:
    schedule = CosineConfig(epochs=epochs)
    return plan_training(num_videos=num_videos, batch=batch, optim=videomae.optim, schedule=schedule)


def build_trainer(
    task: nn.Module, make_batches: Callable[[int], Iterator[Any]], plan: TrainingPlan, out: str
) -> Trainer:
    settings = {"optim": videomae.optim, "runtime": Runtime("bf16"), "run_dir": Path(out), "seed": 0}
    return Trainer(task, make_batches, plan=plan, **settings)


def measure_steps(build: Callable[[], nn.Module], clip: Tensor, steps: int) -> tuple[float, float]:
    """Return the processor seconds that the loop adds to a step, and the seconds that one takes without it."""
    batch = clip, torch.zeros(len(clip)), torch.arange(len(clip))
    task = build().train()
    optimizer = videomae.optim.build(task)
    seconds, model_cpu, loop_cpu = [], [], []

    def step_model() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = task(*batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def make_batches(start: int) -> Iterator[Any]:
        for _ in range(steps):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            step_model()
            seconds.append(time.perf_counter() - begin)
            model_cpu.append(time.process_time() - cpu_begin)
            cpu_begin = time.process_time()
            yield batch
            loop_cpu.append(time.process_time() - cpu_begin)

    with tempfile.TemporaryDirectory() as out:
        build_trainer(build(), make_batches, plan_epochs(len(clip), len(clip), steps), out).train()
    return statistics.median(loop_cpu) - statistics.median(model_cpu), statistics.median(seconds)


def measure_stage(clips: TrainClips, batch: int) -> float:
    """Return the clips a second of the second epoch of a pre-training."""
    plan, times = plan_epochs(len(clips), batch, 2), []

    def make_batches(start: int) -> Iterator[Any]:
        for each in iter_batches(clips, plan, 1):
            times.append(time.perf_counter())
            yield each

    with tempfile.TemporaryDirectory() as out:
        build_trainer(videomae.method.build(), make_batches, plan, out).train()
    return batch * plan.steps_per_epoch / (times[-1] - times[-1 - plan.steps_per_epoch])


def measure_loader(clips: TrainClips, batch: int) -> float:
    """Return the processor seconds of a clip in all processes, without their start."""

    def load(epochs: int) -> float:
        start = read_cpu_seconds()
        for _ in iter_batches(clips, plan_epochs(len(clips), batch, epochs), 1):
            pass
        return read_cpu_seconds() - start

    return statistics.median((load(2) - load(1)) / len(clips) for _ in range(3))


def iter_batches(clips: TrainClips, plan: TrainingPlan, workers: int) -> Iterator[Any]:
    steps = {name: getattr(plan, name) for name in ("videos_per_step", "steps_per_epoch", "total_steps")}
    return iter_train_batches(clips, **steps, workers=workers, device=torch.device("cpu"))


def read_cpu_seconds() -> float:
    """Return the processor time of this process, and of the workers that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of the loop, and as many of the model alone")
    parser.add_argument("--clips", type=int, default=2000, help="of an epoch")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, videomae.batch])
    args = parser.parse_args()
    machine = describe_machine()
    print(f"{machine.cpu}, {machine.num_cores} cores, commit {machine.commit}, load {os.getloadavg()[0]:.1f}\n")
    rows = []
    frames, (height, width) = videomae.clips.sampling.num_frames, videomae.clips.size
    manifest = open_manifest(f"made:unlabelled={args.clips},frames={frames},size={height}x{width}", split="train")
    cache, _ = open_frame_cache(manifest, workers=1)
    clips = TrainClips(manifest, videomae.clips, seed=0, cache=cache)
    for batch in args.batches:
        clip = torch.rand(batch, 3, frames, height, width)
        overhead, _ = measure_steps(Trivial, clip, args.steps)
        student_overhead, student = measure_steps(videomae.method.build, clip, args.steps // 4)
        stage, loader = measure_stage(clips, batch), measure_loader(clips, batch)
        rows.append([str(batch), *(f"{1e3 * seconds:.2f}" for seconds in (overhead, student_overhead))])
        rows[-1] += [f"{batch / student:.0f}", f"{stage:.0f}", f"{stage * student / batch:.2f}", f"{1e3 * loader:.3f}"]
    header = ["batch", "overhead, ms a step", "of the student", "model, clips/s", "stage, clips/s", "stage / model"]
    print(format_markdown_table([*header, "loader, ms a clip"], rows))


if __name__ == "__main__":
    main()
