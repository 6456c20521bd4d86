"""Why the automatic recipe is as it is: a line for each choice."""

from dataclasses import dataclass

from vidstill.recipes.auto.clip_size import Look
from vidstill.recipes.auto.dataset_stats import DataFacts, Machine
from vidstill.recipes.auto.defaults import Rules
from vidstill.recipes.recipe import Finetune


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A choice: the options that it is of, what was chosen, and why."""

    options: tuple[str, ...]
    said: str
    why: str

    def __str__(self) -> str:
        return f"{self.said}: {self.why}"


def reasons(
    recipe: Finetune,
    facts: DataFacts,
    look: Look,
    machine: Machine,
    *,
    init: str,
    third: bool,
    affordable: int,
    epoch_seconds: float,
    rules: Rules,
) -> tuple[Pick, ...]:
    """
    Args:
        init: what it starts from; nothing if from scratch.
        third: there are labelled videos besides those that are trained on and tested on.
        affordable: epochs that there is time for.
    """
    noun = "picture" if facts.pictures else "clip"
    clips = f"{facts.clips} {noun}s"
    per_class = f"{facts.clips / len(facts.of_class):.3g} a class on average"
    there = [count for count in facts.of_class if count]
    encoder, epochs, views = recipe.encoder, recipe.schedule.epochs, recipe.views
    rate, decay = recipe.optim.base_lr * recipe.batch / 256, recipe.optim.layer_decay
    minutes = epochs * epoch_seconds / 60
    rows, columns = recipe.clips.size
    shape = "x".join(map(str, encoder.tubelet))
    short = affordable < min(max(rules.shown // facts.clips, rules.epochs[0]), rules.epochs[1])
    return (
        Pick(
            options=("encoder",),
            said=f"encoder of {encoder.depth} blocks of width {encoder.dim}, tubelets of {shape}",
            why=f"as {init} has it" if init else f"from scratch on {clips}, {per_class}, with {machine}",
        ),
        Pick(
            options=("clips.size", "views.size"),
            said=f"{rows} x {columns} pixels",
            why=f"{init} was trained so" if init else f"the short side is {facts.short_side} in the middle; {machine}",
        ),
        Pick(options=("clips.sampling", "views.sampling"), said=look.said, why=look.why),
        Pick(
            options=("schedule.epochs",),
            said=f"{epochs} epochs",
            why=f"{clips} are to be shown {rules.shown:,} times in all, "
            + f"each {rules.epochs[0]} to {rules.epochs[1]} times"
            + (f", as far as there is time on {machine}" if short else "")
            + (f"; about {minutes:.0f} min" if minutes >= 1 else "; a minute or less"),
        ),
        Pick(options=("batch",), said=f"batch of {recipe.batch}", why=clips),
        Pick(
            options=("optim",),
            said=f"highest rate {rate:g}" + (f", layer decay {decay}" if decay else ""),
            why=f"{encoder.depth} blocks, {'trained already' if init else 'from scratch'}",
        ),
        Pick(
            options=("mixing",),
            said="mixup and CutMix" if recipe.mixing else "no mixing",
            why=f"{per_class}, and it is for {rules.mixed_from} or more",
        ),
        Pick(
            options=("colour",),
            said="colours as they are" if facts.pictures else "colours changed at random",
            why="pictures are taken one by one"
            if facts.pictures
            else "videos are recorded in a few lights, which a model would learn in the place of the actions",
        ),
        Pick(
            options=("clips.flip",),
            said="half of the clips mirrored" if recipe.clips.flip else "no clip mirrored",
            why=f"{'a' if facts.handed else 'no'} class is called left or right",
        ),
        Pick(
            options=("clips.balance",),
            said=f"classes balanced by {recipe.clips.balance}" if recipe.clips.balance else "every clip once an epoch",
            why=f"the largest class has {max(there)} {noun}s, the smallest {min(there)}",
        ),
        Pick(
            options=("patience",),
            said=f"ends after {recipe.patience} epochs without a better score" if third else "trains to its end",
            why="there are videos to watch besides the test's" if third else "no videos to watch besides the test's",
        ),
        Pick(
            options=("views.views", "views.crops"),
            said=f"{views.views} x {views.crops} views in the test",
            why=f"the longer side is {facts.wide:g} times the shorter one in the middle",
        ),
    )
