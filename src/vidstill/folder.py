"""A run's folder: whose it is, and what is written into it, complete or absent."""

import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vidstill.types import InputError

RECIPE_FILE = "recipe.json"
TEST_FILE = "test.json"

HALF = ".part"
"""Ends the name of what a kill left unfinished."""

_PACKAGES = ("vidstill", "torch", "torchvision", "av")  # which decide a run's numbers
_DECISIVE = ("recipe", "init")  # of what RECIPE_FILE holds; the data are known by their fingerprints


def claim(out: Path, run: Mapping[str, Any]) -> None:
    """Makes the folder this run's, or finds that it is.

    Args:
        run: its `recipe`, its `data` (source and fingerprint of each part), its `init` if it has one; and what else is
            good to know.

    Raises:
        InputError: the folder holds something else, or cannot be written; it is as it was then.
    """
    path = out / RECIPE_FILE
    try:
        if path.is_file():
            _compare(out, _read(path), run)
        elif out.exists() and (not out.is_dir() or any(each.name != RECIPE_FILE + HALF for each in out.iterdir())):
            raise InputError(f"{out} is there and is no run's folder; choose another folder with --out")
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_json(path, {**run, "versions": {name: version_of(name) for name in _PACKAGES}})
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another folder with --out") from error


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it is run from its source
        return "unknown"


def write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Writes a file, at once or piece by piece, that is complete or absent, whatever happens meanwhile."""
    half = path.with_name(path.name + HALF)
    if isinstance(content, bytes):
        half.write_bytes(content)
    else:
        with half.open("wb") as file:
            file.writelines(content)
    os.replace(half, path)


def check_file(path: Path) -> None:
    """Raises an InputError where a file cannot be written: before the work, not after it."""
    half = path.with_name(path.name + HALF)
    try:
        half.touch()
        half.unlink()
    except OSError as error:
        raise unwritable(path, error) from error


def write_file(path: Path, content: bytes) -> None:
    """As `write_whole`, and nothing unfinished is left.

    Raises:
        InputError: it cannot be written; what was there still is.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        path.with_name(path.name + HALF).unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror or error}); make room, or choose another place")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("data"), dict):
            return found
    except ValueError:
        pass
    raise InputError(f"{path} is not as a run writes it; choose another folder with --out")


def _compare(out: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for word in _DECISIVE:
        if different := _first_difference(theirs.get(word), ours.get(word), word):
            raise InputError(f"{out} holds another recipe's run ({different}); choose another folder with --out")
    for part, data in ours["data"].items():
        their = theirs["data"].get(part) or {}
        if their.get("fingerprint") != data["fingerprint"]:
            what = {
                "train": "on other data",
                "val": "tested on other data",
                "watch": "watched on other data",
            }[part]
            raise InputError(
                f"{out} holds a run {what} ({their.get('source')}, as it was then); choose another folder with --out"
            )


def _first_difference(theirs: Any, ours: Any, where: str) -> str:
    """`recipe.batch is 64, here it is 32`, or nothing."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        each = (_first_difference(theirs.get(name), ours.get(name), f"{where}.{name}") for name in theirs | ours)
        return next(filter(None, each), "")
    return "" if theirs == ours else f"{where} is {theirs}, here it is {ours}"
