"""Random clips in memory for the loader, which gives them as it gives decoded ones."""

import numpy as np

from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.loader.protocols import DatasetInfo, SampleArrays, TrainBatch
from vidstill.utils.rng import derive_sample_seed


class RandomClips:
    """A training set of random pixels and labels, for measurements: nothing is decoded or augmented.

    Args:
        config: Frames and size of a clip.
        count: Number of clips, each of which is one sample.
        num_classes: Labels are below it.
    """

    batch_type = TrainBatch
    seed, repeats, noun = 0, 1, "clip"
    messages, expected_counts = (), None
    source = description = fingerprint = "random"

    def __init__(self, config: ClipsConfig, *, count: int, num_classes: int):
        rng = np.random.default_rng(self.seed)
        shape = (1, 3, config.sampling.num_frames, *config.size)
        self._clip = rng.integers(0, 256, shape, dtype=np.uint8)
        self._labels = rng.integers(0, num_classes, count)

    @property
    def manifest(self) -> DatasetInfo:
        return self

    @property
    def sample_num_bytes(self) -> int:
        return self._clip.nbytes

    def __len__(self) -> int:
        return len(self._labels)

    def sample_name(self, index: int) -> str:
        return f"clip {index}"

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """Return a clip, the same for all indices, with a label and a seed of its own."""
        return self._clip, self._labels[index : index + 1], np.array([derive_sample_seed(self.seed, epoch, index)])
