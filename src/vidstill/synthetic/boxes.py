"""Makes a dataset of synthetic clips with boxes of persons and their actions, in AVA's own files."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidstill.synthetic.acting import generate_scene
from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, ClipJob, SyntheticConfig, encode_h264, write_dataset
from vidstill.synthetic.figures import FIRST_INTERACTION, PERSON_ACTIONS, StickFigure, draw_scene, measure_visibility
from vidstill.utils.files import write_bytes
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import check_range

_MIN_VISIBLE = 0.3  # visible share of a figure that has a box
_MIN_AMBIGUOUS = 0.1  # a figure below has no box; one between excludes the key frame

_ROWS, _EXCLUDED, _PERSONS = (  # lists of a split: its rows, its excluded key frames, the boxes of a detector
    "annotations/{}.csv",
    "annotations/{}_excluded_timestamps.csv",
    "annotations/{}_persons.csv",
)

_Box = Float64[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True)
class SyntheticBoxesConfig(SyntheticConfig):
    """Clips of figures that act; a figure's action is the same for half a second before and after each key frame.

    Args:
        seconds: Length of a clip.
    """

    min_side: ClassVar[int] = 32  # below, an arm is thinner than a pixel

    train: int = 240
    val: int = 80
    unlabelled: int = 400
    seconds: int = 6
    size: tuple[int, int] = (64, 96)
    fps: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(2, 60, seconds=self.seconds)
        check_range(4, 60, fps=self.fps)


def make_box_dataset(
    out: Path,
    config: SyntheticBoxesConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make `videos`, `unlabelled` and, in `annotations`, AVA's files and the boxes of a simulated person detector.

    Args:
        out: Directory, new or made by the same config; clips that it has are not drawn again.
        config: What is drawn.
        workers: Processes; the files do not depend on it. None: one per core, for large datasets.
        progress: Called with the number of clips that are done and that of all.

    Returns:
        The directory.

    Raises:
        InputError: The directory holds something else, or cannot be written.
    """
    annotated = [split for split in ("train", "val") if config.count_clips(split)]
    lists = {name.format(split): "" for split in annotated for name in (_ROWS, _EXCLUDED, _PERSONS)}
    if annotated:
        items = (f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in enumerate(PERSON_ACTIONS, 1))
        lists["annotations/actions.pbtxt"] = "".join(items)
    return write_dataset(out, config, partial(_make_clip, out, config), lists, workers=workers, progress=progress)


def _make_clip(directory: Path, config: SyntheticBoxesConfig, job: ClipJob) -> dict[str, str]:
    split, number = job
    name = f"{split}_{number:06d}"
    path = directory / (f"unlabelled/{number:06d}.mp4" if split == "unlabelled" else f"videos/{name}.mp4")
    seed = derive_sample_seed(config.seed, SYNTHETIC_SPLITS.index(split), number)
    scene = generate_scene(seed, seconds=config.seconds, fps=config.fps, size=config.size)
    if not path.exists():
        write_bytes(path, encode_h264(draw_scene(scene, seed, config.size), config.fps))
    if split == "unlabelled":
        return {}
    rows, excluded, persons = "", "", ""
    for second in range(1, config.seconds):
        keyframe = f"{name},{second:04d}"
        frame = second * config.fps
        figures = list(measure_visibility(scene, config.size, frame))
        boxes = {figure.index: box for figure, box, visible in figures if visible >= _MIN_VISIBLE}
        actions = {
            figure.index: _list_actions(figure, frame, boxes) for figure, _, _ in figures if figure.index in boxes
        }
        for person, numbers in actions.items():
            rows += "".join(f"{keyframe},{_format_box(boxes[person])},{action},{person}\n" for action in numbers)
        ambiguous = any(_MIN_AMBIGUOUS <= visible < _MIN_VISIBLE for _, _, visible in figures)
        if ambiguous or not all(actions.values()):
            excluded += f"{keyframe}\n"
        rng = numpy_rng(seed, f"detector {second}")
        for box, score in _simulate_detector(rng, list(boxes.values()), config.size):
            persons += f"{keyframe},{_format_box(box)},,{score:.4f}\n"
    return {_ROWS.format(split): rows, _EXCLUDED.format(split): excluded, _PERSONS.format(split): persons}


def _list_actions(figure: StickFigure, frame: int, boxes: Container[int | None]) -> list[int]:
    """Return the numbers of a figure's actions; an interaction counts only if the partner has a box."""
    count = len(PERSON_ACTIONS) if figure.partner in boxes else FIRST_INTERACTION
    return [number for number, active in enumerate(figure.actions[frame, :count], 1) if active]


def _format_box(box: _Box) -> str:
    return ",".join(f"{side:.3f}" for side in box)


def _simulate_detector(
    rng: np.random.Generator, boxes: Sequence[_Box], size: tuple[int, int]
) -> Iterator[tuple[_Box, float]]:
    """Yield most of the boxes, shifted, and some boxes where nobody is, each with a score."""
    for box in boxes:
        hit, shift, doubt = rng.random(), rng.normal(0, 0.04, 4), rng.random()
        if hit < 0.95:
            yield np.clip(box + np.clip(shift, -0.1, 0.1) * np.tile(box[2:] - box[:2], 2), 0, 1), 1 - 0.3 * doubt**3
    for _ in range(rng.poisson(0.25)):
        height, position, score = rng.uniform(0.3, 0.45), rng.random(2), rng.uniform(0.4, 0.98)
        extent = np.array([0.6, 1.0]) * height * min(size) / np.array([size[1], size[0]])
        corner = position * (1 - extent)
        box = np.concatenate([corner, corner + extent])
        if not any((np.minimum(box[2:], other[2:]) > np.maximum(box[:2], other[:2])).all() for other in boxes):
            yield box, score
