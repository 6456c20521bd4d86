"""Read and write checkpoints: ours (safetensors with metadata) and foreign files, of which no code is run."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidstill.checkpoints.download import (
    HF_CONFIG_FILE,
    HF_PROCESSOR_FILE,
    INDEX_SUFFIX,
    choose_checkpoint_file,
    fetch_checkpoint,
    read_json_object,
    read_shard_index,
)
from vidstill.checkpoints.pickle_reader import read_torch_checkpoint
from vidstill.utils.checksums import DamagedFile, HashingWriter
from vidstill.utils.files import atomic_write
from vidstill.utils.types import InputError

MODEL_FILE = "model.safetensors"  # in a run directory
EMA_MODEL_FILE = "model_ema.safetensors"  # beside it: the averaged weights
_METADATA_KEY = "vidstill"  # in a safetensors header: our metadata as JSON
_CHECKSUM_KEY = "vidstill_sha256"  # beside it: of the file's bytes, where these 64 digits themselves are 0
_CHECKSUM_DIGITS = re.compile(rb'(?<="%s":")[0-9a-f]{64}(?=")' % _CHECKSUM_KEY.encode())
_CHUNK_BYTES = 2**20
_TRANSFORMERS_STEMS = ("model", "pytorch_model")  # of the files that config.json describes
_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and what their file says about itself.

    Args:
        tensors: On the CPU, mapped from the file where possible.
        metadata: Of a native file, or of an imported one; empty: it is foreign and not imported yet.
        source: The file, or the index of files, that was read.
        foreign_metadata: What stands beside foreign tensors: the content of `config.json` (transformers; of
            `preprocessor_config.json` as `preprocessor`), `notes` on what a trainer's file holds and was left out, and
            the `address` that it was fetched from.
    """

    tensors: dict[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    foreign_metadata: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a native checkpoint; it is complete or absent, whatever happens."""
    write_safetensors(path, tensors, {_METADATA_KEY: json.dumps(metadata)})


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with its own checksum; it takes no more memory than the largest tensor.

    Args:
        path: The file; it is complete or absent afterwards.
        tensors: On any device.
        metadata: Strings for its header.
    """
    header = _format_header(tensors, {**(metadata or {}), _CHECKSUM_KEY: "0" * 64})
    digits = _CHECKSUM_DIGITS.search(header)
    assert digits is not None
    with atomic_write(path) as file:
        writer = HashingWriter(file)
        writer.write(header)
        for tensor in tensors.values():
            if tensor.numel():
                writer.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        file.seek(digits.start())
        file.write(writer.hexdigest().encode())


def _format_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the header's length in 8 bytes, and the header as JSON padded to 8 bytes; the tensors' bytes follow it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read the tensors of a source, as they are named there.

    Args:
        source: A run directory; a `.safetensors` or `.pth` file with any suffix; a directory of transformers, with one
            file or several; `https://…/file.pth`, with `#sha256=…` or `#md5=…` to check it; a model of the Hugging Face
            Hub, `hf://org/name[@revision][/file]` or `org/name`; weights that come with vidstill, `shipped:NAME`.

    Raises:
        InputError: There is no such source, it cannot be fetched, or it holds no weights.
    """
    path, file = _resolve_source(source)
    checkpoint = _read_shards(file) if file.name.endswith(INDEX_SUFFIX) else _read_file(file, str(file))
    metadata, config = dict(checkpoint.foreign_metadata), file.with_name(HF_CONFIG_FILE)
    is_fetched = path != Path(source)
    has_config = path.is_dir() or is_fetched or path.name.startswith(_TRANSFORMERS_STEMS)
    if has_config and not checkpoint.metadata and config.is_file():
        metadata |= read_json_object(config)
        if (processor := file.with_name(HF_PROCESSOR_FILE)).is_file():
            metadata["preprocessor"] = read_json_object(processor)
    if is_fetched:
        metadata["address"] = str(source)
    return replace(checkpoint, foreign_metadata=metadata)


def list_checkpoint_files(source: str | Path) -> list[Path]:
    """Return the local files that hold a source's tensors, after the index if there is one.

    Raises:
        InputError: As `read_checkpoint`.
    """
    _, file = _resolve_source(source)
    shards = sorted(set(read_shard_index(file).values())) if file.name.endswith(INDEX_SUFFIX) else []
    return [file, *map(file.with_name, shards)]


def _resolve_source(source: str | Path) -> tuple[Path, Path]:
    """Return the local path of a source, and its file or index."""
    path = fetch_checkpoint(source, _read_file)
    if not path.is_dir():
        return path, path
    return path, path / choose_checkpoint_file([each.name for each in path.iterdir()], str(source))


def _read_shards(index: Path) -> Checkpoint:
    """Read the files of an index; each must hold exactly the tensors that the index says."""
    file_by_tensor = read_shard_index(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(file_by_tensor.values())):
        path = index.with_name(name)
        if not path.is_file():
            raise InputError(f"{index} names {name}, which is not beside it; fetch all of its files")
        shard = _read_file(path, str(path)).tensors
        if shard.keys() != {tensor for tensor, file in file_by_tensor.items() if file == name}:
            raise InputError(f"{path} holds other tensors than {index.name} says; fetch all of its files again")
        tensors |= shard
    return Checkpoint(tensors, source=str(index))


def _read_file(path: Path, display_name: str) -> Checkpoint:
    """Read one file by its content, whatever its suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{display_name} cannot be read ({error.strerror})") from None
    if head[8:] == b"{" or (path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80\x02"))):
        return _read_safetensors(path, display_name)
    tensors, notes = read_torch_checkpoint(path, display_name)
    return Checkpoint(tensors, source=str(path), foreign_metadata={"notes": notes} if notes else {})


def _read_safetensors(path: Path, display_name: str) -> Checkpoint:
    """The library checks the header against the file before it maps anything: its length, each tensor's range, gaps."""
    try:
        with safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            metadata = json.loads(strings.get(_METADATA_KEY, "{}"))
            if not isinstance(metadata, dict):
                raise ValueError(f"its metadata is no JSON object but {metadata!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        is_damaged = not _has_own_checksum(path, strings)
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        reason = "its metadata is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"{display_name} is no readable safetensors file ({' '.join(reason.split())[:300]}); fetch it again"
        ) from None
    if is_damaged:
        raise DamagedFile(
            f"{display_name} is damaged: its bytes do not have the SHA-256 in its header; fetch it again, or, if it is "
            "of a run, delete it and run the same command again, which writes it from the newest state"
        )
    return Checkpoint(tensors, metadata, str(path))


def read_own_checksum(path: Path) -> str:
    """Return the SHA-256 that a native safetensors file states of itself; empty for others and for older ones.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            length, brace = file.read(8), file.read(1)
            header = file.read(int.from_bytes(length, "little")) if brace == b"{" else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    match = _CHECKSUM_DIGITS.search(header)
    return match[0].decode() if match else ""


def _has_own_checksum(path: Path, strings: Mapping[str, str]) -> bool:
    """Return whether a file's bytes have the checksum of its header; files of others, and older ones, state none."""
    if _CHECKSUM_KEY not in strings:
        return _METADATA_KEY not in strings or strings.keys() <= {"format", _METADATA_KEY}  # else its key is damaged
    with path.open("rb") as file:
        length = file.read(8)
        head = length + file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(_CHECKSUM_DIGITS.sub(b"0" * 64, head))
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return strings[_CHECKSUM_KEY] == digest.hexdigest()
