"""A detector's test: every box of every key frame scored, by one process or by several, and AVA's score of it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from vidstill.data.ava.box_table import BoxScores, lines_of, read_rows
from vidstill.data.ava.dataset import BoxSplit
from vidstill.data.ava.keyframes import KeyFrames
from vidstill.data.ava.samples import BoxView, BoxViewsConfig, ViewBoxes
from vidstill.data.ava.validation import doubts
from vidstill.data.loader.loader import view_batches
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import place_of
from vidstill.data.storage.filesystem import last_name
from vidstill.engine.distributed import Runtime
from vidstill.figures.precision_recall import precision_recall_png
from vidstill.pipelines.detector_checkpoint import Loaded, load_detector
from vidstill.pipelines.train.detector_data import DetectLaunch, boxes_to_ask
from vidstill.tasks.detection import Detector
from vidstill.tasks.metrics.ava_map import FrameMAP, Matching, frame_map
from vidstill.utils.files import check_findings, write_findings
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError

DETECTIONS_FILE = "detections.csv"
ACTIONS_FILE = "actions.csv"
CURVES_PICTURE = "curves.png"
FILES = (DETECTIONS_FILE, ACTIONS_FILE, CURVES_PICTURE)

_AT_ONCE = 8  # key frames that the device takes, where it is not said

log = logging.getLogger("vidstill")


@dataclass(frozen=True)
class Asked:
    """What a test asks, and what the answers are held against.

    Args:
        frames: the boxes that are asked about.
        times_person_score: an action's probability is multiplied by the score of whoever found the box.
    """

    split: BoxSplit
    frames: KeyFrames
    views: BoxViewsConfig
    times_person_score: bool
    matching: Matching


@dataclass(frozen=True)
class DetectionsTested:
    """What a detector made of the boxes that it was asked about.

    Args:
        broken: why key frames could not be scored, by their place; they take no part in the score, nor do their
            annotations.
    """

    asked: Asked
    scores: BoxScores
    broken: Mapping[int, str]

    @cached_property
    def found(self) -> FrameMAP:
        """AVA's score."""
        split, frames = self.asked.split, self.asked.frames
        lost = {(frames[place].film.name, frames[place].second) for place in self.broken}
        excluded = split.excluded | lost
        return frame_map(split.there, self.scores, frames.actions, excluded=excluded, matching=self.asked.matching)

    def plain(self) -> dict[str, Any]:
        """Every number, and what could not be scored."""
        return {
            **self.found.plain(),
            "boxes": self.asked.frames.kind,
            "boxes_asked_about": len(self.scores),
            "broken": [self.broken[place] for place in sorted(self.broken)],
        }


def score(
    model: Detector, asked: Asked, runtime: Runtime, *, workers: int, device_batch: int | None = None
) -> DetectionsTested:
    """Asks a detector; every process does its share, and knows all.

    Args:
        device_batch: key frames that a device takes at once.

    Raises:
        InputError: not one key frame can be scored.
    """
    frames = asked.frames
    scored, broken = box_scores(
        model,
        frames,
        asked.views,
        runtime,
        times_person_score=asked.times_person_score,
        workers=workers,
        device_batch=device_batch,
    )
    if not scored:
        raise InputError(f"none of the {len(broken)} key frames of {frames.source} can be scored; {broken[0]}")
    places = sorted(scored)
    which = np.concatenate([np.arange(frames.ends[place], frames.ends[place + 1]) for place in places])
    counts = np.diff(frames.ends)[places]
    scores = BoxScores(
        videos=tuple(film.name for film in frames.films),
        video=frames.film[places].repeat(counts),
        second=frames.second[places].repeat(counts),
        box=frames.boxes[which],
        numbers=frames.actions.numbers,
        scores=np.concatenate([scored[place] for place in places]),
    )
    return DetectionsTested(asked, scores, broken)


def check_asked(asked: Asked, workers: int) -> None:
    """Raises an InputError where no key frame can be tested on: before hours of training, not after them."""
    broken: dict[int, str] = {}
    views, device = ViewBoxes(asked.frames, asked.views), torch.device("cpu")
    if next(view_batches(views, videos_per_batch=1, broken=broken, workers=workers, device=device), None) is None:
        raise InputError(f"none of the {len(broken)} key frames of {asked.frames.source} can be tested on; {broken[0]}")


def write_test(folder: Path, tested: DetectionsTested) -> None:
    """Leaves all that a test found in a folder, as `folder.write_findings` does.

    Raises:
        InputError: the folder cannot be written.
    """
    evaluated = tested.asked.frames.actions.evaluated
    files: dict[str, Callable[[], bytes | Iterable[bytes]]] = {
        DETECTIONS_FILE: lambda: lines_of(tested.scores, numbers=evaluated),
        **scored_files(tested.found),
    }
    write_findings(folder, files, tested.plain())


def scored_files(found: FrameMAP) -> dict[str, Callable[[], bytes | Iterable[bytes]]]:
    """What makes the files of a score."""
    return {ACTIONS_FILE: found.classes_csv, CURVES_PICTURE: lambda: precision_recall_png(found)}


def box_scores(
    model: Detector,
    frames: KeyFrames,
    views: BoxViewsConfig,
    runtime: Runtime,
    *,
    times_person_score: bool,
    workers: int,
    device_batch: int | None = None,
    shown: bool = True,
) -> tuple[dict[int, Float32[np.ndarray, "m a"]], dict[int, str]]:
    """Each box's probability of each action, by the key frame's place; and why others have none.

    Every process scores its share, and has the scores of all.

    Args:
        device_batch: key frames that a device takes at once, of those that follow one another and are of one size.
        times_person_score: a probability is multiplied by the score of whoever found the box.
        shown: by a progress bar.
    """
    model = model.to(runtime.device).eval()
    scored: dict[int, Float32[np.ndarray, "m a"]] = {}
    broken: dict[int, str] = {}
    share = len(range(runtime.rank, len(frames), runtime.world))
    coming = view_batches(
        ViewBoxes(frames, views),
        videos_per_batch=1,
        broken=broken,
        rank=runtime.rank,
        world=runtime.world,
        workers=workers,
        device=runtime.device,
    )
    bar = progress_bar("testing") if shown and runtime.is_main else nullcontext(lambda done, of: None)
    with bar as done, torch.inference_mode(), runtime.autocast():
        for some in _alike(coming, device_batch or _AT_ONCE):
            for place, logits in zip(_places(some), _logits(model, some), strict=True):
                found = logits.float().sigmoid().cpu().numpy()
                if times_person_score:
                    found = found * frames[place].scores[:, None].astype(np.float32)
                if np.isfinite(found).all():
                    scored[place] = found
                else:
                    broken[place] = f"{frames[place].name} has scores that are no finite numbers"
                    log.warning("%s; it is not counted", broken[place])
            done(len(scored) + len(broken), share)
        if scored:
            done(share, share)  # the last ones may be broken
    for their_scored, their_broken in runtime.gathered((scored, broken)):
        scored |= their_scored
        broken |= their_broken
    return scored, broken


def _alike(coming: Iterator[BoxView], size: int) -> Iterator[list[BoxView]]:
    """Views that follow one another and have clips of one size, so many at most."""
    some: list[BoxView] = []
    for view in coming:
        if some and (len(some) == size or view.clip.shape != some[0].clip.shape):
            yield some
            some = []
        some.append(view)
    if some:
        yield some


def _places(some: Sequence[BoxView]) -> list[int]:
    return [int(view.place) for view in some]


def _logits(model: Detector, some: Sequence[BoxView]) -> Iterator[Float[Tensor, "m a"]]:
    """Of each view's own boxes; the rows that fill up the others' are left out again."""
    most = max(view.boxes.shape[1] for view in some)
    boxes = torch.cat([F.pad(view.boxes, (0, 0, 0, most - view.boxes.shape[1])) for view in some])
    logits = model(torch.cat([view.clip for view in some]), boxes)
    return (each[: view.boxes.shape[1]] for each, view in zip(logits, some, strict=True))


def evaluate(
    source: str,
    launch: DetectLaunch,
    *,
    split: Split = "val",
    matching: Matching | None = None,
    crop: Literal["full", "center"] | None = None,
    out: Path | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """The score of a detector on a data set's split, as JSON has it; or that of a `.csv` of detections.

    Args:
        source: a run's folder, a file of weights, or a `.csv`.
        matching: None: the model's recipe's, and the data set's own for a `.csv`.
        crop: the whole frame, or a square in its middle; None: as the model's recipe has it.
        out: a folder to leave all that was found in.

    Raises:
        InputError: it is none of these, or the data do not go with it.
    """
    if out is not None:
        check_findings(out, FILES)
    if last_name(place_of(source)).endswith(".csv"):
        if crop is not None:
            raise InputError(
                "--crop is for a model's test, and the detections of a .csv are there already; leave it out"
            )
        return _of_file(source, launch, split, matching or "score_order_top50", out)
    runtime = runtime or Runtime(launch.precision)
    loaded = load_detector(source)
    parts = launch.find().split(split)
    views = loaded.views
    if crop is not None:
        views = replace(views, crop=loaded.trained_on if crop == "center" else None)
    frames = boxes_to_ask(parts, views.persons, launch.persons)
    _check_actions(loaded, frames)
    asked = Asked(
        parts, frames, views, times_person_score=loaded.times_person_score, matching=matching or loaded.matching
    )
    check_asked(asked, min(1, launch.decoders))
    tested = score(loaded.model, asked, runtime, workers=launch.decoders, device_batch=launch.device_batch)
    if out is not None and runtime.is_main:
        write_test(out, tested)
    return tested.plain()


def _of_file(source: str, launch: DetectLaunch, split: Split, matching: Matching, out: Path | None) -> dict[str, Any]:
    """The score of a file of detections; no video is needed."""
    data = launch.find()
    (annotated, excluded), actions = data.annotations(split), data.actions
    detected = read_rows(place_of(source), scored=True)
    for sentence in (
        *doubts(annotated, actions=actions),
        *doubts(detected, actions=actions, videos=frozenset(annotated.videos)),
    ):
        log.warning("%s", sentence)
    found = frame_map(annotated, detected, actions, excluded=excluded, matching=matching)
    plain = found.plain() | {"boxes": f"{len(detected):,} rows of {source}"}
    if out is not None:
        write_findings(out, scored_files(found), plain)
    return plain


def _check_actions(loaded: Loaded, frames: KeyFrames) -> None:
    """Raises an InputError where an action's number would not mean the same."""
    ours, theirs = frames.actions.names, loaded.actions.names
    for number, name in ours.items():
        if theirs.get(number) != name:
            known = f"calls {theirs[number]!r}" if number in theirs else "does not know"
            raise InputError(
                f"{frames.source} has the action {number}, {name!r}, which {loaded.source} {known}; "
                "give both the same list of actions: --actions"
            )
