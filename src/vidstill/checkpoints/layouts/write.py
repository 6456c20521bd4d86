"""The authors' files, written: plain safetensors, or `.pth` as their trainers wrap it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vidstill.checkpoints.io import safetensors_pieces
from vidstill.checkpoints.layouts.constraints import LAYOUTS
from vidstill.utils.files import write_below
from vidstill.utils.types import InputError

_BESIDE = "Align_"  # MaskAgain's projections, which its trainer writes beside the model, module by module


def write_exported(path: Path, tensors: Mapping[str, Tensor], layout: str) -> None:
    """Writes a file of theirs, complete or absent: `.safetensors`, or wrapped as their trainer does it.

    Raises:
        InputError: it cannot be written, or its name has another end.
    """
    check_suffix(path)
    if path.suffix == ".safetensors":
        write_below(path, safetensors_pieces(tensors))
        return
    wrapped: dict[str, Any] = {LAYOUTS[layout].wrapping: {}}
    for name, tensor in tensors.items():
        module, _, rest = name.partition(".")
        place = wrapped.setdefault(module, {}) if module.startswith(_BESIDE) else wrapped[LAYOUTS[layout].wrapping]
        place[rest if module.startswith(_BESIDE) else name] = tensor.contiguous()

    def write(file: BinaryIO) -> None:
        torch.save(wrapped, file)

    write_below(path, write)


def check_suffix(path: Path) -> None:
    """Raises an InputError where a file's name does not say as what it is to be written."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise InputError(f"{path} ends with neither .pth nor .safetensors; name it so")
