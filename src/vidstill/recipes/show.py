"""A recipe in print: its values under their options' names, what its model costs, and where the numbers are from."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise, takewhile
from types import ModuleType
from typing import Any

from vidstill.cost import Cost, cost
from vidstill.recipes.recipe import CLASSES, Detect, Finetune, files, find

_HERE = f"{__package__}."


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


def price(recipe: Finetune | Detect) -> dict[str, Any]:
    """What a fine-tuned model costs, in the papers' units, and what it is published to reach.

    Its head has the classes of the recipe's data set; where that is not a paper's, there is no head. A detector's
    clip is one of its training, with one box.
    """
    classes = CLASSES.get(recipe.clips.dataset)
    if isinstance(recipe, Detect):
        encoder = cost(recipe.encoder, frames=recipe.views.sampling.frames, size=recipe.clips.size)
        outputs = classes or 0
        width = recipe.encoder.dim
        found = Cost(encoder.parameters + outputs * (width + 1), encoder.operations + outputs * width)
        return {"actions": classes, **_in_units(found, "clip"), "published": recipe.expects}
    model = recipe.encoder if classes is None else recipe.classifier(classes)
    found = cost(model, frames=recipe.views.sampling.frames, size=recipe.views.size)
    return {
        "classes": classes,
        **_in_units(found, "view"),
        "views": recipe.views.views,
        "crops": recipe.views.crops,
        "published": recipe.expects,
    }


def _in_units(found: Cost, what: str) -> dict[str, float]:
    return {
        "parameters_millions": float(f"{found.millions:.4g}"),
        f"gflops_per_{what}": float(f"{found.gflops:.4g}"),  # a multiply-add counts once
    }


def source(name: str) -> str:
    """Where a recipe's numbers are from: `sources`, one file after the other.

    Raises:
        InputError: there is no such recipe.
    """
    return "\n\n".join(sources(name).values())


def sources(name: str) -> dict[str, str]:
    """By file, its own first: that file's first words, its own lines there, and those that they refer to.

    A file of fine-tunings is named as `finetuning.amd`.

    Raises:
        InputError: there is no such recipe.
    """
    find(name)
    family, _, variant = name.replace("-", "_").partition(".")
    todo = [(module, variant) for module in files()[family] if variant in vars(importlib.import_module(module))]
    shown: dict[str, _File] = {}
    while todo:
        module, variable = todo.pop()
        file = shown.setdefault(module, _File(module))
        todo += file.choose(variable)
    return {module.removeprefix(_HERE): str(file) for module, file in shown.items()}


class _File:
    """A file of recipes, and what of it is chosen to be shown."""

    def __init__(self, name: str):
        module = importlib.import_module(name)
        text = inspect.getsource(module)
        self.name, self.lines, self.opening = name, text.splitlines(), ast.parse(text).body[0]
        self.defined = _definitions(text)
        self.siblings = {word: value.__name__ for word, value in vars(module).items() if _is_sibling(value)}
        self.chosen: set[str] = set()

    def choose(self, variable: str) -> list[tuple[str, str]]:
        """Chooses a variable's definition; gives what it refers to, by module."""
        if variable in self.chosen or variable not in self.defined:
            return []
        self.chosen.add(variable)
        nodes = list(ast.walk(self.defined[variable]))
        own = [(self.name, node.id) for node in nodes if isinstance(node, ast.Name)]
        return own + [
            (self.siblings[node.value.id], node.attr)
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
    return isinstance(value, ModuleType) and value.__name__.startswith(_HERE)


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
