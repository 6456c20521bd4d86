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

from vidstill.data.ava.box_table import BoxScores, format_box_csv, read_box_csv
from vidstill.data.ava.dataset import BoxSplit
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.ava.samples import BoxViewsConfig, KeyframeView, KeyframeViewDataset
from vidstill.data.ava.validation import list_row_warnings
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import parse_path
from vidstill.data.storage.filesystem import base_name
from vidstill.engine.distributed import Runtime
from vidstill.figures.precision_recall import draw_precision_recall
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.detector_checkpoint import LoadedDetector, load_detector
from vidstill.pipelines.workers import Workers
from vidstill.tasks.detection import Detector
from vidstill.tasks.metrics.ava_map import FrameMAP, MatchingOrder, compute_frame_map
from vidstill.utils.files import TEST_FILE, check_output_dir, write_result_dir
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

DETECTIONS_FILE = "detections.csv"
ACTIONS_FILE = "actions.csv"
CURVES_IMAGE_FILE = "curves.png"
DETECTOR_RESULT_FILES = (DETECTIONS_FILE, ACTIONS_FILE, CURVES_IMAGE_FILE)

_KEYFRAME_BATCH = 8  # key frames that the device takes, where it is not said

_log = logging.getLogger("vidstill")


@dataclass(frozen=True)
class DetectionTest:
    """What a test asks, and what the answers are held against.

    Args:
        keyframes: the boxes that are asked about.
        times_person_score: an action's probability is multiplied by the score of whoever found the box.
    """

    split: BoxSplit
    keyframes: Keyframes
    views: BoxViewsConfig
    times_person_score: bool
    matching: MatchingOrder


@dataclass(frozen=True)
class DetectionResult:
    """What a detector made of the boxes that it was asked about.

    Args:
        broken: why key frames could not be scored, by their place; they take no part in the score, nor do their
            annotations.
    """

    test: DetectionTest
    scores: BoxScores
    broken: Mapping[int, str]

    @cached_property
    def frame_map(self) -> FrameMAP:
        """AVA's score."""
        split, frames = self.test.split, self.test.keyframes
        lost = {(frames[place].video.name, frames[place].second) for place in self.broken}
        excluded = split.excluded_keyframes | lost
        return compute_frame_map(
            split.available_annotations,
            self.scores,
            frames.label_map,
            excluded_keyframes=excluded,
            matching=self.test.matching,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number, and what could not be scored."""
        return {
            **self.frame_map.to_dict(),
            "boxes": self.test.keyframes.description,
            "boxes_asked_about": len(self.scores),
            "broken": [self.broken[place] for place in sorted(self.broken)],
        }


def score_detector(
    model: Detector, test: DetectionTest, runtime: Runtime, *, workers: int, device_batch: int | None = None
) -> DetectionResult:
    """Asks a detector; every process does its share, and knows all.

    Args:
        device_batch: key frames that a device takes at once.

    Raises:
        InputError: not one key frame can be scored.
    """
    frames = test.keyframes
    scored, broken = score_boxes(
        model,
        frames,
        test.views,
        runtime,
        times_person_score=test.times_person_score,
        workers=workers,
        device_batch=device_batch,
    )
    if not scored:
        raise InputError(f"none of the {len(broken)} key frames of {frames.source} can be scored; {broken[0]}")
    places = sorted(scored)
    which = np.concatenate([np.arange(frames.box_offsets[place], frames.box_offsets[place + 1]) for place in places])
    counts = np.diff(frames.box_offsets)[places]
    scores = BoxScores(
        video_names=tuple(film.name for film in frames.videos),
        video_index=frames.video_index[places].repeat(counts),
        second=frames.second[places].repeat(counts),
        box=frames.boxes[which],
        action_ids=frames.label_map.action_ids,
        scores=np.concatenate([scored[place] for place in places]),
    )
    return DetectionResult(test, scores, broken)


def check_detection_test(test: DetectionTest, workers: int) -> None:
    """Raises an InputError where no key frame can be tested on: before hours of training, not after them."""
    broken: dict[int, str] = {}
    views, device = KeyframeViewDataset(test.keyframes, test.views), torch.device("cpu")
    if (
        next(iter_view_batches(views, videos_per_batch=1, broken_videos=broken, workers=workers, device=device), None)
        is None
    ):
        raise InputError(
            f"none of the {len(broken)} key frames of {test.keyframes.source} can be tested on; {broken[0]}"
        )


def write_detection_result(folder: Path, result: DetectionResult) -> None:
    """Leaves all that a test found in a folder, as `folder.write_result_dir` does.

    Raises:
        InputError: the folder cannot be written.
    """
    evaluated = result.test.keyframes.label_map.evaluated_ids
    files: dict[str, Callable[[], bytes | Iterable[bytes]]] = {
        DETECTIONS_FILE: lambda: format_box_csv(result.scores, action_ids=evaluated),
        **build_score_files(result.frame_map),
    }
    write_result_dir(folder, files, result.to_dict())


def build_score_files(result: FrameMAP) -> dict[str, Callable[[], bytes | Iterable[bytes]]]:
    """What makes the files of a score."""
    return {ACTIONS_FILE: result.format_classes_csv, CURVES_IMAGE_FILE: lambda: draw_precision_recall(result)}


def score_boxes(
    model: Detector,
    keyframes: Keyframes,
    views: BoxViewsConfig,
    runtime: Runtime,
    *,
    times_person_score: bool,
    workers: int,
    device_batch: int | None = None,
    show_progress: bool = True,
) -> tuple[dict[int, Float32[np.ndarray, "m a"]], dict[int, str]]:
    """Each box's probability of each action, by the key frame's place; and why others have none.

    Every process scores its share, and has the scores of all.

    Args:
        device_batch: key frames that a device takes at once, of those that follow one another and are of one size.
        times_person_score: a probability is multiplied by the score of whoever found the box.
        show_progress: by a progress bar.
    """
    model = model.to(runtime.device).eval()
    scored: dict[int, Float32[np.ndarray, "m a"]] = {}
    broken: dict[int, str] = {}
    share = len(range(runtime.rank, len(keyframes), runtime.world_size))
    coming = iter_view_batches(
        KeyframeViewDataset(keyframes, views),
        videos_per_batch=1,
        broken_videos=broken,
        rank=runtime.rank,
        world_size=runtime.world_size,
        workers=workers,
        device=runtime.device,
    )
    bar = show_progress_bar("testing") if show_progress and runtime.is_main else nullcontext(lambda done, of: None)
    with bar as done, torch.inference_mode(), runtime.autocast():
        for some in _batch_by_size(coming, device_batch or _KEYFRAME_BATCH):
            for place, logits in zip(_get_indices(some), _predict_logits(model, some), strict=True):
                found = logits.float().sigmoid().cpu().numpy()
                if times_person_score:
                    found = found * keyframes[place].scores[:, None].astype(np.float32)
                if np.isfinite(found).all():
                    scored[place] = found
                else:
                    broken[place] = f"{keyframes[place].key} has scores that are no finite numbers"
                    _log.warning("%s; it is not counted", broken[place])
            done(len(scored) + len(broken), share)
        if scored:
            done(share, share)  # the last ones may be broken
    for their_scored, their_broken in runtime.all_gather((scored, broken)):
        scored |= their_scored
        broken |= their_broken
    return scored, broken


def _batch_by_size(views: Iterator[KeyframeView], batch_size: int) -> Iterator[list[KeyframeView]]:
    """Views that follow one another and have clips of one size, so many at most."""
    some: list[KeyframeView] = []
    for view in views:
        if some and (len(some) == batch_size or view.clip.shape != some[0].clip.shape):
            yield some
            some = []
        some.append(view)
    if some:
        yield some


def _get_indices(views: Sequence[KeyframeView]) -> list[int]:
    return [int(view.keyframe_index) for view in views]


def _predict_logits(model: Detector, views: Sequence[KeyframeView]) -> Iterator[Float[Tensor, "m a"]]:
    """Of each view's own boxes; the rows that fill up the others' are left out again."""
    most = max(view.boxes.shape[1] for view in views)
    boxes = torch.cat([F.pad(view.boxes, (0, 0, 0, most - view.boxes.shape[1])) for view in views])
    logits = model(torch.cat([view.clip for view in views]), boxes)
    return (each[: view.boxes.shape[1]] for each, view in zip(logits, views, strict=True))


def evaluate_detector(
    source: str,
    data: BoxDataConfig,
    *,
    workers: Workers = Workers(),
    split: Split = "val",
    matching: MatchingOrder | None = None,
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
        check_output_dir(out, "an evaluation", TEST_FILE, DETECTOR_RESULT_FILES)
    if base_name(parse_path(source)).endswith(".csv"):
        if crop is not None:
            raise InputError(
                "--crop is for a model's test, and the detections of a .csv are there already; leave it out"
            )
        return _evaluate_csv(source, data, split, matching or "score_order_top50", out)
    runtime = runtime or Runtime(workers.precision)
    loaded = load_detector(source)
    parts = data.open_dataset().load_split(split)
    views = loaded.views
    if crop is not None:
        views = replace(views, crop_size=loaded.train_size if crop == "center" else None)
    frames = data.select_test_keyframes(parts, views.min_person_score)
    _check_actions(loaded, frames)
    asked = DetectionTest(
        parts, frames, views, times_person_score=loaded.times_person_score, matching=matching or loaded.matching
    )
    check_detection_test(asked, min(1, workers.num_workers))
    tested = score_detector(
        loaded.model, asked, runtime, workers=workers.num_workers, device_batch=workers.device_batch
    )
    if out is not None and runtime.is_main:
        write_detection_result(out, tested)
    return tested.to_dict()


def _evaluate_csv(
    source: str, data: BoxDataConfig, split: Split, matching: MatchingOrder, out: Path | None
) -> dict[str, Any]:
    """The score of a file of detections; no video is needed."""
    dataset = data.open_dataset()
    (annotated, excluded), actions = dataset.load_annotations(split), dataset.label_map
    detected = read_box_csv(parse_path(source), has_scores=True)
    for sentence in (
        *list_row_warnings(annotated, label_map=actions),
        *list_row_warnings(detected, label_map=actions, annotated_videos=frozenset(annotated.video_names)),
    ):
        _log.warning("%s", sentence)
    found = compute_frame_map(annotated, detected, actions, excluded_keyframes=excluded, matching=matching)
    plain = found.to_dict() | {"boxes": f"{len(detected):,} rows of {source}"}
    if out is not None:
        write_result_dir(out, build_score_files(found), plain)
    return plain


def _check_actions(detector: LoadedDetector, keyframes: Keyframes) -> None:
    """Raises an InputError where an action's number would not mean the same."""
    ours, theirs = keyframes.label_map.names, detector.actions.names
    for number, name in ours.items():
        if theirs.get(number) != name:
            known = f"calls {theirs[number]!r}" if number in theirs else "does not know"
            raise InputError(
                f"{keyframes.source} has the action {number}, {name!r}, which {detector.source} {known}; "
                "give both the same list of actions: --actions"
            )
