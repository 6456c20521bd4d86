"""Where weights come from: a file or a folder here, an address that is fetched once, or the Hugging Face Hub."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from vidstill.folder import HALF
from vidstill.terminal import progress_bar
from vidstill.types import InputError
from vidstill.weights.hub import fetched_from_hub, hub_model
from vidstill.weights.web import ask, check_address, first_byte, whole_size

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth")
CONFIG = "config.json"  # beside transformers' weights
PROCESSOR = "preprocessor_config.json"  # beside these, if any: which sizes and colours enter the model

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PIECE = 2**20
_DIGITS = {"sha256": 64, "md5": 32}
_LARGEST_INDEX = 2**26


def local_path(source: str | Path, check: Callable[[Path, str], object]) -> Path:
    """The file, or the folder, here of what was given; fetched where it is not.

    Args:
        check: raises an InputError for a file that holds no weights; it is told the file and what to call it. What
            does not pass stays out of the cache.

    Raises:
        InputError: there is nothing there, or it cannot be fetched.
    """
    text = str(source)
    if re.match(r"https?://", text, re.IGNORECASE):
        return _fetched(text, check)
    if text.startswith("hf://"):
        return fetched_from_hub(hub_model(text), chosen, shard_names)
    path = Path(source)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source} is neither a file nor a folder")
    if "://" in text:
        raise InputError(f"{source} is an address of a kind that is not fetched; give https://… or hf://org/name")
    missing = f"there is no file or run {source}; give a run's folder, a .safetensors or a .pth file"
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) or text.endswith(SUFFIXES) or path.parent.exists():
        raise InputError(f"{missing}, an address (https://…), or a model of the Hugging Face Hub (hf://org/name)")
    try:
        return fetched_from_hub(hub_model(f"hf://{text}"), chosen, shard_names)
    except InputError as error:
        raise InputError(f"there is no file or run {source} here, and {error}") from None


def chosen(names: Collection[str], source: str) -> str:
    """Which of a folder's files holds its weights, or lists the files that do.

    Raises:
        InputError: none does, or several.
    """
    for name in _WHOLE:
        if name in names:
            return name
    others = sorted(name for name in names if name.endswith(SUFFIXES) and "/" not in name)
    if len(others) == 1:
        return others[0]
    if others:
        raise InputError(
            f"{source} holds no {_WHOLE[0]}, but several files of weights ({', '.join(others[:5])}); name one of them"
        )
    raise InputError(
        f"{source} holds no {_WHOLE[0]} or {_WHOLE[2]}: its run has not ended yet, or it is neither a run's folder nor "
        "a model's"
    )


def shard_names(index: Path) -> dict[str, str]:
    """In which of the files beside it an index says that each tensor is.

    Raises:
        InputError: it is no index, or names files elsewhere.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise InputError(f"{index} is no list of files of weights; fetch or write it again")
    for name in found.values():
        if not re.fullmatch(r"\w[\w.-]*", name) or not name.endswith(SUFFIXES):
            raise InputError(f"{index} names {name!r}, which is no file of weights beside it; fetch or write it again")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: it is no JSON object, or too large to be one that stands beside weights.
    """
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise ValueError
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    raise InputError(f"{path} is no readable JSON object; fetch or write it again")


def _fetched(address: str, check: Callable[[Path, str], object]) -> Path:
    """The cache's file of an address; complete, or absent.

    It stands there by a hash of the address, and a name whose letters are harmless. A download that breaks off is gone
    on with, where the server says by a tag that the file is the same.
    """
    check_address(address)
    plain, fragment = urldefrag(address)
    wanted = _digest(plain, fragment)
    last = unquote(urlsplit(plain).path).rpartition("/")[2]
    harmless = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip(".")[-80:] or "weights"
    path = _cache() / f"{hashlib.sha256(plain.encode()).hexdigest()[:16]}-{harmless}"
    try:
        with _alone(path) as first:
            if not first:
                _check_digest(path, wanted, plain, f"; it was fetched earlier: delete {path} to fetch it again")
                return path
            part = _download(plain, path)
            try:
                _check_digest(part, wanted, plain, "; nothing of it was kept")
                check(part, plain)
            except InputError:
                part.unlink()
                raise
            os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error.strerror or error}); make room there, or set VIDSTILL_CACHE to "
            "another folder"
        ) from None
    return path


def _cache() -> Path:
    set_ = os.environ.get("VIDSTILL_CACHE")
    return Path(set_).expanduser() if set_ else Path.home() / ".cache" / "vidstill" / "weights"


def _digest(address: str, fragment: str) -> tuple[str, str] | None:
    if not fragment:
        return None
    kind, _, digits = fragment.partition("=")
    if kind not in _DIGITS or not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGITS[kind]}}}", digits):
        raise InputError(f"{address}#{fragment}: what follows # is sha256= and 64 hexadecimal digits, or md5= and 32")
    return kind, digits.lower()


def _check_digest(path: Path, wanted: tuple[str, str] | None, address: str, then: str) -> None:
    if wanted is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, wanted[0]).hexdigest()
    if found != wanted[1]:
        raise InputError(f"{address} has the {wanted[0]} {found} and not {wanted[1]}{then}")


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this process has to fetch a file, alone: others that need one wait meanwhile, and then find it."""
    if path.is_file():
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield not path.is_file()


def _download(address: str, path: Path) -> Path:
    """The whole of what an address gives, in a file whose name says that it is not yet what it should be."""
    left = sorted(path.parent.glob(f"{path.name}.*{HALF}"))
    done = left[0].stat().st_size if left else 0
    answer = ask(address, done)
    if answer.status == 206 and (_part(path, answer) != left[0] or first_byte(answer) != done):  # of another file
        answer.close()
        answer = ask(address)
    with answer:
        done = done if answer.status == 206 else 0
        part = _part(path, answer)
        for old in left if not done else left[1:]:
            old.unlink()
        whole = whole_size(answer)
        free = shutil.disk_usage(path.parent).free
        if whole is not None and whole - done > free:
            raise InputError(
                f"{address} has {whole} bytes, and {path.parent} has room for {free}; make room there, or set "
                "VIDSTILL_CACHE to another folder"
            )
        try:
            done, broken = _written(answer, part, done, whole, path.name)
        except OSError:  # the disk is full
            part.unlink(missing_ok=True)
            raise
    if broken:
        goes_on = part.name != path.name + HALF
        if not goes_on:
            part.unlink(missing_ok=True)
        raise InputError(
            f"{address} broke off after {done} of {whole or 'unknown'} bytes ({broken}); type the same command again, "
            f"{'it goes on from there' if goes_on else 'it begins anew'}"
        )
    return part


def _written(answer: HTTPResponse, part: Path, done: int, whole: int | None, name: str) -> tuple[int, str]:
    """How many bytes there are then, and why there are no more, if there should be."""
    with part.open("ab" if done else "wb") as file, progress_bar(f"{name} (MB)") as told:
        while True:
            try:
                piece = answer.read(_PIECE)
            except (HTTPException, OSError) as error:
                return done, " ".join(str(error).split()) or type(error).__name__
            if not piece:
                return done, "" if whole in (None, done) else "it ended early"
            file.write(piece)
            done += len(piece)
            told(done / 1e6, (whole or done) / 1e6)


def _part(path: Path, answer: HTTPResponse) -> Path:
    """Is named by the tag that tells a file from a later one at its address; without one, it is not gone on with."""
    tag = answer.headers.get("ETag") or ""
    tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    mark = hashlib.sha256(f"{tag} {whole_size(answer)}".encode()).hexdigest()[:12]
    return path.with_name(f"{path.name}.{mark}{HALF}" if tag else path.name + HALF)
