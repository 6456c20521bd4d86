"""Test a detector: score every box of every key frame, on any number of devices, and compute AVA's frame mAP."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from vidstill.data.ava.box_table import BoxScores, format_box_csv, read_box_csv
from vidstill.data.ava.dataset import BoxSplit
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.ava.samples import KeyframeViewDataset
from vidstill.data.ava.validation import list_row_warnings
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import parse_path
from vidstill.data.storage.filesystem import base_name
from vidstill.engine.distributed import Runtime
from vidstill.figures.metrics import draw_precision_recall
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.evaluate.classifier import check_decodes
from vidstill.pipelines.infer.run import run_dataset
from vidstill.pipelines.run_config import Workers
from vidstill.pipelines.trained_models import LoadedDetector, load_detector
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.detection import Detector
from vidstill.tasks.metrics.ava_map import FrameMAP, MatchingOrder, compute_frame_map
from vidstill.utils.files import TEST_FILE
from vidstill.utils.locks import lock_outputs
from vidstill.utils.output_dir import check_output_dir, write_result_dir
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

DETECTIONS_FILE = "detections.csv"
ACTIONS_FILE = "actions.csv"
CURVES_IMAGE_FILE = "curves.png"
DETECTOR_RESULT_FILES = (DETECTIONS_FILE, ACTIONS_FILE, CURVES_IMAGE_FILE)

_KEYFRAME_BATCH = 8  # key frames that the device takes at once by default

_log = logging.getLogger("vidstill")


@dataclass(frozen=True)
class DetectionTest:
    """Annotations, key frames with the boxes to score, and the recipe that has the views and the rules."""

    split: BoxSplit
    keyframes: Keyframes
    recipe: DetectionRecipe

    @property
    def samples(self) -> KeyframeViewDataset:
        return KeyframeViewDataset(self.keyframes, self.recipe.views)


@dataclass(frozen=True)
class DetectionResult:
    """A detector's scores of the boxes of a test.

    Args:
        broken: Why key frames could not be scored, by index; their annotations are ignored.
    """

    test: DetectionTest
    scores: BoxScores
    broken: Mapping[int, str]

    @cached_property
    def frame_map(self) -> FrameMAP:
        split, keyframes = self.test.split, self.test.keyframes
        broken = {(keyframes[index].video.name, keyframes[index].second) for index in self.broken}
        return compute_frame_map(
            split.available_annotations,
            self.scores,
            keyframes.label_map,
            excluded_keyframes=split.excluded_keyframes | broken,
            matching=self.test.recipe.matching_rule,
        )

    def write(self, folder: Path, averaged: Mapping[str, Any] | None = None) -> None:
        """Write all results to a directory, as `write_result_dir` does; an InputError if it cannot be written.

        Args:
            averaged: The numbers of the averaged weights, if there are any.
        """
        action_ids = self.test.keyframes.label_map.evaluated_ids
        files = {DETECTIONS_FILE: partial(format_box_csv, self.scores, action_ids=action_ids)}
        result = self.to_dict() | ({"ema": dict(averaged)} if averaged else {})
        write_result_dir(folder, {**files, **_build_score_files(self.frame_map)}, result)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, and what could not be scored."""
        return {
            **self.frame_map.to_dict(),
            "boxes": self.test.keyframes.description,
            "scored_boxes": len(self.scores),
            "broken_keyframes": list(self.broken.values()),
        }


def run_detector_evaluation(
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
    """Compute the frame mAP of a detector, or of a `.csv` of detections, on a dataset's split.

    Args:
        source: Run directory, weights file, or `.csv`.
        data: The dataset and its person boxes.
        workers: Decoding processes, key frames per device, precision.
        matching: Order of matching; None: the model's recipe's, and AVA's own for a `.csv`.
        crop: The full frame or a centre square; None: as in the model's recipe.
        out: Directory for the results.

    Returns:
        The numbers, for JSON.

    Raises:
        InputError: The source is none of these, or does not fit the data.
    """
    if out is not None:
        check_output_dir(out, "an evaluation", TEST_FILE, DETECTOR_RESULT_FILES)
    runtime = runtime or Runtime(workers.precision)
    with runtime.enter_on_main(lock_outputs(out)):
        if base_name(parse_path(source)).endswith(".csv"):
            if crop is not None:
                raise InputError("--crop does not apply to the detections of a .csv; leave it out")
            result_out = out if runtime.is_main else None
            return _evaluate_csv(source, data, split, matching or "score_order_top50", result_out)
        detector = load_detector(source)
        box_split = data.open_dataset().load_split(split)
        recipe = replace(detector.recipe, matching_rule=matching or detector.recipe.matching_rule)
        if crop is not None:
            crop_size = recipe.clips.size if crop == "center" else None
            recipe = replace(recipe, views=replace(recipe.views, crop_size=crop_size))
        keyframes = data.select_test_keyframes(box_split, recipe.views.min_person_score)
        _check_actions(detector, keyframes)
        test = DetectionTest(box_split, keyframes, recipe)
        check_decodes(test.samples, "key frames", workers)
        result = score_detector(detector.model, test, workers, runtime)
        if out is not None and runtime.is_main:
            result.write(out)
        return result.to_dict()


def _evaluate_csv(
    source: str, data: BoxDataConfig, split: Split, matching: MatchingOrder, out: Path | None
) -> dict[str, Any]:
    """Compute the frame mAP of a file of detections; the videos are not needed."""
    ground_truth = data.open_dataset().load_split(split)
    annotations, label_map = ground_truth.annotations, ground_truth.dataset.label_map
    detections = read_box_csv(parse_path(source), has_scores=True)
    for warning in (
        *list_row_warnings(annotations, label_map=label_map),
        *list_row_warnings(detections, label_map=label_map, annotated_videos=frozenset(annotations.video_names)),
    ):
        _log.warning("%s", warning)
    excluded = ground_truth.excluded_keyframes
    result = compute_frame_map(annotations, detections, label_map, excluded_keyframes=excluded, matching=matching)
    metrics = result.to_dict() | {"boxes": f"{len(detections):,} rows of {source}"}
    if out is not None:
        write_result_dir(out, _build_score_files(result), metrics)
    return metrics


def score_detector(model: Detector, test: DetectionTest, workers: Workers, runtime: Runtime) -> DetectionResult:
    """Score every box of a test; each process scores its share, and has the result of all.

    Args:
        workers: Decoding processes; key frames that the device takes at once, if consecutive and of one size.

    Raises:
        InputError: No key frame can be scored.
    """
    keyframes, model = test.keyframes, model.to(runtime.device).eval()

    def predict(clip: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        with runtime.compute(model):
            return {"scores": model(clip, boxes).float().sigmoid()}

    with show_progress_bar("testing", visible=runtime.is_main) as progress:
        records, broken = run_dataset(
            predict,
            test.samples,
            runtime,
            replace(workers, device_batch=workers.device_batch or _KEYFRAME_BATCH),
            require_finite=True,
            progress=progress,
        )
    if not records:
        raise InputError(f"none of the {len(broken)} key frames of {keyframes.source} can be scored; {broken[0]}")
    indices = np.array(list(records))
    counts = np.diff(keyframes.box_offsets)[indices]
    rows = np.isin(np.arange(len(keyframes)), indices).repeat(np.diff(keyframes.box_offsets))
    scores = np.concatenate([record.arrays["scores"] for record in records.values()])
    if test.recipe.use_person_scores:
        scores = scores * keyframes.scores[rows, None].astype(np.float32)
    result = BoxScores(
        video_names=tuple(video.name for video in keyframes.videos),
        video_index=keyframes.video_index[indices].repeat(counts),
        second=keyframes.second[indices].repeat(counts),
        box=keyframes.boxes[rows],
        action_ids=keyframes.label_map.action_ids,
        scores=scores,
    )
    return DetectionResult(test, result, broken)


def _build_score_files(result: FrameMAP) -> dict[str, Callable[[], bytes | Iterable[bytes]]]:
    return {ACTIONS_FILE: result.format_classes_csv, CURVES_IMAGE_FILE: partial(draw_precision_recall, result)}


def _check_actions(detector: LoadedDetector, keyframes: Keyframes) -> None:
    """Raise an InputError if an action's number has another meaning for the detector."""
    names = detector.actions.names
    for action_id, name in keyframes.label_map.names.items():
        if names.get(action_id) != name:
            difference = f"calls {names[action_id]!r}" if action_id in names else "does not know"
            raise InputError(
                f"{keyframes.source} has the action {action_id}, {name!r}, which {detector.source} {difference}; "
                "give both the same list of actions: --actions"
            )
