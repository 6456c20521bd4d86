"""What a checkpoint holds, as one SHA-256: whether a source has other weights than before, wherever it lies."""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from vidstill.checkpoints.io import Checkpoint, list_checkpoint_files, read_own_checksum
from vidstill.utils.checksums import hash_file


def fingerprint_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a checkpoint's file, or of the digests of its files; a native file states its own."""
    digests = [read_own_checksum(path) or hash_once(path) for path in list_checkpoint_files(checkpoint.source)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def fingerprint_model(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights, for one whose files another library has read."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_once(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's digest as `hash_file` does; one that has not changed is read once."""
    stat = path.stat()
    return _hash_file_version(path, algorithm, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hash_file_version(path: Path, algorithm: str, _modified_ns: int, _size: int) -> str:
    return hash_file(path, algorithm)
