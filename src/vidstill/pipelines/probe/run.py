"""Frozen evaluation: one encoder or several, on one data set or several; features once, then every probe on them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe.config import (
    ProbeDataset,
    ProbeRunConfig,
    ProbeSplit,
    check_probe_encoder,
    open_probe_datasets,
)
from vidstill.pipelines.probe.fit import (
    FeatureSplit,
    ProbeConfig,
    ProbeFit,
    check_shots,
    fit_token_probe,
    fit_vector_probes,
)
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.pipelines.probe.token_cache import check_disk_space, ensure_token_cache, read_tokens
from vidstill.pipelines.probe.vector_cache import (
    FeatureRequest,
    FeatureVectors,
    check_cache_folder,
    ensure_vector_cache,
    read_vectors,
    resolve_cache_folder,
)
from vidstill.utils.types import InputError

_SPLITS: tuple[ProbeSplit, ...] = ("train", "val")

_BrokenBySplit = dict[ProbeSplit, list[str]]


def run_probes(sources: Sequence[str], run_config: ProbeRunConfig, config: ProbeConfig) -> ProbeReport:
    """The features of each encoder on each data set, by all processes; what the probes find in them, by the first.

    Raises:
        InputError: something that is given cannot be used; nothing was written then, unless it is the videos of a
            class that turned out not to decode.
    """
    if len(set(sources)) < len(sources):
        raise InputError(f"the same encoder is named twice ({' '.join(sources)}); name each once")
    sets = open_probe_datasets(run_config)
    for each in sets:
        check_shots(config, torch.from_numpy(each.train.rows.labels).long(), each.classes, each.name)
    runtime = Runtime(run_config.precision)
    encoders = [
        replace(load_encoder(source, runtime=runtime), device_batch=run_config.device_batch) for source in sources
    ]
    for encoder in encoders:
        check_probe_encoder(encoder, run_config, sets)
        check_cache_folder(resolve_cache_folder(encoder, run_config.cache))
    if "attentive" in config.probes:
        check_disk_space(
            [
                _build_feature_request(encoder, each, part, run_config)
                for encoder in encoders
                for each in sets
                for part in _SPLITS
            ]
        )
    probed: list[ProbeResult] = []
    broken: dict[str, _BrokenBySplit] = {}
    for encoder in encoders:
        for each in sets:
            for features, found, left_out in _fit_probes(encoder, each, run_config, config):
                probed.append(ProbeResult(encoder.source, each.name, features, *found))
                broken[each.name] = left_out
    missing = {each.name: {part: each.get_manifest(part).num_missing for part in _SPLITS} for each in sets}
    return runtime.broadcast(ProbeReport(tuple(probed), broken, missing))


def _build_feature_request(
    encoder: VideoEncoder, dataset: ProbeDataset, split: ProbeSplit, run_config: ProbeRunConfig
) -> FeatureRequest:
    return FeatureRequest(
        encoder=encoder,
        manifest=dataset.get_manifest(split),
        views=run_config.build_views(encoder),
        layers=run_config.layers,
        folder=resolve_cache_folder(encoder, run_config.cache),
        workers=run_config.num_workers,
        title=f"features, {dataset.name} {split}",
    )


def _fit_probes(
    encoder: VideoEncoder, dataset: ProbeDataset, run_config: ProbeRunConfig, config: ProbeConfig
) -> Iterator[tuple[str, ProbeFit, _BrokenBySplit]]:
    """What each probe finds in each kind of features, and the videos that do not decode; nothing but in the first."""
    wanted = {part: _build_feature_request(encoder, dataset, part, run_config) for part in _SPLITS}
    device = encoder.runtime.device
    if {"linear", "knn"}.intersection(config.probes):
        files = {part: ensure_vector_cache(wanted[part], run_config.pool) for part in _SPLITS}
        if encoder.runtime.is_main:
            train, val = (read_vectors(files[part], dataset.get_manifest(part)) for part in _SPLITS)
            _check_decoded_classes(train.labels, dataset, config)
            broken = {part: list(each.broken.values()) for part, each in zip(_SPLITS, (train, val), strict=True)}
            for name in train.features:
                splits = _select_features(train, name, device), _select_features(val, name, device)
                for found in fit_vector_probes(*splits, len(dataset.classes), config, dataset.name):
                    yield name, found, broken
    if "attentive" in config.probes:
        tokens = {part: ensure_token_cache(wanted[part]) for part in _SPLITS}
        if encoder.runtime.is_main:
            (train_tokens, out), (val_tokens, val_out) = (read_tokens(tokens[part], wanted[part]) for part in _SPLITS)
            broken = {"train": list(out.values()), "val": list(val_out.values())}
            for name, of_train in train_tokens.items():
                _check_decoded_classes(of_train.labels, dataset, config)
                found = fit_token_probe(of_train, val_tokens[name], len(dataset.classes), config, device, dataset.name)
                yield name, found, broken


def _check_decoded_classes(labels: Int[Tensor, "n"], dataset: ProbeDataset, config: ProbeConfig) -> None:
    """What was held of the lists holds of the videos that decode."""
    lost = np.setdiff1d(dataset.train.rows.labels, labels.numpy())
    if len(lost):
        raise InputError(
            f"no training video of the class {dataset.classes[lost[0]]!r} of {dataset.name} decodes; mend one, or leave the "
            "class out"
        )
    check_shots(config, labels, dataset.classes, dataset.name)


def _select_features(vectors: FeatureVectors, name: str, device: torch.device) -> FeatureSplit:
    """On a device that reckons in float64."""
    there = device if device.type == "cuda" else torch.device("cpu")
    return FeatureSplit(vectors.features[name].to(there), vectors.labels.to(there))
