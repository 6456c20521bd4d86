"""Probe encoders on datasets: all features are computed once, then every probe is fitted on them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.embed_config import Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe.config import ProbeConfig, ProbeDataset, ProbeRunConfig, ProbeSplit, open_probe_datasets
from vidstill.pipelines.probe.feature_cache import FeatureCache, check_disk_space, resolve_cache_folder
from vidstill.pipelines.probe.fit import ProbeFit, fit_probes
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.utils.types import InputError

_BrokenBySplit = dict[ProbeSplit, list[str]]


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
        config.check_shots(torch.from_numpy(dataset.train.rows.labels).long(), dataset.classes, dataset.name)
    runtime = Runtime(run_config.precision)
    encoders = [load_encoder(source, runtime=runtime) for source in sources]
    for encoder in encoders:
        check_probe_encoder(encoder, run_config, datasets)
        resolve_cache_folder(encoder, run_config.cache)
    pools: list[Pooling] = []
    if {"linear", "knn"}.intersection(config.probes):
        pools.append(run_config.pool)
    if "attentive" in config.probes:
        pools.append("tokens")
    caches = {
        (encoder.source, dataset.name, pool): {
            split: FeatureCache(
                encoder=encoder,
                manifest=manifest,
                config=run_config.build_embed_config(pool),
                folder=resolve_cache_folder(encoder, run_config.cache),
                workers=run_config,
                title=f"features, {dataset.name} {split}",
            )
            for split, manifest in dataset.splits.items()
        }
        for encoder in encoders
        for dataset in datasets
        for pool in pools
    }
    check_disk_space([cache for (*_, pool), splits in caches.items() if pool == "tokens" for cache in splits.values()])
    results: list[ProbeResult] = []
    broken: dict[str, _BrokenBySplit] = {}
    by_name = {dataset.name: dataset for dataset in datasets}
    for (source, name, _), splits in caches.items():
        for cache in splits.values():
            cache.compute()
        if runtime.is_main:
            for features, fit, skipped in _fit_probes(splits, by_name[name], config):
                results.append(ProbeResult(source, name, features, *fit))
                broken[name] = skipped
    missing = {each.name: {split: part.num_missing for split, part in each.splits.items()} for each in datasets}
    return runtime.broadcast(ProbeReport(tuple(results), broken, missing))


def check_probe_encoder(encoder: VideoEncoder, run_config: ProbeRunConfig, datasets: Sequence[ProbeDataset]) -> None:
    """Raise an InputError if an encoder lacks a requested layer or token, or cannot take these videos."""
    config = run_config.build_embed_config(run_config.pool)
    encoder.compute_shapes(config)
    for dataset in datasets:
        for manifest in dataset.splits.values():
            ViewClips(manifest, config.build_views(encoder.views)[0])  # it refuses images for clips of several frames


def _fit_probes(
    caches: dict[ProbeSplit, FeatureCache], dataset: ProbeDataset, config: ProbeConfig
) -> Iterator[tuple[str, ProbeFit, _BrokenBySplit]]:
    """Fit the probes on the features of each layer; with the videos that do not decode."""
    (train, train_broken), (test, test_broken) = caches["train"].read(), caches["test"].read()
    _check_decoded_classes(next(iter(train.values())).labels, dataset, config)
    broken: _BrokenBySplit = {"train": list(train_broken.values()), "test": list(test_broken.values())}
    for name, features in train.items():
        device = caches["train"].encoder.runtime.device
        for result in fit_probes(features, test[name], len(dataset.classes), config, device, dataset.name):
            yield name, result, broken


def _check_decoded_classes(labels: Int[Tensor, "n"], dataset: ProbeDataset, config: ProbeConfig) -> None:
    """Raise an InputError if the videos that decode lack a class, or clips for the shots."""
    missing = np.setdiff1d(dataset.train.rows.labels, labels.numpy())
    if len(missing):
        raise InputError(
            f"no training video of the class {dataset.classes[missing[0]]!r} of {dataset.name} decodes; repair one, or "
            "remove the class"
        )
    config.check_shots(labels, dataset.classes, dataset.name)
