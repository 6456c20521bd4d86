"""Where a training step's time goes: the parts of a task, timed around its modules and methods."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from vidstill.engine.matmul_limit import synchronize
from vidstill.methods.common.teacher import list_teachers

_BACKWARD = "backward"
_METHOD_PARTS = {"compute_target": "target", "select_targets": "target", "draw_mask": "mask"}
_MODULE_PARTS = {"encoder": "student", "decoders": "decoder", "generation_projections": "projections"}
_MODULE_PARTS |= {"norm": "head", "dropout": "head"}  # of a classifier
_RUNTIME_PARTS = {"backward": _BACKWARD, "clip_grad_norm": "optimizer", "step_optimizer": "optimizer"}


class PartTimer:
    """Seconds by part; a part within a part is not counted twice, and the device is waited for where one ends.

    Args:
        device: On which the step runs.
        default: The part to which the time belongs outside of all others.
    """

    def __init__(self, device: torch.device, default: str):
        self.device, self.stack, self.seconds = device, [default], defaultdict[str, float](float)
        self._last = self._read_clock()

    def enter(self, part: str) -> None:
        """Begin a part; what runs in a backward pass (recomputation) belongs to it."""
        self._attribute()
        self.stack.append(_BACKWARD if self.stack[-1] == _BACKWARD else part)

    def leave(self) -> None:
        self._attribute()
        self.stack.pop()

    def _attribute(self) -> None:
        now = self._read_clock()
        self.seconds[self.stack[-1]] += now - self._last
        self._last = now

    def _read_clock(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


@contextmanager
def time_parts(task: nn.Module, runtime: Any, device: torch.device) -> Iterator[dict[str, float]]:
    """Time the parts of the steps within the block.

    The encoder is `student`, but for its `embed`; each other module of the task is a part of its own name, as are the
    frozen `teachers`. What is left of the task's forward pass is `loss`; of the step, `loop`.

    Args:
        task: A method or the training of a classifier.
        runtime: Runs backward pass and optimizer.
        device: Where both run.

    Yields:
        Seconds by part, which are complete after the block.
    """
    seconds: dict[str, float] = {}
    timer, undo = PartTimer(device, "loop"), list[Callable[[], None]]()
    try:
        for part, module in _list_modules(task):
            undo += _hook(timer, part, module)
        encoder = next(module for part, module in _list_modules(task) if part == "student")
        for owner, parts in ((encoder, {"embed_tokens": "embed"}), (task, _METHOD_PARTS), (runtime, _RUNTIME_PARTS)):
            undo += [_wrap(timer, part, owner, name) for name, part in parts.items() if hasattr(owner, name)]
        yield seconds
        timer._attribute()
        seconds |= timer.seconds
    finally:
        for restore in undo:
            restore()


def _list_modules(task: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the timed modules by part; of a list or dict of modules, each of them."""
    teachers = list(list_teachers(task).values())
    parts: list[tuple[str, nn.Module]] = [("loss", task), *(("teachers", teacher) for teacher in teachers)]
    model = task.model if isinstance(getattr(task, "model", None), nn.Module) else task
    for name, child in model.named_children():  # type: ignore[union-attr]  # torch forgets what a module holds
        part = _MODULE_PARTS.get(name, name)
        modules = child.children() if isinstance(child, nn.ModuleList | nn.ModuleDict) else [child]
        parts += [(part, module) for module in modules if all(module is not teacher for teacher in teachers)]
    return parts


def _hook(timer: PartTimer, part: str, module: nn.Module) -> list[Callable[[], None]]:
    enter = module.register_forward_pre_hook(lambda *_: timer.enter(part))
    leave = module.register_forward_hook(lambda *_: timer.leave(), always_call=True)
    return [enter.remove, leave.remove]


def _wrap(timer: PartTimer, part: str, owner: Any, name: str) -> Callable[[], None]:
    """Time a method of one object; return what restores it."""
    method = getattr(owner, name)

    @wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        timer.enter(part)
        try:
            return method(*args, **kwargs)
        finally:
            timer.leave()

    object.__setattr__(owner, name, timed)  # the object's own attribute hides the class's method
    return partial(object.__delattr__, owner, name)
