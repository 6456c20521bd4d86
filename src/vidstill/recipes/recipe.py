"""What a recipe is, and how one is found by its name: the papers' settings as data."""

import importlib
import math
import pkgutil
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal

import torch

from vidstill.config import near
from vidstill.data.boxes.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.colour import ColourJitter
from vidstill.data.datasets import ClipsConfig, ViewsConfig
from vidstill.data.erasing import Erasing
from vidstill.data.mixing import Mixing
from vidstill.downstream.ava import Matching
from vidstill.downstream.classification import ClassifierConfig
from vidstill.downstream.detection import BoxJitter, DetectorConfig
from vidstill.engine.optim import Optim
from vidstill.engine.schedule import CosineConfig
from vidstill.models.vit import ViTConfig
from vidstill.types import Grid, InputError, within

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
