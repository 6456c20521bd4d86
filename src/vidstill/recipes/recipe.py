"""What a recipe is, and how one is found by its name: the papers' settings as data."""

import ast
import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatch
from itertools import pairwise, takewhile
from types import ModuleType
from typing import Any, Literal

import torch

from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AnyOptimConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.tasks.detection import BoxJitter, DetectorConfig
from vidstill.tasks.metrics.ava_map import MatchingOrder
from vidstill.utils.config_io import suggest_names
from vidstill.utils.flops import ModelCost, compute_model_cost
from vidstill.utils.types import Grid, InputError, check_range

_MAX_SEED = 2**63 - 1

NUM_CLASSES = {
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "ssv2": 174,
    "ucf101": 101,
    "hmdb51": 51,
    "imagenet": 1000,
    "ava": 80,
}
"""How many classes the papers' data sets have, by the names that `ClipsConfig.dataset` has for them."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """A pre-training: what is learned, from which clips, for how long."""

    method: Any  # any method's configuration: it has an `encoder`, and its `build()` gives a task
    clips: ClipsConfig
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # clips in a step, over all devices; the copies of a video count each
    seed: int = 0  # of all chance
    published_result: str = ""  # the published result

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        Grid.from_clip(
            _build_meta_clip(self.clips), self.method.encoder.tubelet
        )  # its pixels are to be guessed: none may be left over


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A classifier's training and its test; how many classes there are, the data say."""

    encoder: ViTConfig
    clips: ClipsConfig
    views: ViewsConfig  # of the test after the last step
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # clips in a step, over all devices; the copies of a video count each
    dropout: float = 0.0  # before the head
    head_scale: float = 0.001  # the head starts this much smaller
    weight_init: Literal["normal", "xavier", "torch"] = "normal"  # blocks from scratch: normal, Xavier's or torch's own
    pooling: Literal["mean", "first", "mean_after_first"] = "mean"  # first: the class token, where there is one
    norm: Literal["fresh", "pretrained"] = "fresh"  # after the mean: a new one, or the pre-trained encoder's (ST-MAE)
    color_jitter: ColorJitter | None = None  # of ours: no paper's recipe has it
    random_erasing: RandomErasing | None = None
    mixup: MixupCutmix | None = None
    label_smoothing: float = 0.0  # share of each label that is spread evenly over all classes
    mask_ratio: float = 0.0  # of the tokens, hidden at the start of the run; it falls to 0 by a cosine
    patience: int | None = None  # epochs without a better score on watched videos that end the run; None: none do
    seed: int = 0  # of all chance
    published_result: str = ""  # the published result

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        check_range(0, 1, dropout=self.dropout, smoothing=self.label_smoothing)
        check_range(0, 1, exclusive=True, mask_ratio=self.mask_ratio)
        check_range(0, math.inf, head_scale=self.head_scale)
        check_range(1, math.inf, patience=self.patience)
        for clips in (self.clips, self.views):
            self.encoder.grid(_build_meta_clip(clips))

    def build_classifier_config(self, num_classes: int, *, multi_label: bool = False) -> ClassifierConfig:
        """
        Args:
            multi_label: a clip may have several labels.
        """
        return ClassifierConfig(
            encoder=self.encoder,
            num_classes=num_classes,
            pooling=self.pooling,
            norm=self.norm,
            dropout=self.dropout,
            head_init_scale=self.head_scale,
            weight_init=self.weight_init,
            multi_label=multi_label,
        )


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """A detector's training and its test; which actions there are, the data say."""

    encoder: ViTConfig
    clips: BoxClipsConfig
    views: BoxViewsConfig  # of the test after the last step
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # key frames in a step, over all devices
    bins: int = 7  # rows and columns of a box's features
    aligned: bool = False  # RoIAlign's half pixel
    dropout: float = 0.0
    dropout_on: Literal["head", "bins"] = "head"
    head_scale: float = 0.001  # the head starts this much smaller
    edge: Literal["pad", "drop"] = "pad"  # frames that do not divide into tubelets: filled up, or their rest not seen
    norm: Literal["fresh", "pretrained"] = "fresh"  # where the encoder was fine-tuned: a new last norm, or its own
    box_jitter: BoxJitter | None = None
    loss_per: Literal["clip", "box"] = "clip"
    use_person_scores: bool = True  # an action's score is multiplied by that of whoever found the box
    matching_rule: MatchingOrder = "score_order_top50"  # whose rule the test's score is by
    seed: int = 0  # of all chance
    published_result: str = ""  # the published result

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        self.build_detector_config(1)  # whose configuration says what cannot be
        for sampling in (self.clips.sampling, self.views.sampling):
            self.encoder.grid(torch.empty(1, 3, sampling.frames, *self.clips.size, device="meta"))

    def build_detector_config(self, num_actions: int) -> DetectorConfig:
        return DetectorConfig(
            encoder=self.encoder,
            num_actions=num_actions,
            roi_size=self.bins,
            aligned=self.aligned,
            dropout=self.dropout,
            dropout_on=self.dropout_on,
            head_init_scale=self.head_scale,
            edge=self.edge,
        )


def _build_meta_clip(clips: ClipsConfig | ViewsConfig) -> torch.Tensor:
    """A clip of these sizes and of no pixels: one that does not divide is refused before a run leaves a folder."""
    return torch.empty(1, 3, clips.sampling.num_frames, *clips.size, device="meta")


Recipe = PretrainRecipe | FinetuneRecipe | DetectionRecipe


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, `family.variant`; hyphens count as underscores.

    Raises:
        InputError: there is none; the sentence says which ones are near.
    """
    recipes = load_recipes()
    asked = name.replace("-", "_")
    if asked not in recipes:
        hint = suggest_names(asked, recipes) or "; `vidstill recipes` lists them"
        raise InputError(f"there is no recipe {name!r}{hint}")
    return recipes[asked]


def list_recipe_names(pattern: str = "*") -> list[str]:
    """The names that hold the pattern, or match it where it has wildcards, in the order of their files.

    Raises:
        InputError: no name does.
    """
    recipes = load_recipes()
    asked = pattern.replace("-", "_")
    names = [name for name in recipes if fnmatch(name, asked if "*" in asked else f"*{asked}*")]
    if not names:
        raise InputError(
            f"no recipe matches {pattern!r}{suggest_names(asked, recipes) or '; `vidstill recipes` lists them'}"
        )
    return names


def load_recipes() -> dict[str, Recipe]:
    """All recipes by name: the variables of their files that are recipes; a family's pre-trainings come first."""
    return {
        f"{family}.{variant}": value
        for family, modules in list_recipe_modules().items()
        for module in modules
        for variant, value in vars(importlib.import_module(module)).items()
        if isinstance(value, Recipe)
    }


def list_recipe_modules() -> dict[str, list[str]]:
    """By family, the modules that its recipes are in: of its pre-trainings, its fine-tunings and its detectors."""
    found: dict[str, list[str]] = {}
    for room in (__package__, f"{__package__}.finetuning", f"{__package__}.detection"):
        for module in pkgutil.iter_modules(importlib.import_module(room).__path__):
            if not module.ispkg:
                found.setdefault(module.name, []).append(f"{room}.{module.name}")
    return found


_PACKAGE_PREFIX = f"{__package__}."


def format_options(value: Any, name: str = "") -> dict[str, str]:
    """What would have to be typed to get each value of a recipe: `{"--method.mask.ratio": "0.9", …}`.

    A switch has no value: it is turned on by its name, and off by the one with `no-`.
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
    """What a fine-tuned model costs, in the papers' units, and what it is published to reach.

    Its head has the classes of the recipe's data set; where that is not a paper's, there is no head. A detector's
    clip is one of its training, with one box.
    """
    classes = NUM_CLASSES.get(recipe.clips.dataset)
    if isinstance(recipe, DetectionRecipe):
        encoder = compute_model_cost(recipe.encoder, num_frames=recipe.views.sampling.frames, size=recipe.clips.size)
        outputs = classes or 0
        width = recipe.encoder.dim
        found = ModelCost(encoder.num_parameters + outputs * (width + 1), encoder.multiply_adds + outputs * width)
        return {"actions": classes, **_format_cost(found, "clip"), "published": recipe.published_result}
    model = recipe.encoder if classes is None else recipe.build_classifier_config(classes)
    found = compute_model_cost(model, num_frames=recipe.views.sampling.num_frames, size=recipe.views.size)
    return {
        "classes": classes,
        **_format_cost(found, "view"),
        "views": recipe.views.temporal_clips,
        "crops": recipe.views.spatial_crops,
        "published": recipe.published_result,
    }


def _format_cost(found: ModelCost, noun: str) -> dict[str, float]:
    return {
        "parameters_millions": float(f"{found.parameter_millions:.4g}"),
        f"gflops_per_{noun}": float(f"{found.gflops:.4g}"),  # a multiply-add counts once
    }


def read_recipe_source(name: str) -> str:
    """Where a recipe's numbers are from: `read_recipe_sources`, one file after the other.

    Raises:
        InputError: there is no such recipe.
    """
    return "\n\n".join(read_recipe_sources(name).values())


def read_recipe_sources(name: str) -> dict[str, str]:
    """By file, its own first: that file's first words, its own lines there, and those that they refer to.

    A file of fine-tunings is named as `finetuning.amd`.

    Raises:
        InputError: there is no such recipe.
    """
    find_recipe(name)
    family, _, variant = name.replace("-", "_").partition(".")
    todo = [
        (module, variant)
        for module in list_recipe_modules()[family]
        if variant in vars(importlib.import_module(module))
    ]
    shown: dict[str, _RecipeFile] = {}
    while todo:
        module, variable = todo.pop()
        file = shown.setdefault(module, _RecipeFile(module))
        todo += file.select(variable)
    return {module.removeprefix(_PACKAGE_PREFIX): str(file) for module, file in shown.items()}


class _RecipeFile:
    """A file of recipes, and what of it is chosen to be shown."""

    def __init__(self, name: str):
        module = importlib.import_module(name)
        text = inspect.getsource(module)
        self.name, self.lines, self.docstring_node = name, text.splitlines(), ast.parse(text).body[0]
        self.definitions = _parse_definitions(text)
        self.siblings = {word: value.__name__ for word, value in vars(module).items() if _is_recipe_module(value)}
        self.selection: set[str] = set()

    def select(self, variable: str) -> list[tuple[str, str]]:
        """Chooses a variable's definition; gives what it refers to, by module."""
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
        shown = sorted({number for node in nodes for number in self._line_numbers(node)})
        ends = [i for i, (one, other) in enumerate(pairwise(shown), 1) if not all(self.lines[one + 1 : other])]
        paragraphs = [shown[start:end] for start, end in pairwise([0, *ends, len(shown)])]
        return "\n\n".join("\n".join(self.lines[number] for number in each) for each in paragraphs)

    def _line_numbers(self, node: ast.stmt) -> Iterator[int]:
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


def _is_recipe_module(module: Any) -> bool:
    return isinstance(module, ModuleType) and module.__name__.startswith(_PACKAGE_PREFIX)


def _parse_definitions(text: str) -> dict[str, ast.stmt]:
    """The variables and functions of a file, by name."""
    defined: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            defined[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node
    return defined


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_format_value, value))
    return repr(value) if value == "" or (isinstance(value, str) and " " in value) else str(value)
