"""Where and how a recipe runs: data, run directory, splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.workers import BaseRunConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig(BaseRunConfig):
    """Where and how a pre-training runs; its results depend on this only by rounding."""

    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51


@dataclass(frozen=True, kw_only=True)
class FinetuneRunConfig(BaseRunConfig):
    """Where and how a fine-tuning runs; its results depend on this only by rounding."""

    test_data: str | Path | None = None  # labelled test videos, their val split if they have splits; None: that of data
    val_data: str | Path | None = None  # labelled videos scored after each epoch, for --patience; as for test_data
    fold: Literal[1, 2, 3, "all"] = 1  # official split of UCF101 and HMDB51; all: a run for each, and their mean

    @property
    def first_fold(self) -> int:
        return 1 if self.fold == "all" else self.fold


@dataclass(frozen=True, kw_only=True)
class DetectRunConfig(BaseRunConfig, BoxDataConfig):
    """Where and how the training of an action detector runs."""

    train_person_boxes: str | None = None  # detected person boxes of the training key frames, for recipes that use them
