"""Fit probes on features and score them."""

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.pipelines.probe.config import ProbeConfig
from vidstill.tasks.metrics.accuracy import Accuracy, compute_accuracy
from vidstill.tasks.probes.attentive import FeatureDataset, compute_attentive_logits, fit_attentive_probe
from vidstill.tasks.probes.knn import compute_knn_scores
from vidstill.tasks.probes.linear import DEFAULT_PENALTY, choose_penalty, evaluate_linear_probe
from vidstill.utils.rng import numpy_rng
from vidstill.utils.terminal import show_progress_bar


class FeatureSplit(NamedTuple):
    """Features and labels of a split."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]


class ProbeFit(NamedTuple):
    """A probe's score and setting; of few-shot probes the mean, and the standard deviation of top-1 over the trials."""

    probe: str
    setting: str
    score: Accuracy
    std: float | None = None


def fit_probes(
    train: FeatureDataset,
    test: FeatureDataset,
    num_classes: int,
    config: ProbeConfig,
    device: torch.device,
    dataset_name: str,
) -> Iterator[ProbeFit]:
    """Fit the attentive probe on tokens; on vectors the linear and nearest-neighbour ones, also with few clips.

    Args:
        config: Which probes, and their settings.
        device: Where they are fitted; the linear ones on the CPU instead of a device without float64.
        dataset_name: For the progress bar and messages.
    """
    if train.table.ndim == 3:
        with show_progress_bar(f"attentive probe, {dataset_name}") as progress:
            probe = fit_attentive_probe(train, num_classes, seed=config.seed, device=device, progress=progress)
        score = compute_accuracy(compute_attentive_logits(probe, test), test.labels)
        yield ProbeFit("attentive", f"seed {config.seed}", score)
        return
    device = device if device.type == "cuda" else torch.device("cpu")
    train_split, test_split = (
        FeatureSplit(each.load_batch(np.arange(len(each))).to(device), each.labels.to(device)) for each in (train, test)
    )
    if "linear" in config.probes:
        penalty = config.penalty
        if penalty is None:
            with show_progress_bar(f"penalties, {dataset_name}") as progress:
                penalty = choose_penalty(*train_split, num_classes, progress=progress)
        few_shot_penalty = DEFAULT_PENALTY if config.penalty is None else config.penalty
        yield _fit_linear_probe(train_split, test_split, num_classes, penalty)
        yield from _fit_few_shots(
            train_split, config, lambda subset: [_fit_linear_probe(subset, test_split, num_classes, few_shot_penalty)]
        )
    if "knn" in config.probes:
        if max(config.k) > len(train):
            print(
                f"probe: {dataset_name} has only {len(train)} training samples that decode: all of them vote "
                f"instead of {max(config.k)} neighbours",
                file=sys.stderr,
            )
        score_knn = partial(_score_knn_probes, test=test_split, num_classes=num_classes, ks=config.k)
        yield from score_knn(train_split)
        yield from _fit_few_shots(train_split, config, score_knn)


def _fit_linear_probe(train: FeatureSplit, test: FeatureSplit, num_classes: int, penalty: float) -> ProbeFit:
    score = evaluate_linear_probe(*train, *test, num_classes, penalty=penalty)
    return ProbeFit("linear", f"penalty {penalty:g}", score)


def _score_knn_probes(train: FeatureSplit, test: FeatureSplit, num_classes: int, ks: tuple[int, ...]) -> list[ProbeFit]:
    possible = {k: min(k, len(train.labels)) for k in ks}
    scores = compute_knn_scores(*train, test.features, num_classes, sorted(set(possible.values())))
    names = {k: "knn" if len(ks) == 1 else f"knn {k}" for k in ks}
    return [ProbeFit(names[k], f"k {possible[k]}", compute_accuracy(scores[possible[k]], test.labels)) for k in ks]


def _fit_few_shots(
    train: FeatureSplit, config: ProbeConfig, fit: Callable[[FeatureSplit], list[ProbeFit]]
) -> Iterator[ProbeFit]:
    """Yield for each number of shots the mean over the trials of each probe."""
    for shots in config.shots:
        trials = []
        for trial in range(config.trials):
            indices = draw_shots(train.labels.cpu(), shots, seed=config.seed, draw=trial).to(train.labels.device)
            trials.append(fit(FeatureSplit(train.features[indices], train.labels[indices])))
        for fits in zip(*trials, strict=True):
            top1s = [each.score.top1 for each in fits]
            mean = statistics.fmean(top1s)
            score = replace(
                fits[0].score,
                top1=mean,
                top5=statistics.fmean(each.score.top5 for each in fits),
                mean_class_accuracy=statistics.fmean(each.score.mean_class_accuracy for each in fits),
                standard_error=(mean * (100 - mean) / fits[0].score.videos) ** 0.5,
            )
            name = f"{fits[0].probe} {shots} shot{'s' if shots > 1 else ''}"
            std = statistics.stdev(top1s) if len(top1s) > 1 else None
            yield ProbeFit(name, f"{fits[0].setting}, {len(top1s)} trials", score, std)


def draw_shots(labels: Int[Tensor, "n"], shots: int, *, seed: int, draw: int) -> Int[Tensor, "k"]:
    """Return the indices of `shots` clips of each class, ascending.

    A draw of fewer shots is a subset of the same draw of more.

    Args:
        draw: The number of the draw, from 0.
    """
    order = numpy_rng(seed, f"shots {draw}").permutation(len(labels))
    per_class = [order[labels.numpy()[order] == label][:shots] for label in labels.unique().tolist()]
    return torch.from_numpy(np.sort(np.concatenate(per_class)))
