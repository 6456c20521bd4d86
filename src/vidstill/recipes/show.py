"""A recipe in print: its values under the names of their options, and the lines that say where they are from."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise, takewhile
from types import ModuleType
from typing import Any

from vidstill.recipes.recipe import find


def options(value: Any, name: str = "") -> dict[str, str]:
    """What would have to be typed to get each value of a recipe: `{"--method.mask.ratio": "0.9", …}`.

    A switch has no value: it is turned on by its name, and off by the one with `no-`.
    """
    if is_dataclass(value):
        dot = "." if name else ""
        nested = [options(getattr(value, field.name), f"{name}{dot}{field.name}") for field in fields(value)]
        return {option: text for each in nested for option, text in each.items()}
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        name = name if value else f"{group}{dot}no_{last}"
        return {f"--{name.replace('_', '-')}": ""}
    return {f"--{name.replace('_', '-')}": _typed(value)}


def source(name: str) -> str:
    """Where a recipe's numbers are from: `sources`, one file after the other.

    Raises:
        InputError: there is no such recipe.
    """
    return "\n\n".join(sources(name).values())


def sources(name: str) -> dict[str, str]:
    """By family, its own first: its file's first words, its own lines there, and those that they refer to.

    Raises:
        InputError: there is no such recipe.
    """
    find(name)
    family, _, variant = name.replace("-", "_").partition(".")
    files: dict[str, _File] = {}
    todo = [(family, variant)]
    while todo:
        family, variable = todo.pop()
        file = files.setdefault(family, _File(family))
        todo += file.choose(variable)
    return {family: str(file) for family, file in files.items()}


class _File:
    """A file of recipes, and what of it is chosen to be shown."""

    def __init__(self, family: str):
        module = importlib.import_module(f"{__package__}.{family}")
        text = inspect.getsource(module)
        self.family, self.lines, self.opening = family, text.splitlines(), ast.parse(text).body[0]
        self.defined = _definitions(text)
        self.siblings = {word for word, value in vars(module).items() if _is_sibling(value)}
        self.chosen: set[str] = set()

    def choose(self, variable: str) -> list[tuple[str, str]]:
        """Chooses a variable's definition; gives what it refers to, by family."""
        if variable in self.chosen or variable not in self.defined:
            return []
        self.chosen.add(variable)
        nodes = list(ast.walk(self.defined[variable]))
        own = [(self.family, node.id) for node in nodes if isinstance(node, ast.Name)]
        return own + [
            (node.value.id, node.attr)
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.siblings
        ]

    def __str__(self) -> str:
        nodes = [self.opening, *(self.defined[one] for one in self.chosen)]
        shown = sorted({number for node in nodes for number in self._numbers(node)})
        ends = [i for i, (one, other) in enumerate(pairwise(shown), 1) if not all(self.lines[one + 1 : other])]
        paragraphs = [shown[start:end] for start, end in pairwise([0, *ends, len(shown)])]
        return "\n\n".join("\n".join(self.lines[number] for number in each) for each in paragraphs)

    def _numbers(self, node: ast.stmt) -> Iterator[int]:
        """The lines of a statement, with the comment right above it and the one that its paragraph begins with."""
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        top = first
        while top and self.lines[top - 1]:
            top -= 1
        yield from takewhile(self._is_comment, range(top, first))
        yield from takewhile(self._is_comment, range(first - 1, top - 1, -1))
        yield from range(first, last)

    def _is_comment(self, number: int) -> bool:
        return self.lines[number].startswith("#")


def _is_sibling(value: Any) -> bool:
    return isinstance(value, ModuleType) and value.__package__ == __package__


def _definitions(text: str) -> dict[str, ast.stmt]:
    """The variables and functions of a file, by name."""
    defined: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            defined[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node
    return defined


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_typed, value))
    return repr(value) if value == "" or (isinstance(value, str) and " " in value) else str(value)
