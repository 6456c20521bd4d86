"""Makes a dataset of synthetic clips with boxes of persons and their actions, in AVA's own files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidstill.synthetic.acting import generate_scene
from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, ClipJob, SyntheticConfig, encode_h264
from vidstill.synthetic.figures import FIRST_INTERACTION, PERSON_ACTIONS, draw_scene, measure_visibility
from vidstill.utils.files import write_bytes
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import check_range

_MIN_VISIBLE = 0.3  # visible share of a figure that has a box
_MIN_AMBIGUOUS = 0.1  # a figure below has no box; one between excludes the key frame

_LISTS = ("{}.csv", "{}_excluded_timestamps.csv", "{}_persons.csv")  # a split's rows, excluded key frames, detections

_Box = Float64[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True)
class SyntheticBoxesConfig(SyntheticConfig):
    """Clips of figures that act; a figure's action is the same for half a second before and after each key frame.

    They are in `videos` and `unlabelled`; AVA's files and boxes of a simulated person detector are in `annotations`.
    """

    min_side: ClassVar[int] = 32  # below, an arm is thinner than a pixel

    train: int = 240
    val: int = 80
    unlabelled: int = 400
    seconds: int = 6  # length of a clip
    size: tuple[int, int] = (64, 96)
    fps: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(2, 60, seconds=self.seconds)
        check_range(4, 60, fps=self.fps)

    def start_lists(self) -> dict[str, str]:
        annotated = [split for split in ("train", "val") if self.count_clips(split)]
        items = (f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in enumerate(PERSON_ACTIONS, 1))
        lists = {"annotations/actions.pbtxt": "".join(items)} if annotated else {}
        return lists | {f"annotations/{name.format(split)}": "" for split in annotated for name in _LISTS}

    def make_clip(self, out: Path, job: ClipJob) -> dict[str, str]:
        split, number = job
        name = f"{split}_{number:06d}"
        path = out / (f"unlabelled/{number:06d}.mp4" if split == "unlabelled" else f"videos/{name}.mp4")
        seed = derive_sample_seed(self.seed, SYNTHETIC_SPLITS.index(split), number)
        scene = generate_scene(seed, seconds=self.seconds, fps=self.fps, size=self.size)
        if not path.exists():
            write_bytes(path, encode_h264(draw_scene(scene, seed, self.size), self.fps))
        if split == "unlabelled":
            return {}
        rows, excluded, persons = "", "", ""
        for second in range(1, self.seconds):
            keyframe, frame = f"{name},{second:04d}", second * self.fps
            figures = list(measure_visibility(scene, self.size, frame))
            boxes = {figure.index: box for figure, box, visible in figures if visible >= _MIN_VISIBLE}
            ambiguous = any(_MIN_AMBIGUOUS <= visible < _MIN_VISIBLE for _, _, visible in figures)
            for index, box in boxes.items():
                figure = scene.figures[index]
                count = len(PERSON_ACTIONS) if figure.partner in boxes else FIRST_INTERACTION  # both need a box
                actions = [number for number, active in enumerate(figure.actions[frame, :count], 1) if active]
                ambiguous |= not actions
                rows += "".join(f"{keyframe},{_format_box(box)},{action},{index}\n" for action in actions)
            excluded += f"{keyframe}\n" if ambiguous else ""
            rng = numpy_rng(seed, f"detector {second}")
            for box, score in _simulate_detector(rng, list(boxes.values()), self.size):
                persons += f"{keyframe},{_format_box(box)},,{score:.4f}\n"
        texts = zip(_LISTS, (rows, excluded, persons), strict=True)
        return {f"annotations/{name.format(split)}": text for name, text in texts}


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
