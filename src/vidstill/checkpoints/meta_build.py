"""Build a model that a file describes on the "meta" device, where it takes no memory, as far as its tensors reach."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vidstill.utils.types import InputError

_MAX_MISSING_PARAMETERS = 512  # which a file may lack, or hold in other shapes; each costs a few kilobytes

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def build_on_meta(build: Callable[[], ModuleT], tensors: Iterable[Tensor]) -> ModuleT:
    """Build a module on the "meta" device; the build stops where its parameters go far beyond the file's tensors.

    Args:
        build: Builds it, from what the file says.
        tensors: Of the file.

    Raises:
        InputError: What the file says describes no model, or one with many more parameters.
    """
    unused, num_missing = Counter(tuple(tensor.shape) for tensor in tensors), 0

    def check(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal num_missing
        shape = tuple(parameter.shape)
        num_missing += not unused[shape]
        unused[shape] = max(0, unused[shape] - 1)
        if num_missing > _MAX_MISSING_PARAMETERS:
            raise InputError("its metadata describe a larger model than its tensors are; it is damaged, fetch it again")

    hook = register_module_parameter_registration_hook(check)
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, TypeError, ZeroDivisionError, OverflowError) as error:  # sizes that no tensor can have
        raise InputError(f"its metadata describe no model ({error}); it is damaged, fetch it again") from None
    finally:
        hook.remove()
