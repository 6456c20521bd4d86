"""Boxes of the persons in key frames, found by a detector: each process finds its share, the first writes the file."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torchvision.ops import box_iou

from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.ava.dataset import BoxSplit, open_box_dataset
from vidstill.data.ava.frame_sampling import round_half_up
from vidstill.data.decode.images import ImageArray, is_image_file
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, count_frames, read_frame_rate
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, ShardMember
from vidstill.data.storage.filesystem import base_name, is_directory, list_directories, list_files
from vidstill.engine.distributed import Runtime
from vidstill.parallel.pool import LostTask, WorkerPool, map_in_order, map_in_workers
from vidstill.pipelines.infer.journal import KeyframeKey, PersonJournal
from vidstill.pipelines.infer.person_detector import PersonDetections, PersonDetector
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError, check_range

_ProgressFn = Callable[[float, float], None]

RECALL_IOU = 0.5
"""An annotated box is found if a box overlaps it by so much (intersection over union)."""

CONFIDENT_SCORE = 0.8
"""The score from which the recipes of VideoMAE's detection code ask about a box."""


@dataclass(frozen=True)
class PersonBoxReport:
    """What was found.

    Args:
        empty_keyframes: key frames in which no person was found.
        annotated_boxes: boxes of persons that are annotated in these key frames; 0 where there are no annotations.
        recall: the share of these that was found; `sure` by boxes with a score of `CONFIDENT_SCORE` or more.
        broken: a sentence for each film that could not be read, or not all of it.
    """

    out: Path
    keyframes: int
    boxes: int
    empty_keyframes: int
    annotated_boxes: int
    recall: float | None
    confident_recall: float | None
    broken: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


class _KeyframeBatch(NamedTuple):
    """Some of a film's key frames, which are read and looked at together."""

    video: KeyframeVideo
    seconds: tuple[int, ...]


@dataclass(frozen=True)
class KeyframeSet:
    """MomentKey frames in the order of their films and seconds.

    Args:
        seconds: of each film, ascending.
        description: in words, what they are of.
        annotated_boxes: the boxes of persons by film and second, each once; nothing where there are no annotations.
        skipped: a sentence for each film that nothing can be read of.
    """

    videos: tuple[KeyframeVideo, ...]
    seconds: tuple[tuple[int, ...], ...]
    description: str = "key frames"
    annotated_boxes: Mapping[tuple[str, int], Float64[np.ndarray, "m 4"]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.seconds))


def find_person_boxes(
    detector: PersonDetector,
    keyframes: KeyframeSet,
    out: Path,
    *,
    runtime: Runtime,
    batch: int = 8,
    workers: int = 0,
    progress: _ProgressFn | None = None,
) -> PersonBoxReport:
    """Finds the persons in all key frames, and writes `video,second,x1,y1,x2,y2,,score`, as PySlowFast reads it.

    What is found is kept in `OUT.begun` until the file is whole, so that the same call goes on where it was stopped.

    Args:
        batch: key frames of one film that go through the detector at once.
        workers: processes that decode; 0: this one does.
        progress: is told how many key frames of this process's share are done, and of how many.

    Raises:
        InputError: `out` is there, or cannot be written; not one key frame can be read.
    """
    check_range(1, math.inf, batch=batch)
    about = {
        "detector": detector.architecture,
        "weights": detector.weights_hash,
        "score": detector.min_score,
        "most": detector.max_persons,
    }
    kept = PersonJournal.for_output(out, about, keyframes.videos)
    known = runtime.run_on_main(lambda: kept.open(out))
    works = [
        _KeyframeBatch(film, tuple(lacking[first : first + batch]))
        for film, seconds in zip(keyframes.videos, keyframes.seconds, strict=True)
        if (lacking := [second for second in seconds if KeyframeKey(film.name, second) not in known])
        for first in range(0, len(lacking), batch)
    ]
    tell = progress or (lambda number, of: None)
    found, broken = _detect_share(detector, kept, runtime, works[runtime.rank :: runtime.world_size], workers, tell)
    for theirs, their_broken in runtime.all_gather((found, broken)):
        found |= theirs
        broken |= their_broken
    found |= known
    sentences = (*keyframes.skipped, *(broken[film.name] for film in keyframes.videos if film.name in broken))
    keys = [
        key
        for film, seconds in zip(keyframes.videos, keyframes.seconds, strict=True)
        for second in seconds
        if (key := KeyframeKey(film.name, second)) in found
    ]
    boxes = runtime.run_on_main(lambda: kept.write_boxes(out, keys, found, sentences))
    recalls = _compute_recall(keyframes, {key: found[key] for key in keys})
    return PersonBoxReport(
        out=out,
        keyframes=len(keys),
        boxes=boxes,
        empty_keyframes=sum(not len(found[key].scores) for key in keys),
        **recalls,
        broken=sentences,
    )


def _detect_share(
    detector: PersonDetector,
    journal: PersonJournal,
    runtime: Runtime,
    batches: Sequence[_KeyframeBatch],
    workers: int,
    progress: _ProgressFn,
) -> tuple[dict[KeyframeKey, PersonDetections], dict[str, str]]:
    """The persons of this process's key frames, and by film why some of its could not be read."""
    found: dict[KeyframeKey, PersonDetections] = {}
    broken: dict[str, str] = {}
    passed, of = 0, sum(len(work.seconds) for work in batches)
    progress(passed, of)
    for work, pictures, why in _read_batches(batches, workers):
        if why:
            broken.setdefault(work.video.name, why)
        persons = detector(list(pictures.values())) if pictures else []
        now = {KeyframeKey(work.video.name, second): each for second, each in zip(pictures, persons, strict=True)}
        journal.append(runtime.rank, now)
        found |= now
        passed += len(work.seconds)
        progress(passed, of)
    return found, broken


def _read_batches(
    batches: Sequence[_KeyframeBatch], workers: int
) -> Iterator[tuple[_KeyframeBatch, Mapping[int, ImageArray], str]]:
    """The pictures of each work by their seconds, and why some are not there."""
    read_one = partial(_read_batch, KeyframeClipReader())
    if workers < 1 or not batches:
        yield from ((work, *read_one(work)) for work in batches)
        return
    ahead = 2 * workers
    with WorkerPool(read_one, workers=workers, max_pending=ahead, tasks_per_worker=1) as crew:
        for work, read in zip(batches, map_in_order(crew.submit, crew.get_result, batches, ahead), strict=True):
            if isinstance(read, LostTask):
                read = {}, f"{work.video.path}: reading its second {work.seconds[0]} or one soon after {read.reason}"
            yield work, *read


def _read_batch(reader: KeyframeClipReader, batch: _KeyframeBatch) -> tuple[dict[int, ImageArray], str]:
    return read_keyframe_images(reader, batch.video, batch.seconds)


def _compute_recall(keyframes: KeyframeSet, detections: Mapping[KeyframeKey, PersonDetections]) -> dict[str, Any]:
    """How many persons are annotated in the key frames that were looked at, and which share of them was found."""
    annotated, any_score, sure = 0, 0, 0
    for key, persons in detections.items():
        theirs = keyframes.annotated_boxes.get((key.video, key.second))
        if theirs is None or not len(theirs):
            continue
        annotated += len(theirs)
        met = box_iou(torch.from_numpy(theirs), torch.from_numpy(persons.boxes)).numpy() >= RECALL_IOU
        any_score += int(met.any(axis=1).sum())
        sure += int(met[:, persons.scores >= CONFIDENT_SCORE].any(axis=1).sum())
    recall, surely = (any_score / annotated, sure / annotated) if annotated else (None, None)
    return {"annotated": annotated, "recall": recall, "sure": surely}


def find_keyframes(
    data: PathOrUrl, *, split: Split = "val", interval: int | None = None, workers: int = 1
) -> KeyframeSet:
    """A data set's own key frames, or regular ones of videos.

    Args:
        split: of a data set with boxes.
        interval: seconds between two key frames of videos; None: 1.

    Raises:
        InputError: there are none.
    """
    if not _has_boxes(data):
        return sample_keyframes(data, interval=1 if interval is None else interval, workers=workers)
    if interval is not None:
        raise InputError(f"{data} has key frames of its own; leave --every out, or give a folder of videos alone")
    return list_annotated_keyframes(open_box_dataset(data).load_split(split))


def list_annotated_keyframes(split: BoxSplit) -> KeyframeSet:
    """The key frames of annotations; of AVA's videos all that it has, whether persons are annotated there or not.

    Those of videos that are not there are left out, as are those that no score counts.
    """
    key_frames = split.load_test_keyframes(0.0, use_annotations=True)
    annotated: dict[tuple[str, int], Float64[np.ndarray, "m 4"]] = {}
    own: dict[str, list[int]] = {}
    for place in range(len(key_frames)):
        each = key_frames[place]
        annotated[each.video.name, each.second] = each.boxes
        own.setdefault(each.video.name, []).append(each.second)
    every = sorted(split.dataset.keyframe_seconds or ()) if split.dataset.name else None
    seconds = {
        film: tuple(
            second
            for second in (own.get(film.name, []) if every is None else every)
            if (film.name, second) not in split.excluded_keyframes
        )
        for film in split.videos
        if film.path is not None
    }
    return KeyframeSet(tuple(seconds), tuple(seconds.values()), split.description, annotated)


def _has_boxes(data: PathOrUrl) -> bool:
    """Whether a folder holds annotations, or something that looks like them."""
    if not is_directory(data):
        return False
    return "annotations" in list_directories(data) or any(
        name.startswith("ava_") for name in (*list_files(data), *list_directories(data))
    )


def sample_keyframes(data: PathOrUrl, *, interval: int = 1, workers: int = 1) -> KeyframeSet:
    """A key frame of any videos each `probe_all_command` seconds, from their start to their end.

    Args:
        data: a video, a folder of videos or a list of them; a video's name is its path without its suffix.

    Raises:
        InputError: there are none, or two have one name.
    """
    check_range(1, math.inf, every=interval)
    rows = [row for split in list_splits(data) or (None,) for row in open_manifest(data, split=split).rows]
    films = _list_videos(data, rows)
    seconds, left_out = {}, []
    for place, found in map_in_workers(partial(_sample_seconds, interval=interval), films, workers=workers):
        if isinstance(found, tuple):
            seconds[films[place]] = found
        else:
            left_out.append(f"{films[place].path} {found.reason}" if isinstance(found, LostTask) else found)
    kind = f"{pluralize(len(films), 'video')} of {data}, a key frame every {pluralize(interval, 'second')}"
    return KeyframeSet(tuple(seconds), tuple(seconds.values()), kind, skipped=tuple(left_out))


def read_keyframe_images(
    reader: KeyframeClipReader, video: KeyframeVideo, seconds: Sequence[int]
) -> tuple[dict[int, ImageArray], str]:
    """The frames at these seconds, and why some are not there."""
    with suppress(BrokenVideo):
        return dict(zip(seconds, reader.read_keyframes(video, seconds), strict=True)), ""
    pictures: dict[int, ImageArray] = {}
    wrong = ""
    for second in seconds:
        try:
            pictures[second] = reader.read_keyframes(video, [second])[0]
        except BrokenVideo as error:
            wrong = wrong or str(error)
    return pictures, wrong


def _list_videos(data: PathOrUrl, rows: Sequence[VideoRow]) -> list[KeyframeVideo]:
    films: dict[str, KeyframeVideo] = {}
    for row in rows:
        if isinstance(row.source, ShardMember) or is_image_file(row.name):
            raise InputError(f"{data} holds {row.name}, which is packed or a picture; give videos, as files or folders")
        name = os.path.splitext(row.name)[0]
        if name in films:
            raise InputError(
                f"{data} has two videos called {name}, {base_name(films[name].path or '')} and "
                f"{base_name(row.source)}; rename one, as boxes are known by the names"
            )
        frames = is_directory(row.source)
        films[name] = KeyframeVideo(
            name, row.source, "frames" if frames else "file", frame_rate=row.frame_rate or DEFAULT_FRAME_RATE
        )
    return list(films.values())


def _sample_seconds(video: KeyframeVideo, interval: int) -> tuple[int, ...] | str:
    """The seconds of its key frames, or why they are not known."""
    assert video.path is not None
    try:
        frames, rate = count_frames(video.path), read_frame_rate(video.path) or video.frame_rate
    except BrokenVideo as error:
        return str(error)
    return tuple(
        second for second in range(0, math.ceil(frames / rate), interval) if round_half_up(second * rate) < frames
    )
