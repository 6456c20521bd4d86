"""Recipes: the papers' settings as data, and finding one by its name."""

import importlib
import math
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Annotated, Any, Literal

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
from vidstill.utils.config_io import ClassesOf, suggest_names
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
"""Numbers of classes of the papers' datasets, by their names in `ClipsConfig.dataset`."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """A pre-training: method, clips, optimization."""

    method: Annotated[Any, ClassesOf("vidstill.methods")]  # a MethodConfig: see methods/common/method.py
    clips: ClipsConfig
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # global batch size in clips (repeated augmentations count)
    ema_decay: float | None = None  # of an average of the weights (timm: 0.9999) to model_ema.safetensors; None: none
    seed: int = 0  # random seed
    published_result: str = field(default="", compare=False)  # what the paper or repository reports

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        check_range(0, 1, exclusive=True, ema_decay=self.ema_decay)
        # Its pixels are reconstructed: the clip must divide into whole tubelets
        Grid.from_clip(_build_meta_clip(self.clips), self.method.encoder.tubelet)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A classifier's training and test; the data decide the classes."""

    encoder: ViTConfig
    clips: ClipsConfig
    views: ViewsConfig  # of the test after training
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # global batch size in clips (repeated augmentations count)
    dropout: float = 0.0  # before the head
    head_scale: float = 0.001  # factor of the head's initial weights
    weight_init: Literal["normal", "xavier", "torch"] = "normal"  # of blocks from scratch
    pooling: Literal["mean", "first", "mean_after_first"] = "mean"  # first: the class token, if there is one
    norm: Literal["fresh", "pretrained"] = "fresh"  # after the mean: a new one, or the encoder's (ST-MAE)
    color_jitter: ColorJitter | None = None  # in no paper's recipe
    random_erasing: RandomErasing | None = None
    mixup: MixupCutmix | None = None
    label_smoothing: float = 0.0  # share of each label that is spread over all classes
    mask_ratio: float = 0.0  # of the tokens, masked at the start of the run; falls to 0 by a cosine
    # epoch whose weights are tested and written: that of the best validation score, or the last; with patience the best
    select: Literal["best", "last"] = "best"
    patience: int | None = None  # epochs without a better validation score that end the run; None: no early stopping
    ema_decay: float | None = None  # of an average of the weights (timm: 0.9999) to model_ema.safetensors; None: none
    seed: int = 0  # random seed
    published_result: str = field(default="", compare=False)  # what the paper or repository reports

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        check_range(0, 1, exclusive=True, ema_decay=self.ema_decay)
        check_range(0, 1, dropout=self.dropout, label_smoothing=self.label_smoothing)
        check_range(0, 1, exclusive=True, mask_ratio=self.mask_ratio)
        check_range(0, math.inf, head_scale=self.head_scale)
        check_range(1, math.inf, patience=self.patience)
        for clips in (self.clips, self.views):
            self.encoder.grid(_build_meta_clip(clips))

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are tested and written."""
        return self.select == "best" or self.patience is not None

    def build_classifier_config(self, num_classes: int, *, multi_label: bool = False) -> ClassifierConfig:
        """Build the model's config.

        Args:
            num_classes: Of the dataset.
            multi_label: A clip may have several labels.
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
    """An action detector's training and test; the data decide the actions."""

    encoder: ViTConfig
    clips: BoxClipsConfig
    views: BoxViewsConfig  # of the test after training
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int  # global batch size in key frames
    aligned: bool = False  # RoIAlign's half pixel
    dropout: float = 0.0  # before the head
    head_scale: float = 0.001  # factor of the head's initial weights
    edge: Literal["pad", "drop"] = "pad"  # of frames that do not divide into tubelets: pad or crop them
    norm: Literal["fresh", "pretrained"] = "fresh"  # final norm: a new one, or a fine-tuned encoder's
    box_jitter: BoxJitter | None = None
    loss_per: Literal["clip", "box"] = "clip"  # what the loss is averaged over
    use_person_scores: bool = True  # multiply an action's score by the person detection's
    matching_rule: MatchingOrder = "score_order_top50"  # of detections and ground truth in the mAP
    ema_decay: float | None = None  # of an average of the weights (timm: 0.9999) to model_ema.safetensors; None: none
    seed: int = 0  # random seed
    published_result: str = field(default="", compare=False)  # what the paper or repository reports

    def __post_init__(self) -> None:
        check_range(0, _MAX_SEED, seed=self.seed)
        check_range(0, 1, exclusive=True, ema_decay=self.ema_decay)
        self.build_detector_config(1)  # checks the config
        for sampling in (self.clips.sampling, self.views.sampling):
            self.encoder.grid(torch.empty(1, 3, sampling.num_frames, *self.clips.size, device="meta"))

    def build_detector_config(self, num_actions: int) -> DetectorConfig:
        return DetectorConfig(
            encoder=self.encoder,
            num_actions=num_actions,
            aligned=self.aligned,
            dropout=self.dropout,
            head_init_scale=self.head_scale,
            edge=self.edge,
        )


def _build_meta_clip(clips: ClipsConfig | ViewsConfig) -> torch.Tensor:
    """Build a clip of this shape on "meta", to check that it divides before a run directory exists."""
    return torch.empty(1, 3, clips.sampling.num_frames, *clips.size, device="meta")


def format_result(result: str, views: ViewsConfig) -> str:
    """Return a published result with the views of its first part: `K400 top-1 80.0 (5 × 3 views); from L: 81.0`."""
    if result.startswith("no result"):
        return result
    first, separator, others = result.partition(";")
    count = f"{views.temporal_clips} × {views.spatial_crops} views"
    return f"{first} ({'1 view' if count == '1 × 1 views' else count}){separator}{others}"


Recipe = PretrainRecipe | FinetuneRecipe | DetectionRecipe


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name, `family.variant`; hyphens count as underscores.

    Raises:
        InputError: There is none; the message suggests similar names.
    """
    recipes, key = load_recipes(), name.replace("-", "_")
    if key not in recipes:
        raise InputError(f"there is no recipe {name!r}{_suggest(key, recipes)}")
    return recipes[key]


def list_recipe_names(pattern: str = "*") -> list[str]:
    """Return the names that contain the pattern, or match its wildcards, in the order of their files.

    Raises:
        InputError: There are none.
    """
    recipes, key = load_recipes(), pattern.replace("-", "_")
    if names := [name for name in recipes if fnmatch(name, key if "*" in key else f"*{key}*")]:
        return names
    raise InputError(f"no recipe matches {pattern!r}{_suggest(key, recipes)}")


def _suggest(name: str, recipes: Iterable[str]) -> str:
    return suggest_names(name, recipes) or "; `vidstill recipes` lists them"


def load_recipes() -> dict[str, Recipe]:
    """Return all recipes by name, `file.variable`, in the order of the files."""
    return {
        f"{family}.{variant}": value
        for family in list_families()
        for variant, value in vars(importlib.import_module(f"{__package__}.{family}")).items()
        if isinstance(value, Recipe)
    }


def list_families() -> list[str]:
    """Return the names of the files of recipes."""
    return [module.name for module in pkgutil.iter_modules(importlib.import_module(__package__).__path__)]
