"""Files of weights: ours (safetensors that say what they are) and others', read without running them."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidstill.checkpoints.download import CONFIG, PROCESSOR, chosen, local_path, read_object, shard_names
from vidstill.checkpoints.pickle_reader import read_pickled
from vidstill.utils.files import write_whole
from vidstill.utils.types import InputError

MODEL_FILE = "model.safetensors"  # in a run's folder: what people take away
_KEY = "vidstill"  # where our metadata stands, as JSON
_INDEX = ".index.json"
_TRANSFORMERS = ("model", "pytorch_model")  # how the files begin that config.json speaks of


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what the file says about itself.

    Args:
        about: what our own files say; empty where it is not ours.
        source: the file, or the list of files, that was read.
        said: what stands beside the tensors of others: the content of `config.json` (transformers; that of
            `preprocessor_config.json` as `preprocessor`), or a trainer's `args`, `cfg`, `meta`, `epoch`, as plain
            values; in `notes` what was left out; `address`, if it was fetched.
    """

    tensors: dict[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes our file; it is complete or absent, whatever happens meanwhile."""
    write_whole(path, safetensors_pieces(tensors, {_KEY: json.dumps(about)}))


def read_weights(source: str | Path) -> Weights:
    """The tensors of a source, on the CPU, mapped from their files: they take memory as they are used.

    Args:
        source: a run's folder; a `.safetensors` or `.pth` file by any suffix; a folder as transformers writes it, in
            one file or several; `https://…/file.pth`, with `#sha256=…` or `#md5=…` if it is to be checked; a model of
            the Hugging Face Hub, `hf://org/name[@revision][/file]` or `org/name`.

    Raises:
        InputError: there is no such thing, it cannot be fetched, or it holds no weights.
    """
    path = local_path(source, _read_file)
    fetched = path != Path(source)
    if path.is_dir():
        return _read_either(path / chosen([each.name for each in path.iterdir()], str(source)), config=True)
    weights = _read_either(path, config=fetched or path.name.startswith(_TRANSFORMERS))
    return replace(weights, said={**weights.said, "address": str(source)}) if fetched else weights


def weights_files(source: str | Path) -> list[Path]:
    """The files here that hold a source's tensors; of a list of files, that list and each of them.

    Raises:
        InputError: as `read_weights`.
    """
    path = local_path(source, _read_file)
    path = path / chosen([each.name for each in path.iterdir()], str(source)) if path.is_dir() else path
    if not path.name.endswith(_INDEX):
        return [path]
    return [path, *(path.with_name(name) for name in sorted(set(shard_names(path).values())))]


def _read_either(path: Path, *, config: bool) -> Weights:
    weights = _read_shards(path) if path.name.endswith(_INDEX) else _read_file(path, str(path))
    beside = path.with_name(CONFIG)
    if config and not weights.about and beside.is_file():
        said = {**weights.said, **read_object(beside)}
        if (processor := path.with_name(PROCESSOR)).is_file():
            said["preprocessor"] = read_object(processor)
        return replace(weights, said=said)
    return weights


def _read_shards(index: Path) -> Weights:
    """Every tensor is in the file that the index names, and in no other."""
    where = shard_names(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        path = index.with_name(name)
        if not path.is_file():
            raise InputError(f"{index} names {name}, which is not beside it; fetch all of its files")
        shard = _read_file(path, str(path)).tensors
        if shard.keys() != {tensor for tensor, file in where.items() if file == name}:
            raise InputError(f"{path} holds other tensors than {index.name} says; fetch all of its files again")
        tensors |= shard
    return Weights(tensors, source=str(index))


def _read_file(path: Path, name: str) -> Weights:
    """
    Args:
        name: of the file, for the sentences.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror})") from None
    if head[8:] == b"{" or (path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80\x02"))):
        return _read_safetensors(path, name)
    tensors, said = read_pickled(path, name)
    return Weights(tensors, source=str(path), said=said)


def _read_safetensors(path: Path, name: str) -> Weights:
    """The library holds the header to the file before it maps anything: its length, each tensor's place, no gaps."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"what it says of itself is no JSON object but {about!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except RecursionError:
        raise _unreadable(name, "what it says of itself has no end") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise _unreadable(name, " ".join(str(error).split())[:300]) from None
    return Weights(tensors, about, str(path))


def _unreadable(name: str, why: str) -> InputError:
    return InputError(f"{name} is no readable safetensors file ({why}); fetch or write it again")


def safetensors_pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """A `.safetensors` file piece by piece, so that it takes no more memory than its largest tensor.

    The format: the header's length in 8 bytes, the header as JSON (padded with spaces to 8 bytes), the tensors' bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().flatten()
        if flat.numel():
            yield flat.view(torch.uint8).numpy().tobytes()


_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
