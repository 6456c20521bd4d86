"""Runs of the toy task in this process: trained, cut off, read from their log."""

import json
import sys
from pathlib import Path

import engine_toy
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from torch import nn

from vidstill.engine.distributed import Runtime
from vidstill.engine.trainer import SaveConfig, train_task

STEPS = toy_plan().total_steps
PROGRAM = [sys.executable, engine_toy.__file__]


class PowerCut(BaseException):
    """Nobody can do anything about it."""


def train(folder: Path, *, task: nn.Module | None = None, plan=None, batches=None, precision="fp32", **options):
    task, runtime, plan = task or Toy(), Runtime(precision), plan or toy_plan()
    batches = batches or toy_batches(plan, runtime)
    options = {"optim": OPTIM, "seed": 0, "save_config": SaveConfig(steps=1)} | options
    return task, train_task(task, batches, plan=plan, runtime=runtime, run_dir=folder, **options)


def log(folder: Path, *names: str) -> list:
    return [[json.loads(line)[name] for name in names] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(task: nn.Module) -> list:
    return [(name, tensor.tolist()) for name, tensor in task.state_dict().items()]


def cut_at(step: int, act, plan) -> object:
    """The toy's batches, and `generate_scene` where the given step asks for its first one."""

    def batches(start: int):
        for n, batch in enumerate(toy_batches(plan, Runtime("fp32"))(start), start * plan.accumulation_steps):
            if n == step * plan.accumulation_steps:
                act()
            yield batch

    return batches


def power_cut():
    raise PowerCut
