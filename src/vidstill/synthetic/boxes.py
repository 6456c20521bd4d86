"""Makes a data set of clips with boxes, drawn by ourselves: H.264 files, and the files that AVA has beside its own."""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vidstill.synthetic.acting import act
from vidstill.synthetic.clips import SPLITS, check_counts, check_size, claim_folder, each_job, encoded
from vidstill.synthetic.figures import draw_scene, seen
from vidstill.synthetic.scene import ACTIONS, WITH_OTHERS, Figure
from vidstill.utils.files import write_whole
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.types import within

_DRAWING = 1  # to be raised when the same config draws other clips
_SMALLEST_SIDE = 32  # pixels; below, an arm is thinner than one
_SEEN = 0.3  # a figure of which so much or more is to be seen has a box
_UNSEEN = 0.1  # one of which less is has none; in between, the moment is excluded

_ANNOTATED = ("train", "val")
_FILES = (".csv", "_excluded_timestamps.csv", "_persons.csv")  # of a split: its rows; moments; a detector's boxes

_Box = Float64[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True)
class MadeBoxesConfig:
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

    def clips(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}[split]


def make_boxes(
    folder: Path, config: MadeBoxesConfig, *, workers: int | None = None, made: Callable[[int, int], None] | None = None
) -> Path:
    """The folder, with `videos`, `unlabelled` and, in `annotations`, what AVA's files say, and a detector's boxes.

    What is already there is kept; the annotations are written last, so that they never name a clip that is missing.

    Args:
        workers: processes; the files do not depend on it. Default: a process for each core where there is much to draw.
        made: is told how many clips there are so far, and how many there will be.

    Raises:
        InputError: the config makes no clips, or the folder holds something else.
    """
    _check(config)
    claim_folder(folder, json.dumps(asdict(config) | {"boxes": True, "drawing": _DRAWING}, indent=2) + "\n")
    texts = {f"{split}{name}": "" for split in _ANNOTATED if config.clips(split) for name in _FILES}
    if texts:
        blocks = (f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in enumerate(ACTIONS, 1))
        texts["actions.pbtxt"] = "".join(blocks)
    if texts and all((folder / "annotations" / name).is_file() for name in texts):
        return folder
    for name in ("videos", "annotations", "unlabelled"):
        (folder / name).mkdir(exist_ok=True)
    jobs = [(split, number) for split in SPLITS for number in range(config.clips(split))]
    written = each_job(partial(_make_clip, folder, config), jobs, workers)
    for done, ((split, _), rows) in enumerate(zip(jobs, written, strict=True), 1):
        for name, text in rows.items():
            texts[split + name] += text
        if made:
            made(done, len(jobs))
    for name, text in texts.items():
        write_whole(folder / "annotations" / name, text.encode())
    return folder


def _check(config: MadeBoxesConfig) -> None:
    within(0, 2**63 - 1, seed=config.seed)
    check_size(config.size, _SMALLEST_SIDE)
    within(2, 60, seconds=config.seconds)
    within(4, 60, fps=config.fps)
    check_counts([config.clips(split) for split in SPLITS])


def _make_clip(folder: Path, config: MadeBoxesConfig, job: tuple[str, int]) -> dict[str, str]:
    """Makes its file, if there is none, and gives its rows, by the endings of their files' names."""
    split, number = job
    annotated = split in _ANNOTATED
    name = f"{split}_{number:06d}"
    path = folder / "videos" / f"{name}.mp4" if annotated else folder / "unlabelled" / f"{number:06d}.mp4"
    seed = sample_seed(config.seed, SPLITS.index(split), number)
    scene = act(seed, seconds=config.seconds, fps=config.fps, size=config.size)
    if not path.exists():
        write_whole(path, encoded(draw_scene(scene, seed, config.size), config.fps))
    rows = dict.fromkeys(_FILES if annotated else (), "")
    for second in range(1, config.seconds) if annotated else ():
        moment = f"{name},{second:04d}"
        frame = second * config.fps
        shown = list(seen(scene, config.size, frame))
        boxes = {figure.number: box for figure, box, share in shown if share >= _SEEN}
        does = {figure.number: _actions(figure, frame, boxes) for figure, _, _ in shown if figure.number in boxes}
        for person, actions in does.items():
            for action in actions:
                rows[".csv"] += f"{moment},{_sides(boxes[person])},{action},{person}\n"
        if any(_UNSEEN <= share < _SEEN for _, _, share in shown) or not all(does.values()):
            rows["_excluded_timestamps.csv"] += f"{moment}\n"
        for box, score in _detected(numpy_chance(seed, f"detector {second}"), list(boxes.values()), config.size):
            rows["_persons.csv"] += f"{moment},{_sides(box)},,{score:.4f}\n"
    return rows


def _actions(figure: Figure, frame: int, boxes: Container[int | None]) -> list[int]:
    """Their numbers; what is done with another is not stated where the other has no box."""
    stated = len(ACTIONS) if figure.other in boxes else WITH_OTHERS
    return [number for number, does in enumerate(figure.does[frame, :stated], 1) if does]


def _sides(box: _Box) -> str:
    return ",".join(f"{side:.3f}" for side in box)


def _detected(
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
        if not any(_meet(box, other) for other in boxes):
            yield box, score


def _meet(one: _Box, other: _Box) -> bool:
    return bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())
