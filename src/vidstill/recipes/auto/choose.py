"""The automatic recipe: a fine-tuning for given data, machine and checkpoint, with a reason for each choice.

It decides by what can be counted, never by measured time, so that the same command makes the same recipe again.
"""

from dataclasses import dataclass, replace
from operator import attrgetter

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
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.choose_clip import ClipChoice, choose_clip, name_source
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.flops import compute_model_cost


@dataclass(frozen=True, kw_only=True)
class AutoRecipe:
    """A recipe, and a reason for each choice.

    Args:
        reasons: The dotted names of the fields that were chosen, and a line for the log.
    """

    recipe: FinetuneRecipe
    reasons: tuple[tuple[str, str], ...] = ()

    def explain(self, recipe: FinetuneRecipe) -> list[str]:
        """Return the reason of each choice that `recipe` still has after some options were typed."""
        lines = []
        for names, line in self.reasons:
            choice = attrgetter(*names.split())
            if choice(recipe) == choice(self.recipe):
                lines.append(line)
        return lines


def choose_recipe(
    stats: DatasetStats,
    checkpoint: Checkpoint | None,
    hardware: Hardware,
    *,
    num_validation_clips: int,
    is_tested_on_validation: bool,
    free_clips: bool = False,
) -> AutoRecipe:
    """Choose a recipe.

    Args:
        stats: What was counted in the training set.
        checkpoint: What the training starts from; None: random weights.
        hardware: Cores or GPUs.
        num_validation_clips: Clips that are scored after each epoch.
        is_tested_on_validation: Whether they are the test set, too.
        free_clips: The clips of videos are those of a training from scratch, whatever the checkpoint was trained on:
            its positions are computed for any clip.

    Raises:
        InputError: The checkpoint is an encoder of clips, and the data are images.
    """
    keeps_clips = checkpoint is not None and (stats.is_images or not free_clips)
    clip = choose_clip(stats, checkpoint if keeps_clips else None)
    if checkpoint is not None and not keeps_clips:
        _, size, _ = _choose_encoder_and_size(stats, None, hardware, clip, num_validation_clips)
        clip = replace(clip, size=size)
    encoder, size, epoch_seconds = _choose_encoder_and_size(stats, checkpoint, hardware, clip, num_validation_clips)
    min_epochs, max_epochs = defaults.EPOCH_RANGE
    affordable_epochs = int(60 * defaults.TRAINING_MINUTES[hardware.device_kind] / epoch_seconds)
    full_epochs = min(max(defaults.TOTAL_CLIPS // stats.num_clips, min_epochs), max_epochs)
    epochs = max(min(full_epochs, affordable_epochs), defaults.MIN_EPOCHS)
    batch = _choose_batch(stats, hardware)
    is_deep = encoder.depth >= defaults.MIN_DEEP_DEPTH
    clips_per_class = stats.num_clips / len(stats.class_counts)
    can_mix = clips_per_class >= defaults.MIN_MIXUP_CLIPS_PER_CLASS and batch % (2 * hardware.processes) == 0
    can_stop = not is_tested_on_validation and num_validation_clips >= defaults.MIN_STOPPING_CLIPS
    counts = [count for count in stats.class_counts if count]
    is_unbalanced = max(counts) > defaults.MAX_CLASS_RATIO * min(counts)
    recipe = FinetuneRecipe(
        encoder=replace(encoder, drop_path=defaults.DROP_PATH if is_deep else 0.0),
        clips=ClipsConfig(
            dataset="own",
            sampling=clip.sampling,
            size=size,
            crop=RandomResizedCrop(scale=(0.5, 1.0)),
            flip_probability=0.0 if stats.has_left_right_classes else 0.5,
            class_balance=defaults.CLASS_BALANCE if is_unbalanced else 0.0,
        ),
        views=ViewsConfig(
            sampling=clip.sampling,
            temporal_clips=1 if stats.is_images else 2,
            spatial_crops=3 if stats.aspect_ratio >= defaults.WIDE_ASPECT_RATIO else 1,
            short_side=min(size),
            size=size,
        ),
        optim=AdamWConfig(
            base_lr=defaults.PEAK_LR * 256 / batch,
            min_lr=0.0,
            max_grad_norm=1.0,
            layer_decay=defaults.LAYER_DECAY if is_deep and checkpoint else None,
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
        batch=batch,
        label_smoothing=0.1,
        color_jitter=None if stats.is_images else ColorJitter(),
        mixup=MixupCutmix() if can_mix else None,
        patience=max(10, round(defaults.PATIENCE_RATIO * epochs)) if can_stop else None,
        weight_init="normal" if is_deep else "xavier",
    )
    noun, init = "image" if stats.is_images else "clip", name_source(checkpoint) if checkpoint else ""
    num_clips, average = f"{stats.num_clips} {noun}s", f"{clips_per_class:.3g} per class on average"
    tubelet, minutes = "x".join(map(str, encoder.tubelet)), epochs * epoch_seconds / 60
    duration = f"about {minutes:.0f} min" if minutes >= 1 else "a minute or less"
    class_sizes = f"the largest class has {max(counts)} {noun}s, the smallest {min(counts)}"
    if max(counts) == min(counts):
        class_sizes = f"every class has {max(counts)} {noun}s"
    num_views = recipe.views.num_views
    limit = f", limited by the time on {hardware}" if affordable_epochs < full_epochs else ""
    decay = f", layer decay {recipe.optim.layer_decay}" if recipe.optim.layer_decay else ""
    reasons = (
        (
            "encoder",
            f"encoder of {encoder.depth} blocks of width {encoder.dim}, tubelets of {tubelet}: "
            + (f"that of {init}" if init else f"from scratch on {num_clips}, {average}, with {hardware}"),
        ),
        (
            "clips.size views.size",
            f"{size[0]} x {size[1]} pixels: "
            + (
                f"{init} was trained so"
                if keeps_clips
                else f"median short side {stats.median_short_side} px; {hardware}"
            ),
        ),
        ("clips.sampling views.sampling", clip.reason),
        (
            "schedule.epochs",
            f"{epochs} epochs: {defaults.TOTAL_CLIPS:,} {noun}s in all, each of the {num_clips} {min_epochs} to "
            f"{max_epochs} times{limit}; {duration}",
        ),
        ("batch", f"batch of {batch}: {num_clips}"),
        (
            "optim",
            f"peak learning rate {recipe.optim.base_lr * batch / 256:g}{decay}: {encoder.depth} blocks, "
            + ("pre-trained" if init else "from scratch"),
        ),
        (
            "mixup",
            f"{'' if can_mix else 'no '}mixup {'and' if can_mix else 'or'} CutMix: {average}; from "
            f"{defaults.MIN_MIXUP_CLIPS_PER_CLASS} per class on",
        ),
        (
            "color_jitter",
            "no colour jitter: the data are images"
            if stats.is_images
            else "colour jitter: videos are recorded under few lights, and a model would learn those, not the actions",
        ),
        (
            "clips.flip_probability",
            "no horizontal flip: a class is called left or right"
            if stats.has_left_right_classes
            else f"horizontal flip of half of the {noun}s: no class is called left or right",
        ),
        (
            "clips.class_balance",
            (f"classes balanced by {defaults.CLASS_BALANCE}" if is_unbalanced else f"every {noun} once per epoch")
            + f": {class_sizes}",
        ),
        (
            "select",
            f"the best epoch's weights are kept: {num_validation_clips} validation {noun}s are scored after each epoch",
        ),
        (
            "patience",
            f"early stopping after {recipe.patience} epochs without improvement: the test set is another one"
            if can_stop
            else "no early stopping: "
            + (
                "the validation set is the test set"
                if is_tested_on_validation
                else f"{num_validation_clips} validation {noun}s are too few to tell epochs apart"
            ),
        ),
        (
            "views.temporal_clips views.spatial_crops",
            f"{recipe.views.temporal_clips} x {recipe.views.spatial_crops} {'view' if num_views == 1 else 'views'} in "
            f"the test: median aspect ratio {stats.aspect_ratio:g}",
        ),
    )
    return AutoRecipe(recipe=recipe, reasons=reasons)


def _choose_encoder_and_size(
    stats: DatasetStats, checkpoint: Checkpoint | None, hardware: Hardware, clip: ClipChoice, num_validation_clips: int
) -> tuple[ViTConfig, tuple[int, int], float]:
    """Return the encoder, the largest clip size that leaves time for enough epochs, and the seconds of an epoch."""
    kind, sizes = hardware.device_kind, [clip.size]
    if checkpoint is None:
        largest = min(clip.size[0], defaults.MAX_SIDE[kind])
        sizes = [(side, side) for side in sorted(defaults.TUBELETS, reverse=True) if side <= largest]
    for size in sizes:
        encoder = _choose_encoder(stats, checkpoint, kind, size[0])
        gflops = compute_model_cost(encoder, num_frames=clip.sampling.num_frames, size=size).gflops
        num_forwards = 3 * stats.num_clips + num_validation_clips  # a backward takes twice the time of a forward
        seconds = gflops * num_forwards / (defaults.GMACS_PER_SECOND[kind] * hardware.count)
        if defaults.EPOCH_RANGE[0] * seconds <= 60 * defaults.TRAINING_MINUTES[kind]:
            break
    return encoder, size, seconds


def _choose_encoder(
    stats: DatasetStats, checkpoint: Checkpoint | None, kind: defaults.DeviceKind, side: int
) -> ViTConfig:
    if checkpoint is not None:
        encoder = infer_encoder_config(checkpoint)
        if encoder.tubelet[0] == 1 and not stats.is_images:
            encoder = replace(encoder, tubelet=(2, *encoder.tubelet[1:]), positions="sincos3d", learned_grid=None)
        return merge_encoder_config(checkpoint, encoder)
    _, dim, depth, heads = next(size for size in defaults.ENCODER_SIZES[kind] if stats.num_clips <= size[0])
    encoder = ViTConfig(dim=dim, depth=depth, heads=heads)
    if stats.is_images:
        return replace(encoder, tubelet=defaults.IMAGE_TUBELETS[side], positions="sincos2d")
    # transformers' VideoMAE has these; as accurate as sincos3d (docs/own-data.md)
    return replace(encoder, tubelet=defaults.TUBELETS[side], positions="sinusoid")


def _choose_batch(stats: DatasetStats, hardware: Hardware) -> int:
    """Return a batch size that is even in each process, and at most the number of clips."""
    batch = next(size for limit, size in defaults.BATCH_SIZES[hardware.device_kind] if stats.num_clips <= limit)
    even = 2 * hardware.processes
    return max(min(batch, stats.num_clips) // even * even, hardware.processes)
