"""Writes a directory of synthetic clips: H.264 files that are made once, and the lists that name them.

The clips of `SyntheticClipsConfig`, for the quickstart and the tests, have classes that differ in motion alone.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from jaxtyping import UInt8

from vidstill.engine.cpu import count_cores
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.utils.files import write_bytes
from vidstill.utils.output_dir import open_output_dir
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError, check_range

SYNTHETIC_SPLITS = ("train", "val", "unlabelled")

DRAWING_VERSION = 2
"""Raise it when the same config draws other clips."""

_MIN_CLIPS_FOR_POOL = 200  # from which starting processes saves time

_CLIP_LISTS = {"train": "train.csv", "val": "val.csv", "unlabelled": "unlabelled.txt"}

ClipJob = tuple[str, int]
"""A clip's split and its number there."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(ABC):
    """What all synthetic datasets have; see the subclasses for their defaults.

    A clip depends on the seed, its split, its number and the sizes, so a larger dataset contains a smaller one.
    """

    min_side: ClassVar[int] = 16

    train: int  # labelled clips for training
    val: int  # labelled clips for validation
    unlabelled: int  # clips for pre-training, without labels
    size: tuple[int, int]  # rows and columns in pixels, both even
    fps: int  # frames per second
    seed: int = 0  # of everything that is drawn

    def __post_init__(self) -> None:
        check_range(0, 2**63 - 1, seed=self.seed)
        if any(side % 2 or side < self.min_side for side in self.size):
            size, near = (
                "x".join(map(str, each)) for each in (self.size, [max(self.min_side, n + n % 2) for n in self.size])
            )
            least = f"at least {self.min_side} pixels, such as {near}"
            raise InputError(f"clips of {size} pixels cannot be made; sides are even and have {least}")
        counts = [self.count_clips(split) for split in SYNTHETIC_SPLITS]
        if min(counts) < 0 or not any(counts):
            raise InputError(f"train, val and unlabelled are {counts}; make at least one clip in all")

    def count_clips(self, split: str) -> int:
        return int(getattr(self, split))

    @abstractmethod
    def start_lists(self) -> dict[str, str]:
        """Return the first lines of each list, by its path."""

    @abstractmethod
    def make_clip(self, out: Path, job: ClipJob) -> Mapping[str, str]:
        """Write a clip if it is missing, and return its lines by the path of their list."""


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig(SyntheticConfig):
    """Clips whose classes follow one another in turn, in `train.csv`, `val.csv`, `classes.txt` and `unlabelled.txt`.

    Flipping a clip horizontally swaps left and right, clockwise and counterclockwise. A movement takes the whole clip,
    so sample frames from all of it.
    """

    train: int = 600
    val: int = 300
    unlabelled: int = 1800
    frames: int = 16  # of a clip
    size: tuple[int, int] = (64, 64)
    fps: int = 8
    classes: tuple[str, ...] = MOTION_CLASSES  # names of the actions

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.classes if name not in MOTION_CLASSES]:
            near = get_close_matches(unknown[0], MOTION_CLASSES, 3, 0.5) or MOTION_CLASSES
            raise InputError(f"{unknown[0]!r} is no class that can be drawn; did you mean {' or '.join(near)}?")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise InputError(f"classes is {self.classes}; name at least one class, and none twice")
        if self.frames < 2 or self.fps < 1:
            rate = f"{self.fps} frames per second"
            raise InputError(f"{self.frames} frames at {rate} show no motion; take at least 2 frames at 1")

    def start_lists(self) -> dict[str, str]:
        lists = {name: "" for split, name in _CLIP_LISTS.items() if self.count_clips(split)}
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes), **lists}

    def choose_clip(self, job: ClipJob) -> tuple[str, int]:
        """Return the action and the seed of a clip."""
        split, number = job
        seed = derive_sample_seed(self.seed, SYNTHETIC_SPLITS.index(split), number)
        return self.classes[number % len(self.classes)], seed

    def make_clip(self, out: Path, job: ClipJob) -> dict[str, str]:
        split, number = job
        name = f"{split}/{number:06d}.mp4"
        if not (out / name).exists():
            frames = draw_clip(*self.choose_clip(job), self.frames, self.size)
            write_bytes(out / name, encode_h264(frames, self.fps))
        label = number % len(self.classes)
        return {_CLIP_LISTS[split]: f"{name}\n" if split == "unlabelled" else f"{name} {label}\n"}


def make_dataset(
    out: Path,
    config: SyntheticConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make every clip that is missing, then write the lists, so that a list never names a missing clip.

    Args:
        out: Directory, new or made by the same config; it is returned. If it has all lists, nothing is made.
        config: What is drawn.
        workers: Processes; the files do not depend on it. None: one per core, for large datasets.
        progress: Called with the number of clips that are done and that of all.

    Raises:
        InputError: The directory holds something else, or cannot be written.
    """
    identity = {"kind": type(config).__name__, **asdict(config), "drawing": DRAWING_VERSION}
    with open_output_dir(out, identity, kind="synthetic clips", marker="synthetic.json"):
        lists = config.start_lists()
        if lists and all((out / name).is_file() for name in lists):
            return out
        jobs = [(split, number) for split in SYNTHETIC_SPLITS for number in range(config.count_clips(split))]
        make_clip = partial(config.make_clip, out)
        results: Iterable[Mapping[str, str] | LostTask] = map(make_clip, jobs)
        if workers is None:
            workers = count_cores() if len(jobs) >= _MIN_CLIPS_FOR_POOL else 1
        if workers > 1:
            results = (result for _, result in map_in_workers(make_clip, jobs, workers=workers))
        for done, (job, lines) in enumerate(zip(jobs, results, strict=True), 1):
            if isinstance(lines, LostTask):
                raise InputError(f"the clip {job} could not be made: its process {lines.reason}; run it again")
            for name, text in lines.items():
                lists[name] += text
            progress(done, len(jobs))
        for name, text in lists.items():
            write_bytes(out / name, text.encode())
    return out


def encode_h264(frames: UInt8[np.ndarray, "t h w 3"], fps: int, options: Mapping[str, str] | None = None) -> bytes:
    """Encode frames as an mp4 file in H.264, the same bytes every time.

    Args:
        frames: Frames in RGB.
        fps: Frames per second.
        options: Options of libx264. By default every frame is coded on its own at one quality: otherwise its artefacts
            would show what came before.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        intra = {"preset": "ultrafast", "qp": "20", "g": "1"}
        stream.options = {**(intra if options is None else options), "threads": "1", "flags": "+bitexact"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
