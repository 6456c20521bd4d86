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
from vidstill.data.transforms.color_jitter import ColourJitter
from vidstill.data.transforms.mixup import Mixing
from vidstill.data.transforms.random_erasing import Erasing
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import Optim
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.tasks.detection import BoxJitter, DetectorConfig
from vidstill.tasks.metrics.ava_map import Matching
from vidstill.utils.config_io import near
from vidstill.utils.flops import Cost, cost
from vidstill.utils.types import Grid, InputError, within

_LAST_SEED = 2**63 - 1

CLASSES = {
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
class Pretrain:
    """A pre-training: what is learned, from which clips, for how long."""

    method: Any  # any method's configuration: it has an `encoder`, and its `build()` gives a task
    clips: ClipsConfig
    optim: Optim
    schedule: CosineConfig
    batch: int  # clips in a step, over all devices; the copies of a video count each
    seed: int = 0  # of all chance
    expects: str = ""  # the published result

    def __post_init__(self) -> None:
        within(0, _LAST_SEED, seed=self.seed)
        Grid.of(_clip(self.clips), self.method.encoder.tubelet)  # its pixels are to be guessed: none may be left over


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """A classifier's training and its test; how many classes there are, the data say."""

    encoder: ViTConfig
    clips: ClipsConfig
    views: ViewsConfig  # of the test after the last step
    optim: Optim
    schedule: CosineConfig
    batch: int  # clips in a step, over all devices; the copies of a video count each
    dropout: float = 0.0  # before the head
    head_scale: float = 0.001  # the head starts this much smaller
    start: Literal["normal", "xavier", "torch"] = "normal"  # blocks from scratch: normal, Xavier's or torch's own
    pooling: Literal["mean", "first", "mean_after_first"] = "mean"  # first: the class token, where there is one
    norm: Literal["fresh", "pretrained"] = "fresh"  # after the mean: a new one, or the pre-trained encoder's (ST-MAE)
    colour: ColourJitter | None = None  # of ours: no paper's recipe has it
    erasing: Erasing | None = None
    mixing: Mixing | None = None
    smoothing: float = 0.0  # share of each label that is spread evenly over all classes
    mask_ratio: float = 0.0  # of the tokens, hidden at the start of the run; it falls to 0 by a cosine
    patience: int | None = None  # epochs without a better score on watched videos that end the run; None: none do
    seed: int = 0  # of all chance
    expects: str = ""  # the published result

    def __post_init__(self) -> None:
        within(0, _LAST_SEED, seed=self.seed)
        within(0, 1, dropout=self.dropout, smoothing=self.smoothing)
        within(0, 1, below=True, mask_ratio=self.mask_ratio)
        within(0, math.inf, head_scale=self.head_scale)
        within(1, math.inf, patience=self.patience)
        for clips in (self.clips, self.views):
            self.encoder.grid(_clip(clips))

    def classifier(self, classes: int, *, several: bool = False) -> ClassifierConfig:
        """
        Args:
            several: a clip may have several labels.
        """
        return ClassifierConfig(
            encoder=self.encoder,
            classes=classes,
            pooling=self.pooling,
            norm=self.norm,
            dropout=self.dropout,
            head_scale=self.head_scale,
            start=self.start,
            several=several,
        )


@dataclass(frozen=True, kw_only=True)
class Detect:
    """A detector's training and its test; which actions there are, the data say."""

    encoder: ViTConfig
    clips: BoxClipsConfig
    views: BoxViewsConfig  # of the test after the last step
    optim: Optim
    schedule: CosineConfig
    batch: int  # key frames in a step, over all devices
    bins: int = 7  # rows and columns of a box's features
    aligned: bool = False  # RoIAlign's half pixel
    dropout: float = 0.0
    dropout_on: Literal["head", "bins"] = "head"
    head_scale: float = 0.001  # the head starts this much smaller
    edge: Literal["pad", "drop"] = "pad"  # frames that do not divide into tubelets: filled up, or their rest not seen
    norm: Literal["fresh", "pretrained"] = "fresh"  # where the encoder was fine-tuned: a new last norm, or its own
    jitter: BoxJitter | None = None
    loss_per: Literal["clip", "box"] = "clip"
    times_person_score: bool = True  # an action's score is multiplied by that of whoever found the box
    matching: Matching = "score_order_top50"  # whose rule the test's score is by
    seed: int = 0  # of all chance
    expects: str = ""  # the published result

    def __post_init__(self) -> None:
        within(0, _LAST_SEED, seed=self.seed)
        self.detector(1)  # whose configuration says what cannot be
        for sampling in (self.clips.sampling, self.views.sampling):
            self.encoder.grid(torch.empty(1, 3, sampling.frames, *self.clips.size, device="meta"))

    def detector(self, actions: int) -> DetectorConfig:
        return DetectorConfig(
            encoder=self.encoder,
            actions=actions,
            bins=self.bins,
            aligned=self.aligned,
            dropout=self.dropout,
            dropout_on=self.dropout_on,
            head_scale=self.head_scale,
            edge=self.edge,
        )


def _clip(clips: ClipsConfig | ViewsConfig) -> torch.Tensor:
    """A clip of these sizes and of no pixels: one that does not divide is refused before a run leaves a folder."""
    return torch.empty(1, 3, clips.sampling.frames, *clips.size, device="meta")


Recipe = Pretrain | Finetune | Detect


def find(name: str) -> Recipe:
    """The recipe of this name, `family.variant`; hyphens count as underscores.

    Raises:
        InputError: there is none; the sentence says which ones are near.
    """
    recipes = every_recipe()
    asked = name.replace("-", "_")
    if asked not in recipes:
        hint = near(asked, recipes) or "; `vidstill recipes` lists them"
        raise InputError(f"there is no recipe {name!r}{hint}")
    return recipes[asked]


def all_names(pattern: str = "*") -> list[str]:
    """The names that hold the pattern, or match it where it has wildcards, in the order of their files.

    Raises:
        InputError: no name does.
    """
    recipes = every_recipe()
    asked = pattern.replace("-", "_")
    names = [name for name in recipes if fnmatch(name, asked if "*" in asked else f"*{asked}*")]
    if not names:
        raise InputError(f"no recipe matches {pattern!r}{near(asked, recipes) or '; `vidstill recipes` lists them'}")
    return names


def every_recipe() -> dict[str, Recipe]:
    """All recipes by name: the variables of their files that are recipes; a family's pre-trainings come first."""
    return {
        f"{family}.{variant}": value
        for family, modules in files().items()
        for module in modules
        for variant, value in vars(importlib.import_module(module)).items()
        if isinstance(value, Recipe)
    }


def files() -> dict[str, list[str]]:
    """By family, the modules that its recipes are in: of its pre-trainings, its fine-tunings and its detectors."""
    found: dict[str, list[str]] = {}
    for room in (__package__, f"{__package__}.finetuning", f"{__package__}.detection"):
        for module in pkgutil.iter_modules(importlib.import_module(room).__path__):
            if not module.ispkg:
                found.setdefault(module.name, []).append(f"{room}.{module.name}")
    return found


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
