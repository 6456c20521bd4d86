"""Which probes, how they are set, and what each finds in features that are there."""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.tasks.metrics.accuracy import Score, measured
from vidstill.tasks.probes.attentive import Tokens, attentive_scores, fit_attentive
from vidstill.tasks.probes.fewshot import drawn
from vidstill.tasks.probes.knn import nearest_scores
from vidstill.tasks.probes.linear import PENALTY, choose_penalty, fit_linear
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError, within

Kind = Literal["linear", "knn", "attentive"]

_LARGEST = 1e12  # penalty; the weights are zero long before


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Which probes, and how they are set.

    Args:
        penalty: of the linear probe; None: chosen within the training features, and 1 with few shots.
        k: numbers of neighbours.
        shots: training clips of each class, for further linear and nearest-neighbour probes.
        draws: of the clips of each number of shots.
        seed: of the draws, and of the attentive probe.
    """

    kinds: tuple[Kind, ...]
    penalty: float | None = None
    k: tuple[int, ...] = (20,)
    shots: tuple[int, ...] = ()
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        within(0, _LARGEST, penalty=self.penalty)
        within(1, 1000, draws=self.draws)
        within(0, 2**63 - 1, seed=self.seed)
        if not self.kinds:
            raise InputError("no probe is asked for; take linear, knn or attentive")
        if not self.k or min(self.k) < 1:
            raise InputError(f"{min(self.k, default=0)} neighbours tell nothing; take 1 or more with --k")
        if min(self.shots, default=1) < 1:
            raise InputError(f"{min(self.shots)} shots teach nothing; take 1 clip of each class or more")


class Split(NamedTuple):
    """Features and labels of a split."""

    vectors: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]


class Found(NamedTuple):
    """What a probe scores, what it was set to, and how far its few shots' top-1 lies apart (deviation, in points)."""

    probe: str
    setting: str
    score: Score
    spread: float | None = None


def check_shots(probes: Probes, labels: Int[Tensor, "n"], classes: tuple[str, ...], name: str) -> None:
    """Raises an InputError where a class has too few training clips for the shots."""
    sizes = labels.bincount(minlength=len(classes))
    least = int(torch.where(sizes > 0, sizes, len(labels) + 1).argmin())
    if sizes[least] < max(probes.shots, default=0):
        raise InputError(
            f"{name} has {sizes[least]} training videos of the class {classes[least]!r}, and {max(probes.shots)} "
            "shots are asked for; take fewer"
        )


def of_vectors(train: Split, val: Split, classes: int, probes: Probes, name: str) -> Iterator[Found]:
    """The linear and the nearest-neighbour probes, with all training clips and with few.

    Args:
        name: of the data set, for what is said meanwhile.
    """
    if "linear" in probes.kinds:
        penalty = probes.penalty
        if penalty is None:
            with progress_bar(f"penalties, {name}") as done:
                penalty = choose_penalty(*train, classes, done=done)
        yield _linear(train, val, classes, penalty)
        for shots in probes.shots:
            chosen = PENALTY if probes.penalty is None else probes.penalty
            yield _mean(shots, [_linear(few, val, classes, chosen) for few in _draws(train, shots, probes)])
    if "knn" in probes.kinds:
        if max(probes.k) > len(train.labels):
            print(
                f"probe: {max(probes.k)} neighbours are asked for and {name} has {len(train.labels)} training videos "
                "that decode, which are taken",
                file=sys.stderr,
            )
        yield from _nearest(train, val, classes, probes.k)
        for shots in probes.shots:
            found = [_nearest(few, val, classes, probes.k) for few in _draws(train, shots, probes)]
            yield from (_mean(shots, list(each)) for each in zip(*found, strict=True))


def of_tokens(train: Tokens, val: Tokens, classes: int, probes: Probes, device: torch.device, name: str) -> Found:
    """The attentive probe."""
    with progress_bar(f"attentive probe, {name}") as done:
        probe = fit_attentive(train, classes, seed=probes.seed, device=device, done=done)
    return Found("attentive", f"seed {probes.seed}", measured(attentive_scores(probe, val), val.labels))


def _linear(train: Split, val: Split, classes: int, penalty: float) -> Found:
    fit = fit_linear(*train, classes, penalty)
    return Found("linear", f"penalty {penalty:g}", measured(fit.scores(val.vectors), val.labels))


def _nearest(train: Split, val: Split, classes: int, ks: tuple[int, ...]) -> list[Found]:
    there = {k: min(k, len(train.labels)) for k in ks}
    scores = nearest_scores(*train, val.vectors, classes, sorted(set(there.values())))
    names = {k: "knn" if len(ks) == 1 else f"knn {k}" for k in ks}
    return [Found(names[k], f"k {there[k]}", measured(scores[there[k]], val.labels)) for k in ks]


def _draws(train: Split, shots: int, probes: Probes) -> Iterator[Split]:
    for draw in range(probes.draws):
        places = drawn(train.labels.cpu(), shots, seed=probes.seed, draw=draw).to(train.labels.device)
        yield Split(train.vectors[places], train.labels[places])


def _mean(shots: int, found: list[Found]) -> Found:
    """Of one probe's draws."""
    tops = [each.score.top1 for each in found]
    mean = statistics.fmean(tops)
    score = replace(
        found[0].score,
        top1=mean,
        top5=statistics.fmean(each.score.top5 for each in found),
        mean_class=statistics.fmean(each.score.mean_class for each in found),
        error=(mean * (100 - mean) / found[0].score.videos) ** 0.5,
    )
    name = f"{found[0].probe} {shots} shot{'s' if shots > 1 else ''}"
    spread = statistics.stdev(tops) if len(tops) > 1 else None
    return Found(name, f"{found[0].setting}, {len(tops)} draws", score, spread)
