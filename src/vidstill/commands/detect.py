"""What `vidstill detect train` and `detect evaluate` do: their options are the functions' signatures, read by tyro."""

import json as jsons
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill.detection import evaluate as scoring
from vidstill.detection import train as training
from vidstill.detection.data import DetectLaunch
from vidstill.downstream.ava import Matching, in_words
from vidstill.engine.runtime import Precision
from vidstill.folder import TEST_FILE
from vidstill.recipes.recipe import Detect
from vidstill.terminal import tell

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix


def train(*, launch: Annotated[DetectLaunch, Flat], init: str | None = None, recipe: Annotated[Detect, Flat]) -> None:
    """Trains a detector of what the persons in boxes do, and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from, pre-trained or fine-tuned; None: from scratch.
    """
    out = training.train(recipe, launch, init=init)
    tell(f"trained: {out}\n{in_words(jsons.loads((out / TEST_FILE).read_text()))}")


def evaluate(
    source: Positional[str],
    /,
    *,
    data: str,
    persons: str | None = None,
    actions: str | None = None,
    start: float | None = None,
    frame_rate: float = 30.0,
    split: Literal["val", "train"] = "val",
    matching: Matching | None = None,
    crop: Literal["full", "center"] | None = None,
    out: Path | None = None,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Tests a detector, or scores a file of detections: AVA's mean average precision, each action, its curve.

    Args:
        source: a run's folder or a file of weights; or the rows that any detector gave, a .csv of
            video,second,x1,y1,x2,y2,action,score.
        data: a folder with `annotations` in AVA's formats and videos beside them; of a .csv no videos are needed.
        persons: boxes that a detector of persons found, which are asked about; None: the file that the data have;
            annotated: the annotated boxes themselves, which is an easier test.
        actions: a list of the actions; None: the data's.
        start: the second of the annotations' time at which the videos' files begin; None: it is found.
        frame_rate: frames per second, where videos are folders of frames.
        split: whose annotations.
        matching: in which order a key frame's detections choose their annotated boxes: score_order_top50, by score,
            the 50 best rows alone (AVA's own script); score_order; file_order (PySlowFast's). None: the model's
            recipe's, and AVA's own for a .csv.
        crop: the whole frame, or a square in its middle of the size that was trained on; None: the recipe's.
        out: a folder to leave all findings in: test.json, detections.csv, actions.csv, curves.png. None: they are told.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: key frames that a device takes at once; None: 8.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = DetectLaunch(
        data=data,
        out=Path(),
        persons=persons,
        actions=actions,
        start=start,
        frame_rate=frame_rate,
        workers=workers,
        device_batch=device_batch,
        precision=precision,
    )
    found = scoring.evaluate(source, launch, split=split, matching=matching, crop=crop, out=out)
    tell(jsons.dumps(found, indent=1) if json else in_words(found))


VERBS: dict[str, Callable[..., None]] = {"detect evaluate": evaluate}
