"""Compile a task by torch.compile: each kind of block once (regional compilation), or its whole forward."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vidstill.engine.regions import is_frozen, wrap_regions
from vidstill.utils.types import InputError

CompileMode = Literal["off", "blocks", "full"]
RequestedCompileMode = Literal["auto", "off", "blocks", "full"]

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_MAX_GRAPHS = 64  # per method; torch's 8 are few for MVD with many teachers, or for several runs in one process


def choose_compile_mode(requested: RequestedCompileMode, task: nn.Module, device: torch.device) -> CompileMode:
    """Choose how a task is compiled: auto is "blocks" on a GPU, where it can be, else "off".

    Raises:
        InputError: The task cannot be compiled, since its shapes change from step to step.
    """
    is_static = getattr(task, "has_static_shapes", True)
    if requested == "auto":
        return "blocks" if device.type == "cuda" and is_static else "off"
    if requested != "off" and not is_static:
        raise InputError(
            f"--compile {requested} needs equally many tokens in every step, and this recipe masks fewer from step to "
            "step; take --mask-ratio 0 or --compile off"
        )
    return requested


def compile_task(task: nn.Module, mode: CompileMode, device: torch.device, *, backend: str = "inductor") -> None:
    """Compile a task in place: from then on, its first steps compile what they run; names of parameters stay the same.

    Args:
        task: Its shapes are the same in every step.
        mode: "blocks": the regions of every block (see `RegionalModule`), one graph for all blocks of a kind, also of
            frozen teachers. In eval mode, what is trained runs as it is: batches of a validation have other shapes.
            "full": the forward of the task, in one graph for all its parts. "off": nothing.
        device: Where the task will run.
        backend: Of torch.compile.

    Raises:
        InputError: Nothing can be compiled for the device.
    """
    if mode == "off":
        return
    if backend == "inductor":
        _set_cache_dir()
        check_compiler(device)
    torch._dynamo.config.recompile_limit = max(_MAX_GRAPHS, torch._dynamo.config.recompile_limit)
    if mode == "full":
        # random numbers of the uncompiled task
        options = {"fallback_random": True} if backend == "inductor" else None
        task.compile(dynamic=False, backend=backend, options=options)
        return
    compiled: dict[Callable[..., Any], Callable[..., Any]] = {}  # one for all blocks, which share its graphs

    def wrap(module: nn.Module, region: Callable[..., Any]) -> Callable[..., Any]:
        if region not in compiled:
            compiled[region] = torch.compile(region, fullgraph=True, dynamic=False, backend=backend)
        return compiled[region] if is_frozen(module) else _run_in_training(compiled[region], region)

    wrap_regions(task, wrap)


def check_compiler(device: torch.device) -> None:
    """Compile a function of one operation, not from a cache.

    Raises:
        InputError: It fails, mostly since there is no C++ compiler.
    """
    try:
        probe = torch.compile(torch.sin, fullgraph=True, options={"fx_graph_cache": False})
        probe(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler's many kinds
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"torch.compile cannot compile for {device.type} on this machine ({type(error).__name__}: {reason}); "
            "install a C++ compiler such as g++, or take --compile off"
        ) from error


def _run_in_training(compiled: Callable[..., Any], region: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: nn.Module, *args: Any) -> Any:
        return (compiled if self.training else region)(self, *args)

    return run


def _set_cache_dir() -> None:
    """Keep compiled code beside downloaded weights unless the user chose a directory; torch's own is in /tmp."""
    path = Path.home() / ".cache" / "vidstill" / "compiled"
    if _CACHE_VARIABLE not in os.environ:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        os.environ[_CACHE_VARIABLE] = str(path)
