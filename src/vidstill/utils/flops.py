"""What a model costs: its parameters, and the multiply-adds of one clip, without its weights or any arithmetic."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@runtime_checkable
class Buildable(Protocol):
    """A configuration of a module that takes a clip."""

    def build(self) -> nn.Module: ...


@dataclass(frozen=True)
class Cost:
    parameters: int
    operations: int  # of one clip; a multiply-add counts once, as in the papers' "GFLOPs"

    @property
    def millions(self) -> float:
        return self.parameters / 1e6

    @property
    def gflops(self) -> float:
        return self.operations / 1e9


def cost(config: Buildable, *, frames: int, size: tuple[int, int]) -> Cost:
    """What the configured model costs for a clip of so many frames of `size` rows and columns.

    Torch's own counter looks on while the model runs on the meta device, where nothing is stored or computed. It
    counts matrix products, which are all but a thousandth of a transformer's work.
    """
    with torch.device("meta"), torch.inference_mode():
        model = config.build().eval().requires_grad_(False)  # the counter would follow what is learned back
        clip = torch.empty(1, 3, frames, *size)
        with FlopCounterMode(display=False) as counter:
            model(clip)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)
