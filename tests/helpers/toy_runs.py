"""Runs of the toy task in this process: trained, cut off, read from their log."""

import json
import sys
from pathlib import Path
from typing import Any

import engine_toy
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from fresh_programs import run_ranks, start_fresh
from torch import nn

from vidstill.engine.distributed import Runtime
from vidstill.engine.trainer import Trainer

STEPS = toy_plan().total_steps
_TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TORCHRUN_TWO = [sys.executable, *_TORCHRUN, engine_toy.__file__]
"""The program in two processes of a launcher, which ends one when the other has ended."""


class PowerCut(BaseException):
    """Ends a run without any chance to save."""


def cut_power() -> None:
    raise PowerCut


def train(folder: Path, *, task: nn.Module | None = None, plan=None, batches=None, precision="fp32", **settings):
    """Train the toy, and return its trainer."""
    runtime, plan = Runtime(precision), plan or toy_plan()
    settings = {"optim": OPTIM, "seed": 0, "save_steps": 1} | settings
    batches = batches or toy_batches(plan, runtime)
    trainer = Trainer(task or Toy(), batches, plan=plan, runtime=runtime, run_dir=folder, **settings)
    trainer.train()
    return trainer


def start_program(folder: Path, *options: object, printed: Path | None = None) -> Any:
    """Start the program in a process of its own, of one thread."""
    return start_fresh(engine_toy.main, [str(folder), *map(str, options)], printed=printed)


def run_program(folder: Path, *options: object, world_size: int = 1, printed: Path | None = None) -> list[int]:
    """Run the program to its end in one process or several, and return their exit codes."""
    arguments = [str(folder), *map(str, options)]
    return run_ranks(engine_toy.main, arguments, world_size=world_size, printed=printed)


def read_log(folder: Path, *names: str) -> list:
    return [[json.loads(line)[name] for name in names] for line in (folder / "log.jsonl").read_text().splitlines()]


def get_weights(task: nn.Module) -> list:
    return [(name, tensor.tolist()) for name, tensor in task.state_dict().items()]


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read what the program has written at its end."""
    return torch.load(folder / "weights.pt", weights_only=True)


def act_at(step: int, act=cut_power, plan=None) -> object:
    """The toy's batches; `act` is called where the given step requests its first one."""
    plan = plan or toy_plan()

    def batches(start: int):
        for n, batch in enumerate(toy_batches(plan, Runtime("fp32"))(start), start * plan.accumulation_steps):
            if n == step * plan.accumulation_steps:
                act()
            yield batch

    return batches
