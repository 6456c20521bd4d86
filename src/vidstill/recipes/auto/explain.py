"""Why the automatic recipe is as it is: a line for each choice."""

from dataclasses import dataclass

from vidstill.recipes.auto.clip_size import ClipChoice
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.recipes.auto.defaults import AutoRules
from vidstill.recipes.recipe import FinetuneRecipe


@dataclass(frozen=True, kw_only=True)
class RecipeChoice:
    """A choice: the options that it is of, what was chosen, and why."""

    options: tuple[str, ...]
    summary: str
    reason: str

    def __str__(self) -> str:
        return f"{self.summary}: {self.reason}"


def explain_choices(
    recipe: FinetuneRecipe,
    stats: DatasetStats,
    clip: ClipChoice,
    hardware: Hardware,
    *,
    init: str,
    has_validation: bool,
    affordable_epochs: int,
    epoch_seconds: float,
    rules: AutoRules,
) -> tuple[RecipeChoice, ...]:
    """
    Args:
        init: what it starts from; nothing if from scratch.
        has_validation: there are labelled videos besides those that are trained on and tested on.
        affordable_epochs: epochs that there is time for.
    """
    noun = "picture" if stats.is_images else "clip"
    clips = f"{stats.num_clips} {noun}s"
    per_class = f"{stats.num_clips / len(stats.class_counts):.3g} a class on average"
    there = [count for count in stats.class_counts if count]
    encoder, epochs, views = recipe.encoder, recipe.schedule.epochs, recipe.views
    rate, decay = recipe.optim.base_lr * recipe.batch / 256, recipe.optim.layer_decay
    minutes = epochs * epoch_seconds / 60
    rows, columns = recipe.clips.size
    shape = "x".join(map(str, encoder.tubelet))
    short = affordable_epochs < min(
        max(rules.total_clips // stats.num_clips, rules.epoch_range[0]), rules.epoch_range[1]
    )
    return (
        RecipeChoice(
            options=("encoder",),
            summary=f"encoder of {encoder.depth} blocks of width {encoder.dim}, tubelets of {shape}",
            reason=f"as {init} has it" if init else f"from scratch on {clips}, {per_class}, with {hardware}",
        ),
        RecipeChoice(
            options=("clips.size", "views.size"),
            summary=f"{rows} x {columns} pixels",
            reason=f"{init} was trained so"
            if init
            else f"the short side is {stats.median_short_side} in the middle; {hardware}",
        ),
        RecipeChoice(options=("clips.sampling", "views.sampling"), summary=clip.summary, reason=clip.reason),
        RecipeChoice(
            options=("schedule.epochs",),
            summary=f"{epochs} epochs",
            reason=f"{clips} are to be shown {rules.total_clips:,} times in all, "
            + f"each {rules.epoch_range[0]} to {rules.epoch_range[1]} times"
            + (f", as far as there is time on {hardware}" if short else "")
            + (f"; about {minutes:.0f} min" if minutes >= 1 else "; a minute or less"),
        ),
        RecipeChoice(options=("batch",), summary=f"batch of {recipe.batch}", reason=clips),
        RecipeChoice(
            options=("optim",),
            summary=f"highest rate {rate:g}" + (f", layer decay {decay}" if decay else ""),
            reason=f"{encoder.depth} blocks, {'trained already' if init else 'from scratch'}",
        ),
        RecipeChoice(
            options=("mixing",),
            summary="mixup and CutMix" if recipe.mixup else "no mixing",
            reason=f"{per_class}, and it is for {rules.min_mixup_clips_per_class} or more",
        ),
        RecipeChoice(
            options=("colour",),
            summary="colours as they are" if stats.is_images else "colours changed at random",
            reason="pictures are taken one by one"
            if stats.is_images
            else "videos are recorded in a few lights, which a model would learn in the place of the actions",
        ),
        RecipeChoice(
            options=("clips.flip",),
            summary="half of the clips mirrored" if recipe.clips.flip_probability else "no clip mirrored",
            reason=f"{'a' if stats.has_left_right_classes else 'no'} class is called left or right",
        ),
        RecipeChoice(
            options=("clips.balance",),
            summary=f"classes balanced by {recipe.clips.class_balance}"
            if recipe.clips.class_balance
            else "every clip once an epoch",
            reason=f"the largest class has {max(there)} {noun}s, the smallest {min(there)}",
        ),
        RecipeChoice(
            options=("patience",),
            summary=f"ends after {recipe.patience} epochs without a better score"
            if has_validation
            else "trains to its end",
            reason="there are videos to watch besides the test's"
            if has_validation
            else "no videos to watch besides the test's",
        ),
        RecipeChoice(
            options=("views.views", "views.crops"),
            summary=f"{views.temporal_clips} x {views.spatial_crops} views in the test",
            reason=f"the longer side is {stats.aspect_ratio:g} times the shorter one in the middle",
        ),
    )
