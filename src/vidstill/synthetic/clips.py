"""Makes a dataset of labelled clips whose classes differ in motion alone, for the quickstart and the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, ClipJob, SyntheticConfig, encode_h264, write_dataset
from vidstill.synthetic.drawing import draw_clip
from vidstill.synthetic.motion import MOTION_CLASSES
from vidstill.utils.files import write_bytes
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig(SyntheticConfig):
    """Clips whose classes follow one another in turn.

    Flipping a clip horizontally swaps left and right, clockwise and counterclockwise. A movement takes the whole clip,
    so sample frames from all of it.

    Args:
        frames: Frames of a clip.
        classes: Names of the actions.
    """

    train: int = 600
    val: int = 300
    unlabelled: int = 1800
    frames: int = 16
    size: tuple[int, int] = (64, 64)
    fps: int = 8
    classes: tuple[str, ...] = MOTION_CLASSES

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.classes if name not in MOTION_CLASSES]:
            near = get_close_matches(unknown[0], MOTION_CLASSES, 3, 0.5) or MOTION_CLASSES
            raise InputError(f"{unknown[0]!r} is no class that can be drawn; did you mean {' or '.join(near)}?")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise InputError(f"classes is {self.classes}; name at least one class, and none twice")
        if self.frames < 2 or self.fps < 1:
            raise InputError(
                f"{self.frames} frames at {self.fps} frames per second show no motion; take at least 2 frames at 1"
            )


def make_clip_dataset(
    out: Path,
    config: SyntheticClipsConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make `train.csv`, `val.csv`, `classes.txt`, `unlabelled.txt` and the clips that they name; return the directory.

    Args:
        out: Directory, new or made by the same config; clips that it has are not drawn again.
        config: What is drawn.
        workers: Processes; the files do not depend on it. None: one per core, for large datasets.
        progress: Called with the number of clips that are done and that of all.

    Raises:
        InputError: The directory holds something else, or cannot be written.
    """
    lists = {"classes.txt": "".join(f"{name}\n" for name in config.classes)}
    lists |= {_LISTS[split]: "" for split in SYNTHETIC_SPLITS if config.count_clips(split)}
    return write_dataset(out, config, partial(_make_clip, out, config), lists, workers=workers, progress=progress)


_LISTS = {"train": "train.csv", "val": "val.csv", "unlabelled": "unlabelled.txt"}


def _make_clip(directory: Path, config: SyntheticClipsConfig, job: ClipJob) -> dict[str, str]:
    split, number = job
    label = number % len(config.classes)
    name = f"{split}/{number:06d}.mp4"
    if not (directory / name).exists():
        seed = derive_sample_seed(config.seed, SYNTHETIC_SPLITS.index(split), number)
        frames = draw_clip(config.classes[label], seed, config.frames, config.size)
        write_bytes(directory / name, encode_h264(frames, config.fps))
    return {_LISTS[split]: f"{name}\n" if split == "unlabelled" else f"{name} {label}\n"}
