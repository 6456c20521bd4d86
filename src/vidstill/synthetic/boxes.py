"""Makes a data set of clips with boxes, drawn by ourselves: H.264 files, and the files that AVA has beside its own."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vidstill.synthetic.acting import generate_scene
from vidstill.synthetic.clips import (
    SYNTHETIC_CONFIG_FILE,
    SYNTHETIC_SPLITS,
    check_clip_counts,
    check_frame_size,
    encode_h264,
    map_jobs,
)
from vidstill.synthetic.figures import draw_scene, measure_visibility
from vidstill.synthetic.scene import FIRST_INTERACTION, PERSON_ACTIONS, StickFigure
from vidstill.utils.files import open_output_dir, write_bytes
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import check_range

_DRAWING_VERSION = 1  # to be raised when the same config draws other clips
_MIN_SIDE = 32  # pixels; below, an arm is thinner than one
_MIN_VISIBLE = 0.3  # a figure of which so much or more is to be seen has a box
_MIN_AMBIGUOUS = 0.1  # one of which less is has none; in between, the moment is excluded

_ANNOTATED_SPLITS = ("train", "val")
_FILE_SUFFIXES = (
    ".csv",
    "_excluded_timestamps.csv",
    "_persons.csv",
)  # of a split: its rows; moments; a detector's boxes

_Box = Float64[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True)
class SyntheticBoxesConfig:
    """What is drawn. A clip depends on the seed, its split, its number and the sizes, so a larger set holds a smaller.

    What a figure does is the same for half a second before and after each whole second, where the boxes are.

    Args:
        train: clips to train on.
        val: clips to test on.
        unlabelled: clips to pre-train on, without boxes.
        seconds: of a clip.
        size: rows and columns in pixels, both even.
        fps: frames per second.
        seed: of all that is drawn.
    """

    train: int = 240
    val: int = 80
    unlabelled: int = 400
    seconds: int = 6
    size: tuple[int, int] = (64, 96)
    fps: int = 8
    seed: int = 0

    def count_clips(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}[split]


def make_box_dataset(
    out: Path,
    config: SyntheticBoxesConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder, with `videos`, `unlabelled` and, in `annotations`, what AVA's files say, and a detector's boxes.

    What is already there is kept; the annotations are written last, so that they never name a clip that is missing.

    Args:
        workers: processes; the files do not depend on it. Default: a process for each core where there is much to draw.
        progress: is told how many clips there are so far, and how many there will be.

    Raises:
        InputError: the config makes no clips, or the folder holds something else.
    """
    _check_config(config)
    identity = asdict(config) | {"boxes": True, "drawing": _DRAWING_VERSION}
    with open_output_dir(out, identity, kind="synthetic clips", marker=SYNTHETIC_CONFIG_FILE):
        _write_clips(out, config, workers, progress)
    return out


def _write_clips(
    out: Path, config: SyntheticBoxesConfig, workers: int | None, progress: Callable[[int, int], None] | None
) -> None:
    texts = {
        f"{split}{name}": "" for split in _ANNOTATED_SPLITS if config.count_clips(split) for name in _FILE_SUFFIXES
    }
    if texts:
        blocks = (f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in enumerate(PERSON_ACTIONS, 1))
        texts["actions.pbtxt"] = "".join(blocks)
    if texts and all((out / "annotations" / name).is_file() for name in texts):
        return
    for name in ("videos", "annotations", "unlabelled"):
        (out / name).mkdir(exist_ok=True)
    jobs = [(split, number) for split in SYNTHETIC_SPLITS for number in range(config.count_clips(split))]
    written = map_jobs(partial(_make_clip, out, config), jobs, workers)
    for done, ((split, _), rows) in enumerate(zip(jobs, written, strict=True), 1):
        for name, text in rows.items():
            texts[split + name] += text
        if progress:
            progress(done, len(jobs))
    for name, text in texts.items():
        write_bytes(out / "annotations" / name, text.encode())


def _check_config(config: SyntheticBoxesConfig) -> None:
    check_range(0, 2**63 - 1, seed=config.seed)
    check_frame_size(config.size, _MIN_SIDE)
    check_range(2, 60, seconds=config.seconds)
    check_range(4, 60, fps=config.fps)
    check_clip_counts([config.count_clips(split) for split in SYNTHETIC_SPLITS])


def _make_clip(folder: Path, config: SyntheticBoxesConfig, job: tuple[str, int]) -> dict[str, str]:
    """Makes its file, if there is none, and gives its rows, by the endings of their files' names."""
    split, number = job
    annotated = split in _ANNOTATED_SPLITS
    name = f"{split}_{number:06d}"
    path = folder / "videos" / f"{name}.mp4" if annotated else folder / "unlabelled" / f"{number:06d}.mp4"
    seed = derive_sample_seed(config.seed, SYNTHETIC_SPLITS.index(split), number)
    scene = generate_scene(seed, seconds=config.seconds, fps=config.fps, size=config.size)
    if not path.exists():
        write_bytes(path, encode_h264(draw_scene(scene, seed, config.size), config.fps))
    rows = dict.fromkeys(_FILE_SUFFIXES if annotated else (), "")
    for second in range(1, config.seconds) if annotated else ():
        moment = f"{name},{second:04d}"
        frame = second * config.fps
        shown = list(measure_visibility(scene, config.size, frame))
        boxes = {figure.index: box for figure, box, share in shown if share >= _MIN_VISIBLE}
        does = {figure.index: _list_actions(figure, frame, boxes) for figure, _, _ in shown if figure.index in boxes}
        for person, actions in does.items():
            for action in actions:
                rows[".csv"] += f"{moment},{_format_box(boxes[person])},{action},{person}\n"
        if any(_MIN_AMBIGUOUS <= share < _MIN_VISIBLE for _, _, share in shown) or not all(does.values()):
            rows["_excluded_timestamps.csv"] += f"{moment}\n"
        for box, score in _simulate_detector(numpy_rng(seed, f"detector {second}"), list(boxes.values()), config.size):
            rows["_persons.csv"] += f"{moment},{_format_box(box)},,{score:.4f}\n"
    return rows


def _list_actions(figure: StickFigure, frame: int, boxes: Container[int | None]) -> list[int]:
    """Their numbers; what is done with another is not stated where the other has no box."""
    stated = len(PERSON_ACTIONS) if figure.partner in boxes else FIRST_INTERACTION
    return [number for number, does in enumerate(figure.actions[frame, :stated], 1) if does]


def _format_box(box: _Box) -> str:
    return ",".join(f"{side:.3f}" for side in box)


def _simulate_detector(
    chance: np.random.Generator, boxes: Sequence[_Box], size: tuple[int, int]
) -> Iterator[tuple[_Box, float]]:
    """What a fair detector would find: most of the boxes, not quite where they are, and some where nobody is."""
    for box in boxes:
        found, shift, doubt = chance.random(), chance.normal(0, 0.04, 4), chance.random()
        if found < 0.95:
            yield np.clip(box + np.clip(shift, -0.1, 0.1) * np.tile(box[2:] - box[:2], 2), 0, 1), 1 - 0.3 * doubt**3
    for _ in range(chance.poisson(0.25)):
        tall, place, score = chance.uniform(0.3, 0.45), chance.random(2), chance.uniform(0.4, 0.98)
        extent = np.array([0.6, 1.0]) * tall * min(size) / np.array([size[1], size[0]])
        corner = place * (1 - extent)
        box = np.concatenate([corner, corner + extent])
        if not any(_boxes_intersect(box, other) for other in boxes):
            yield box, score


def _boxes_intersect(one: _Box, other: _Box) -> bool:
    return bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())
