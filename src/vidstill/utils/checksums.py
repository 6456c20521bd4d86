"""SHA-256 of files, listed in a directory's SHA256SUMS or in a sidecar beside a file, both as coreutils writes them."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vidstill.utils.files import write_bytes
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

CHECKSUMS_FILE = "SHA256SUMS"
"""The list of a directory: `sha256sum -c SHA256SUMS` verifies its files, too."""

SIDECAR_SUFFIX = ".sha256"
"""The list of one file, `NAME.sha256` beside `NAME`."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\\]+)")


class DamagedFile(InputError):
    """A file's bytes do not have the checksum that is known of them."""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What a verification read."""

    num_files: int  # with a checksum that was compared
    num_bytes: int
    problems: tuple[str, ...]  # a sentence for each file that is damaged or missing
    unverified: tuple[str, ...]  # files that nothing is known of, as an older version writes them


def format_verification(report: VerificationReport) -> str:
    """Return a line for each problem, and a last one with the numbers."""
    count = f"{pluralize(report.num_files, 'file')}, {report.num_bytes / 1e6:.1f} MB"
    lines = [*report.problems, f"{count}: {len(report.problems) or 'none'} damaged or missing"]
    if report.unverified:
        lines[-1] += f"; {len(report.unverified)} without a checksum, first {report.unverified[0]}"
    return "\n".join(lines)


class HashingWriter:
    """Hash the bytes on their way into a file, so that nothing is read again.

    Args:
        file: Open for writing; it is written in order, without seeking.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        """Return the SHA-256 of all bytes so far."""
        return self._digest.hexdigest()


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, which is streamed.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def read_checksums(directory: Path) -> dict[str, str]:
    """Return the digests of SHA256SUMS by file name; empty: an older version wrote the directory, without one.

    Raises:
        InputError: It is damaged.
    """
    path = directory / CHECKSUMS_FILE
    digests = _read_list(path)
    if digests is None:
        raise InputError(
            f"{path} is damaged: it is no list of checksums; delete it to go on without the checksums of this directory"
        )
    return digests


def record_checksums(directory: Path, paths: Iterable[Path]) -> None:
    """List files of a directory in its SHA256SUMS, once they are complete.

    Before a listed file is written again, `forget_checksums` removes its line, so that a kill between the two writes
    leaves no wrong line.

    Raises:
        InputError: The list cannot be written, or is damaged.
        OSError: A file cannot be read.
    """
    record_digests(directory, {path.relative_to(directory).as_posix(): hash_file(path) for path in paths})


def record_digests(directory: Path, digests: Mapping[str, str]) -> None:
    """List files of a directory, by name, whose digests are known, as `record_checksums` does."""
    _write_list(directory / CHECKSUMS_FILE, {**read_checksums(directory), **digests})


def forget_checksums(directory: Path, paths: Iterable[Path]) -> None:
    """Remove files from a directory's SHA256SUMS, before they are deleted or written again.

    Raises:
        InputError: The list cannot be written, or is damaged.
    """
    digests, names = read_checksums(directory), {path.relative_to(directory).as_posix() for path in paths}
    if digests.keys() & names:
        _write_list(directory / CHECKSUMS_FILE, {name: digests[name] for name in digests if name not in names})


def verify_file(directory: Path, path: Path, *, mend: str = "restore it from a copy") -> None:
    """Verify a file that is about to be read; one that is not listed is accepted.

    Args:
        directory: Has the list.
        path: A file in it.
        mend: What the error advises.

    Raises:
        DamagedFile: The file is.
        InputError: The list is damaged.
    """
    expected = read_checksums(directory).get(path.relative_to(directory).as_posix())
    if expected is not None and (problem := _check_digest(path, expected)):
        raise DamagedFile(f"{problem}; {mend}")


def verify_directory(directory: Path) -> Iterator[tuple[Path, str]]:
    """Verify every listed file of a directory.

    Yields:
        Its path, and a sentence if it is damaged or missing; a damaged list alone.
    """
    path = directory / CHECKSUMS_FILE
    digests = _read_list(path)
    if digests is None:
        yield path, f"{path} is damaged: it is no list of checksums"
    for name, digest in (digests or {}).items():
        yield directory / name, _check_digest(directory / name, digest)


def write_sidecar(path: Path, digest: str) -> None:
    """Write the digest of a file to `NAME.sha256` beside it, durably; the file itself can follow.

    Raises:
        InputError: It cannot be written.
    """
    _write_list(path.with_name(path.name + SIDECAR_SUFFIX), {path.name: digest})


def verify_sidecar(path: Path) -> bool:
    """Verify a file by its sidecar.

    Returns:
        Whether there is one; an older version wrote none.

    Raises:
        DamagedFile: The file or its sidecar is.
    """
    sidecar = path.with_name(path.name + SIDECAR_SUFFIX)
    if not os.path.lexists(sidecar):
        return False
    digests = _read_list(sidecar)
    if digests is None or digests.keys() != {path.name}:
        raise DamagedFile(f"{sidecar} is damaged: it does not hold the checksum of {path.name}")
    if problem := _check_digest(path, digests[path.name]):
        raise DamagedFile(problem)
    return True


def _check_digest(path: Path, expected: str) -> str:
    """Return a sentence on a file that has another digest or none, or an empty string."""
    if os.path.lexists(path) and not path.is_file():
        return f"{path} is no file: its checksum is listed"
    try:
        actual = hash_file(path)
    except FileNotFoundError:
        return f"{path} is missing: its checksum is listed"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    return "" if actual == expected else f"{path} is damaged: its SHA-256 is {actual[:12]}…, not {expected[:12]}…"


def _read_list(path: Path) -> dict[str, str] | None:
    """Return the digests of a list by name, empty if there is no such file; None if it is damaged."""
    try:
        *lines, end = path.read_bytes().decode().split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        return None
    matches = [_LINE.fullmatch(line) for line in lines]
    digests = {match[2]: match[1] for match in matches if match}
    if any(name.startswith("/") or ".." in name.split("/") for name in digests):
        return None  # it names files outside its directory
    return digests if lines and not end and len(digests) == len(lines) else None


def _write_list(path: Path, digests: Mapping[str, str]) -> None:
    if digests:
        write_bytes(path, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode())
    else:
        path.unlink(missing_ok=True)
