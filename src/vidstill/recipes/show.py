"""A recipe in print: its options, its model's cost, and the source lines that its numbers are from."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise, takewhile
from types import ModuleType
from typing import Any

from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe, FinetuneRecipe, find_recipe, list_recipe_modules
from vidstill.utils.flops import ModelCost, compute_model_cost

_PACKAGE_PREFIX = f"{__package__}."


def format_options(value: Any, name: str = "") -> dict[str, str]:
    """Return a recipe as command line options: `{"--method.mask.ratio": "0.9", …}`; flags have no value.

    Args:
        value: A recipe, or a part of one.
        name: Option prefix of the part.
    """
    if is_dataclass(value):
        dot = "." if name else ""
        nested = [format_options(getattr(value, field.name), f"{name}{dot}{field.name}") for field in fields(value)]
        return {option: text for each in nested for option, text in each.items()}
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        name = name if value else f"{group}{dot}no_{last}"
        return {f"--{name.replace('_', '-')}": ""}
    return {f"--{name.replace('_', '-')}": _format_value(value)}


def compute_recipe_cost(recipe: FinetuneRecipe | DetectionRecipe) -> dict[str, Any]:
    """Return the cost of a fine-tuned model, in the papers' units, and its published result.

    The head has the classes of the recipe's dataset; for one that is not a paper's, there is no head. A detector's clip
    is a training clip with one box.
    """
    classes = NUM_CLASSES.get(recipe.clips.dataset)
    if isinstance(recipe, DetectionRecipe):
        encoder = compute_model_cost(recipe.encoder, num_frames=recipe.views.sampling.frames, size=recipe.clips.size)
        outputs, dim = classes or 0, recipe.encoder.dim
        cost = ModelCost(encoder.num_parameters + outputs * (dim + 1), encoder.multiply_adds + outputs * dim)
        return {"actions": classes, **_format_cost(cost, "clip"), "published_result": recipe.published_result}
    model = recipe.encoder if classes is None else recipe.build_classifier_config(classes)
    cost = compute_model_cost(model, num_frames=recipe.views.sampling.num_frames, size=recipe.views.size)
    return {
        "classes": classes,
        **_format_cost(cost, "view"),
        "temporal_clips": recipe.views.temporal_clips,
        "spatial_crops": recipe.views.spatial_crops,
        "published_result": recipe.published_result,
    }


def _format_cost(cost: ModelCost, noun: str) -> dict[str, float]:
    return {
        "parameters_millions": float(f"{cost.parameter_millions:.4g}"),
        f"gflops_per_{noun}": float(f"{cost.gflops:.4g}"),  # a multiply-add counts once
    }


def read_recipe_source(name: str) -> str:
    """Return the source text that a recipe's numbers are from: `read_recipe_sources`, one file after the other.

    Raises:
        InputError: There is no such recipe.
    """
    return "\n\n".join(read_recipe_sources(name).values())


def read_recipe_sources(name: str) -> dict[str, str]:
    """Return by file, the recipe's own first, the file's docstring, the recipe's lines, and those that they refer to.

    Files are named as `mvd`, `finetuning.amd`, `detection.amd`.

    Raises:
        InputError: There is no such recipe.
    """
    find_recipe(name)
    family, _, variant = name.replace("-", "_").partition(".")
    todo = [
        (module, variant)
        for module in list_recipe_modules()[family]
        if variant in vars(importlib.import_module(module))
    ]
    files: dict[str, _RecipeFile] = {}
    while todo:
        module, variable = todo.pop()
        file = files.setdefault(module, _RecipeFile(module))
        todo += file.select(variable)
    return {module.removeprefix(_PACKAGE_PREFIX): str(file) for module, file in files.items()}


class _RecipeFile:
    """A file of recipes, and its selected definitions."""

    def __init__(self, name: str):
        module = importlib.import_module(name)
        text = inspect.getsource(module)
        self.name, self.lines, self.docstring_node = name, text.splitlines(), ast.parse(text).body[0]
        self.definitions = _parse_definitions(text)
        self.siblings = {name: value.__name__ for name, value in vars(module).items() if _is_recipe_module(value)}
        self.selection: set[str] = set()

    def select(self, variable: str) -> list[tuple[str, str]]:
        """Select a variable's definition; return what it refers to, by module."""
        if variable in self.selection or variable not in self.definitions:
            return []
        self.selection.add(variable)
        nodes = list(ast.walk(self.definitions[variable]))
        own = [(self.name, node.id) for node in nodes if isinstance(node, ast.Name)]
        return own + [
            (self.siblings[node.value.id], node.attr)
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.siblings
        ]

    def __str__(self) -> str:
        nodes = [self.docstring_node, *(self.definitions[one] for one in self.selection)]
        numbers = sorted({number for node in nodes for number in self._line_numbers(node)})
        ends = [i for i, (one, other) in enumerate(pairwise(numbers), 1) if not all(self.lines[one + 1 : other])]
        paragraphs = [numbers[start:end] for start, end in pairwise([0, *ends, len(numbers)])]
        return "\n\n".join("\n".join(self.lines[number] for number in paragraph) for paragraph in paragraphs)

    def _line_numbers(self, node: ast.stmt) -> Iterator[int]:
        """Yield the lines of a statement, of the comment above it and of the one that its paragraph starts with."""
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        top = first
        while top and self.lines[top - 1]:
            top -= 1
        yield from takewhile(self._is_comment, range(top, first))
        yield from takewhile(self._is_comment, range(first - 1, top - 1, -1))
        yield from range(first, last)

    def _is_comment(self, number: int) -> bool:
        return self.lines[number].startswith("#")


def _is_recipe_module(module: Any) -> bool:
    return isinstance(module, ModuleType) and module.__name__.startswith(_PACKAGE_PREFIX)


def _parse_definitions(text: str) -> dict[str, ast.stmt]:
    """Return the variables and functions of a file, by name."""
    definitions: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            definitions[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            definitions[node.targets[0].id] = node
    return definitions


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_format_value, value))
    return repr(value) if value == "" or (isinstance(value, str) and " " in value) else str(value)
