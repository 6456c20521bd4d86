"""The automatic recipe: a fine-tuning for given videos, machine and start.

It decides by what can be counted and never by what takes time, so that the same command makes the same recipe again.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import infer_encoder_config, merge_encoder_config
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.models.vit import ViTConfig
from vidstill.recipes.auto.clip_size import ClipChoice, choose_clip
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.recipes.auto.defaults import AUTO_RULES, AutoRules
from vidstill.recipes.auto.explain import RecipeChoice, explain_choices
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import RECIPE_FILE
from vidstill.utils.flops import compute_model_cost

_WIDE_ASPECT_RATIO = 1.2  # longer sides, from which a test looks at three places


@dataclass(frozen=True, kw_only=True)
class AutoRecipe:
    recipe: FinetuneRecipe
    choices: tuple[RecipeChoice, ...]
    note: str = ""  # to be said first

    def explain(self, recipe: FinetuneRecipe) -> list[str]:
        """A line for each choice that a recipe, in which options may have changed some, still has."""
        picks = [
            str(pick)
            for pick in self.choices
            if all(_get_nested_value(recipe, o) == _get_nested_value(self.recipe, o) for o in pick.options)
        ]
        return [self.note, *picks] if self.note else picks


def choose_recipe(
    stats: DatasetStats,
    checkpoint: Checkpoint | None,
    hardware: Hardware,
    *,
    has_validation: bool,
    rules: AutoRules = AUTO_RULES,
) -> AutoRecipe:
    """A recipe for these videos on this machine.

    Args:
        checkpoint: what it starts from, if not from scratch.
        has_validation: there are labelled videos besides those that are trained on and tested on.

    Raises:
        InputError: the start is an encoder of clips, and the data are pictures.
    """
    look = choose_clip(stats, checkpoint, rules)
    encoder, size, seconds = _choose_encoder_and_size(stats, checkpoint, hardware, look, rules)
    affordable = int(60 * rules.training_minutes[hardware.device_kind] / seconds)
    wanted = min(max(rules.total_clips // stats.num_clips, rules.epoch_range[0]), rules.epoch_range[1])
    epochs = max(min(wanted, affordable), rules.min_epochs)
    batch = _choose_batch(stats, hardware, rules)
    deep = encoder.depth >= rules.min_deep_depth
    mixes = (
        stats.num_clips >= rules.min_mixup_clips_per_class * len(stats.class_counts)
        and batch % (2 * hardware.processes) == 0
    )
    there = [count for count in stats.class_counts if count]
    recipe = FinetuneRecipe(
        encoder=replace(encoder, drop_path=rules.drop_path if deep else 0.0),
        clips=ClipsConfig(
            dataset="own",
            sampling=look.sampling,
            size=size,
            crop=RandomResizedCrop(scale=(0.5, 1.0)),
            flip_probability=0.0 if stats.has_left_right_classes else 0.5,
            class_balance=rules.class_balance if max(there) > rules.max_class_ratio * min(there) else 0.0,
        ),
        views=ViewsConfig(
            sampling=look.sampling,
            temporal_clips=1 if stats.is_images else 2,
            spatial_crops=3 if stats.aspect_ratio >= _WIDE_ASPECT_RATIO else 1,
            short_side=min(size),
            size=size,
        ),
        optim=AdamWConfig(
            base_lr=rules.peak_lr["deep" if deep else "shallow"] * 256 / batch,
            min_lr=0.0,
            max_grad_norm=1.0,
            layer_decay=rules.layer_decay if deep and checkpoint else None,
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
        batch=batch,
        label_smoothing=0.1,
        color_jitter=None if stats.is_images else ColorJitter(),
        mixup=MixupCutmix() if mixes else None,
        patience=max(10, round(rules.patience_ratio * epochs)) if has_validation else None,
        weight_init="normal" if deep else "xavier",
    )
    picks = explain_choices(
        recipe,
        stats,
        look,
        hardware,
        init=checkpoint.source if checkpoint else "",
        has_validation=has_validation,
        affordable_epochs=affordable,
        epoch_seconds=seconds,
        rules=rules,
    )
    return AutoRecipe(recipe=recipe, choices=picks)


def load_run_recipe(run_dir: Path) -> FinetuneRecipe | None:
    """The recipe of the run that a folder holds, if it holds a fine-tuning's."""
    try:
        plain = json.loads((run_dir / RECIPE_FILE).read_text(encoding="utf-8"))["recipe"]
        return from_dict(FinetuneRecipe, plain)
    except (OSError, ValueError, KeyError, TypeError):  # whatever else is in it is refused when it is claimed
        return None


def _choose_encoder_and_size(
    stats: DatasetStats, checkpoint: Checkpoint | None, hardware: Hardware, clip: ClipChoice, rules: AutoRules
) -> tuple[ViTConfig, tuple[int, int], float]:
    """The encoder, a clip's size, the largest that leaves time for enough epochs, and the seconds of an epoch."""
    sizes = [clip.size]
    if checkpoint is None:
        most = min(clip.size[0], rules.max_side[hardware.device_kind])
        sizes = [(side, side) for side in sorted(rules.tubelets, reverse=True) if side <= most]
    for size in sizes:
        encoder = _choose_encoder(stats, checkpoint, hardware, size[0], rules)
        work = (
            3 * _compute_gflops(encoder, clip.sampling.num_frames, size) * stats.num_clips
        )  # a step costs three times what looking does
        seconds = work / (rules.gmacs_per_second[hardware.device_kind] * hardware.count)
        if rules.epoch_range[0] * seconds <= 60 * rules.training_minutes[hardware.device_kind]:
            break
    return encoder, size, seconds


@lru_cache
def _compute_gflops(encoder: ViTConfig, frames: int, size: tuple[int, int]) -> float:
    return compute_model_cost(encoder, num_frames=frames, size=size).gflops


def _choose_encoder(
    stats: DatasetStats, checkpoint: Checkpoint | None, hardware: Hardware, side: int, rules: AutoRules
) -> ViTConfig:
    if checkpoint is not None:
        found = infer_encoder_config(checkpoint)
        if found.tubelet[0] == 1 and not stats.is_images:
            found = replace(found, tubelet=(2, *found.tubelet[1:]), positions="sincos3d", learned_grid=None)
        return merge_encoder_config(checkpoint, found)
    _, dim, depth, heads = next(row for row in rules.encoder_sizes[hardware.device_kind] if stats.num_clips <= row[0])
    tubelet = (rules.image_tubelets if stats.is_images else rules.tubelets)[side]
    positions: Literal["sincos2d", "sincos3d"] = "sincos2d" if stats.is_images else "sincos3d"
    return ViTConfig(dim=dim, depth=depth, heads=heads, tubelet=tubelet, positions=positions)


def _choose_batch(stats: DatasetStats, hardware: Hardware, rules: AutoRules) -> int:
    """Even for each process, and no more clips than there are."""
    size = next(size for most, size in rules.batch_sizes[hardware.device_kind] if stats.num_clips <= most)
    even = 2 * hardware.processes
    size = min(size, stats.num_clips)
    return max(size // even * even, hardware.processes)


def _get_nested_value(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value
