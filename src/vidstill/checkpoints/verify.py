"""Verify weights: files of ours by their own checksum, the archives of torch by that of each record."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidstill.checkpoints.io import list_checkpoint_files, read_checkpoint, read_own_checksum
from vidstill.utils.checksums import DamagedFile, hash_file
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class VerifiedWeights:
    """The verification of one file of weights."""

    source: str  # as the user named it
    file: str  # a local one; empty if it was fetched and is not what its address says
    sha256: str
    method: str  # what was compared
    problem: str  # a sentence, if it is damaged


def verify_weights(source: str) -> Iterator[VerifiedWeights]:
    """Verify the files of weights; nothing is changed.

    Args:
        source: As for `read_checkpoint`.

    Raises:
        InputError: There is no such source, or it cannot be fetched.
    """
    try:
        files = list_checkpoint_files(source)
    except DamagedFile as error:
        yield VerifiedWeights(source=source, file="", sha256="", method="SHA-256 of its address", problem=str(error))
        return
    fetched = "#" in source and not Path(source).exists()
    try:
        read_checkpoint(source)
        problem = ""
    except InputError as error:
        problem = str(error)
    for path in files:
        yield _verify_file(source, path, problem, is_addressed=fetched)


def _verify_file(source: str, path: Path, problem: str, *, is_addressed: bool) -> VerifiedWeights:
    method = ["checksum of its address"] if is_addressed else []
    try:
        digest = hash_file(path)
        if zipfile.is_zipfile(path):
            method.append("CRC-32 of each record")
            with zipfile.ZipFile(path) as archive:
                if not problem and (name := archive.testzip()):
                    problem = f"{path} is damaged: {name} does not have its CRC-32; fetch it again"
        elif path.suffix == ".safetensors" and not problem and read_own_checksum(path):
            method.append("SHA-256 in its header")
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        digest, problem = "", problem or f"{path} cannot be read ({error}); fetch it again"
    text = ", ".join(method) or "it has no checksum, its tensors can be read"
    return VerifiedWeights(source=source, file=str(path), sha256=digest, method=text, problem=problem)


def format_verified_weights(results: Sequence[VerifiedWeights]) -> str:
    """Return a line for each file."""
    return "\n".join(each.problem or f"{each.file}: good ({each.method}), SHA-256 {each.sha256}" for each in results)
