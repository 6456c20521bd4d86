"""Scores a detector, or a file of what any detector found, by AVA's mean average precision."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vidstill.data.boxes.doubts import doubts
from vidstill.data.boxes.keyframes import KeyFrames
from vidstill.data.boxes.rows import read_rows
from vidstill.data.listing import Split
from vidstill.data.places import last_name
from vidstill.data.sources import place_of
from vidstill.detection.data import DetectLaunch, boxes_to_ask
from vidstill.detection.load import Loaded, load_detector
from vidstill.detection.test import FILES, Asked, check_asked, score, scored_files, write_test
from vidstill.downstream.ava import Matching, frame_map
from vidstill.engine.runtime import Runtime
from vidstill.folder import check_findings, write_findings
from vidstill.types import InputError

log = logging.getLogger("vidstill")


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
