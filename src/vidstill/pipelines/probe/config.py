"""Options of the probes: which datasets, which features, and how each probe is fitted."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidstill.data.manifest.manifest import Manifest
from vidstill.pipelines.infer.embed_config import EmbedConfig, Pooling
from vidstill.pipelines.labeled_data import open_labeled_splits
from vidstill.pipelines.run_config import Workers
from vidstill.utils.types import InputError, check_range

ProbeKind = Literal["linear", "knn", "attentive"]
ProbeSplit = Literal["train", "test"]
VectorPooling = Literal["mean", "max", "class"]

_MAX_PENALTY = 1e12  # the weights are zero long before


@dataclass(frozen=True, kw_only=True)
class ProbeRunConfig(Workers):
    """Which features of which videos."""

    data: tuple[str, ...]  # labelled datasets: probes are fitted on the train split and tested on the val split
    test_data: tuple[str, ...] = ()  # labelled test videos of each dataset; none: its own val split, or --val-share
    # share of the training videos held out to test on, of each class alike; None: nothing is held out
    val_share: float | None = None
    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51
    temporal_clips: int = 1  # clips per video; its features are the mean over all views
    spatial_crops: int = 1  # crops per clip
    layers: tuple[int, ...] = ()  # blocks counted from 1, or backwards from -1; none: the encoder's final output
    # How a clip's tokens are pooled; the attentive probe takes all tokens. None: mean; with --solver lars the class
    # token, if there is one. With --solver lars, mean is MAE's global pooling: the norm comes after the mean.
    pool: VectorPooling | None = None
    cache: Path | None = None  # directory of the features; None: RUN/features, or .vidstill-features for a file

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(1, math.inf, temporal_clips=self.temporal_clips, spatial_crops=self.spatial_crops)
        if not self.data:
            raise InputError("no dataset is given; give labelled videos with --data")
        if len(set(self.data)) < len(self.data):
            raise InputError(f"--data has the same dataset twice ({' '.join(self.data)}); give each once")
        if self.test_data and len(self.test_data) != len(self.data):
            raise InputError(
                f"--data has {len(self.data)} datasets and --test-data {len(self.test_data)}; give one for each"
            )

    def build_embed_config(self, pool: Pooling) -> EmbedConfig:
        """Return these features with another pooling."""
        return EmbedConfig(
            layers=self.layers, pool=pool, temporal_clips=self.temporal_clips, spatial_crops=self.spatial_crops
        )


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """Additional linear and nearest-neighbour probes on few training clips."""

    shots: tuple[int, ...] = ()  # training clips per class of additional few-shot probes
    trials: int = 5  # random draws of these clips; the mean is reported
    seed: int = 0  # random seed of the draws, of the attentive probe, and of --solver lars

    def __post_init__(self) -> None:
        check_range(1, 1000, trials=self.trials)
        check_range(0, 2**63 - 1, seed=self.seed)
        if min(self.shots, default=1) < 1:
            raise InputError(f"--shots is {min(self.shots)}; give 1 or more clips per class")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(FewShotConfig):
    """Which probes, and how they are fitted."""

    # which probes; attentive stores all tokens of all videos
    probes: tuple[ProbeKind, ...] = ("linear", "knn", "attentive")
    # weight of |W|² / 2 in the linear probe; None: by cross-validation, 1 for few-shot probes
    penalty: float | None = None
    k: tuple[int, ...] = (20,)  # numbers of neighbours; all training clips if there are fewer

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, _MAX_PENALTY, penalty=self.penalty)
        if not self.probes:
            raise InputError("no probe is given; give linear, knn or attentive with --probes")
        if min(self.k, default=0) < 1:
            raise InputError(f"{min(self.k, default=0)} neighbours cannot vote; give 1 or more with --k")


@dataclass(frozen=True)
class ProbeDataset:
    """A dataset's videos to fit probes on, and to test them on."""

    name: str
    train: Manifest
    test: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def splits(self) -> dict[ProbeSplit, Manifest]:
        return {"train": self.train, "test": self.test}


def open_probe_datasets(run_config: ProbeRunConfig) -> list[ProbeDataset]:
    """Open the datasets with their labels.

    Raises:
        InputError: One has no labels, a single class, an untrained test class or no val split, or is tested on its
            training videos.
    """
    datasets = []
    for data, test_data in zip(run_config.data, run_config.test_data or [None] * len(run_config.data), strict=True):
        splits = open_labeled_splits(data, test_data=test_data, val_share=run_config.val_share, fold=run_config.fold)
        datasets.append(ProbeDataset(data, splits.train, splits.test))
    return datasets
