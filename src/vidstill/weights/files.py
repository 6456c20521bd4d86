"""Files of weights: ours (safetensors that say what they are) and the authors' `.pth`, read without running them."""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vidstill.folder import write_whole
from vidstill.types import InputError

MODEL_FILE = "model.safetensors"  # in a run's folder: what people take away
_KEY = "vidstill"  # where our metadata stands, as JSON


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what the file says about itself: empty where it is not ours."""

    tensors: dict[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes our file; it is complete or absent, whatever happens meanwhile."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, metadata={_KEY: json.dumps(about)}))


def read_weights(source: str | Path) -> Weights:
    """The tensors of a run's folder, a `.safetensors` or a `.pth` file, on the CPU.

    Raises:
        InputError: there is no such file, or it is no file of weights.
    """
    path = Path(source)
    if path.is_dir():
        path = path / MODEL_FILE
        if not path.exists():
            raise InputError(f"{source} holds no {MODEL_FILE}: its run has not ended yet, or it is no run's folder")
    if not path.exists():
        raise InputError(f"there is no file or run {source}; give a run's folder, a .safetensors or a .pth file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return Weights(_read_pickle(path), source=str(path))


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"what it says of itself is no JSON object but {about!r}")
            return Weights({name: file.get_tensor(name) for name in file.keys()}, about, str(path))  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no readable safetensors file ({error}); fetch or write it again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The authors' trainers wrap the tensors as `model`, `module` or `model_state`, or do not wrap them."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # their trainers' options: attributes, no code
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever bytes lead it to
        asked = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "it is cut off, or of another format"
        raise InputError(f"{path} is no file of plain tensors ({reason}); it was not executed") from None
    for key in ("model", "module", "model_state"):  # the last one is PySlowFast's
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(
            f"{path} holds no named tensors; a checkpoint of the family has them as `model`, `module` or `model_state`"
        )
    return content
