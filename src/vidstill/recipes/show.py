"""A recipe in print: its options, its model's cost, and the source lines that its numbers are from."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import takewhile
from types import ModuleType
from typing import Any

from vidstill.recipes.change import format_value
from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe, FinetuneRecipe
from vidstill.recipes.sources import find_definition
from vidstill.utils.flops import ModelCost, compute_model_cost


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
    needs_quotes = isinstance(value, str) and (not value or " " in value)
    return {f"--{name.replace('_', '-')}": repr(value) if needs_quotes else format_value(value)}


def compute_recipe_cost(recipe: FinetuneRecipe | DetectionRecipe) -> dict[str, Any]:
    """Return the cost of a fine-tuned model, in the papers' units, and its published result.

    The head has the classes of the recipe's dataset; for one that is not a paper's, there is no head. A detector's clip
    is a training clip with one box.
    """
    classes = NUM_CLASSES.get(recipe.clips.dataset)
    if isinstance(recipe, DetectionRecipe):
        encoder = compute_model_cost(
            recipe.encoder, num_frames=recipe.views.sampling.num_frames, size=recipe.clips.size
        )
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


def read_recipe_sources(source: str) -> dict[str, str]:
    """Return by module, the recipe's own first, its docstring, the recipe's lines, and those that they refer to.

    A recipe of a run directory or JSON file has none.

    Raises:
        InputError: There is no such recipe.
    """
    definition = find_definition(source)
    files: dict[str, _RecipeFile] = {}
    todo = [definition] if definition else []
    while todo:
        module, variable = todo.pop()
        family = module.__name__.rpartition(".")[2]
        if family not in files:
            files[family] = _RecipeFile(module)
        todo += files[family].select(variable)
    return {family: str(file) for family, file in files.items()}


class _RecipeFile:
    """A module of recipes, and its selected definitions."""

    def __init__(self, module: ModuleType):
        self.module, text = module, inspect.getsource(module)
        self.lines, statements = text.splitlines(), ast.parse(text).body
        self.selection: list[ast.stmt] = [
            each for each in statements[:1] if isinstance(each, ast.Expr)
        ]  # the docstring
        self.definitions: dict[str, ast.stmt] = {}
        for node in statements:
            if isinstance(node, ast.FunctionDef):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                self.definitions |= {name.id: node for name in ast.walk(target) if isinstance(name, ast.Name)}

    def select(self, variable: str) -> list[tuple[ModuleType, str]]:
        """Select a variable's definition; return the variables that it refers to, by module."""
        definition = self.definitions.get(variable)
        if definition is None or definition in self.selection:
            return []
        self.selection.append(definition)
        nodes, variables = list(ast.walk(definition)), vars(self.module)
        others = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        modules = [variables.get(node.value.id) for node in others if isinstance(node.value, ast.Name)]
        return [(self.module, node.id) for node in nodes if isinstance(node, ast.Name)] + [
            (module, node.attr)
            for module, node in zip(modules, others, strict=True)
            if inspect.ismodule(module) and module.__name__.startswith(f"{__package__}.")
        ]

    def __str__(self) -> str:
        numbers = {number for node in self.selection for number in self._line_numbers(node)}
        lines = (line for number, line in enumerate(self.lines) if number in numbers or not line)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

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
