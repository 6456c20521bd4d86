"""What the loader requires of a dataset, whether its samples are clips of videos or of key frames with boxes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from vidstill.data.storage.fetch import PathOrUrl

SampleArrays = tuple[np.ndarray, ...]
"""A sample: columns that each have one row per copy, the clips first."""

B = TypeVar("B")
"""A batch: a NamedTuple of tensors, the clips first."""

B_co = TypeVar("B_co", covariant=True)


class TrainBatch(NamedTuple):
    """A micro-batch on the device; copies of a video are neighbours, colours are in [0, 1].

    Labels are -1 for videos without one; where videos may have several, they are 0 or 1 for each class.
    """

    clip: Float[Tensor, "b 3 t h w"]
    label: Int64[Tensor, "b"] | Float[Tensor, "b classes"]
    seed: Int64[Tensor, "b"]


class ViewBatch(NamedTuple):
    """Videos with all their views on the device; labels as in `TrainBatch`; `video_index` is the manifest's row."""

    clip: Float[Tensor, "b v 3 t h w"]
    label: Int64[Tensor, "b"] | Float[Tensor, "b classes"]
    video_index: Int64[Tensor, "b"]


@runtime_checkable
class DatasetInfo(Protocol):
    """Where a dataset comes from, for logs and for recognizing it when a run is resumed."""

    @property
    def source(self) -> PathOrUrl: ...
    @property
    def description(self) -> str: ...  # what kind of list or folder it was read as, in words
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...


@runtime_checkable
class _Dataset(Protocol[B_co]):
    @property
    def batch_type(self) -> Callable[..., B_co]: ...  # builds a batch from columns on the device, the clips in [0, 1]
    @property
    def sample_num_bytes(self) -> int: ...  # for shared memory; a larger sample goes through a slower pipe
    def __len__(self) -> int: ...
    def sample_name(self, index: int) -> str: ...  # for log messages


@runtime_checkable
class TrainDataset(_Dataset[B_co], Protocol[B_co]):
    """Training samples that are a pure function of (seed, epoch, index)."""

    @property
    def manifest(self) -> DatasetInfo: ...
    @property
    def seed(self) -> int: ...
    @property
    def repeats(self) -> int: ...  # copies that a sample has: rows of its arrays
    @property
    def messages(self) -> Sequence[str]: ...  # sentences to log before training
    @property
    def noun(self) -> str: ...  # what messages call one sample, such as "video"
    @property
    def expected_counts(self) -> Float[np.ndarray, "n"] | None: ...  # of each sample in an epoch; None: 1

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """Load the sample at `index`, called in a worker.

        Args:
            occurrence: How often the epoch has shown it before.
            source_index: Whose frames are shown: `index`, or another sample's that replaces a broken one.

        Returns:
            The clips as uint8 (repeats, 3, t, h, w), then further columns, each with a row per copy.

        Raises:
            BrokenVideo: The video does not decode.
        """


@runtime_checkable
class ViewDataset(_Dataset[B_co], Protocol[B_co]):
    """Evaluation samples; nothing is random."""

    def load_arrays(self, index: int) -> SampleArrays:
        """Load the sample at `index`, called in a worker; a BrokenVideo says that its video does not decode."""
