"""Samples of datasets as tensors, and datasets without videos."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.protocols import TrainBatch, ViewBatch
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.utils.rng import derive_sample_seed


def train_sample(
    dataset: TrainClips, epoch: int, index: int, *, occurrence: int = 0, source_index: int | None = None
) -> TrainBatch:
    """One video's copies, their clips in bytes."""
    arrays = dataset.load_arrays(epoch, index, occurrence, index if source_index is None else source_index)
    return TrainBatch(*map(torch.from_numpy, arrays))


def view_sample(dataset: ViewClips, index: int) -> ViewBatch:
    """One video's views in bytes, its label and its index."""
    return ViewBatch(*(torch.from_numpy(array)[0] for array in dataset.load_arrays(index)))


def build_manifest(class_counts: Sequence[int]) -> Manifest:
    """Rows without files, so many of each class."""
    labels = np.repeat(np.arange(len(class_counts)), class_counts)
    rows = VideoTable(Path("videos"), [f"{i}.mp4" for i in range(len(labels))], {"label": labels})
    return Manifest(rows, tuple(map(str, range(len(class_counts)))), "rows without files", Path("videos"), "")


class RowDataset:
    """Training or evaluation samples without videos: the label is the row that is shown.

    Args:
        broken: Rows that are broken.
        on_load: What else happens when a row is loaded.
    """

    batch_type = TrainBatch
    noun = "video"
    repeats = 1
    messages = ()
    sample_num_bytes = 1024

    def __init__(
        self,
        manifest: Manifest | int,
        *,
        seed: int = 0,
        broken: Sequence[int] = (),
        on_load: dict[int, Callable[[], object]] | None = None,
        expected_counts: np.ndarray | None = None,
    ) -> None:
        self.manifest = build_manifest([manifest]) if isinstance(manifest, int) else manifest
        self.seed, self.broken, self.on_load, self.expected_counts = seed, broken, on_load or {}, expected_counts
        self.loaded: list[int] = []
        """Rows that were loaded in this process."""

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def sample_name(self, index: int) -> str:
        return f"videos/{index}.mp4"

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> tuple[np.ndarray, ...]:
        self.loaded.append(source_index)
        self.on_load.get(source_index, bool)()
        if source_index in self.broken:
            raise BrokenVideo(f"video {source_index}", "is broken")
        clip = np.full((1, 3, 1, 1, 1), 255, np.uint8)
        return clip, np.array([source_index]), np.array([derive_sample_seed(self.seed, epoch, index, occurrence)])


class RowViews(RowDataset):
    """Evaluation samples without videos."""

    batch_type = ViewBatch

    def load_arrays(self, index: int) -> tuple[np.ndarray, ...]:
        clip, label, _ = super().load_arrays(0, index, 0, index)
        return clip[None], label, np.array([index])
