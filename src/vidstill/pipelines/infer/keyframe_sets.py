"""Which key frames persons are searched in: those of annotations, or regular ones of any videos."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Float64

from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.dataset import BoxSplit, open_box_dataset
from vidstill.data.ava.frame_sampling import round_half_up
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, VideoReader
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, ShardMember
from vidstill.data.storage.filesystem import base_name, is_directory, list_directories, list_files
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.pipelines.infer.videos import find_videos
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError, check_range


@dataclass(frozen=True)
class KeyframeSet:
    """Key frames of videos.

    Args:
        seconds: Of the key frames of each video, ascending.
        description: For messages.
        annotated_boxes: The annotated persons by video name and second; empty without annotations.
        skipped: The reason for each video of which nothing can be read.
    """

    seconds: Mapping[KeyframeVideo, Sequence[int]]
    description: str = "key frames"
    annotated_boxes: Mapping[tuple[str, int], Float64[np.ndarray, "m 4"]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.seconds.values()))


def find_keyframes(
    data: PathOrUrl, *, split: Split = "val", interval: int | None = None, workers: int = 1
) -> KeyframeSet:
    """Return a data set's own key frames, or regular ones of videos.

    Args:
        data: A data set with boxes; or a video, a folder of videos or a list of them.
        split: Of a data set with boxes.
        interval: Seconds from one key frame of a video to the next; None: 1.
        workers: Processes that read the lengths of videos.

    Raises:
        InputError: There are none, or two videos have one name.
    """
    directories = list_directories(data) if is_directory(data) else []
    names = [*directories, *list_files(data)] if is_directory(data) else []
    if "annotations" not in directories and not any(name.startswith("ava_") for name in names):
        return _sample_keyframes(data, 1 if interval is None else interval, workers)
    if interval is not None:
        raise InputError(f"{data} has its own key frames; leave out --interval, or give a folder of videos alone")
    return _list_annotated_keyframes(open_box_dataset(data).load_split(split))


def _list_annotated_keyframes(split: BoxSplit) -> KeyframeSet:
    """Return the annotated key frames; of AVA's videos all that the data set states, annotated or not.

    Videos whose files are missing, and key frames that no score counts, are left out.
    """
    keyframes = split.load_test_keyframes(0.0, use_annotations=True)
    annotated = {
        (keyframe.video.name, keyframe.second): keyframe.boxes
        for keyframe in map(keyframes.__getitem__, range(len(keyframes)))
    }
    own = {name: [second for _, second in keys] for name, keys in groupby(annotated, key=lambda key: key[0])}
    every = sorted(split.dataset.keyframe_seconds or ()) if split.dataset.name else None
    seconds = {}
    for video in split.videos:
        if video.path is not None:
            listed = own.get(video.name, []) if every is None else every
            seconds[video] = [each for each in listed if (video.name, each) not in split.excluded_keyframes]
    return KeyframeSet(seconds, split.description, annotated)


def _sample_keyframes(data: PathOrUrl, interval: int, workers: int) -> KeyframeSet:
    """Return a key frame every `interval` seconds of any videos, whose names are their paths without suffix."""
    check_range(1, math.inf, interval=interval)
    selection = find_videos([data], clip_frames=2, by_dataset_name=True)
    by_name: dict[str, KeyframeVideo] = {}
    for path, row in zip(selection.names, selection.manifest.rows, strict=True):
        if isinstance(row.source, ShardMember):
            raise InputError(f"{data} holds {path}, which is packed; give videos, as files or folders")
        name = os.path.splitext(path)[0]
        if name in by_name:
            raise InputError(
                f"{data} has two videos called {name}, {base_name(by_name[name].path or '')} and "
                f"{base_name(row.source)}; rename one, as boxes are identified by the names"
            )
        format: Literal["frames", "file"] = "frames" if is_directory(row.source) else "file"
        by_name[name] = KeyframeVideo(name, row.source, format, frame_rate=row.frame_rate or DEFAULT_FRAME_RATE)
    videos = list(by_name.values())
    seconds, skipped = {}, list(selection.skipped.values())
    sample = partial(_sample_seconds, interval=interval)
    for index, sampled in map_in_workers(sample, videos, workers=workers, describe=lambda video: str(video.path)):
        if isinstance(sampled, tuple):
            seconds[videos[index]] = sampled
        else:
            skipped.append(f"{videos[index].path} {sampled.reason}" if isinstance(sampled, LostTask) else sampled)
    description = f"{pluralize(len(videos), 'video')} of {data}, a key frame every {pluralize(interval, 'second')}"
    return KeyframeSet(seconds, description, skipped=tuple(skipped))


def _sample_seconds(video: KeyframeVideo, interval: int) -> tuple[int, ...] | str:
    """Return the seconds of a video's key frames, or the reason why they are unknown."""
    assert video.path is not None
    try:
        with VideoReader(video.path) as reader:
            frames, rate = reader.num_frames, reader.frame_rate or video.frame_rate
    except BrokenVideo as error:
        return str(error)
    seconds = range(0, math.ceil(frames / rate), interval)
    return tuple(second for second in seconds if round_half_up(second * rate) < frames)
