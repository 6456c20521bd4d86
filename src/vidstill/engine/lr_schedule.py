"""How many steps a run takes, and the rate of each: warm-up, then cosine."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from vidstill.engine.optimizer import OptimConfig
from vidstill.utils.types import InputError, check_range

WarmupRule = Literal["videomae", "mae"]
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
    cosine_epochs: int | None = None
    """Epochs that the whole cosine would take, where training ends before it does; None: `epochs`."""
    warmup_rule: WarmupRule = "videomae"
    """Whose warm-up it is."""

    def __post_init__(self) -> None:
        check_range(1, math.inf, span_epochs=self.cosine_epochs)
        check_range(0, math.inf, warmup_epochs=self.warmup_epochs, warmup_steps=self.warmup_steps)


def compute_cosine_lr(
    step: int,
    *,
    peak_lr: float,
    min_lr: float,
    cosine_steps: int,
    warmup_steps: int,
    start_lr: float = 0.0,
    warmup_rule: WarmupRule = "videomae",
) -> float:
    """The rate of one step, counted from 0.

    The cosine would reach `final` in step number `steps`, the first that is no longer taken.
    """
    if step < warmup_steps:
        risen = step / (warmup_steps if warmup_rule == "mae" else max(1, warmup_steps - 1))
        return peak_lr if risen == 1 else start_lr + (peak_lr - start_lr) * risen
    return (
        min_lr
        + (peak_lr - min_lr) * (1 + math.cos(math.pi * (step - warmup_steps) / (cosine_steps - warmup_steps))) / 2
    )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a run is going to do, resolved before it starts: steps, batches and rates, in plain numbers."""

    steps_per_epoch: int
    total_steps: int
    videos_per_step: int
    clips_per_step: int
    """Over all processes: `clips_per_step / videos_per_step` copies of each video."""
    world_size: int
    accumulation_steps: int
    """A step's videos are met in `world * accumulation` chunks, each of which fits on its device."""
    start_lr: float
    peak_lr: float
    min_lr: float
    warmup_steps: int
    cosine_steps: int
    warmup_rule: WarmupRule

    @property
    def videos_per_microbatch(self) -> int:
        return self.videos_per_step // (self.world_size * self.accumulation_steps)

    def compute_lr(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return compute_cosine_lr(
            step,
            peak_lr=self.peak_lr,
            min_lr=self.min_lr,
            cosine_steps=self.cosine_steps,
            warmup_steps=self.warmup_steps,
            start_lr=self.start_lr,
            warmup_rule=self.warmup_rule,
        )

    def get_identity(self) -> dict[str, int | float | str]:
        """What decides the optimisation; on how many devices it runs does not."""
        return {name: value for name, value in asdict(self).items() if name not in ("world", "accumulation")}

    def __str__(self) -> str:
        return (
            f"{self.total_steps} steps ({self.steps_per_epoch} an epoch) of {self.videos_per_step} videos, "
            f"{self.clips_per_step} clips: {self.world_size} processes × {self.accumulation_steps} accumulated × "
            f"{self.videos_per_microbatch} videos; rate up to {self.peak_lr:.3g} in {self.warmup_steps} steps, "
            f"down to {self.min_lr:.3g}"
        )


def plan_training(
    *,
    num_videos: int,
    batch: int,
    optim: OptimConfig,
    schedule: CosineConfig,
    repeats: int = 1,
    world_size: int = 1,
    device_batch: int | None = None,
) -> TrainingPlan:
    """The plan of a run on a data set of so many videos.

    Args:
        batch: clips a step, over all processes.
        repeats: clips that each video gives.
        device_batch: clips that one device holds; more are accumulated. None: it holds its whole share.

    Raises:
        InputError: the batch does not divide as asked, is larger than the data set, or the warm-up never ends.
    """
    if batch < 1 or batch % repeats or (batch // repeats) % world_size:
        unit = repeats * world_size
        near = max(unit, batch - batch % unit)
        raise InputError(
            f"a batch of {batch} clips does not divide into {repeats} copies of each video on {world_size} processes; "
            f"take a multiple of {unit}, such as {near}"
        )
    per_step = batch // repeats
    if num_videos < per_step:
        raise InputError(
            f"the data set has {num_videos} videos and one step takes {per_step}; "
            + (
                f"take a batch of at most {num_videos // world_size * world_size * repeats} clips"
                if num_videos >= world_size
                else "add videos"
            )
        )
    share = per_step // world_size
    fitting = [a for a in range(1, share + 1) if share % a == 0 and share // a * repeats <= (device_batch or batch)]
    if not fitting:
        raise InputError(
            f"a device that holds {device_batch} clips at once cannot hold the {repeats} copies of one video"
        )
    steps = num_videos // per_step
    span = (schedule.cosine_epochs or schedule.epochs) * steps
    warmup = schedule.warmup_epochs * steps if schedule.warmup_steps is None else schedule.warmup_steps
    if not (schedule.epochs >= 1 and warmup < span and schedule.epochs * steps <= span):
        raise InputError(
            f"{schedule.epochs} epochs with a warm-up of {warmup} steps do not fit in a schedule of {span} steps; "
            "train longer or warm up for less"
        )
    start, peak, final = optim.compute_lrs(num_videos=per_step, num_clips=batch)
    return TrainingPlan(
        steps_per_epoch=steps,
        total_steps=schedule.epochs * steps,
        videos_per_step=per_step,
        clips_per_step=batch,
        world_size=world_size,
        accumulation_steps=fitting[0],
        start_lr=start,
        peak_lr=peak,
        min_lr=final,
        warmup_steps=warmup,
        cosine_steps=span,
        warmup_rule=schedule.warmup_rule,
    )
