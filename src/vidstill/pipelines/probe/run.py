"""Frozen evaluation: one encoder or several, on one data set or several; features once, then every probe on them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.encoder import Encoder, load
from vidstill.pipelines.probe.config import Ask, LabelledSet, Part, check_asked, labelled_sets
from vidstill.pipelines.probe.fit import Found, Probes, Split, check_shots, of_tokens, of_vectors
from vidstill.pipelines.probe.report import Probed, Report
from vidstill.pipelines.probe.token_cache import check_room, read_tokens, tokens_file
from vidstill.pipelines.probe.vector_cache import (
    Vectors,
    Wanted,
    cache_folder,
    check_folder,
    read_vectors,
    vectors_file,
)
from vidstill.utils.types import InputError

_PARTS: tuple[Part, ...] = ("train", "val")

_Broken = dict[Part, list[str]]


def evaluate(sources: Sequence[str], ask: Ask, probes: Probes) -> Report:
    """The features of each encoder on each data set, by all processes; what the probes find in them, by the first.

    Raises:
        InputError: something that is given cannot be used; nothing was written then, unless it is the videos of a
            class that turned out not to decode.
    """
    if len(set(sources)) < len(sources):
        raise InputError(f"the same encoder is named twice ({' '.join(sources)}); name each once")
    sets = labelled_sets(ask)
    for each in sets:
        check_shots(probes, torch.from_numpy(each.train.rows.labels).long(), each.classes, each.name)
    runtime = Runtime(ask.precision)
    encoders = [replace(load(source, runtime=runtime), device_batch=ask.device_batch) for source in sources]
    for encoder in encoders:
        check_asked(encoder, ask, sets)
        check_folder(cache_folder(encoder, ask.cache))
    if "attentive" in probes.kinds:
        check_room([_wanted(encoder, each, part, ask) for encoder in encoders for each in sets for part in _PARTS])
    probed: list[Probed] = []
    broken: dict[str, _Broken] = {}
    for encoder in encoders:
        for each in sets:
            for features, found, left_out in _probed(encoder, each, ask, probes):
                probed.append(Probed(encoder.source, each.name, features, *found))
                broken[each.name] = left_out
    missing = {each.name: {part: each.listing(part).missing for part in _PARTS} for each in sets}
    return runtime.agreed(Report(tuple(probed), broken, missing))


def _wanted(encoder: Encoder, data: LabelledSet, part: Part, ask: Ask) -> Wanted:
    return Wanted(
        encoder=encoder,
        listing=data.listing(part),
        views=ask.views_of(encoder),
        layers=ask.layers,
        folder=cache_folder(encoder, ask.cache),
        workers=ask.launch.decoders,
        title=f"features, {data.name} {part}",
    )


def _probed(encoder: Encoder, data: LabelledSet, ask: Ask, probes: Probes) -> Iterator[tuple[str, Found, _Broken]]:
    """What each probe finds in each kind of features, and the videos that do not decode; nothing but in the first."""
    wanted = {part: _wanted(encoder, data, part, ask) for part in _PARTS}
    device = encoder.runtime.device
    if {"linear", "knn"}.intersection(probes.kinds):
        files = {part: vectors_file(wanted[part], ask.pool) for part in _PARTS}
        if encoder.runtime.is_main:
            train, val = (read_vectors(files[part], data.listing(part)) for part in _PARTS)
            _check(train.labels, data, probes)
            broken = {part: list(each.broken.values()) for part, each in zip(_PARTS, (train, val), strict=True)}
            for name in train.named:
                splits = _split(train, name, device), _split(val, name, device)
                for found in of_vectors(*splits, len(data.classes), probes, data.name):
                    yield name, found, broken
    if "attentive" in probes.kinds:
        tokens = {part: tokens_file(wanted[part]) for part in _PARTS}
        if encoder.runtime.is_main:
            (train_tokens, out), (val_tokens, val_out) = (read_tokens(tokens[part], wanted[part]) for part in _PARTS)
            broken = {"train": list(out.values()), "val": list(val_out.values())}
            for name, of_train in train_tokens.items():
                _check(of_train.labels, data, probes)
                found = of_tokens(of_train, val_tokens[name], len(data.classes), probes, device, data.name)
                yield name, found, broken


def _check(train: Int[Tensor, "n"], data: LabelledSet, probes: Probes) -> None:
    """What was held of the lists holds of the videos that decode."""
    lost = np.setdiff1d(data.train.rows.labels, train.numpy())
    if len(lost):
        raise InputError(
            f"no training video of the class {data.classes[lost[0]]!r} of {data.name} decodes; mend one, or leave the "
            "class out"
        )
    check_shots(probes, train, data.classes, data.name)


def _split(vectors: Vectors, name: str, device: torch.device) -> Split:
    """On a device that reckons in float64."""
    there = device if device.type == "cuda" else torch.device("cpu")
    return Split(vectors.named[name].to(there), vectors.labels.to(there))
