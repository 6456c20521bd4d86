"""The cost of a model: its parameters, and the multiply-adds of one clip, without weights or arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class ModelCost:
    num_parameters: int
    multiply_adds: int  # of one clip; a multiply-add counts once, as in the papers' "GFLOPs"

    @property
    def parameter_millions(self) -> float:
        return self.num_parameters / 1e6

    @property
    def gflops(self) -> float:
        return self.multiply_adds / 1e9


def compute_model_cost(config: Any, *, num_frames: int, size: tuple[int, int]) -> ModelCost:
    """Count the cost of a configured model for one clip.

    Torch's counter runs on the meta device, where nothing is stored or computed. It counts matrix products, which are
    more than 99.9 % of a transformer's operations.

    Args:
        config: Its `build()` makes a module that takes a clip.
        num_frames: Frames of the clip.
        size: Rows and columns in pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode  # with all of Triton

    with torch.device("meta"), torch.inference_mode():
        model = config.build().eval().requires_grad_(False)  # else the counter counts the backward pass too
        clip = torch.empty(1, 3, num_frames, *size)
        with FlopCounterMode(display=False) as counter:
            model(clip)
    return ModelCost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def count_training_multiply_adds(build: Callable[[], nn.Module], *, num_frames: int, size: tuple[int, int]) -> int:
    """Count the multiply-adds of a training step per clip: forward, backward, and a frozen teacher's forward.

    Args:
        build: Makes a task, which is called with clips, labels and seeds.
        num_frames: Frames of a clip.
        size: Rows and columns in pixels.
    """
    with torch.device("meta"):
        task, count = build().train(), 2
        numbers = torch.arange(count)
        return count_batch_multiply_adds(task, torch.empty(count, 3, num_frames, *size), numbers, numbers) // count


def count_batch_multiply_adds(task: nn.Module, *batch: torch.Tensor) -> int:
    """Count the multiply-adds of a task's forward and backward for a batch; both are on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        task(*batch).loss.backward()
    return counter.get_total_flops() // 2
