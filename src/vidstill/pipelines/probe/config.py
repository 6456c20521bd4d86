"""What is asked of encoders: which data sets, which features; held to what can be done before anything is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import listing_to_test, read_listing
from vidstill.engine.distributed import Precision
from vidstill.pipelines.evaluate.classifier import check_classes, check_taught, labelled
from vidstill.pipelines.infer.encoder import Encoder
from vidstill.pipelines.train.session import Launch
from vidstill.utils.types import InputError, within

Part = Literal["train", "val"]
VectorPool = Literal["mean", "max", "class"]
"""What becomes of a clip's tokens: their mean or largest values, or the class token."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Which features of which videos."""

    data: tuple[str, ...]  # labelled data sets; probes are fitted on their train splits and tested on their val splits
    val: tuple[str, ...] = ()  # for each of them, what to test on; none: its own val split
    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51
    views: int = 1  # draws of frames from a video; its features are the mean over its views
    crops: int = 1  # places in each of them
    layers: tuple[int, ...] = ()  # blocks counted from 1, or backwards from -1; none: the encoder's final output
    pool: VectorPool = "mean"  # what becomes of a clip's tokens, but for the attentive probe, which has them all
    cache: Path | None = None  # folder of the features; None: RUN/features, for a file .vidstill-features right here
    workers: int = -1  # processes that decode; -1: one less than there are cores
    device_batch: int | None = None  # views that a device takes at once; None: all of a video's
    precision: Precision = "auto"  # auto: bf16 where the device does it well, else fp32

    def __post_init__(self) -> None:
        within(1, math.inf, views=self.views, crops=self.crops)
        if not self.data:
            raise InputError("no data set is given; name labelled videos with --data")
        if len(set(self.data)) < len(self.data):
            raise InputError(f"--data names the same data set twice ({' '.join(self.data)}); name each once")
        if self.val and len(self.val) != len(self.data):
            raise InputError(f"--data names {len(self.data)} data sets and --val {len(self.val)}; name one for each")
        self.launch  # noqa: B018  # it says what is wrong with its fields

    @property
    def launch(self) -> Launch:
        return Launch(
            data=Path(),
            out=Path(),
            workers=self.workers,
            device_batch=self.device_batch,
            precision=self.precision,
            fold=self.fold,
        )

    def views_of(self, encoder: Encoder) -> ViewsConfig:
        return replace(encoder.views, views=self.views, crops=self.crops)


@dataclass(frozen=True)
class LabelledSet:
    """A data set to fit probes on, and to test them on."""

    name: str
    train: Listing
    val: Listing

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def listing(self, part: Part) -> Listing:
        return self.train if part == "train" else self.val


def labelled_sets(ask: Ask) -> list[LabelledSet]:
    """The data sets that are asked for.

    Raises:
        InputError: one has no labels, a single class, a class that is tested and not trained on, or no val split.
    """
    return [_labelled_set(data, ask.val[number] if ask.val else None, ask.fold) for number, data in enumerate(ask.data)]


def _labelled_set(data: str, val: str | None, fold: int) -> LabelledSet:
    train = labelled(read_listing(data, split="train", fold=fold))
    if val is not None:
        test = labelled(listing_to_test(val, fold=fold))
    else:
        test = labelled(read_listing(data, split="val", fold=fold))
    check_classes(test, train.classes, str(train.source))
    if train.fingerprint == test.fingerprint:
        raise InputError(f"{data} would be tested on the videos that it is fitted on; give others with --val")
    check_taught(train, test)
    return LabelledSet(data, train, test)


def check_asked(encoder: Encoder, ask: Ask, sets: Sequence[LabelledSet]) -> None:
    """Raises an InputError where an encoder has not what is asked of it, or cannot look at these videos."""
    views = ask.views_of(encoder)
    encoder.names(ask.layers)
    encoder.check_pool(ask.pool)
    tokens_of_a_clip(encoder, views)
    for each in sets:
        for listing in (each.train, each.val):
            ViewClips(listing, views)  # it refuses pictures where clips are longer


def tokens_of_a_clip(encoder: Encoder, views: ViewsConfig) -> int:
    clip = torch.empty(1, 3, views.sampling.frames, *views.size, device="meta")
    return encoder.model.config.grid(clip).tokens
