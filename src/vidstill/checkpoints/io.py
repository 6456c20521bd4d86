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

from vidstill.checkpoints.download import (
    HF_CONFIG_FILE,
    HF_PROCESSOR_FILE,
    choose_checkpoint_file,
    fetch_checkpoint,
    read_json_object,
    read_shard_index,
)
from vidstill.checkpoints.pickle_reader import read_torch_checkpoint
from vidstill.utils.files import write_bytes
from vidstill.utils.types import InputError

MODEL_FILE = "model.safetensors"  # in a run's folder: what people take away
_METADATA_KEY = "vidstill"  # where our metadata stands, as JSON
_INDEX_SUFFIX = ".index.json"
_TRANSFORMERS_PREFIXES = ("model", "pytorch_model")  # how the files begin that config.json speaks of


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and what the file says about itself.

    Args:
        metadata: what our own files say; empty where it is not ours.
        source: the file, or the list of files, that was read.
        foreign_metadata: what stands beside the tensors of others: the content of `config.json` (transformers; that of
            `preprocessor_config.json` as `preprocessor`), or a trainer's `args`, `cfg`, `meta`, `epoch`, as plain
            values; in `describe_licence_restrictions` what was left out; `address`, if it was fetched.
    """

    tensors: dict[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    foreign_metadata: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes our file; it is complete or absent, whatever happens meanwhile."""
    write_bytes(path, stream_safetensors(tensors, {_METADATA_KEY: json.dumps(metadata)}))


def read_checkpoint(source: str | Path) -> Checkpoint:
    """The tensors of a source, on the CPU, mapped from their files: they take memory as they are used.

    Args:
        source: a run's folder; a `.safetensors` or `.pth` file by any suffix; a folder as transformers writes it, in
            one file or several; `https://…/file.pth`, with `#sha256=…` or `#md5=…` if it is to be checked; a model of
            the Hugging Face Hub, `hf://org/name[@revision][/file]` or `org/name`.

    Raises:
        InputError: there is no such thing, it cannot be fetched, or it holds no weights.
    """
    path = fetch_checkpoint(source, _read_file)
    fetched = path != Path(source)
    if path.is_dir():
        return _read_with_config(
            path / choose_checkpoint_file([each.name for each in path.iterdir()], str(source)), config=True
        )
    weights = _read_with_config(path, config=fetched or path.name.startswith(_TRANSFORMERS_PREFIXES))
    return (
        replace(weights, foreign_metadata={**weights.foreign_metadata, "address": str(source)}) if fetched else weights
    )


def list_checkpoint_files(source: str | Path) -> list[Path]:
    """The files here that hold a source's tensors; of a list of files, that list and each of them.

    Raises:
        InputError: as `read_checkpoint`.
    """
    path = fetch_checkpoint(source, _read_file)
    path = path / choose_checkpoint_file([each.name for each in path.iterdir()], str(source)) if path.is_dir() else path
    if not path.name.endswith(_INDEX_SUFFIX):
        return [path]
    return [path, *(path.with_name(name) for name in sorted(set(read_shard_index(path).values())))]


def _read_with_config(path: Path, *, config: bool) -> Checkpoint:
    weights = _read_shards(path) if path.name.endswith(_INDEX_SUFFIX) else _read_file(path, str(path))
    beside = path.with_name(HF_CONFIG_FILE)
    if config and not weights.metadata and beside.is_file():
        said = {**weights.foreign_metadata, **read_json_object(beside)}
        if (processor := path.with_name(HF_PROCESSOR_FILE)).is_file():
            said["preprocessor"] = read_json_object(processor)
        return replace(weights, foreign_metadata=said)
    return weights


def _read_shards(index: Path) -> Checkpoint:
    """Every tensor is in the file that the index names, and in no other."""
    where = read_shard_index(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        path = index.with_name(name)
        if not path.is_file():
            raise InputError(f"{index} names {name}, which is not beside it; fetch all of its files")
        shard = _read_file(path, str(path)).tensors
        if shard.keys() != {tensor for tensor, file in where.items() if file == name}:
            raise InputError(f"{path} holds other tensors than {index.name} says; fetch all of its files again")
        tensors |= shard
    return Checkpoint(tensors, source=str(index))


def _read_file(path: Path, display_name: str) -> Checkpoint:
    """
    Args:
        display_name: of the file, for the sentences.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{display_name} cannot be read ({error.strerror})") from None
    if head[8:] == b"{" or (path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80\x02"))):
        return _read_safetensors(path, display_name)
    tensors, said = read_torch_checkpoint(path, display_name)
    return Checkpoint(tensors, source=str(path), foreign_metadata=said)


def _read_safetensors(path: Path, display_name: str) -> Checkpoint:
    """The library holds the header to the file before it maps anything: its length, each tensor's place, no gaps."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"what it says of itself is no JSON object but {about!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except RecursionError:
        raise _build_unreadable_error(display_name, "what it says of itself has no end") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise _build_unreadable_error(display_name, " ".join(str(error).split())[:300]) from None
    return Checkpoint(tensors, about, str(path))


def _build_unreadable_error(name: str, reason: str) -> InputError:
    return InputError(f"{name} is no readable safetensors file ({reason}); fetch or write it again")


def stream_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """A `.safetensors` file piece by piece, so that it takes no more memory than its largest tensor.

    The format: the header's length in 8 bytes, the header as JSON (padded with spaces to 8 bytes), the tensors' bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().flatten()
        if flat.numel():
            yield flat.view(torch.uint8).numpy().tobytes()


_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
