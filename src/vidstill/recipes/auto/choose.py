"""The automatic recipe: a fine-tuning for given data, machine and checkpoint, with a reason for each choice.

It decides by what can be counted, never by measured time, so that the same command makes the same recipe again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
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
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.flops import compute_model_cost

_WIDE_ASPECT_RATIO = 1.2  # from here on a test takes three spatial crops


@dataclass(frozen=True, kw_only=True)
class RecipeChoice:
    """The options that were chosen, the choice, and its reason."""

    options: tuple[str, ...]
    summary: str
    reason: str

    def __str__(self) -> str:
        return f"{self.summary}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class AutoRecipe:
    recipe: FinetuneRecipe
    choices: tuple[RecipeChoice, ...]
    note: str = ""  # a message before the choices

    def explain(self, recipe: FinetuneRecipe) -> list[str]:
        """Return a line for each choice that `recipe` still has after some options were typed."""
        lines = [
            str(choice)
            for choice in self.choices
            if all(_get_nested(recipe, path) == _get_nested(self.recipe, path) for path in choice.options)
        ]
        return [self.note, *lines] if self.note else lines


def choose_recipe(
    stats: DatasetStats,
    checkpoint: Checkpoint | None,
    hardware: Hardware,
    *,
    has_validation: bool,
    rules: AutoRules = AUTO_RULES,
) -> AutoRecipe:
    """Choose a recipe.

    Args:
        stats: What was counted in the training set.
        checkpoint: What the training starts from; None: random weights.
        hardware: Cores or GPUs.
        has_validation: Whether there is a validation set besides the training set and the test set.
        rules: The numbers to decide by.

    Raises:
        InputError: The checkpoint is an encoder of clips, and the data are images.
    """
    clip = choose_clip(stats, checkpoint, rules)
    encoder, size, epoch_seconds = _choose_encoder_and_size(stats, checkpoint, hardware, clip, rules)
    affordable_epochs = int(60 * rules.training_minutes[hardware.device_kind] / epoch_seconds)
    full_epochs = min(max(rules.total_clips // stats.num_clips, rules.epoch_range[0]), rules.epoch_range[1])
    epochs = max(min(full_epochs, affordable_epochs), rules.min_epochs)
    batch = _choose_batch(stats, hardware, rules)
    is_deep = encoder.depth >= rules.min_deep_depth
    clips_per_class = stats.num_clips / len(stats.class_counts)
    can_mix = clips_per_class >= rules.min_mixup_clips_per_class and batch % (2 * hardware.processes) == 0
    counts = [count for count in stats.class_counts if count]
    recipe = FinetuneRecipe(
        encoder=replace(encoder, drop_path=rules.drop_path if is_deep else 0.0),
        clips=ClipsConfig(
            dataset="own",
            sampling=clip.sampling,
            size=size,
            crop=RandomResizedCrop(scale=(0.5, 1.0)),
            flip_probability=0.0 if stats.has_left_right_classes else 0.5,
            class_balance=rules.class_balance if max(counts) > rules.max_class_ratio * min(counts) else 0.0,
        ),
        views=ViewsConfig(
            sampling=clip.sampling,
            temporal_clips=1 if stats.is_images else 2,
            spatial_crops=3 if stats.aspect_ratio >= _WIDE_ASPECT_RATIO else 1,
            short_side=min(size),
            size=size,
        ),
        optim=AdamWConfig(
            base_lr=rules.peak_lr["deep" if is_deep else "shallow"] * 256 / batch,
            min_lr=0.0,
            max_grad_norm=1.0,
            layer_decay=rules.layer_decay if is_deep and checkpoint else None,
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
        batch=batch,
        label_smoothing=0.1,
        color_jitter=None if stats.is_images else ColorJitter(),
        mixup=MixupCutmix() if can_mix else None,
        patience=max(10, round(rules.patience_ratio * epochs)) if has_validation else None,
        weight_init="normal" if is_deep else "xavier",
    )

    def explain() -> Iterator[tuple[str, str, str]]:
        """Yield the options, the choice and the reason."""
        noun, init = "image" if stats.is_images else "clip", checkpoint.source if checkpoint else ""
        num_clips, average = f"{stats.num_clips} {noun}s", f"{clips_per_class:.3g} per class on average"
        tubelet, minutes = "x".join(map(str, encoder.tubelet)), epochs * epoch_seconds / 60
        lr, decay = recipe.optim.base_lr * batch / 256, recipe.optim.layer_decay
        yield (
            "encoder",
            f"encoder of {encoder.depth} blocks of width {encoder.dim}, tubelets of {tubelet}",
            f"that of {init}" if init else f"from scratch on {num_clips}, {average}, with {hardware}",
        )
        yield (
            "clips.size views.size",
            f"{size[0]} x {size[1]} pixels",
            f"{init} was trained so" if init else f"median short side {stats.median_short_side} px; {hardware}",
        )
        yield "clips.sampling views.sampling", clip.summary, clip.reason
        yield (
            "schedule.epochs",
            f"{epochs} epochs",
            f"{rules.total_clips:,} {noun}s in all, each of the {num_clips} {rules.epoch_range[0]} to "
            f"{rules.epoch_range[1]} times"
            + (f", limited by the time on {hardware}" if affordable_epochs < full_epochs else "")
            + (f"; about {minutes:.0f} min" if minutes >= 1 else "; a minute or less"),
        )
        yield "batch", f"batch of {batch}", num_clips
        yield (
            "optim",
            f"peak learning rate {lr:g}" + (f", layer decay {decay}" if decay else ""),
            f"{encoder.depth} blocks, {'pre-trained' if init else 'from scratch'}",
        )
        yield (
            "mixup",
            "mixup and CutMix" if can_mix else "no mixup or CutMix",
            f"{average}; from {rules.min_mixup_clips_per_class} per class on",
        )
        yield (
            "color_jitter",
            "no colour jitter" if stats.is_images else "colour jitter",
            "images are taken one by one"
            if stats.is_images
            else "videos are recorded under few lights, which a model would learn instead of the actions",
        )
        yield (
            "clips.flip_probability",
            "no horizontal flip" if stats.has_left_right_classes else "horizontal flip of half of the clips",
            f"{'a' if stats.has_left_right_classes else 'no'} class is called left or right",
        )
        yield (
            "clips.class_balance",
            f"classes balanced by {recipe.clips.class_balance}"
            if recipe.clips.class_balance
            else f"every {noun} once per epoch",
            f"the largest class has {max(counts)} {noun}s, the smallest {min(counts)}",
        )
        yield (
            "patience",
            f"early stopping after {recipe.patience} epochs without improvement"
            if has_validation
            else "no early stopping",
            f"there is {'a' if has_validation else 'no'} validation set besides the test set",
        )
        yield (
            "views.temporal_clips views.spatial_crops",
            f"{recipe.views.temporal_clips} x {recipe.views.spatial_crops} views in the test",
            f"median aspect ratio {stats.aspect_ratio:g}",
        )

    choices = (RecipeChoice(options=tuple(o.split()), summary=s, reason=r) for o, s, r in explain())
    return AutoRecipe(recipe=recipe, choices=tuple(choices))


def _choose_encoder_and_size(
    stats: DatasetStats, checkpoint: Checkpoint | None, hardware: Hardware, clip: ClipChoice, rules: AutoRules
) -> tuple[ViTConfig, tuple[int, int], float]:
    """Return the encoder, the largest clip size that leaves time for enough epochs, and the seconds of an epoch."""
    sizes = [clip.size]
    if checkpoint is None:
        largest = min(clip.size[0], rules.max_side[hardware.device_kind])
        sizes = [(side, side) for side in sorted(rules.tubelets, reverse=True) if side <= largest]
    for size in sizes:
        encoder = _choose_encoder(stats, checkpoint, hardware, size[0], rules)
        gflops = 3 * _compute_gflops(encoder, clip.sampling.num_frames, size) * stats.num_clips  # forward and backward
        seconds = gflops / (rules.gmacs_per_second[hardware.device_kind] * hardware.count)
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
        encoder = infer_encoder_config(checkpoint)
        if encoder.tubelet[0] == 1 and not stats.is_images:
            encoder = replace(encoder, tubelet=(2, *encoder.tubelet[1:]), positions="sincos3d", learned_grid=None)
        return merge_encoder_config(checkpoint, encoder)
    sizes = rules.encoder_sizes[hardware.device_kind]
    _, dim, depth, heads = next(size for size in sizes if stats.num_clips <= size[0])
    tubelet = (rules.image_tubelets if stats.is_images else rules.tubelets)[side]
    positions: Literal["sincos2d", "sincos3d"] = "sincos2d" if stats.is_images else "sincos3d"
    return ViTConfig(dim=dim, depth=depth, heads=heads, tubelet=tubelet, positions=positions)


def _choose_batch(stats: DatasetStats, hardware: Hardware, rules: AutoRules) -> int:
    """Return a batch size that is even in each process, and at most the number of clips."""
    batch = next(batch for limit, batch in rules.batch_sizes[hardware.device_kind] if stats.num_clips <= limit)
    even = 2 * hardware.processes
    return max(min(batch, stats.num_clips) // even * even, hardware.processes)


def _get_nested(config: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), config)
