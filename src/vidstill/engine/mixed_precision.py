"""Mixed precision: a model computes with copies of its parameters in bf16 or fp16, and is trained in fp32."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_BLOCK = re.compile(r".*\bblocks\.\d+")


@runtime_checkable
class HoldsFrozenModels(Protocol):
    """A module with models that are not trained, which keeps no precision but that of the computation."""

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Compute in this precision from now on."""


class ParameterCast:
    """A module's parameters in the precision that it computes in.

    Each parameter is copied once per use of `apply`, those of a block together, and its gradient is copied back in the
    same way; so no layer converts its weights, and what passes between layers has the lower precision as well. (With
    autocast, every layer converts weights, inputs and their gradients: 373 conversions in a step of VideoMAE-S.)

    Args:
        module: Keeps its parameters; inside of `apply` it has the copies.
        dtype: Of the copies; float32: the parameters themselves.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        self.dtype = dtype
        for part in module.modules():
            if isinstance(part, HoldsFrozenModels):
                part.set_compute_dtype(dtype)
        owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        groups: dict[str, list[nn.Parameter]] = {}
        for prefix, part in module.named_modules():
            for name, parameter in part._parameters.items():
                if parameter is None or parameter.dtype == dtype:
                    continue
                if parameter not in owners:
                    block = _BLOCK.match(prefix)
                    groups.setdefault(block[0] if block else "", []).append(parameter)
                owners.setdefault(parameter, []).append((part, name))
        self.owners, self.groups = owners, list(groups.values())
        self.copies: tuple[tuple[tuple[int, int], ...], list[Tensor]] = ((), [])  # of the last use without gradients

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Give the module the copies; forward, backward and what is computed again for it belong inside."""
        copies = self._copy()
        parameters = [parameter for group in self.groups for parameter in group]
        self._swap(zip(parameters, copies, strict=True))
        try:
            yield
        finally:
            self._swap(zip(parameters, parameters, strict=True))

    def _copy(self) -> list[Tensor]:
        if torch.is_grad_enabled():
            return [copy for group in self.groups for copy in _CastTogether.apply(self.dtype, *group)]
        versions = tuple((parameter._version, parameter.data_ptr()) for group in self.groups for parameter in group)
        if self.copies[0] != versions or not self.copies[1]:
            self.copies = versions, [copy for group in self.groups for copy in _cast(group, self.dtype)]
        return self.copies[1]

    def _swap(self, tensors: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
        for parameter, tensor in tensors:
            for part, name in self.owners[parameter]:
                part._parameters[name] = tensor  # type: ignore[assignment]  # a copy is no parameter


class _CastTogether(torch.autograd.Function):
    """Copies of tensors in another precision, and of their gradients in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return tuple(_cast(tensors, dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        present = [number for number, grad in enumerate(grads) if grad is not None]
        casted = _cast([grads[number] for number in present], ctx.dtypes[0])
        results: list[Tensor | None] = [None] * len(grads)
        for number, grad in zip(present, casted, strict=True):
            results[number] = grad
        return None, *results


def _cast(tensors: Sequence[Any], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies
