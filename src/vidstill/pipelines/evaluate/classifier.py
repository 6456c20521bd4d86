"""A fine-tuned model's test: every view of every video, merged as in the papers, by one process or by several."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_test_manifest
from vidstill.engine.distributed import Runtime
from vidstill.figures.confusion import draw_confusion_matrix
from vidstill.pipelines.classifier_checkpoint import load_classifier
from vidstill.pipelines.infer.run import score_videos
from vidstill.pipelines.workers import Workers
from vidstill.tasks.results import MultiLabelResult, SingleLabelResult
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import TEST_FILE, check_output_dir, write_result_dir
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

SCORES_FILE = "scores.csv"
CLASSES_FILE = "classes.csv"
CONFUSION_FILE = "confusion.csv"
CONFUSION_IMAGE_FILE = "confusion.png"
CLASSIFIER_RESULT_FILES = (SCORES_FILE, CLASSES_FILE, CONFUSION_FILE, CONFUSION_IMAGE_FILE)

_log = logging.getLogger("vidstill")


def evaluate_classifier(
    source: str,
    data: str | Path,
    *,
    fold: int = 1,
    workers: Workers = Workers(),
    out: Path | None = None,
    runtime: Runtime | None = None,
) -> SingleLabelResult | MultiLabelResult:
    """Tests a fine-tuned model on labelled videos, with the views of its recipe.

    Args:
        source: Run directory or weights file.
        data: Labelled videos, their val split if they have splits.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes, views per device, precision.
        out: Directory for the results, one file each.

    Raises:
        InputError: the weights are no classifier's, or the videos have other classes.
    """
    if out is not None:
        check_output_dir(out, "an evaluation", TEST_FILE, CLASSIFIER_RESULT_FILES)
    runtime = runtime or Runtime(workers.precision)
    model, weights = load_classifier(source)
    several = model.config.multi_label
    listing = require_labels(open_test_manifest(data, fold=fold), multi_label=several)
    classes = weights.metadata["classes"]
    check_classes(listing, classes, source)
    views = from_dict(ViewsConfig, weights.metadata["views"])
    tested = score_classifier(model, listing, classes, views, workers, runtime, multi_label=several)
    if out is not None and runtime.is_main:
        write_classification_result(out, tested)
    return tested


def score_classifier(
    model: nn.Module,
    manifest: Manifest,
    classes: Sequence[str],
    views: ViewsConfig,
    workers: Workers,
    runtime: Runtime,
    *,
    multi_label: bool = False,
    show_progress: bool = True,
) -> SingleLabelResult | MultiLabelResult:
    """The views of each video, merged as VideoMAE does; every process takes its share of the videos.

    Args:
        model: clips of colours in [0, 1] → logits.
        classes: the model's.
        multi_label: a video may show several of them.
        show_progress: by a progress bar.

    Raises:
        InputError: not one video can be scored.
    """
    bar = show_progress_bar("testing") if show_progress else nullcontext(lambda done, of: None)
    with bar as done:
        scored, broken = score_videos(
            model,
            manifest,
            views,
            runtime,
            workers=workers.num_workers,
            batch=workers.device_batch,
            multi_label=multi_label,
            progress=done if runtime.is_main else None,
        )
    if not scored:
        raise InputError(f"none of the {len(broken)} videos of {manifest.source} could be scored; {broken[0]}")
    places = sorted(scored)
    kind = MultiLabelResult if multi_label else SingleLabelResult
    return kind(manifest, tuple(classes), tuple(places), torch.stack([scored[place] for place in places]), broken)


def write_classification_result(
    folder: Path, result: SingleLabelResult | MultiLabelResult, model_selection: Mapping[str, Any] | None = None
) -> None:
    """Leaves all that a test found in a folder, as `folder.write_result_dir` does.

    Args:
        model_selection: what chose the weights that were tested, where something did.

    Raises:
        InputError: the folder cannot be written.
    """
    files: dict[str, Callable[[], bytes | Iterable[bytes]]] = {
        SCORES_FILE: result.format_scores_csv,
        CLASSES_FILE: result.format_classes_csv,
    }
    if isinstance(result, SingleLabelResult):
        files[CONFUSION_FILE] = result.format_confusion_csv
        files[CONFUSION_IMAGE_FILE] = lambda: draw_confusion_matrix(result.confusion_matrix, result.classes)
    for name in set(CLASSIFIER_RESULT_FILES) - set(files):
        (folder / name).unlink(missing_ok=True)  # of an earlier test, of the other kind
    write_result_dir(
        folder, files, result.to_dict() | ({"model_selection": dict(model_selection)} if model_selection else {})
    )


def check_views(manifest: Manifest, views: ViewsConfig, workers: int) -> None:
    """Raises an InputError where no video can be tested: before hours of training, not after them."""
    broken: dict[int, str] = {}
    clips, device = ViewClips(manifest, views), torch.device("cpu")
    batches = iter_view_batches(clips, videos_per_batch=1, broken_videos=broken, workers=workers, device=device)
    if next(batches, None) is None:
        raise InputError(f"none of the {len(broken)} videos of {manifest.source} can be tested on; {broken[0]}")


def require_labels(manifest: Manifest, *, multi_label: bool = False) -> Manifest:
    """
    Args:
        multi_label: whether videos may have several labels.

    Raises:
        InputError: not every video has a label, or one has several where it may not.
    """
    if manifest.multi_label and not multi_label:
        raise InputError(
            f"{manifest.source} has videos with several labels, and one for each is asked for; give it one for each"
        )
    if not manifest.classes or manifest.rows.labels.min() < 0:
        raise InputError(
            f"{manifest.source} has no labels ({manifest.description}); take class folders or a list `path label`"
        )
    return manifest


def check_classes(manifest: Manifest, expected_classes: Sequence[str], expected_source: str) -> None:
    """Raises an InputError where labels would not mean the same; numbers without names are taken at their word."""
    ours = manifest.classes
    numbered = list(ours) == [str(label) for label in range(len(ours))]
    strays = ours[len(expected_classes) :] if numbered else [name for name in ours if name not in expected_classes]
    if list(ours) == list(expected_classes) or (numbered and not strays):
        return
    what = (
        f"the class {strays[0]!r}, which {expected_source} has not"
        if strays
        else f"{len(ours)} classes, {expected_source} {len(expected_classes)}"
    )
    raise InputError(f"{manifest.source} has {what}; give both the same classes, in the same order")


def check_train_classes(train: Manifest, test: Manifest) -> None:
    """Raises an InputError where a test asks for a class that training does not show, or training shows one alone."""
    taught, asked = (np.unique(each.rows.list_label_pairs()[1]) for each in (train, test))
    if len(taught) < 2:
        raise InputError(
            f"{train.source} has videos of one class only, {train.classes[taught[0]]!r}; give two or more to tell apart"
        )
    if len(strays := np.setdiff1d(asked, taught)):
        raise InputError(
            f"{test.source} asks for the class {train.classes[strays[0]]!r}, of which {train.source} has no video to "
            "train on; add some there, or take the class out of the test"
        )
