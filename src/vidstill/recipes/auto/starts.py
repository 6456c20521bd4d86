"""What a fine-tuning starts from: short fine-tunings by a recipe, and the start that their answers favour."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import merge_encoder_config
from vidstill.checkpoints.shipped import SCRATCH
from vidstill.data.datasets.base import FrameSampling
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.choose_clip import read_trained_clips
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.flops import compute_model_cost


@dataclass(frozen=True)
class StartScore:
    """How a start did, beside the best one before it.

    Args:
        start: SCRATCH, or the address of weights.
        accuracy: In percent of the videos.
        gain: Points by which it is better than the best start before it.
        standard_error: Of the gain, in points.
    """

    start: str
    accuracy: float
    gain: float = 0.0
    standard_error: float = 0.0

    @property
    def is_better(self) -> bool:
        return self.gain >= defaults.MIN_GAIN and self.gain > defaults.MIN_GAIN_ERRORS * self.standard_error

    def __str__(self) -> str:
        gain = f" ({self.gain:+.1f} ± {self.standard_error:.1f})" if self.gain or self.standard_error else ""
        return f"{self.start} {self.accuracy:.1f} %{gain}"


@dataclass(frozen=True)
class ComparisonPlan:
    """How long the starts are compared, and on which share of the videos."""

    epochs: int
    share: float = 1.0


def can_compare(recipe: FinetuneRecipe, start: Checkpoint) -> bool:
    """Return whether a start is as fine as the recipe's encoder, so that the recipe's clips suit it.

    Its positions must be computed for any clip; tubelets of other sizes are for clips of other sizes.
    """
    encoder = merge_encoder_config(start, recipe.encoder)
    trained_on = read_trained_clips(start)
    return encoder.tubelet == recipe.encoder.tubelet and encoder.learned_grid is None and trained_on is not None


def shorten_recipe(
    recipe: FinetuneRecipe, starts: Mapping[str, Checkpoint], *, num_clips: int, processes: int
) -> dict[str, FinetuneRecipe]:
    """Return a recipe for the comparison of each start, of one epoch: small clips, and no selection of an epoch.

    Args:
        recipe: That from scratch.
        starts: Checkpoints that state the clips of their training, by address. The clips have the size and length of
            the first one's, which costs a fraction of the recipe's.
        num_clips: Of the smallest training set.
        processes: Over which a batch is divided.
    """
    trained_on = read_trained_clips(next(iter(starts.values())))
    assert trained_on is not None, "can_compare"
    size, frames = trained_on.size, trained_on.sampling.num_frames
    videos = min(recipe.batch // recipe.clips.repeats, defaults.COMPARISON_BATCH * processes, num_clips)
    batch = videos // processes * processes * recipe.clips.repeats
    short = replace(
        recipe,
        clips=replace(
            recipe.clips,
            sampling=_resize_sampling(recipe.clips.sampling, frames),
            size=size,
        ),
        views=replace(
            recipe.views,
            sampling=_resize_sampling(recipe.views.sampling, frames),
            temporal_clips=1,
            spatial_crops=1,
            short_side=min(size),
            size=size,
        ),
        optim=replace(recipe.optim, base_lr=recipe.optim.base_lr * recipe.batch / batch),
        schedule=CosineConfig(epochs=1),
        batch=batch,
        select="last",
        patience=None,
        ema_decay=None,
    )
    encoders = {name: merge_encoder_config(start, recipe.encoder) for name, start in starts.items()}
    return {SCRATCH: short, **{name: replace(short, encoder=encoder) for name, encoder in encoders.items()}}


def plan_comparison(
    recipe: FinetuneRecipe,
    short_recipes: Sequence[FinetuneRecipe],
    *,
    num_clips: int,
    num_validation_clips: int,
    num_trained: int,
    num_scored: int,
) -> ComparisonPlan:
    """Choose the epochs of the short fine-tunings, which all together cost a share of the training's multiply-adds.

    Args:
        recipe: Of the training, from scratch.
        short_recipes: Of each start.
        num_clips, num_validation_clips: Of the training.
        num_trained, num_scored: Videos in all trainings of a start, each counted once, and in all their validations.
    """
    training = _count_gflops(recipe) * (3 * num_clips + num_validation_clips) * recipe.schedule.epochs
    budget = defaults.COMPARISON_SHARE * training / sum(map(_count_gflops, short_recipes))
    epochs = (budget - num_scored) / (3 * num_trained)
    fewest, most = (min(each, recipe.schedule.epochs) for each in defaults.COMPARED_EPOCHS)
    share = min(1.0, max(epochs / fewest, defaults.MIN_SUBSET_CLIPS / num_trained))
    return ComparisonPlan(epochs=int(min(max(epochs / share, fewest), most)), share=share)


def rank_starts(
    correct: Mapping[str, Float[np.ndarray, "n"]], groups: Int[np.ndarray, "n"]
) -> tuple[str, list[StartScore]]:
    """Return the start to take, and the scores of all.

    A start is taken if it is better than the best one before it by MIN_GAIN points, and by MIN_GAIN_ERRORS standard
    errors of the difference over the same videos.

    Args:
        correct: Of each start, in order of preference: for each video, the share of its fine-tunings that answer
            rightly.
        groups: Of each video; the errors of a group's videos depend on one another.
    """
    best, *others = correct
    scores = [StartScore(best, 100 * float(correct[best].mean()))]
    for start in others:
        gain, error = _compare(correct[start], correct[best], groups)
        score = StartScore(start, 100 * float(correct[start].mean()), 100 * gain, 100 * error)
        best = start if score.is_better else best
        scores.append(score)
    return best, scores


def _compare(
    after: Float[np.ndarray, "n"], before: Float[np.ndarray, "n"], groups: Int[np.ndarray, "n"]
) -> tuple[float, float]:
    """Return the mean difference, and its standard error: over groups, or over videos if that is larger."""
    difference = after - before
    errors = [0.0]
    for units in (groups, np.arange(len(difference))):
        if (count := len(np.unique(units))) > 1:  # few groups may agree without saying much
            deviations = np.bincount(units, weights=difference - difference.mean())
            errors.append(math.sqrt(float((deviations**2).sum()) * count / (count - 1)) / len(difference))
    return float(difference.mean()), max(errors)


def _resize_sampling(sampling: FrameSampling, num_frames: int) -> FrameSampling:
    """Return a sampling of other frames over about the same span."""
    if isinstance(sampling, SegmentSampling):
        return replace(sampling, num_frames=num_frames)
    stride: Any = sampling.stride * sampling.num_frames / num_frames
    stride = max(1, round(stride)) if isinstance(sampling.stride, int) else stride
    return replace(sampling, num_frames=num_frames, stride=stride)


def _count_gflops(recipe: FinetuneRecipe) -> float:
    clips = recipe.clips
    return compute_model_cost(recipe.encoder, num_frames=clips.sampling.num_frames, size=clips.size).gflops
