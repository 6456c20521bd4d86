"""What is asked of encoders: which data sets, which features; held to what can be done before anything is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest, open_test_manifest
from vidstill.pipelines.evaluate.classifier import check_classes, check_train_classes, require_labels
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.workers import Workers
from vidstill.utils.types import InputError, check_range

ProbeSplit = Literal["train", "val"]
VectorPooling = Literal["mean", "max", "class"]
"""What becomes of a clip's tokens: their mean or largest values, or the class token."""


@dataclass(frozen=True, kw_only=True)
class ProbeRunConfig(Workers):
    """Which features of which videos."""

    data: tuple[str, ...]  # labelled data sets; probes are fitted on their train splits and tested on their val splits
    test_data: tuple[str, ...] = ()  # for each of them, what to test on; none: its own val split
    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51
    temporal_clips: int = 1  # draws of frames from a video; its features are the mean over its views
    spatial_crops: int = 1  # places in each of them
    layers: tuple[int, ...] = ()  # blocks counted from 1, or backwards from -1; none: the encoder's final output
    pool: VectorPooling = "mean"  # what becomes of a clip's tokens, but for the attentive probe, which has them all
    cache: Path | None = None  # folder of the features; None: RUN/features, for a file .vidstill-features right here

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(1, math.inf, views=self.temporal_clips, crops=self.spatial_crops)
        if not self.data:
            raise InputError("no data set is given; name labelled videos with --data")
        if len(set(self.data)) < len(self.data):
            raise InputError(f"--data names the same data set twice ({' '.join(self.data)}); name each once")
        if self.test_data and len(self.test_data) != len(self.data):
            raise InputError(
                f"--data names {len(self.data)} data sets and --val {len(self.test_data)}; name one for each"
            )

    def build_views(self, encoder: VideoEncoder) -> ViewsConfig:
        return replace(encoder.views, temporal_clips=self.temporal_clips, spatial_crops=self.spatial_crops)


@dataclass(frozen=True)
class ProbeDataset:
    """A data set to fit probes on, and to test them on."""

    name: str
    train: Manifest
    test: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def get_manifest(self, split: ProbeSplit) -> Manifest:
        return self.train if split == "train" else self.test


def open_probe_datasets(run_config: ProbeRunConfig) -> list[ProbeDataset]:
    """The data sets that are asked for.

    Raises:
        InputError: one has no labels, a single class, a class that is tested and not trained on, or no val split.
    """
    return [
        _open_probe_dataset(data, run_config.test_data[number] if run_config.test_data else None, run_config.fold)
        for number, data in enumerate(run_config.data)
    ]


def _open_probe_dataset(data: str, test_data: str | None, fold: int) -> ProbeDataset:
    train = require_labels(open_manifest(data, split="train", fold=fold))
    if test_data is not None:
        test = require_labels(open_test_manifest(test_data, fold=fold))
    else:
        test = require_labels(open_manifest(data, split="val", fold=fold))
    check_classes(test, train.classes, str(train.source))
    if train.fingerprint == test.fingerprint:
        raise InputError(f"{data} would be tested on the videos that it is fitted on; give others with --val")
    check_train_classes(train, test)
    return ProbeDataset(data, train, test)


def check_probe_encoder(encoder: VideoEncoder, run_config: ProbeRunConfig, datasets: Sequence[ProbeDataset]) -> None:
    """Raises an InputError where an encoder has not what is asked of it, or cannot look at these videos."""
    views = run_config.build_views(encoder)
    encoder.name_outputs(run_config.layers)
    encoder.check_pool(run_config.pool)
    count_clip_tokens(encoder, views)
    for each in datasets:
        for listing in (each.train, each.test):
            ViewClips(listing, views)  # it refuses pictures where clips are longer


def count_clip_tokens(encoder: VideoEncoder, views: ViewsConfig) -> int:
    clip = torch.empty(1, 3, views.sampling.num_frames, *views.size, device="meta")
    return encoder.model.config.grid(clip).num_tokens
