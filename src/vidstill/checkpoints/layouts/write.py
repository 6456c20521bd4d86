"""The authors' files, written: plain safetensors, or `.pth` as their trainers wrap it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidstill.checkpoints.io import stream_safetensors
from vidstill.checkpoints.layouts.constraints import LAYOUT_CONSTRAINTS
from vidstill.utils.files import atomic_write, write_bytes
from vidstill.utils.types import InputError

_MODULE_PREFIX = "Align_"  # MaskAgain's projections, which its trainer writes beside the model, module by module


def write_foreign_checkpoint(path: Path, tensors: Mapping[str, Tensor], layout: str) -> None:
    """Writes a file of theirs, complete or absent: `.safetensors`, or wrapped as their trainer does it.

    Raises:
        InputError: it cannot be written, or its name has another end.
    """
    check_foreign_suffix(path)
    if path.suffix == ".safetensors":
        write_bytes(path, stream_safetensors(tensors))
        return
    wrapped: dict[str, Any] = {LAYOUT_CONSTRAINTS[layout].state_dict_key: {}}
    for name, tensor in tensors.items():
        module, _, rest = name.partition(".")
        place = (
            wrapped.setdefault(module, {})
            if module.startswith(_MODULE_PREFIX)
            else wrapped[LAYOUT_CONSTRAINTS[layout].state_dict_key]
        )
        place[rest if module.startswith(_MODULE_PREFIX) else name] = tensor.contiguous()
    with atomic_write(path) as file:
        torch.save(wrapped, file)


def check_foreign_suffix(path: Path) -> None:
    """Raises an InputError where a file's name does not say as what it is to be written."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise InputError(f"{path} ends with neither .pth nor .safetensors; name it so")
