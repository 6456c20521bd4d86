"""What a step makes the machine do, counted: kernels, casts between precisions, and waits of the host for a device."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They run no kernel: memory is allocated, or is seen in another shape
_NO_KERNELS = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
        *("detach", "alias", "_unsafe_view", "lift_fresh", "is_same_size", "promote_types", "_local_scalar_dense"),
        *("_record_function_enter_new", "_record_function_exit"),
    }
)
_HOST_READS = ("item", "tolist", "cpu", "numpy")  # methods of Tensor for which the host waits
_HOST_READING_KERNELS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
_INDEXING_KERNELS = (
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
)  # the host reads how long a mask's result is


@dataclass
class StepCounts:
    """Of one step, forward to optimizer; eager kernels, since a compiled graph has its own."""

    kernels: int = 0  # torch's operations but for views and allocations; a call for many tensors counts once
    casts: int = 0  # of the kernels, those whose output is of another floating point precision than their input
    synchronizations: int = 0  # reads of a tensor's values by the host, which wait until a device has computed them
    kernel_names: Counter[str] = field(default_factory=Counter)


@contextmanager
def count_step() -> Iterator[StepCounts]:
    """Count what runs within the block, in this thread and in autograd's.

    On the CPU too, each read of a value by the host counts as a synchronization: it would be one on a device.
    """
    counts, depth = StepCounts(), [0]

    def wrap(read: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(read)
        def count_and_read(*args: Any, **kwargs: Any) -> Any:
            counts.synchronizations += not depth[0]  # tolist may call item
            depth[0] += 1
            try:
                return read(*args, **kwargs)
            finally:
                depth[0] -= 1

        return count_and_read

    originals = {name: getattr(Tensor, name) for name in _HOST_READS}
    for name, read in originals.items():
        setattr(Tensor, name, wrap(read))
    try:
        with _Counter(counts, depth):
            yield counts
    finally:
        for name, read in originals.items():
            setattr(Tensor, name, read)


class _Counter(TorchDispatchMode):
    def __init__(self, counts: StepCounts, depth: list[int]):
        super().__init__()
        self.counts, self.depth = counts, depth

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if _reads_on_host(name, args, output) and not self.depth[0]:
            self.counts.synchronizations += 1
        if name not in _NO_KERNELS and not func.is_view:
            self.counts.kernels += 1
            self.counts.kernel_names[name] += 1
            self.counts.casts += _is_cast(name, args, output)
        return output


def _reads_on_host(name: str, args: tuple[Any, ...], output: Any) -> bool:
    """Return whether the host waits for a call's result."""
    if name in _INDEXING_KERNELS:
        return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
    if name == "_to_copy":
        return args[0].device.type != "cpu" and output.device.type == "cpu"
    return name in _HOST_READING_KERNELS


def _is_cast(name: str, args: tuple[Any, ...], output: Any) -> bool:
    """Return whether a call copies numbers into another precision, of one tensor or of many."""
    if name == "_to_copy":
        return args[0].dtype != output.dtype
    if name not in ("copy_", "_foreach_copy_"):
        return False
    targets, sources = (tree_leaves(arg) for arg in args[:2])
    return any(target.dtype != source.dtype for target, source in zip(targets, sources, strict=True))
