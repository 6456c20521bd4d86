"""Makes a dataset of labelled clips whose classes differ in motion alone, for the quickstart and the tests."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, ClipJob, SyntheticConfig, encode_h264
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.utils.files import write_bytes
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig(SyntheticConfig):
    """Clips whose classes follow one another in turn, in `train.csv`, `val.csv`, `classes.txt` and `unlabelled.txt`.

    Flipping a clip horizontally swaps left and right, clockwise and counterclockwise. A movement takes the whole clip,
    so sample frames from all of it.

    Args:
        frames: Frames of a clip.
        classes: Names of the actions.
    """

    list_names: ClassVar = {"train": "train.csv", "val": "val.csv", "unlabelled": "unlabelled.txt"}

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

    def start_lists(self) -> dict[str, str]:
        lists = {name: "" for split, name in self.list_names.items() if self.count_clips(split)}
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes), **lists}

    def make_clip(self, out: Path, job: ClipJob) -> dict[str, str]:
        split, number = job
        label = number % len(self.classes)
        name = f"{split}/{number:06d}.mp4"
        if not (out / name).exists():
            seed = derive_sample_seed(self.seed, SYNTHETIC_SPLITS.index(split), number)
            frames = draw_clip(self.classes[label], seed, self.frames, self.size)
            write_bytes(out / name, encode_h264(frames, self.fps))
        return {self.list_names[split]: f"{name}\n" if split == "unlabelled" else f"{name} {label}\n"}
