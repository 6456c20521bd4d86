"""Makes a data set of clips that we draw ourselves, for the quickstart and the tests: H.264 files and their lists."""

import io
import json
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
from vidstill.synthetic.motion import ACTIONS
from vidstill.utils.files import HALF, write_whole
from vidstill.utils.rng import sample_seed
from vidstill.utils.types import InputError, within

T = TypeVar("T")

CONFIG_FILE = "made.json"
SPLITS = ("train", "val", "unlabelled")

_DRAWING = 1  # to be raised when the same config draws other clips
_SMALLEST_SIDE = 16  # pixels; below, a thing's box would meet itself around the world
_POOL_FROM = 200  # clips for which it pays to start processes


@dataclass(frozen=True, kw_only=True)
class MadeConfig:
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
    classes: tuple[str, ...] = ACTIONS
    seed: int = 0

    def clips(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}[split]


def make_clips(
    folder: Path, config: MadeConfig, *, workers: int | None = None, made: Callable[[int, int], None] | None = None
) -> Path:
    """The folder, with `train.csv`, `val.csv`, `classes.txt`, `unlabelled.txt` and the clips that they name in it.

    What is already there is kept; the lists are written last, so that a list never names a clip that is missing.

    Args:
        workers: processes; the files do not depend on it. Default: a process for each core where there is much to draw.
        made: is told how many clips there are so far, and how many there will be.

    Raises:
        InputError: the config makes no clips, or the folder holds something else.
    """
    _check(config)
    described = json.dumps(asdict(config) | {"drawing": _DRAWING}, indent=2) + "\n"
    claim_folder(folder, described)
    lists = _lists(config)
    if all((folder / name).is_file() for name in lists):
        return folder
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
    jobs = [(split, i) for split in SPLITS for i in range(config.clips(split))]
    for done, _ in enumerate(each_job(partial(_make_clip, folder, config), jobs, workers), 1):
        if made:
            made(done, len(jobs))
    for name, text in lists.items():
        write_whole(folder / name, text.encode())
    return folder


def _check(config: MadeConfig) -> None:
    within(0, 2**63 - 1, seed=config.seed)
    if strays := [name for name in config.classes if name not in ACTIONS]:
        near = get_close_matches(strays[0], ACTIONS, 3, 0.5) or ACTIONS
        raise InputError(f"{strays[0]!r} is no class that we can draw; did you mean {' or '.join(near)}?")
    if not config.classes or len(set(config.classes)) < len(config.classes):
        raise InputError("classes has to name at least one class, and none of them twice")
    check_size(config.size, _SMALLEST_SIDE)
    if config.frames < 2 or config.fps < 1:
        raise InputError(
            f"{config.frames} frames at {config.fps} frames per second show no motion; take at least 2 frames at 1"
        )
    check_counts([config.clips(split) for split in SPLITS])


def check_size(size: tuple[int, int], smallest: int) -> None:
    """Raises an InputError for rows and columns that cannot be written, or have a side smaller than this."""
    if any(side % 2 or side < smallest for side in size):
        height, width = size
        near = "x".join(str(max(smallest, side + side % 2)) for side in size)
        raise InputError(
            f"clips of {height}x{width} pixels cannot be made; H.264 wants even sides and we want {smallest} pixels at "
            f"least, such as {near}"
        )


def check_counts(counts: Sequence[int]) -> None:
    """Raises an InputError for numbers of clips, one for each of SPLITS, that nothing can be made of."""
    if min(counts) < 0 or not any(counts):
        raise InputError(
            f"{list(counts)} clips to train, test and pre-train cannot be made; ask for at least one in all"
        )


def claim_folder(folder: Path, described: str) -> None:
    """Says in the folder what it is for.

    Raises:
        InputError: it is for something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the clips")
    said = folder / CONFIG_FILE
    if said.is_file():
        if said.read_text("utf-8") != described:
            raise InputError(f"{folder} holds clips that were made otherwise ({said}); name another folder")
        return
    if folder.is_dir() and any(name[0] != "." and not name.endswith(HALF) for name in os.listdir(folder)):
        raise InputError(f"{folder} holds other files and no {CONFIG_FILE}; name a new folder for the clips")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another folder") from error
    write_whole(said, described.encode())


def _lists(config: MadeConfig) -> dict[str, str]:
    """What each list holds; a split without clips has none."""
    names = {split: [_name(split, i) for i in range(config.clips(split))] for split in SPLITS}
    lists = {
        "unlabelled.txt": "".join(f"{name}\n" for name in names["unlabelled"]),
        "classes.txt": "".join(f"{name}\n" for name in config.classes),
    }
    for split in ("val", "train"):
        lists[f"{split}.csv"] = "".join(f"{name} {i % len(config.classes)}\n" for i, name in enumerate(names[split]))
    return {name: text for name, text in lists.items() if text}


def _name(split: str, index: int) -> str:
    return f"{split}/{index:06d}.mp4"


def each_job(make: Callable[[tuple[str, int]], T], jobs: list[tuple[str, int]], workers: int | None) -> Iterator[T]:
    """What `make` gives for each (split, number) in turn, by so many processes; None: for each core, where it pays."""
    workers = (os.cpu_count() or 1 if len(jobs) >= _POOL_FROM else 1) if workers is None else workers
    if workers <= 1:
        yield from map(make, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make, jobs, chunksize=16)


def _make_clip(folder: Path, config: MadeConfig, job: tuple[str, int]) -> None:
    split, index = job
    path = folder / _name(split, index)
    if path.exists():
        return
    seed = sample_seed(config.seed, SPLITS.index(split), index)
    action = config.classes[index % len(config.classes)]
    write_whole(path, encoded(draw_clip(action, seed, config.frames, config.size), config.fps))


def encoded(frames: UInt8[np.ndarray, "t h w 3"], fps: int) -> bytes:
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
