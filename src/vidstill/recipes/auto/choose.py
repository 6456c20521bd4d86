"""The automatic recipe: a fine-tuning for given videos, machine and start.

It decides by what can be counted and never by what takes time, so that the same command makes the same recipe again.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.load import continued, encoder_config
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.color_jitter import ColourJitter
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.mixup import Mixing
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.models.vit import ViTConfig
from vidstill.recipes.auto.clip_size import Look, looked
from vidstill.recipes.auto.dataset_stats import DataFacts, Machine
from vidstill.recipes.auto.defaults import RULES, Rules
from vidstill.recipes.auto.explain import Pick, reasons
from vidstill.recipes.recipe import Finetune
from vidstill.utils.config_io import from_plain
from vidstill.utils.files import RECIPE_FILE
from vidstill.utils.flops import cost

_WIDE = 1.2  # longer sides, from which a test looks at three places


@dataclass(frozen=True, kw_only=True)
class Chosen:
    recipe: Finetune
    picks: tuple[Pick, ...]
    note: str = ""  # to be said first

    def reasons(self, recipe: Finetune) -> list[str]:
        """A line for each choice that a recipe, in which options may have changed some, still has."""
        picks = [str(pick) for pick in self.picks if all(_at(recipe, o) == _at(self.recipe, o) for o in pick.options)]
        return [self.note, *picks] if self.note else picks


def choose(facts: DataFacts, start: Weights | None, machine: Machine, *, third: bool, rules: Rules = RULES) -> Chosen:
    """A recipe for these videos on this machine.

    Args:
        start: what it starts from, if not from scratch.
        third: there are labelled videos besides those that are trained on and tested on.

    Raises:
        InputError: the start is an encoder of clips, and the data are pictures.
    """
    look = looked(facts, start, rules)
    encoder, size, seconds = _fitting(facts, start, machine, look, rules)
    affordable = int(60 * rules.minutes[machine.kind] / seconds)
    wanted = min(max(rules.shown // facts.clips, rules.epochs[0]), rules.epochs[1])
    epochs = max(min(wanted, affordable), rules.fewest_epochs)
    batch = _batch(facts, machine, rules)
    deep = encoder.depth >= rules.deep
    mixes = facts.clips >= rules.mixed_from * len(facts.of_class) and batch % (2 * machine.processes) == 0
    there = [count for count in facts.of_class if count]
    recipe = Finetune(
        encoder=replace(encoder, drop_path=rules.drop_path if deep else 0.0),
        clips=ClipsConfig(
            dataset="own",
            sampling=look.sampling,
            size=size,
            crop=RandomResizedCrop(area=(0.5, 1.0)),
            flip=0.0 if facts.handed else 0.5,
            balance=rules.balance if max(there) > rules.unequal * min(there) else 0.0,
        ),
        views=ViewsConfig(
            sampling=look.sampling,
            views=1 if facts.pictures else 2,
            crops=3 if facts.wide >= _WIDE else 1,
            short_side=min(size),
            size=size,
        ),
        optim=AdamWConfig(
            base_lr=rules.rate["deep" if deep else "shallow"] * 256 / batch,
            min_lr=0.0,
            clip_norm=1.0,
            layer_decay=rules.layer_decay if deep and start else None,
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
        batch=batch,
        smoothing=0.1,
        colour=None if facts.pictures else ColourJitter(),
        mixing=Mixing() if mixes else None,
        patience=max(10, round(rules.patience * epochs)) if third else None,
        start="normal" if deep else "xavier",
    )
    picks = reasons(
        recipe,
        facts,
        look,
        machine,
        init=start.source if start else "",
        third=third,
        affordable=affordable,
        epoch_seconds=seconds,
        rules=rules,
    )
    return Chosen(recipe=recipe, picks=picks)


def kept(out: Path) -> Finetune | None:
    """The recipe of the run that a folder holds, if it holds a fine-tuning's."""
    try:
        plain = json.loads((out / RECIPE_FILE).read_text(encoding="utf-8"))["recipe"]
        return from_plain(Finetune, plain)
    except (OSError, ValueError, KeyError, TypeError):  # whatever else is in it is refused when it is claimed
        return None


def _fitting(
    facts: DataFacts, start: Weights | None, machine: Machine, look: Look, rules: Rules
) -> tuple[ViTConfig, tuple[int, int], float]:
    """The encoder, a clip's size, the largest that leaves time for enough epochs, and the seconds of an epoch."""
    sizes = [look.size]
    if start is None:
        most = min(look.size[0], rules.largest_side[machine.kind])
        sizes = [(side, side) for side in sorted(rules.tubelets, reverse=True) if side <= most]
    for size in sizes:
        encoder = _encoder(facts, start, machine, size[0], rules)
        work = (
            3 * _gflops(encoder, look.sampling.frames, size) * facts.clips
        )  # a step costs three times what looking does
        seconds = work / (rules.speed[machine.kind] * machine.count)
        if rules.epochs[0] * seconds <= 60 * rules.minutes[machine.kind]:
            break
    return encoder, size, seconds


@lru_cache
def _gflops(encoder: ViTConfig, frames: int, size: tuple[int, int]) -> float:
    return cost(encoder, frames=frames, size=size).gflops


def _encoder(facts: DataFacts, start: Weights | None, machine: Machine, side: int, rules: Rules) -> ViTConfig:
    if start is not None:
        found = encoder_config(start)
        if found.tubelet[0] == 1 and not facts.pictures:
            found = replace(found, tubelet=(2, *found.tubelet[1:]), positions="sincos3d", learned_grid=None)
        return continued(start, found)
    _, dim, depth, heads = next(row for row in rules.encoders[machine.kind] if facts.clips <= row[0])
    tubelet = (rules.flat_tubelets if facts.pictures else rules.tubelets)[side]
    positions: Literal["sincos2d", "sincos3d"] = "sincos2d" if facts.pictures else "sincos3d"
    return ViTConfig(dim=dim, depth=depth, heads=heads, tubelet=tubelet, positions=positions)


def _batch(facts: DataFacts, machine: Machine, rules: Rules) -> int:
    """Even for each process, and no more clips than there are."""
    size = next(size for most, size in rules.batches[machine.kind] if facts.clips <= most)
    even = 2 * machine.processes
    size = min(size, facts.clips)
    return max(size // even * even, machine.processes)


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value
