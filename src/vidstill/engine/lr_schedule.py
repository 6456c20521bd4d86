"""How many steps a run takes, and the rate of each: warm-up, then cosine."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from vidstill.engine.optimizer import OptimConfig
from vidstill.utils.types import InputError, within

Rule = Literal["videomae", "mae"]
"""How a warm-up of n steps, counted from 0, reaches its peak, both as released. The cosine is the same.

videomae: in step n - 1, so that step n has the peak again (VideoMAE, MVD, AMD, MaskAgain).
mae: in step n (MAE, DMAE, ST-MAE).
"""


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """A straight warm-up, then half a cosine (Loshchilov and Hutter, arXiv:1608.03983), set at every step."""

    epochs: int
    """How often each video is met."""
    warmup_epochs: int = 0
    """Those of them in which the rate rises."""
    warmup_steps: int | None = None
    """In place of `warmup_epochs`, where an epoch is too coarse."""
    span_epochs: int | None = None
    """Epochs that the whole cosine would take, where training ends before it does; None: `epochs`."""
    rule: Rule = "videomae"
    """Whose warm-up it is."""

    def __post_init__(self) -> None:
        within(1, math.inf, span_epochs=self.span_epochs)
        within(0, math.inf, warmup_epochs=self.warmup_epochs, warmup_steps=self.warmup_steps)


def cosine_rate(
    step: int, *, peak: float, final: float, steps: int, warmup: int, start: float = 0.0, rule: Rule = "videomae"
) -> float:
    """The rate of one step, counted from 0.

    The cosine would reach `final` in step number `steps`, the first that is no longer taken.
    """
    if step < warmup:
        risen = step / (warmup if rule == "mae" else max(1, warmup - 1))
        return peak if risen == 1 else start + (peak - start) * risen
    return final + (peak - final) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is going to do, resolved before it starts: steps, batches and rates, in plain numbers."""

    steps_per_epoch: int
    total_steps: int
    videos_per_step: int
    clips_per_step: int
    """Over all processes: `clips_per_step / videos_per_step` copies of each video."""
    world: int
    accumulation: int
    """A step's videos are met in `world * accumulation` chunks, each of which fits on its device."""
    start: float
    peak: float
    final: float
    warmup_steps: int
    span_steps: int
    rule: Rule

    @property
    def videos_per_chunk(self) -> int:
        return self.videos_per_step // (self.world * self.accumulation)

    def rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return cosine_rate(
            step,
            peak=self.peak,
            final=self.final,
            steps=self.span_steps,
            warmup=self.warmup_steps,
            start=self.start,
            rule=self.rule,
        )

    def identity(self) -> dict[str, int | float | str]:
        """What decides the optimisation; on how many devices it runs does not."""
        return {name: value for name, value in asdict(self).items() if name not in ("world", "accumulation")}

    def __str__(self) -> str:
        return (
            f"{self.total_steps} steps ({self.steps_per_epoch} an epoch) of {self.videos_per_step} videos, "
            f"{self.clips_per_step} clips: {self.world} processes × {self.accumulation} accumulated × "
            f"{self.videos_per_chunk} videos; rate up to {self.peak:.3g} in {self.warmup_steps} steps, "
            f"down to {self.final:.3g}"
        )


def make_plan(
    *,
    videos: int,
    batch: int,
    optim: OptimConfig,
    schedule: CosineConfig,
    repeats: int = 1,
    world: int = 1,
    at_once: int | None = None,
) -> Plan:
    """The plan of a run on a data set of so many videos.

    Args:
        batch: clips a step, over all processes.
        repeats: clips that each video gives.
        at_once: clips that one device holds; more are accumulated. None: it holds its whole share.

    Raises:
        InputError: the batch does not divide as asked, is larger than the data set, or the warm-up never ends.
    """
    if batch < 1 or batch % repeats or (batch // repeats) % world:
        unit = repeats * world
        near = max(unit, batch - batch % unit)
        raise InputError(
            f"a batch of {batch} clips does not divide into {repeats} copies of each video on {world} processes; "
            f"take a multiple of {unit}, such as {near}"
        )
    per_step = batch // repeats
    if videos < per_step:
        raise InputError(
            f"the data set has {videos} videos and one step takes {per_step}; "
            + (
                f"take a batch of at most {videos // world * world * repeats} clips"
                if videos >= world
                else "add videos"
            )
        )
    share = per_step // world
    fitting = [a for a in range(1, share + 1) if share % a == 0 and share // a * repeats <= (at_once or batch)]
    if not fitting:
        raise InputError(f"a device that holds {at_once} clips at once cannot hold the {repeats} copies of one video")
    steps = videos // per_step
    span = (schedule.span_epochs or schedule.epochs) * steps
    warmup = schedule.warmup_epochs * steps if schedule.warmup_steps is None else schedule.warmup_steps
    if not (schedule.epochs >= 1 and warmup < span and schedule.epochs * steps <= span):
        raise InputError(
            f"{schedule.epochs} epochs with a warm-up of {warmup} steps do not fit in a schedule of {span} steps; "
            "train longer or warm up for less"
        )
    start, peak, final = optim.rates(videos=per_step, clips=batch)
    return Plan(
        steps_per_epoch=steps,
        total_steps=schedule.epochs * steps,
        videos_per_step=per_step,
        clips_per_step=batch,
        world=world,
        accumulation=fitting[0],
        start=start,
        peak=peak,
        final=final,
        warmup_steps=warmup,
        span_steps=span,
        rule=schedule.rule,
    )
