"""How a saved state reaches every rank, whether it is one of this run, and how its parts are restored."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vidstill.engine.checkpoint import load_state
from vidstill.engine.distributed import Runtime
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

T = TypeVar("T")

_BATCHES = ("steps_per_epoch", "videos_per_step", "clips_per_step")  # what a number of steps says about the data


def read_newest_state(state_dir: Path, runtime: Runtime, *, title: str) -> dict[str, Any] | None:
    """Read the newest good state on rank 0 and return it on every rank; None if there is none.

    Args:
        title: Stands before each message.
    """

    def warn(text: str) -> None:
        print(f"{title}: {text}", file=sys.stderr)

    return read_on_main(lambda: load_state(state_dir, warn=warn), runtime)


@dataclass(frozen=True)
class _TensorInfo:
    """Stands for a tensor in what is sent as an object."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def read_on_main(read: Callable[[], T], runtime: Runtime) -> T:
    """Read nested containers with tensors on rank 0; return them on every rank, on the CPU: only rank 0 needs the file.

    Raises:
        InputError: `read` raised it; it is raised on every rank.
    """
    if runtime.world_size == 1:
        return read()
    tensors: list[Tensor] = []

    def read_structure() -> Any:
        return _replace_tensors(read(), tensors)

    structure = runtime.run_on_main(read_structure)
    sent = iter(tensors)

    def receive(info: _TensorInfo) -> Tensor:
        tensor = next(sent) if runtime.is_main else torch.empty(info.shape, dtype=info.dtype)
        flat = tensor.contiguous().reshape(-1).view(torch.uint8).to(runtime.device)
        torch.distributed.broadcast(flat, src=0)
        return flat.cpu().view(info.dtype).reshape(info.shape)

    result: T = map_leaves(structure, _TensorInfo, receive)
    return result


def _replace_tensors(value: Any, tensors: list[Tensor]) -> Any:
    def replace(tensor: Tensor) -> _TensorInfo:
        tensors.append(tensor)
        return _TensorInfo(tuple(tensor.shape), tensor.dtype)

    return map_leaves(value, Tensor, replace)


def map_leaves(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Copy nested containers; what is of this kind is replaced, in the order of the containers."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_leaves(item, kind, function) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_leaves(item, kind, function) for item in value)
    return value


@contextmanager
def convert_content_errors(state_dir: Path) -> Iterator[None]:
    """Raise what a state of wrong keys, types or shapes causes as an InputError."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {format_one_line(str(error), 200)}"
        raise InputError(
            f"{state_dir} holds a state that does not fit this run ({reason}); take another --out, or delete this "
            "directory to start again"
        ) from error


def check_state(
    state_dir: Path, state: Mapping[str, Any], *, identity: Mapping[str, Any], names: set[str], fork_step: int | None
) -> None:
    """Check that a state is of a run of these settings and of this model.

    Args:
        state_dir: For the error.
        state: What was saved.
        identity: The settings of the run.
        names: Of the tensors of its task.
        fork_step: The run goes on from this step with other settings: of its state, only the batches are compared.

    Raises:
        InputError: It is the state of another run.
    """
    steps, saved = state["progress"]["completed_steps"], state["run"]
    for name in _BATCHES if steps == fork_step else identity:
        if name in saved and saved[name] != identity[name]:  # an older version may lack a name
            raise InputError(
                f"{state_dir} holds the state of a run with {name} {saved[name]}, here it is {identity[name]}; "
                "take another --out, or the settings of that run"
            )
    if steps > identity["total_steps"]:
        raise InputError(
            f"{state_dir} holds the state of step {steps}, and the run ends at step {identity['total_steps']}; take "
            "more epochs, or resume from an earlier step"
        )
    if differing := state["task"].keys() ^ names:
        raise InputError(
            f"{state_dir} holds the state of another model ({min(differing)} is in one of them only); "
            "take another --out"
        )


def load_scaler(state_dir: Path, state: Mapping[str, Any], runtime: Runtime, *, is_fork: bool) -> None:
    """Restore the precision, if it was selected for the run, and the loss scale.

    Raises:
        InputError: The user gave another precision, and the state is not of the step of a fork.
    """
    if state["precision"] != runtime.precision:
        if runtime.requested_precision == "auto":
            runtime.set_precision(state["precision"])
        elif is_fork:
            return  # with a loss scale of its own
        else:
            raise InputError(
                f"{state_dir} holds the state of a run in {state['precision']}, and this one is in "
                f"{runtime.requested_precision}; take another --out, or --precision {state['precision']}"
            )
    runtime.scaler.load_state_dict(state["scaler"])


def load_optimizer(state_dir: Path, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore what the optimizer has accumulated; its settings (weight decay, betas, …) remain those of this run.

    Raises:
        InputError: The state's parameters are grouped otherwise.
    """
    current = optimizer.state_dict()["param_groups"]
    if _get_group_names(current) != _get_group_names(saved["param_groups"]):
        raise InputError(
            f"{state_dir} holds the state of an optimizer with other parameter groups; take another --out, or that "
            "run's layer decay and parameters without weight decay"
        )
    optimizer.load_state_dict(saved)
    for group, settings in zip(optimizer.param_groups, current, strict=True):
        group.update({name: value for name, value in settings.items() if name not in ("params", "param_names")})


def _get_group_names(groups: list[dict[str, Any]]) -> list[list[Any]]:
    return [group.get("param_names", group["params"]) for group in groups]
