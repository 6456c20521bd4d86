"""Tests and probes from Python: `evaluate`, `evaluate_detector`, `probe`."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from vidstill.data.manifest.manifest import Split
from vidstill.engine.distributed import Precision
from vidstill.pipelines.api.paths import list_texts, optional_path, optional_text
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.pipelines.evaluate.classifier import evaluate_classifier
from vidstill.pipelines.evaluate.detector import run_detector_evaluation
from vidstill.pipelines.probe.config import ProbeConfig, ProbeKind, ProbeRunConfig, VectorPooling
from vidstill.pipelines.probe.report import ProbeReport
from vidstill.pipelines.probe.run import run_probes
from vidstill.pipelines.run_config import Workers
from vidstill.tasks.metrics.ava_map import MatchingOrder
from vidstill.tasks.results import MultiLabelResult, SingleLabelResult
from vidstill.utils.arguments import check_arguments
from vidstill.utils.types import StrPath


@check_arguments
def evaluate(
    model: StrPath,
    *,
    data: StrPath,
    out: StrPath | None = None,
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
) -> SingleLabelResult | MultiLabelResult:
    """Test a fine-tuned classifier over the views of its recipe.

    Args:
        model: Run directory or weights file.
        data: Labelled videos; their val split, where they have splits.
        out: Directory for the results, as of `vidstill evaluate`; None: they are returned only.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Views that a device processes at once; None: those of one video.
        precision: auto: bf16 where the device computes it fast, else fp32.

    Returns:
        `result.metrics["top1"]`, `result.scores` (one row of probabilities per video), `result.confusion_matrix`, …;
        `print(result)` shows a summary.

    Raises:
        InputError: The model has no classes, or not those of the data.
    """
    run_config = Workers(workers=workers, device_batch=device_batch, precision=precision)
    return evaluate_classifier(os.fspath(model), os.fspath(data), fold=fold, workers=run_config, out=optional_path(out))


@check_arguments
def evaluate_detector(
    model: StrPath,
    *,
    data: StrPath,
    person_boxes: StrPath | None = None,
    actions: StrPath | None = None,
    start_second: float | None = None,
    fps: float = 30.0,
    split: Split = "val",
    matching: MatchingOrder | None = None,
    crop: Literal["full", "center"] | None = None,
    out: StrPath | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
) -> dict[str, Any]:
    """Compute AVA's mean average precision of a detector of actions, or of a file of detections.

    Args:
        model: Run directory or weights file; or a `.csv` of any detector's detections, as AVA's script reads it.
        data: Directory with `annotations` in AVA's formats and the videos beside it: AVA itself, or your own data.
        person_boxes: File of detected person boxes in the test's key frames; None: the file that the data set has;
            "annotated": the annotated boxes themselves, which is an easier test.
        actions: File with the list of actions; None: the data set's own.
        start_second: Second of the annotations' time at which the video files begin; None: it is inferred.
        fps: Frames per second of videos that are directories of frames.
        split: The split that is tested on.
        matching: Order in which detections are matched to ground-truth boxes; None: the model's recipe's, and AVA's own
            for a `.csv`.
        crop: The whole frame, or its central square of the training's size; None: the recipe's.
        out: Directory for the results, as of `vidstill detect evaluate`; None: they are returned only.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Key frames that a device processes at once; None: 8.
        precision: auto: bf16 where the device computes it fast, else fp32.

    Returns:
        The numbers: `["mean_average_precision"]` in percent, `["actions"]`, …

    Raises:
        InputError: The model is none of these, or does not fit the data.
    """
    box_data = BoxDataConfig(
        data=os.fspath(data),
        person_boxes=optional_text(person_boxes),
        actions=optional_text(actions),
        start_second=start_second,
        fps=fps,
    )
    return run_detector_evaluation(
        os.fspath(model),
        box_data,
        workers=Workers(workers=workers, device_batch=device_batch, precision=precision),
        split=split,
        matching=matching,
        crop=crop,
        out=optional_path(out),
    )


@check_arguments
def probe(
    model: StrPath | Sequence[StrPath],
    *,
    data: StrPath | Sequence[StrPath],
    test_data: StrPath | Sequence[StrPath] = (),
    val_share: float | None = None,
    probes: Sequence[ProbeKind] = ("linear", "knn", "attentive"),
    fold: Literal[1, 2, 3] = 1,
    temporal_clips: int = 1,
    spatial_crops: int = 1,
    layers: Sequence[int] = (),
    pool: VectorPooling | None = None,
    penalty: float | None = None,
    k: Sequence[int] = (20,),
    shots: Sequence[int] = (),
    trials: int = 5,
    seed: int = 0,
    cache: StrPath | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
) -> ProbeReport:
    """Fit probes on frozen features of an encoder, or of several, and test them.

    Args:
        model: Run directory or weights file, or several.
        data: Labelled videos, or several such data sets: fitted on the train split, tested on the val split.
        test_data: Labelled test videos of each data set; none: its own val split, or what `val_share` holds out.
        val_share: Share of the training videos held out to test on, of each class alike, by group where a table has the
            column `group`; None: nothing is held out.
        probes: Logistic regression, nearest neighbours, attentive pooling; the latter stores all tokens of all videos.
        fold: Which of the three official splits of UCF101 and HMDB51.
        temporal_clips: Clips per video; its features are the mean over all views.
        spatial_crops: Crops per clip.
        layers: Blocks counted from 1, or backwards from -1; none: the encoder's final output.
        pool: How a clip's tokens are pooled; the attentive probe takes all tokens. None: their mean.
        penalty: Weight of |W|² / 2 in the linear probe; None: by cross-validation, 1 for few-shot probes.
        k: Numbers of neighbours; all training clips if there are fewer.
        shots: Training clips per class of additional few-shot probes.
        trials: Random draws of these clips; the mean is reported.
        seed: Random seed of the draws and of the attentive probe.
        cache: Directory of the features; None: `RUN/features`, or `.vidstill-features` for a file.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Clips that a device processes at once; None: all clips of a batch.
        precision: auto: bf16 where the device computes it fast, else fp32.

    Returns:
        `report.results`: encoder, probe and `score.top1` of each; `print(report.format_table())` shows them.

    Raises:
        InputError: An encoder, data set or argument cannot be used.
    """
    run_config = ProbeRunConfig(
        data=list_texts(data),
        test_data=list_texts(test_data),
        val_share=val_share,
        fold=fold,
        temporal_clips=temporal_clips,
        spatial_crops=spatial_crops,
        layers=tuple(layers),
        pool=pool,
        cache=optional_path(cache),
        workers=workers,
        device_batch=device_batch,
        precision=precision,
    )
    config = ProbeConfig(
        probes=tuple(probes), penalty=penalty, k=tuple(k), shots=tuple(shots), trials=trials, seed=seed
    )
    return run_probes(list_texts(model), run_config, config)
