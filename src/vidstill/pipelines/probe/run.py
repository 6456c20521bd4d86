"""Probe encoders on datasets: all features are computed once, then every probe is fitted on them."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from jaxtyping import Int

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.embed_config import Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe.config import ProbeConfig, ProbeDataset, ProbeRunConfig, ProbeSplit, open_probe_datasets
from vidstill.pipelines.probe.feature_cache import FeatureCache, check_disk_space
from vidstill.pipelines.probe.fit import fit_probes
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.utils.types import InputError


def run_probes(sources: Sequence[str], run_config: ProbeRunConfig, config: ProbeConfig) -> ProbeReport:
    """Compute the features of each encoder on each dataset, on all processes, and fit the probes on the main process.

    Args:
        sources: Run directories or weights files.
        run_config: Which features of which videos.
        config: Which probes, and their settings.

    Raises:
        InputError: An encoder, dataset or option cannot be used; nothing was written then, unless no video of a class
            decodes.
    """
    if len(set(sources)) < len(sources):
        raise InputError(f"the same encoder is given twice ({' '.join(sources)}); give each once")
    datasets = open_probe_datasets(run_config)
    for dataset in datasets:
        _check_classes(dataset.train.rows.labels, dataset, config)
    runtime = Runtime(run_config.precision)
    encoders = [load_encoder(source, runtime=runtime) for source in sources]
    for encoder in encoders:
        check_probe_encoder(encoder, run_config, datasets)
    pools: list[Pooling] = [run_config.pool or "mean"] if {"linear", "knn"}.intersection(config.probes) else []
    pools += ["tokens"] if "attentive" in config.probes else []
    jobs = [
        (encoder, dataset, [FeatureCache(encoder, dataset, split, pool, run_config) for split in dataset.splits])
        for encoder, dataset, pool in product(encoders, datasets, pools)
    ]
    check_disk_space([cache for *_, caches in jobs for cache in caches if cache.config.pool == "tokens"])
    results: list[ProbeResult] = []
    broken: dict[str, dict[ProbeSplit, list[str]]] = {}

    def fit(encoder: VideoEncoder, dataset: ProbeDataset, caches: Sequence[FeatureCache]) -> list[ProbeResult]:
        (train, broken_train), (test, broken_test) = (cache.read() for cache in caches)
        _check_classes(next(iter(train.values())).labels.numpy(), dataset, config)
        broken[dataset.name] = {"train": broken_train, "test": broken_test}
        return [
            ProbeResult(encoder.source, dataset.name, name, *fit)
            for name, features in train.items()
            for fit in fit_probes(features, test[name], len(dataset.classes), config, runtime.device, dataset.name)
        ]

    for job in jobs:
        for cache in job[-1]:
            cache.compute()
        results += runtime.run_on_main(partial(fit, *job))
    missing = {each.name: {split: part.num_missing for split, part in each.splits.items()} for each in datasets}
    return runtime.broadcast(ProbeReport(tuple(results), broken, missing))


def check_probe_encoder(encoder: VideoEncoder, run_config: ProbeRunConfig, datasets: Sequence[ProbeDataset]) -> None:
    """Raise an InputError if an encoder lacks a requested layer or token, or cannot take these videos."""
    config = run_config.build_embed_config(run_config.pool or "mean")
    encoder.compute_shapes(config)
    for dataset in datasets:
        for manifest in dataset.splits.values():
            ViewClips(manifest, config.build_views(encoder.views)[0])  # it refuses images for clips of several frames


def _check_classes(labels: Int[np.ndarray, "n"], dataset: ProbeDataset, config: ProbeConfig) -> None:
    """Raise an InputError if these training videos lack a class, or clips for the shots."""
    missing = np.setdiff1d(dataset.train.rows.labels, labels)
    if len(missing):
        raise InputError(
            f"no training {dataset.train.noun} of the class {dataset.classes[missing[0]]!r} of {dataset.name} decodes; "
            "repair one, or remove the class"
        )
    trained, counts = np.unique(labels, return_counts=True)
    if counts.min() < max(config.shots, default=0):
        raise InputError(
            f"{dataset.name} has only {counts.min()} training {dataset.train.noun}s of the class "
            f"{dataset.classes[trained[counts.argmin()]]!r}; give at most so many --shots"
        )
