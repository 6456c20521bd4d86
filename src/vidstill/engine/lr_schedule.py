"""How many steps a run takes, and the learning rate of each: warm-up, then cosine."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from vidstill.engine.optimizer import OptimConfig
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError, check_range

WarmupRule = Literal["videomae", "mae"]
"""In which step a warm-up of n steps, counted from 0, reaches the peak learning rate, both as released.

videomae: step n - 1, so that step n has the peak again (VideoMAE, MVD, AMD, MaskAgain).
mae: step n (MAE, DMAE, ST-MAE).
"""


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """A linear warm-up, then half a cosine (Loshchilov and Hutter, arXiv:1608.03983), set at every step."""

    epochs: int  # passes over the videos
    # epochs in which the learning rate rises; epochs alone change it in proportion if fewer
    warmup_epochs: int | float = 0
    warmup_steps: int | None = None  # instead of `warmup_epochs`, if an epoch is too coarse
    cosine_epochs: int | None = None  # epochs of the whole cosine, if training ends before it does; None: `epochs`
    warmup_rule: WarmupRule = "videomae"  # which step reaches the peak

    def __post_init__(self) -> None:
        check_range(1, math.inf, cosine_epochs=self.cosine_epochs)
        check_range(0, math.inf, warmup_epochs=self.warmup_epochs, warmup_steps=self.warmup_steps)

    def with_epochs(self, epochs: int) -> "CosineConfig":
        """Return the schedule of a run of other epochs, with a shorter warm-up in proportion if they are fewer.

        The cosine ends as many epochs after the training as before.
        """
        share = min(1.0, max(epochs, 0) / self.epochs)
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs if share == 1 else round(share * self.warmup_epochs, 3),
            warmup_steps=None if self.warmup_steps is None else round(share * self.warmup_steps),
            cosine_epochs=self.cosine_epochs and max(1, self.cosine_epochs + epochs - self.epochs),
        )


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    """The learning rate of every step: a linear warm-up, then half a cosine."""

    start_lr: float = 0.0  # in step 0 of a warm-up
    peak_lr: float  # after the warm-up
    min_lr: float  # would be reached in step `cosine_steps`, the first that is no longer taken
    warmup_steps: int
    cosine_steps: int  # of warm-up and cosine together
    warmup_rule: WarmupRule = "videomae"

    def compute_lr(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            progress = step / (self.warmup_steps if self.warmup_rule == "mae" else max(1, self.warmup_steps - 1))
            return self.peak_lr if progress == 1 else self.start_lr + (self.peak_lr - self.start_lr) * progress
        progress = (step - self.warmup_steps) / (self.cosine_steps - self.warmup_steps)
        return self.min_lr + (self.peak_lr - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(LRSchedule):
    """A run's steps, batches and learning rates, resolved before it starts, in plain numbers."""

    steps_per_epoch: int
    total_steps: int
    videos_per_step: int
    clips_per_step: int  # over all processes; each video gives `clips_per_step / videos_per_step` clips
    world_size: int
    accumulation_steps: int  # a step's clips are processed in `world_size * accumulation_steps` micro-batches

    @property
    def videos_per_microbatch(self) -> int:
        return self.videos_per_step // (self.world_size * self.accumulation_steps)

    @property
    def clips_per_microbatch(self) -> int:
        return self.clips_per_step // (self.world_size * self.accumulation_steps)

    def get_identity(self) -> dict[str, int | float | str]:
        """Return what decides the optimisation, steps first; on how many devices it runs does not."""
        steps = {"steps_per_epoch": self.steps_per_epoch, "total_steps": self.total_steps}
        return steps | {n: value for n, value in asdict(self).items() if n not in ("world_size", "accumulation_steps")}

    def describe(self, noun: str) -> str:
        """Return the plan in one line; `noun` is what a sample is called, such as "video"."""
        clip_noun = get_clip_noun(noun)
        processes = f"{self.world_size} processes × " if self.world_size > 1 else ""
        accumulation = f"{self.accumulation_steps} accumulation steps × " if self.accumulation_steps > 1 else ""
        batch = f"{processes}{accumulation}{pluralize(self.clips_per_microbatch, clip_noun)}"
        if self.clips_per_microbatch != self.videos_per_step:
            batch = f"{pluralize(self.videos_per_step, noun)}: {batch}"
        warmup = f"after {pluralize(self.warmup_steps, 'warm-up step')}" if self.warmup_steps else "without warm-up"
        return (
            f"{pluralize(self.total_steps, 'step')} ({self.steps_per_epoch} per epoch) of {batch}; peak learning rate "
            f"{self.peak_lr:.3g} {warmup}, then cosine to {self.min_lr:.3g}"
        )


def get_clip_noun(noun: str) -> str:
    """Return what a clip of a sample is called: "image" of an image, otherwise "clip"."""
    return noun if noun == "image" else "clip"


def plan_training(
    *,
    num_videos: int,
    batch: int,
    optim: OptimConfig,
    schedule: CosineConfig,
    repeats: int = 1,
    world_size: int = 1,
    device_batch: int | None = None,
    group_clips: int = 1,
    group_option: str = "",
    noun: str = "video",
) -> TrainingPlan:
    """Plan a run on a dataset.

    Args:
        num_videos: Videos of the dataset.
        batch: Global batch size in clips, over all processes.
        optim: Gives the learning rates.
        schedule: Epochs and warm-up.
        repeats: Clips per video.
        world_size: Number of processes.
        device_batch: Clips that a device processes at once; more are accumulated. None: all of its share.
        group_clips: A micro-batch must consist of whole groups of this many clips; a smaller batch is one group.
        group_option: The option that sets `group_clips`, for the error message.
        noun: What a sample is called, for the error message.

    Raises:
        InputError: The batch does not divide, is larger than the dataset, or the warm-up never ends.
    """
    if batch < 1 or batch % repeats or (batch // repeats) % world_size:
        unit = repeats * world_size
        raise InputError(
            f"a batch of {batch} clips does not divide into {repeats} copies of each video on {world_size} processes; "
            f"take a multiple of {unit}, such as {max(unit, batch - batch % unit)}"
        )
    per_step = batch // repeats
    if num_videos < per_step:
        max_batch = num_videos // world_size * world_size * repeats
        mend = f"lower --batch to {max_batch} {get_clip_noun(noun)}s" if max_batch else f"add {noun}s"
        raise InputError(f"the dataset has {pluralize(num_videos, noun)} and one step takes {per_step}; {mend}")
    share = per_step // world_size
    fitting = [a for a in range(1, share + 1) if share % a == 0 and share // a * repeats <= (device_batch or batch)]
    if not fitting:
        raise InputError(
            f"a device that holds {device_batch} clips at once cannot hold the {repeats} copies of one video"
        )
    group = min(group_clips, batch)
    whole_groups = [a for a in fitting if share // a * repeats % group == 0]
    if not whole_groups:
        raise InputError(
            f"{share // fitting[0] * repeats} clips at once on a device do not divide into groups of {group}; give a "
            f"divisor of them as {group_option}, or a multiple of {group} as --device-batch and per process of --batch"
        )
    steps = num_videos // per_step
    cosine_steps = (schedule.cosine_epochs or schedule.epochs) * steps
    warmup = round(schedule.warmup_epochs * steps) if schedule.warmup_steps is None else schedule.warmup_steps
    if not (schedule.epochs >= 1 and warmup < cosine_steps and schedule.epochs * steps <= cosine_steps):
        is_cut = schedule.epochs * steps > cosine_steps
        mend = (
            "raise --schedule.cosine-epochs" if is_cut else "raise --schedule.epochs, or lower --schedule.warmup-epochs"
        )
        raise InputError(
            f"{schedule.epochs} epochs with a warm-up of {warmup} steps do not fit into a schedule of {cosine_steps} "
            f"steps; {mend}"
        )
    start, peak, final = optim.compute_lrs(num_videos=per_step, num_clips=batch)
    return TrainingPlan(
        steps_per_epoch=steps,
        total_steps=schedule.epochs * steps,
        videos_per_step=per_step,
        clips_per_step=batch,
        world_size=world_size,
        accumulation_steps=whole_groups[0],
        start_lr=start,
        peak_lr=peak,
        min_lr=final,
        warmup_steps=warmup,
        cosine_steps=cosine_steps,
        warmup_rule=schedule.warmup_rule,
    )
