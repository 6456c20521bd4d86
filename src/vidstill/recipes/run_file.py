"""A run's recipe.json: one reader, which verifies its checksum and upgrades what older versions wrote; one writer."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from vidstill.utils.checksums import forget_checksums, record_checksums, verify_file
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import RECIPE_FILE, write_json
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

FORMAT = 2
"""Of the files that this version writes; if it is raised, UPGRADES gets a function and tests/stored_runs a run."""

T = TypeVar("T")


@dataclass(frozen=True)
class Fork:
    """A change of settings in the middle of a run, which went on from an earlier state with them."""

    step: int  # completed steps of that state
    changes: Mapping[str, Any]  # settings by their dotted names, as JSON has them
    is_pending: bool = False  # what came after the step is not set aside yet

    def to_dict(self) -> dict[str, Any]:
        return {"step": self.step, "changes": dict(self.changes)}

    def __str__(self) -> str:
        changes = ", ".join(f"{name}={value}" for name, value in self.changes.items()) or "the same settings"
        return f"from step {self.step} with {changes}"


@dataclass(frozen=True)
class RunFile:
    """The content of a run's recipe.json, in today's format."""

    path: Path
    content: Mapping[str, Any]

    @property
    def forks(self) -> tuple[Fork, ...]:
        return tuple(
            Fork(each["step"], each["changes"], each.get("pending", False)) for each in self.content.get("forks", ())
        )

    def is_of(self, recipe_type: type) -> bool:
        """Return whether the recipe is of this class."""
        return self.content["recipe"].get("class") == f"{recipe_type.__module__}:{recipe_type.__qualname__}"

    def parse_recipe(self, recipe_type: type[T], *, original: bool = False) -> T:
        """Return the run's recipe; fields that its version did not have take today's defaults.

        Args:
            recipe_type: Its class.
            original: As the run was begun, without the changes of its forks.

        Raises:
            InputError: This version has other fields or values.
        """
        key = "original_recipe" if original and "original_recipe" in self.content else "recipe"
        try:
            return from_dict(recipe_type, self.content.get(key), own_classes=True)
        except InputError as error:
            raise InputError(f"{self.path}: {error}{_name_version(self.content)}") from None


def find_run(directory: Path) -> RunFile | None:
    """Return the run in a directory; None if there is no recipe.json.

    Raises:
        InputError: It is damaged, no run's, or of a newer version.
    """
    path = directory / RECIPE_FILE
    if not os.path.isfile(path):  # False where a directory may not be read
        return None
    verify_file(directory, path, mend="restore it from a copy, or choose another directory")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path} is damaged; restore it from a copy, or choose another directory") from None
    if not (isinstance(content, dict) and isinstance(content.get("recipe"), dict)):
        raise InputError(f"{path} holds no recipe of a run; choose another directory")
    return RunFile(path, upgrade_run(content, path))


def upgrade_run(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a run's file of any format in today's.

    Raises:
        InputError: A newer version wrote it.
    """
    number = content.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise InputError(
            f"{path} is of format {number}{_name_version(content)}, and this version reads formats up to {FORMAT}; "
            "upgrade vidstill"
        )
    for each in range(number, FORMAT):
        content = UPGRADES[each](content)
    return content


def write_run(directory: Path, content: Mapping[str, Any]) -> None:
    """Write a run's recipe.json in today's format; a kill leaves the one before it or this one, and no wrong checksum.

    Raises:
        InputError: It cannot be written.
    """
    path = directory / RECIPE_FILE
    forget_checksums(directory, [path])
    write_json(path, {"format": FORMAT, **content})
    record_checksums(directory, [path])


def find_config_difference(before: Any, now: Any, key: str) -> str:
    """Return the first difference of two configs as `recipe.batch is 64, here it is 32`, or an empty string.

    Fields that say something to the reader alone are not compared: they are marked `compare=False`.
    """
    if is_dataclass(before) and type(before) is type(now):
        names = [each.name for each in fields(before) if each.compare]
        each = (find_config_difference(getattr(before, name), getattr(now, name), f"{key}.{name}") for name in names)
        return next(filter(None, each), "")
    if isinstance(before, tuple) and isinstance(now, tuple) and len(before) == len(now) and any(map(is_dataclass, now)):
        pairs = enumerate(zip(before, now, strict=True), start=1)
        return next(filter(None, (find_config_difference(*pair, f"{key}.{number}") for number, pair in pairs)), "")
    if before == now:
        return ""
    texts = (format_one_line(type(each).__name__ if is_dataclass(each) else str(each), 80) for each in (before, now))
    return "{} is {}, here it is {}".format(key, *texts)


def _name_version(content: Mapping[str, Any]) -> str:
    versions = content.get("versions")
    version = versions.get("vidstill") if isinstance(versions, dict) else None
    return f" (vidstill {version} wrote it)" if version else ""


def _to_format_2(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had the path of the initial weights as `init`, and those of the teachers in the recipe alone."""
    recipe = content["recipe"] if isinstance(content.get("recipe"), dict) else {}
    is_probe = isinstance(recipe.get("encoder"), str)
    sources = {"encoder" if is_probe else "init": content["init"]} if content.get("init") else {}
    method = recipe.get("method")
    for name, value in method.items() if isinstance(method, dict) else ():
        teachers = {f"{name}_{number}": each for number, each in enumerate(value, 1)} if isinstance(value, list) else {}
        for field, teacher in (teachers or {name: value}).items():
            if isinstance(teacher, dict) and "checkpoint" in teacher:
                sources[field if field == "teacher" else f"{field}_teacher"] = teacher["checkpoint"]
    others = {name: value for name, value in content.items() if name != "init"}
    return {**others, "format": 2, "sources": {role: {"source": source} for role, source in sources.items()}}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_format_2}
"""By a format's number, the function that makes the next one of it."""
