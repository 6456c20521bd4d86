"""Persons in keyframes: a detector's boxes in a CSV file, by one process or several; a killed call resumes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, format_box_csv
from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.decode.images import ImageArray
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.storage.filesystem import stat_source
from vidstill.engine.distributed import Runtime
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.pipelines.infer.keyframe_sets import KeyframeSet
from vidstill.pipelines.infer.person_detector import PersonDetections, PersonDetector
from vidstill.pipelines.infer.run import Clip, ProgressFn, gather, open_journal, run
from vidstill.pipelines.run_config import Workers
from vidstill.utils.files import write_bytes
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError

RECALL_IOU = 0.5
"""An annotated box is found if a detected one overlaps it by this intersection over union."""

CONFIDENT_SCORE = 0.8
"""The score from which the recipes of VideoMAE's detection code use a box."""

_DECIMALS = 5  # of coordinates and scores: a fiftieth of a pixel in a frame of 1,920 columns
_DEFAULT_BATCH = 8  # key frames


class KeyframeKey(NamedTuple):
    """Identifies a key frame."""

    video: KeyframeVideo
    second: int


@dataclass(frozen=True)
class PersonBoxReport:
    """What was written.

    Args:
        empty_keyframes: Key frames without a person.
        annotated_boxes: Persons annotated in these key frames; 0 without annotations.
        recall: Fraction of the annotated boxes that were found; `confident_recall`: by boxes of `CONFIDENT_SCORE` or
            more.
        broken: The reason for each video of which some key frames could not be read.
    """

    out: Path
    keyframes: int
    boxes: int
    empty_keyframes: int
    annotated_boxes: int
    recall: float | None
    confident_recall: float | None
    broken: tuple[str, ...]


def find_person_boxes(
    detector: PersonDetector,
    keyframes: KeyframeSet,
    out: Path,
    *,
    runtime: Runtime,
    workers: Workers = Workers(),
    progress: ProgressFn = lambda done, total: None,
) -> PersonBoxReport:
    """Find the persons in all key frames and write `video,second,x1,y1,x2,y2,,score`, as PySlowFast reads it.

    Each rank does its share. Results are kept in `OUT.journal` until the file is complete, so the same call resumes.

    Args:
        workers: Decoding processes, and key frames per batch (None: 8).
        progress: Called with the number of finished key frames of this rank, and the number in its share.

    Raises:
        InputError: `out` exists or cannot be written, or no key frame can be read.
    """
    settings = {
        "detector": detector.architecture,
        "weights": detector.weights_hash,
        "min_person_score": detector.min_score,
        "max_persons": detector.max_persons,
    }
    keys = [KeyframeKey(video, second) for video, seconds in keyframes.seconds.items() for second in seconds]
    stamps = {video: _stamp_video(video) for video in keyframes.seconds}
    if runtime.broadcast(out.exists()):
        raise InputError(f"{out} exists; move it away, or choose another file with --out")

    def detect(clip: Tensor) -> dict[str, list[Tensor]]:
        with runtime.autocast():
            return detector.detect(clip)

    with open_journal(Journal(out, settings, runtime.rank), runtime) as journal:
        finished = runtime.run_on_main(lambda: _read_finished(journal, keys, stamps))
        batch = workers.device_batch or _DEFAULT_BATCH
        missing = [index for index in range(len(keys)) if index not in finished]
        batches = _split_batches(missing, keys, batch)[runtime.rank :: runtime.world_size]
        total = sum(map(len, batches))
        persons: dict[int, PersonDetections] = {}
        failed: dict[int, str] = {}
        progress(0, total)
        clips = _iter_images(keys, batches, workers.num_workers, failed)
        for record in run(detect, clips, runtime, batch=batch):
            (video, second), boxes, scores = keys[record.video], record.arrays["boxes"], record.arrays["scores"]
            key = {"key": (video.name, second), "stamp": stamps[video]}
            journal.append({**key, "boxes": boxes.tolist(), "scores": scores.tolist()})
            persons[record.video] = PersonDetections(boxes, scores)
            progress(len(persons) + len(failed), total)
        progress(total, total)
        by_index = sorted((finished | gather(runtime, persons)).items())
        detections = {keys[index]: each for index, each in by_index}
        reasons: dict[KeyframeVideo, str] = {}
        for index, reason in gather(runtime, failed).items():
            reasons.setdefault(keys[index].video, reason)
        broken = (*keyframes.skipped, *reasons.values())
        boxes_written = runtime.run_on_main(lambda: _write_boxes(out, detections, broken, journal))
    return PersonBoxReport(
        out=out,
        keyframes=len(detections),
        boxes=boxes_written,
        empty_keyframes=sum(not len(each.scores) for each in detections.values()),
        **_compute_recall(keyframes, detections),
        broken=broken,
    )


def _read_finished(
    journal: Journal, keys: Sequence[KeyframeKey], stamps: Mapping[KeyframeVideo, str]
) -> dict[int, PersonDetections]:
    """Return the persons of the finished key frames by index, of videos that have not changed."""
    done, finished = journal.done(), {}
    for index, (video, second) in enumerate(keys):
        record = done.get((video.name, second))
        if record is not None and record["stamp"] == stamps[video]:
            boxes = np.array(record["boxes"], np.float64).reshape(-1, 4)
            finished[index] = PersonDetections(boxes, np.array(record["scores"], np.float64))
    return finished


def _stamp_video(video: KeyframeVideo) -> str:
    """Return a video's path and rate, and a file's size and time."""
    state = None if video.path is None else stat_source(video.path)
    return f"{video.path} {video.start_second:g} {video.frame_rate:g} {state}"


def _split_batches(indices: Sequence[int], keys: Sequence[KeyframeKey], size: int) -> list[list[int]]:
    """Split key frames into batches of one video each, which are read together."""
    by_video = [list(group) for _, group in groupby(indices, key=lambda index: keys[index].video)]
    return [group[first : first + size] for group in by_video for first in range(0, len(group), size)]


def _iter_images(
    keys: Sequence[KeyframeKey], batches: Sequence[list[int]], workers: int, failed: dict[int, str]
) -> Iterator[Clip]:
    """Yield key frames as clips of one frame; `failed` receives the index of each that cannot be read, and why."""
    read = partial(_read_images, KeyframeClipReader(), keys)
    results: Iterator[tuple[int, list[ImageArray | str] | LostTask]] = enumerate(map(read, batches))
    if workers and batches:
        results = map_in_workers(
            read, batches, workers=workers, items_per_worker=2, describe=lambda batch: str(keys[batch[0]].video.path)
        )
    for number, images in results:
        if isinstance(images, LostTask):
            video, second = keys[batches[number][0]]
            lost = f"{video.path}: reading its second {second} or one soon after {images.reason}"
            images = [lost] * len(batches[number])
        for index, image in zip(batches[number], images, strict=True):
            if isinstance(image, str):
                failed[index] = image
            else:  # the workers' memory is reused
                yield Clip(index, torch.from_numpy(rearrange(image, "h w c -> 1 c 1 h w").copy()))


def _read_images(
    reader: KeyframeClipReader, keys: Sequence[KeyframeKey], indices: Sequence[int]
) -> list[ImageArray | str]:
    """Return the images of key frames of one video, or the reason why there is none."""
    video, seconds = keys[indices[0]].video, [keys[index].second for index in indices]
    with suppress(BrokenVideo):
        return [*reader.read_keyframes(video, seconds)]
    images: list[ImageArray | str] = []
    for second in seconds:
        try:
            images += reader.read_keyframes(video, [second])
        except BrokenVideo as error:
            images.append(str(error))
    return images


def _write_boxes(
    out: Path, detections: Mapping[KeyframeKey, PersonDetections], broken: Sequence[str], journal: Journal
) -> int:
    """Write the file, without boxes that round to no width or height; return the number of boxes.

    Raises:
        InputError: There is nothing to write, or it cannot be written.
    """
    if not detections:
        journal.remove()
        raise InputError(f"no key frame can be read; {broken[0]}" if broken else "there are no key frames")
    rows = [
        (video.name, (second, *box, NO_ACTION, score))
        for (video, second), persons in detections.items()
        for box, score in zip(persons.boxes.round(_DECIMALS).tolist(), persons.scores.tolist(), strict=True)
        if box[2] > box[0] and box[3] > box[1]
    ]
    names, numbers = [name for name, _ in rows], [row for _, row in rows]
    table = BoxTable.from_rows(out, names, numbers, range(1, len(rows) + 1))
    write_bytes(out, format_box_csv(table, decimals=(_DECIMALS, _DECIMALS)))
    journal.remove()
    return len(rows)


def _compute_recall(keyframes: KeyframeSet, detections: Mapping[KeyframeKey, PersonDetections]) -> dict[str, Any]:
    """Return the number of persons annotated in these key frames, and the fractions that were found."""
    from torchvision.ops import box_iou  # two seconds to import

    annotated, matched, confident = 0, 0, 0
    for (video, second), persons in detections.items():
        if len(boxes := keyframes.annotated_boxes.get((video.name, second), ())):
            annotated += len(boxes)
            overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(persons.boxes)).numpy() >= RECALL_IOU
            matched += int(overlaps.any(axis=1).sum())
            confident += int(overlaps[:, persons.scores >= CONFIDENT_SCORE].any(axis=1).sum())
    recalls = (matched / annotated, confident / annotated) if annotated else (None, None)
    return {"annotated_boxes": annotated, "recall": recalls[0], "confident_recall": recalls[1]}
