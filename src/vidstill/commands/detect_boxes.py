"""What `vidstill detect boxes` does: its options are the function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vidstill.data.annotations import Split
from vidstill.data.sources import place_of
from vidstill.data.words import counted, one_line
from vidstill.detection.boxes import SURE, Boxes, find_boxes_of_persons
from vidstill.detection.moments import find_moments
from vidstill.detection.persons import USUAL, load_persons
from vidstill.engine.runtime import Runtime
from vidstill.terminal import progress_bar, tell
from vidstill.training import AnyLaunch

_SHOWN = 10  # of many sentences


def boxes(
    data: Positional[str],
    /,
    *,
    out: Path,
    split: Split = "val",
    every: int | None = None,
    detector: str = USUAL,
    weights: str | None = None,
    score: float = 0.05,
    most: int = 100,
    batch: int = 8,
    workers: int = -1,
    json: bool = False,
) -> None:
    """Finds the persons in key frames, and writes a csv of their boxes; the same command again goes on.

    It ends with exit code 1 if a video could not be read, or not to its end; all others are done.

    Args:
        data: a data set with boxes, for its key frames; or a video, a folder of videos or a list of them.
        out: the csv to write: video,second,x1,y1,x2,y2,,score; unfinished work lies in OUT.begun.
        split: of a data set with boxes.
        every: seconds from one key frame to the next; None: a data set's own key frames, else 1.
        detector: one of torchvision's, by its name there, such as fasterrcnn_mobilenet_v3_large_fpn.
        weights: a .pth or .safetensors of the detector, one's own or fetched by hand; None: torchvision's of COCO.
        score: persons with a higher score are written.
        most: persons of a key frame, those with the highest scores.
        batch: key frames that go through the detector at once.
        workers: processes that decode; -1: one less than there are cores.
        json: as JSON, for programs.
    """
    runtime = Runtime("fp32")
    decoders = AnyLaunch(data=data, out=out, workers=workers).decoders
    found = load_persons(detector, weights, runtime=runtime, score=score, most=most)
    moments = find_moments(place_of(data), split=split, every=every, workers=max(1, decoders))
    if runtime.is_main:
        print(f"detect boxes: {counted(len(moments), 'key frame')}; {moments.kind}", file=sys.stderr)
    bar: Any = progress_bar("key frames") if runtime.is_main else nullcontext()
    with bar as done:
        written = find_boxes_of_persons(found, moments, out, runtime=runtime, batch=batch, workers=decoders, done=done)
    if runtime.is_main:
        tell(jsons.dumps(written.plain(), indent=1) if json else _in_words(written))
        if written.broken:
            sys.exit(1)


def _in_words(found: Boxes) -> str:
    lines = [
        f"persons: {one_line(str(found.out))}; {counted(found.boxes, 'person')} in "
        f"{counted(found.key_frames, 'key frame')}, {found.without:,} of them without any"
    ]
    if found.recall is not None and found.sure is not None:
        lines.append(
            f"annotated persons: {found.recall:.1%} of {found.annotated:,} are found (IoU 0.5), "
            f"{found.sure:.1%} with a score of {SURE:g} or more"
        )
    if found.broken:
        lines.append(f"left out, wholly or in part: {counted(len(found.broken), 'video')}")
        lines += [f"  {one_line(sentence)}" for sentence in found.broken[:_SHOWN]]
        if len(found.broken) > _SHOWN:
            lines.append(f"  and {len(found.broken) - _SHOWN} more, which --json names")
    return "\n".join(lines)


VERBS: dict[str, Callable[..., None]] = {"detect boxes": boxes}
