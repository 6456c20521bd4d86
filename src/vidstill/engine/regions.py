"""The parts of a task that can be compiled or recomputed on their own, and activation checkpointing of them."""

from collections.abc import Callable, Iterator
from functools import wraps
from types import MethodType
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vidstill.engine.protocols import RegionalModule


def wrap_regions(task: nn.Module, wrap: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the regions of all modules in a task, those of frozen teachers too; names of parameters stay the same.

    Args:
        task: Changed in place.
        wrap: Takes the module and the function of a region, whose first argument is the module; returns its
            replacement.
    """
    for module in _iter_regional_modules(task):
        for name in cast(RegionalModule, module).regions:
            region = getattr(module, name).__func__
            replacement = wraps(region)(wrap(module, region))
            setattr(module, name, MethodType(replacement, module))  # a copy of the module gets a method of its own


def is_frozen(module: nn.Module) -> bool:
    """Return whether none of its parameters is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def checkpoint_activations(task: nn.Module) -> None:
    """Keep only the inputs of each trained block for the backward pass, and compute the block a second time there.

    Losses and gradients are the same: a region draws no random numbers.

    Args:
        task: Changed in place; if it is compiled too, then before this.
    """
    wrap_regions(task, _wrap_checkpoint)


def _wrap_checkpoint(module: nn.Module, region: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: nn.Module, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return region(self, *args)
        return checkpoint(region, self, *args, use_reentrant=False, preserve_rng_state=False)

    return region if is_frozen(module) else run


def _iter_regional_modules(task: nn.Module) -> Iterator[nn.Module]:
    for module in task.modules():
        if isinstance(module, RegionalModule):
            yield module
        for held in vars(module).values():  # unregistered, as a frozen teacher holds its model
            if isinstance(held, nn.Module):
                yield from _iter_regional_modules(held)
