"""Test a fine-tuned classifier: all views of every video, merged as in the papers, on any number of devices."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidstill.data.ava.samples import KeyframeViewDataset
from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.distributed import Runtime
from vidstill.figures.metrics import draw_confusion_matrix
from vidstill.pipelines.infer.run import run_dataset
from vidstill.pipelines.labeled_data import open_labeled_test, select_held_out
from vidstill.pipelines.run_config import Workers
from vidstill.pipelines.trained_models import load_classifier
from vidstill.recipes.run_file import find_run
from vidstill.tasks.metrics.accuracy import merge_views
from vidstill.tasks.results import MultiLabelResult, SingleLabelResult
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import TEST_FILE
from vidstill.utils.locks import lock_outputs
from vidstill.utils.output_dir import check_output_dir, write_result_dir
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

SCORES_FILE = "scores.csv"
CLASSES_FILE = "classes.csv"
CONFUSION_FILE = "confusion.csv"
CONFUSION_IMAGE_FILE = "confusion.png"
CLASSIFIER_RESULT_FILES = (SCORES_FILE, CLASSES_FILE, CONFUSION_FILE, CONFUSION_IMAGE_FILE)


def evaluate_classifier(
    source: str,
    data: str | Path,
    *,
    fold: int = 1,
    workers: Workers = Workers(),
    out: Path | None = None,
    runtime: Runtime | None = None,
) -> SingleLabelResult | MultiLabelResult:
    """Test a fine-tuned model on labelled videos, with the views of its recipe.

    Args:
        source: Run directory or weights file.
        data: Labelled videos, their val split if they have splits; of the data that a run held out a share of, that.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes, views per device, precision.
        out: Directory for the results, one file each.

    Raises:
        InputError: The weights are not a classifier's, or the videos have other classes.
    """
    if out is not None:
        check_output_dir(out, "an evaluation", TEST_FILE, CLASSIFIER_RESULT_FILES)
    runtime = runtime or Runtime(workers.precision)
    with runtime.enter_on_main(lock_outputs(out)):
        model, checkpoint = load_classifier(source)
        classes, multi_label, run = checkpoint.metadata["classes"], model.config.multi_label, _read_run(source)
        labeled = open_labeled_test(
            data,
            fold=fold,
            multi_label=multi_label,
            allow_train=bool(run.get("val_share")),
            classes=classes,
            classes_source=source,
        )
        manifest, num_training_videos = select_held_out(labeled, run) if run else (labeled, 0)
        if manifest is not labeled and runtime.is_main:
            count = f"the {len(manifest)} of {len(labeled)} {labeled.noun}s of {data}"
            print(f"evaluate: tests {count} that the run held out (a share of {run['val_share']:g})", file=sys.stderr)
        views = from_dict(ViewsConfig, checkpoint.metadata["views"])
        result = score_classifier(model, manifest, classes, views, workers, runtime, multi_label=multi_label)
        result = replace(result, num_training_videos=num_training_videos)
        if out is not None and runtime.is_main:
            write_classification_result(out, result)
        return result


def _read_run(source: str) -> dict[str, Any]:
    """Return the `recipe.json` of a run directory, or of the one that a weights file is in; {} if there is none."""
    path = Path(source)
    run = find_run(path if path.is_dir() else path.parent)
    return dict(run.content) if run and "test" in run.content.get("data", {}) else {}


def score_classifier(
    model: nn.Module,
    manifest: Manifest,
    classes: Sequence[str],
    views: ViewsConfig,
    workers: Workers,
    runtime: Runtime,
    *,
    multi_label: bool = False,
    cache: FrameCache | None = None,
    show_progress: bool = True,
) -> SingleLabelResult | MultiLabelResult:
    """Score all views of each video and merge them; each process scores its share, and has the result of all.

    Args:
        model: Clips of colours in [0, 1] → logits.
        classes: The model's class names.
        workers: Decoding processes and views per device.
        multi_label: Videos may have several labels.
        cache: Where decoded videos are held.

    Raises:
        InputError: No video can be scored.
    """
    model = model.to(runtime.device).eval()

    def predict(clip: Tensor) -> dict[str, Tensor]:
        with runtime.compute(model):
            return {"logits": model(clip)}

    def merge(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"probabilities": merge_views(outputs["logits"], multi_label=multi_label)}

    with show_progress_bar("testing", visible=show_progress and runtime.is_main) as progress:
        records, broken = run_dataset(
            predict,
            ViewClips(manifest, views, cache=cache),
            runtime,
            workers,
            merge=merge,
            require_finite=True,
            progress=progress,
        )
    if not records:
        raise InputError(
            f"none of the {len(broken)} {manifest.noun}s of {manifest.source} could be scored; {broken[0]}"
        )
    scores = torch.from_numpy(np.stack([record.arrays["probabilities"] for record in records.values()]))
    result_class = MultiLabelResult if multi_label else SingleLabelResult
    return result_class(manifest, tuple(classes), tuple(records), scores, broken)


def write_classification_result(
    folder: Path,
    result: SingleLabelResult | MultiLabelResult,
    averaged: Mapping[str, Any] | None = None,
    model_selection: Mapping[str, Any] | None = None,
) -> None:
    """Write the results of a test to a directory, as `write_result_dir` does.

    Args:
        averaged: The numbers of the averaged weights, if there are any.
        model_selection: The epoch of the tested weights and how it was selected, if it was.

    Raises:
        InputError: The directory cannot be written.
    """
    files: dict[str, Callable[[], bytes | Iterable[bytes]]] = {
        SCORES_FILE: result.format_scores_csv,
        CLASSES_FILE: result.format_classes_csv,
    }
    if isinstance(result, SingleLabelResult):
        files[CONFUSION_FILE] = result.format_confusion_csv
        files[CONFUSION_IMAGE_FILE] = lambda: draw_confusion_matrix(result.confusion_matrix, result.classes)
    selection = {"model_selection": dict(model_selection)} if model_selection else {}
    obsolete = set(CLASSIFIER_RESULT_FILES) - set(files)  # of an earlier test with one label per video
    numbers = result.to_dict() | selection | ({"ema": dict(averaged)} if averaged else {})
    write_result_dir(folder, files, numbers, obsolete=obsolete)


def check_decodes(dataset: ViewClips | KeyframeViewDataset, noun: str, workers: Workers) -> None:
    """Raise an InputError if no sample of a test decodes: before hours of training, not after them.

    Args:
        noun: What a sample is, in the plural.
        workers: Whether a process of its own decodes, which can be ended if the decoder hangs.
    """
    broken: dict[int, str] = {}
    batches = iter_view_batches(
        dataset,
        videos_per_batch=1,
        broken_videos=broken,
        workers=min(1, workers.num_workers),
        device=torch.device("cpu"),
    )
    if next(batches, None) is None:
        raise InputError(f"none of the {len(broken)} {noun} of {dataset.manifest.source} can be tested on; {broken[0]}")
