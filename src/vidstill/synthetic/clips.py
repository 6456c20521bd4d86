"""Makes a data set of clips that we draw ourselves, for the quickstart and the tests: H.264 files and their lists."""

import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from jaxtyping import UInt8

from vidstill.synthetic.drawing import draw_clip
from vidstill.synthetic.motion import MOTION_CLASSES
from vidstill.utils.files import open_output_dir, write_bytes
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError, check_range

T = TypeVar("T")

SYNTHETIC_CONFIG_FILE = "made.json"
SYNTHETIC_SPLITS = ("train", "val", "unlabelled")

_DRAWING_VERSION = 1  # to be raised when the same config draws other clips
_MIN_SIDE = 16  # pixels; below, a thing's box would meet itself around the world
_MIN_CLIPS_FOR_POOL = 200  # clips for which it pays to start processes


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig:
    """What is drawn. A clip depends on the seed, its split, its number and the sizes, so a larger set holds a smaller.

    The classes differ only in motion: flipping a clip sideways swaps left and right, clockwise and counterclockwise.
    A class's movement takes the whole clip, so take frames from all of it.

    Args:
        train: clips to train on; the classes follow one another in turn.
        val: clips to test on.
        unlabelled: clips to pre-train on, whose classes are not stated.
        frames: of a clip.
        size: rows and columns in pixels, both even.
        fps: frames per second that the files state.
        classes: what is done in them.
        seed: of all that is drawn.
    """

    train: int = 600
    val: int = 300
    unlabelled: int = 1800
    frames: int = 16
    size: tuple[int, int] = (64, 64)
    fps: int = 8
    classes: tuple[str, ...] = MOTION_CLASSES
    seed: int = 0

    def count_clips(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}[split]


def make_clip_dataset(
    out: Path,
    config: SyntheticClipsConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder, with `train.csv`, `val.csv`, `classes.txt`, `unlabelled.txt` and the clips that they name in it.

    What is already there is kept; the lists are written last, so that a list never names a clip that is missing.

    Args:
        workers: processes; the files do not depend on it. Default: a process for each core where there is much to draw.
        progress: is told how many clips there are so far, and how many there will be.

    Raises:
        InputError: the config makes no clips, or the folder holds something else.
    """
    _check_config(config)
    identity = asdict(config) | {"drawing": _DRAWING_VERSION}
    with open_output_dir(out, identity, kind="synthetic clips", marker=SYNTHETIC_CONFIG_FILE):
        lists = _build_lists(config)
        if all((out / name).is_file() for name in lists):
            return out
        for split in SYNTHETIC_SPLITS:
            (out / split).mkdir(exist_ok=True)
        jobs = [(split, i) for split in SYNTHETIC_SPLITS for i in range(config.count_clips(split))]
        for done, _ in enumerate(map_jobs(partial(_make_clip, out, config), jobs, workers), 1):
            if progress:
                progress(done, len(jobs))
        for name, text in lists.items():
            write_bytes(out / name, text.encode())
    return out


def _check_config(config: SyntheticClipsConfig) -> None:
    check_range(0, 2**63 - 1, seed=config.seed)
    if strays := [name for name in config.classes if name not in MOTION_CLASSES]:
        near = get_close_matches(strays[0], MOTION_CLASSES, 3, 0.5) or MOTION_CLASSES
        raise InputError(f"{strays[0]!r} is no class that we can draw; did you mean {' or '.join(near)}?")
    if not config.classes or len(set(config.classes)) < len(config.classes):
        raise InputError("classes has to name at least one class, and none of them twice")
    check_frame_size(config.size, _MIN_SIDE)
    if config.frames < 2 or config.fps < 1:
        raise InputError(
            f"{config.frames} frames at {config.fps} frames per second show no motion; take at least 2 frames at 1"
        )
    check_clip_counts([config.count_clips(split) for split in SYNTHETIC_SPLITS])


def check_frame_size(size: tuple[int, int], min_side: int) -> None:
    """Raises an InputError for rows and columns that cannot be written, or have a side smaller than this."""
    if any(side % 2 or side < min_side for side in size):
        height, width = size
        near = "x".join(str(max(min_side, side + side % 2)) for side in size)
        raise InputError(
            f"clips of {height}x{width} pixels cannot be made; H.264 wants even sides and we want {min_side} pixels at "
            f"least, such as {near}"
        )


def check_clip_counts(counts: Sequence[int]) -> None:
    """Raises an InputError for numbers of clips, one for each of SPLITS, that nothing can be made of."""
    if min(counts) < 0 or not any(counts):
        raise InputError(
            f"{list(counts)} clips to train, test and pre-train cannot be made; ask for at least one in all"
        )


def _build_lists(config: SyntheticClipsConfig) -> dict[str, str]:
    """What each list holds; a split without clips has none."""
    names = {split: [_get_clip_name(split, i) for i in range(config.count_clips(split))] for split in SYNTHETIC_SPLITS}
    lists = {
        "unlabelled.txt": "".join(f"{name}\n" for name in names["unlabelled"]),
        "classes.txt": "".join(f"{name}\n" for name in config.classes),
    }
    for split in ("val", "train"):
        lists[f"{split}.csv"] = "".join(f"{name} {i % len(config.classes)}\n" for i, name in enumerate(names[split]))
    return {name: text for name, text in lists.items() if text}


def _get_clip_name(split: str, index: int) -> str:
    return f"{split}/{index:06d}.mp4"


def map_jobs(fn: Callable[[tuple[str, int]], T], jobs: list[tuple[str, int]], workers: int | None) -> Iterator[T]:
    """What `data_make_command` gives for each (split, number) in turn, by so many processes; None: for each core, where it pays."""
    workers = (os.cpu_count() or 1 if len(jobs) >= _MIN_CLIPS_FOR_POOL else 1) if workers is None else workers
    if workers <= 1:
        yield from map(fn, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(fn, jobs, chunksize=16)


def _make_clip(folder: Path, config: SyntheticClipsConfig, job: tuple[str, int]) -> None:
    split, index = job
    path = folder / _get_clip_name(split, index)
    if path.exists():
        return
    seed = derive_sample_seed(config.seed, SYNTHETIC_SPLITS.index(split), index)
    action = config.classes[index % len(config.classes)]
    write_bytes(path, encode_h264(draw_clip(action, seed, config.frames, config.size), config.fps))


def encode_h264(frames: UInt8[np.ndarray, "t h w 3"], fps: int) -> bytes:
    """An mp4 file of these frames in H.264, the same bytes every time.

    Each frame is coded by itself at one quality, or else a frame would show by its artefacts what came before.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "qp": "20", "g": "1", "threads": "1", "flags": "+bitexact"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
