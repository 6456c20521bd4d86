"""A recipe in print: its values under the names of their options, and the lines that say where they are from."""

import ast
import importlib
import inspect
from dataclasses import fields, is_dataclass
from typing import Any

from vidstill.recipes.recipe import find


def options(value: Any, name: str = "") -> dict[str, str]:
    """What would have to be typed to get each value of a recipe: `{"--method.mask.ratio": "0.9", …}`."""
    if is_dataclass(value):
        dot = "." if name else ""
        nested = [options(getattr(value, field.name), f"{name}{dot}{field.name}") for field in fields(value)]
        return {option: text for each in nested for option, text in each.items()}
    return {f"--{name.replace('_', '-')}": _typed(value)}


def source(name: str) -> str:
    """Where a recipe's numbers are from: its file's first words, its own lines there, and those that it refers to.

    Raises:
        InputError: there is no such recipe.
    """
    find(name)
    family, variant = name.replace("-", "_").split(".")
    text = inspect.getsource(importlib.import_module(f"{__package__}.{family}"))
    lines, defined, opening = text.splitlines(), _definitions(text), ast.parse(text).body[0]
    wanted, todo = set(), [variant]
    while todo:
        one = todo.pop()
        if one in defined and one not in wanted:
            wanted.add(one)
            todo += [node.id for node in ast.walk(defined[one]) if isinstance(node, ast.Name)]
    chosen = sorted((defined[one] for one in wanted), key=lambda node: node.lineno)
    return "\n\n".join(_lines(node, lines) for node in (opening, *chosen))


def _definitions(text: str) -> dict[str, ast.stmt]:
    """The variables and functions of a file, by name."""
    defined: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            defined[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node
    return defined


def _lines(node: ast.stmt, lines: list[str]) -> str:
    """A statement as it stands in its file, with the comment right above it."""
    first = node.lineno - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first : node.end_lineno])


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_typed, value))
    return repr(value) if value == "" or (isinstance(value, str) and " " in value) else str(value)
