"""Measure what saving the state costs a pre-training: VideoMAE on random clips, without a data set.

    python scripts/state_cost.py [--sizes small base] [--batch 2] [--image 224] [--steps 24] [--saves 4]

Steps with and without the state's bookkeeping (the loss is compared with those before it, is a save due, has a write
failed) are taken in turns, in random order, and so are steps in which a save begins. For each size, print one line of
JSON: the median seconds of a step without the bookkeeping; the seconds that the bookkeeping itself takes in a step;
the seconds that training waits at the first save and, median, at the later ones, with the processor time of these;
those that saving adds to the steps until the state is on the disk (the thread computes a checksum meanwhile); the size
of the state; and `overhead`, the share of training time that all of this takes with a state every `--save-seconds`.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vidstill.bench.report import describe_machine
from vidstill.engine.checkpoint import STATE_DIR, list_states
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig, plan_training
from vidstill.engine.optimizer import AdamWConfig
from vidstill.engine.state_saver import StateSaver
from vidstill.engine.trainer import Trainer
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.vit import BASE, SMALL

Period = tuple[
    str, float, float, float
]  # of a step: mode, seconds, those of the saver, those of its thread's processor

SIZES = {"small": SMALL, "base": BASE}


class _Done(Exception):
    """Ends the training."""


class Measurement:
    """Takes the place of a trainer's saver: passes calls on, or drops them, and measures them."""

    def __init__(self, saver: StateSaver):
        self.saver, self.is_on = saver, True
        self.seconds = self.cpu_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.saver, name)
        if name in ("judge_step", "is_due", "check", "save", "write"):
            return lambda *args, **kwargs: self._call(name, attribute, args, kwargs)
        return attribute

    def _call(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if name == "write":  # calls one of the others, or the log
            return function(*args, **kwargs)
        if not self.is_on and name != "save":
            return False
        start, cpu_start = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start
            self.cpu_seconds += time.thread_time() - cpu_start


def measure(size: str, batch: int, image: int, steps: int, saves: int, save_seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    runtime = Runtime("auto")
    modes = ["without", "with"] * (steps // 2) + ["save"] * saves
    random.Random(0).shuffle(modes)
    modes = ["warm-up", "save", *modes]  # the first save allocates
    total = 20 * len(modes)  # a step that saves is followed by those in which the thread writes
    optim = AdamWConfig(base_lr=1e-3)
    plan = plan_training(num_videos=batch, batch=batch, optim=optim, schedule=CosineConfig(epochs=total))
    clip = torch.rand(batch, 3, 16, image, image, device=runtime.device)
    numbers = torch.arange(batch, device=runtime.device)
    periods: list[Period] = []
    with tempfile.TemporaryDirectory(dir=".") as folder:

        def make_batches(start: int) -> Iterator[tuple[Any, ...]]:
            queue = list(modes)
            mode, begin = "", 0.0
            for _ in range(total):
                now = time.perf_counter()
                if mode:
                    periods.append((mode, now - begin, measurement.seconds, measurement.cpu_seconds))
                is_writing = saver.saved_step < saver.progress[0]
                if not (is_writing or queue):
                    raise _Done
                mode = "writing" if is_writing else queue.pop(0)
                measurement.is_on, measurement.seconds, measurement.cpu_seconds = mode != "without", 0.0, 0.0
                saver.time = -1e9 if mode == "save" else time.monotonic()
                begin = time.perf_counter()
                yield clip, numbers, numbers  # labels, seeds

        trainer = Trainer(
            VideoMAEConfig(encoder=SIZES[size]).build(),
            make_batches,
            plan=plan,
            optim=optim,
            runtime=runtime,
            run_dir=Path(folder),
            seed=0,
            save_seconds=save_seconds,
        )
        saver = trainer.saver
        measurement = Measurement(saver)
        trainer.saver = measurement  # type: ignore[assignment]
        with suppress(_Done):
            trainer.train()
        num_bytes = list_states(Path(folder) / STATE_DIR)[-1].stat().st_size
    return summarize(size, periods, num_bytes, save_seconds)


def summarize(size: str, periods: list[Period], num_bytes: int, save_seconds: float) -> dict[str, Any]:
    step = statistics.median(seconds for mode, seconds, *_ in periods if mode == "without")
    waits = [saver_seconds for mode, _, saver_seconds, _ in periods if mode == "save"]
    added: list[float] = []
    for mode, seconds, *_ in periods:
        if mode == "save":
            added.append(seconds - step)
        elif mode == "writing" and added:
            added[-1] += seconds - step
    bookkeeping = statistics.median(saver_seconds for mode, _, saver_seconds, _ in periods if mode == "with")
    wait, slowed = statistics.median(waits[1:]), statistics.median(added[1:])
    return {
        "size": size,
        "step_seconds": round(step, 4),
        "step_with_seconds": round(statistics.median(seconds for mode, seconds, *_ in periods if mode == "with"), 4),
        "bookkeeping_seconds": round(bookkeeping, 7),
        "first_wait_seconds": round(waits[0], 3),
        "wait_seconds": round(wait, 3),
        "wait_cpu_seconds": round(statistics.median(cpu for mode, *_, cpu in periods if mode == "save"), 3),
        "added_seconds": round(slowed, 3),
        "state_mb": round(num_bytes / 1e6, 1),
        "overhead": round(bookkeeping / step + max(wait, slowed) / save_seconds, 6),
        "steps": len(periods),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch", type=int, default=2, help="clips")
    parser.add_argument("--image", type=int, default=224, help="rows and columns; the state does not depend on them")
    parser.add_argument("--steps", type=int, default=24, help="half of them without the bookkeeping")
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--save-seconds", type=float, default=600.0)
    args = parser.parse_args()
    machine = describe_machine()
    print(json.dumps({"cpu": machine.cpu, "cores": machine.num_cores, "commit": machine.commit}))
    for size in args.sizes:
        print(json.dumps(measure(size, args.batch, args.image, args.steps, args.saves, args.save_seconds)), flush=True)


if __name__ == "__main__":
    main()
