"""What the loader takes its samples from: clips of videos, or of key frames with their boxes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from vidstill.data.loader.collate import SampleArrays
from vidstill.data.storage.fetch import PathOrUrl

B = TypeVar("B")
"""What a batch is: a NamedTuple of columns, the clips first."""

B_co = TypeVar("B_co", covariant=True)


class Sample(NamedTuple):
    """A video's copies: clips in bytes, its label for each (-1 for none; where clips may have several, 1 for each class
    that it has and 0 for the others), and the seed that each was drawn from.
    """

    clip: UInt8[Tensor, "r 3 t h w"]
    label: Int64[Tensor, "r"] | Float[Tensor, "r classes"]
    seed: Int64[Tensor, "r"]


class TrainBatch(NamedTuple):
    """A micro-batch on the device, copies of a video side by side; colours in [0, 1]."""

    clip: Float[Tensor, "b 3 t h w"]
    label: Int64[Tensor, "b"] | Float[Tensor, "b classes"]  # as a `Sample`'s
    seed: Int64[Tensor, "b"]


class ViewSample(NamedTuple):
    """A video's views in bytes, by frames and then by crop; its label, as a `Sample`'s; its place in the listing."""

    clip: UInt8[Tensor, "v 3 t h w"]
    label: int | Float32[np.ndarray, "classes"]
    video_index: int


class ViewBatch(NamedTuple):
    """Videos of a test on the device, each with all its views; `place` is where each stands in the listing."""

    clip: Float[Tensor, "b v 3 t h w"]
    label: Int64[Tensor, "b"] | Float[Tensor, "b classes"]  # as a `Sample`'s
    video_index: Int64[Tensor, "b"]


@runtime_checkable
class DatasetInfo(Protocol):
    """Data that can be counted, named and told from others."""

    @property
    def source(self) -> PathOrUrl: ...

    @property
    def description(self) -> str:
        """What it was taken for, in words."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...


@runtime_checkable
class _Dataset(Protocol[B_co]):
    @property
    def batch_type(self) -> Callable[..., B_co]:
        """Makes a batch of its columns on the device: clips of colours in [0, 1], and what is beside them."""

    @property
    def sample_num_bytes(self) -> int:
        """The bytes that a sample takes; one that takes more comes slower."""

    def __len__(self) -> int: ...

    def sample_name(self, index: int) -> str:
        """What a sample is called where it is said to be broken."""


@runtime_checkable
class TrainDataset(_Dataset[B_co], Protocol[B_co]):
    """Samples that are a pure function of (seed, epoch, index)."""

    @property
    def manifest(self) -> DatasetInfo: ...

    @property
    def seed(self) -> int: ...

    @property
    def repeats(self) -> int:
        """Copies that a sample has."""

    @property
    def messages(self) -> Sequence[str]:
        """Sentences to be said before training."""

    @property
    def noun(self) -> str:
        """What one of them is in words, such as "video"."""

    @property
    def expected_counts(self) -> Float[np.ndarray, "n"] | None:
        """How often an epoch is expected to show each; None: once."""

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """The sample of a place in the data set, each array with a row for each of its copies.

        Args:
            occurrence: how often the epoch has shown it before.
            source_index: whose frames they are: its own, or another's that stands in for it.

        Raises:
            BrokenVideo: they do not decode.
        """


@runtime_checkable
class ViewDataset(_Dataset[B_co], Protocol[B_co]):
    """Samples of a test, nothing drawn."""

    def load_arrays(self, index: int) -> SampleArrays:
        """
        Raises:
            BrokenVideo: the video does not decode.
        """
