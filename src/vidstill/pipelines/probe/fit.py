"""Which probes, how they are set, and what each finds in features that are there."""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.tasks.metrics.accuracy import Accuracy, compute_accuracy
from vidstill.tasks.probes.attentive import TokenDataset, compute_attentive_logits, fit_attentive_probe
from vidstill.tasks.probes.fewshot import draw_shots
from vidstill.tasks.probes.knn import compute_knn_scores
from vidstill.tasks.probes.linear import DEFAULT_PENALTY, choose_penalty, fit_logistic_regression
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError, check_range

ProbeKind = Literal["linear", "knn", "attentive"]

_MAX_PENALTY = 1e12  # penalty; the weights are zero long before


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Which probes, and how they are set.

    Args:
        penalty: of the linear probe; None: chosen within the training features, and 1 with few shots.
        k: numbers of neighbours.
        shots: training clips of each class, for further linear and nearest-neighbour probes.
        trials: of the clips of each number of shots.
        seed: of the draws, and of the attentive probe.
    """

    probes: tuple[ProbeKind, ...]
    penalty: float | None = None
    k: tuple[int, ...] = (20,)
    shots: tuple[int, ...] = ()
    trials: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(0, _MAX_PENALTY, penalty=self.penalty)
        check_range(1, 1000, draws=self.trials)
        check_range(0, 2**63 - 1, seed=self.seed)
        if not self.probes:
            raise InputError("no probe is asked for; take linear, knn or attentive")
        if not self.k or min(self.k) < 1:
            raise InputError(f"{min(self.k, default=0)} neighbours tell nothing; take 1 or more with --k")
        if min(self.shots, default=1) < 1:
            raise InputError(f"{min(self.shots)} shots teach nothing; take 1 clip of each class or more")


class FeatureSplit(NamedTuple):
    """Features and labels of a split."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]


class ProbeFit(NamedTuple):
    """What a probe scores, what it was set to, and how far its few shots' top-1 lies apart (deviation, in points)."""

    probe: str
    setting: str
    score: Accuracy
    std: float | None = None


def check_shots(config: ProbeConfig, labels: Int[Tensor, "n"], classes: tuple[str, ...], name: str) -> None:
    """Raises an InputError where a class has too few training clips for the shots."""
    sizes = labels.bincount(minlength=len(classes))
    least = int(torch.where(sizes > 0, sizes, len(labels) + 1).argmin())
    if sizes[least] < max(config.shots, default=0):
        raise InputError(
            f"{name} has {sizes[least]} training videos of the class {classes[least]!r}, and {max(config.shots)} "
            "shots are asked for; take fewer"
        )


def fit_vector_probes(
    train: FeatureSplit, test: FeatureSplit, num_classes: int, config: ProbeConfig, dataset_name: str
) -> Iterator[ProbeFit]:
    """The linear and the nearest-neighbour probes, with all training clips and with few.

    Args:
        dataset_name: of the data set, for what is said meanwhile.
    """
    if "linear" in config.probes:
        penalty = config.penalty
        if penalty is None:
            with show_progress_bar(f"penalties, {dataset_name}") as done:
                penalty = choose_penalty(*train, num_classes, progress=done)
        yield _fit_linear_probe(train, test, num_classes, penalty)
        for shots in config.shots:
            chosen = DEFAULT_PENALTY if config.penalty is None else config.penalty
            yield _average_trials(
                shots,
                [
                    _fit_linear_probe(few, test, num_classes, chosen)
                    for few in _draw_few_shot_splits(train, shots, config)
                ],
            )
    if "knn" in config.probes:
        if max(config.k) > len(train.labels):
            print(
                f"probe: {max(config.k)} neighbours are asked for and {dataset_name} has {len(train.labels)} training videos "
                "that decode, which are taken",
                file=sys.stderr,
            )
        yield from _score_knn_probes(train, test, num_classes, config.k)
        for shots in config.shots:
            found = [
                _score_knn_probes(few, test, num_classes, config.k)
                for few in _draw_few_shot_splits(train, shots, config)
            ]
            yield from (_average_trials(shots, list(each)) for each in zip(*found, strict=True))


def fit_token_probe(
    train: TokenDataset,
    test: TokenDataset,
    num_classes: int,
    config: ProbeConfig,
    device: torch.device,
    dataset_name: str,
) -> ProbeFit:
    """The attentive probe."""
    with show_progress_bar(f"attentive probe, {dataset_name}") as done:
        probe = fit_attentive_probe(train, num_classes, seed=config.seed, device=device, progress=done)
    return ProbeFit(
        "attentive",
        f"seed {config.seed}",
        compute_accuracy(compute_attentive_logits(probe, test), test.labels),
    )


def _fit_linear_probe(train: FeatureSplit, test: FeatureSplit, num_classes: int, penalty: float) -> ProbeFit:
    fit = fit_logistic_regression(*train, num_classes, penalty)
    return ProbeFit("linear", f"penalty {penalty:g}", compute_accuracy(fit.predict_logits(test.features), test.labels))


def _score_knn_probes(train: FeatureSplit, test: FeatureSplit, num_classes: int, ks: tuple[int, ...]) -> list[ProbeFit]:
    there = {k: min(k, len(train.labels)) for k in ks}
    scores = compute_knn_scores(*train, test.features, num_classes, sorted(set(there.values())))
    names = {k: "knn" if len(ks) == 1 else f"knn {k}" for k in ks}
    return [ProbeFit(names[k], f"k {there[k]}", compute_accuracy(scores[there[k]], test.labels)) for k in ks]


def _draw_few_shot_splits(train: FeatureSplit, shots: int, config: ProbeConfig) -> Iterator[FeatureSplit]:
    for draw in range(config.trials):
        places = draw_shots(train.labels.cpu(), shots, seed=config.seed, draw=draw).to(train.labels.device)
        yield FeatureSplit(train.features[places], train.labels[places])


def _average_trials(shots: int, fits: list[ProbeFit]) -> ProbeFit:
    """Of one probe's draws."""
    tops = [each.score.top1 for each in fits]
    mean = statistics.fmean(tops)
    score = replace(
        fits[0].score,
        top1=mean,
        top5=statistics.fmean(each.score.top5 for each in fits),
        mean_class_accuracy=statistics.fmean(each.score.mean_class_accuracy for each in fits),
        standard_error=(mean * (100 - mean) / fits[0].score.videos) ** 0.5,
    )
    name = f"{fits[0].probe} {shots} shot{'s' if shots > 1 else ''}"
    spread = statistics.stdev(tops) if len(tops) > 1 else None
    return ProbeFit(name, f"{fits[0].setting}, {len(tops)} draws", score, spread)
