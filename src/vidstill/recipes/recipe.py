"""What a recipe is, and how one is found by its name: the papers' settings as data."""

import importlib
import math
import pkgutil
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal

import torch

from vidstill.config import near
from vidstill.data.datasets import ClipsConfig, ViewsConfig
from vidstill.data.erasing import Erasing
from vidstill.data.mixing import Mixing
from vidstill.downstream.classification import ClassifierConfig
from vidstill.engine.optim import Optim
from vidstill.engine.schedule import CosineConfig
from vidstill.models.vit import ViTConfig
from vidstill.types import Grid, InputError, within

_LAST_SEED = 2**63 - 1


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
        _check_grid(self.clips, self.method.encoder)


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
    erasing: Erasing | None = None
    mixing: Mixing | None = None
    smoothing: float = 0.0  # share of each label that is spread evenly over all classes
    mask_ratio: float = 0.0  # of the tokens, hidden at the start of the run; it falls to 0 by a cosine
    seed: int = 0  # of all chance
    expects: str = ""  # the published result

    def __post_init__(self) -> None:
        within(0, _LAST_SEED, seed=self.seed)
        within(0, 1, dropout=self.dropout, smoothing=self.smoothing)
        within(0, 1, below=True, mask_ratio=self.mask_ratio)
        within(0, math.inf, head_scale=self.head_scale)
        for clips in (self.clips, self.views):
            _check_grid(clips, self.encoder)

    def classifier(self, classes: int) -> ClassifierConfig:
        return ClassifierConfig(
            encoder=self.encoder,
            classes=classes,
            pooling=self.pooling,
            norm=self.norm,
            dropout=self.dropout,
            head_scale=self.head_scale,
            start=self.start,
        )


def _check_grid(clips: ClipsConfig | ViewsConfig, encoder: ViTConfig) -> None:
    """Raises an InputError where clips do not divide into tubelets: before a run begins, and leaves a folder."""
    Grid.of(torch.empty(1, 3, clips.sampling.frames, *clips.size, device="meta"), encoder.tubelet)


Recipe = Pretrain | Finetune


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
    """All recipes by name: the variables of this package's modules that are recipes."""
    package = importlib.import_module(__package__)
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        for variant, value in vars(importlib.import_module(f"{__package__}.{module.name}")).items():
            if isinstance(value, Recipe):
                found[f"{module.name}.{variant}"] = value
    return found
