"""What the persons in any video do: a detector of actions at regular key frames, in memory that does not grow."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vidstill.data.ava.box_table import NO_ACTION
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import KeyframeBuilder
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, parse_path
from vidstill.engine.distributed import Runtime
from vidstill.figures.tracks import KeyframeDetections, PersonTracks
from vidstill.pipelines.infer.keyframe_stream import read_keyframe_clips
from vidstill.pipelines.infer.person_detector import PersonDetections, load_person_detector
from vidstill.pipelines.infer.run import Clip, ProgressFn, gather, run
from vidstill.pipelines.infer.videos import VideoSelection
from vidstill.pipelines.trained_models import LoadedDetector
from vidstill.utils.types import InputError, check_range

_MIN_PERSON_SCORE = 0.05  # the person detector's threshold, unless a lower one is requested
_NO_PERSONS = PersonDetections(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class DetectRequest:
    """Settings of a detection.

    Args:
        interval: Seconds from one key frame to the next; the first is the video's first frame.
        min_person_score: Persons with this score or more are used.
        person_detector: Finds the persons in pictures; None: `person_boxes` has them.
        person_boxes: By video and second from its first frame; other seconds have nobody.
    """

    detector: LoadedDetector
    runtime: Runtime
    interval: float
    min_person_score: float = 0.0
    person_detector: Callable[[Sequence[ImageArray]], list[PersonDetections]] | None = None
    person_boxes: Mapping[str, Mapping[int, PersonDetections]] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoDetections:
    """What the persons in a video do.

    Args:
        frame_rate: Frames per second, which the key frames are counted with.
        frame_size: Rows and columns of the upright frames.
        error: Why it ends early, if the video does not decode to its end.
    """

    video: str
    row: VideoRow
    frame_rate: float
    frame_size: tuple[int, int]
    tracks: PersonTracks
    error: str = ""

    @property
    def end_seconds(self) -> float:
        """The time of the last key frame."""
        return self.tracks.keyframes[-1].seconds


@dataclass(frozen=True)
class Detections:
    """The detections in many videos, sorted by name.

    Args:
        actions: Names of the actions, in the order of `action_scores`.
        skipped: Videos without detections, and the reason.
    """

    model: str
    actions: tuple[str, ...]
    videos: tuple[VideoDetections, ...]
    skipped: Mapping[str, str]


def build_detect_request(
    detector: LoadedDetector,
    videos: VideoSelection,
    runtime: Runtime,
    *,
    person_boxes: str | None,
    person_detector: str,
    weights: str | None,
    min_person_score: float | None,
    start_second: int,
    interval: float,
) -> DetectRequest:
    """Read or find out where the persons of a detection come from.

    Args:
        detector: The detector of actions; it is moved to the runtime's device.
        person_boxes: File of person boxes by whole seconds; None: `person_detector` finds the persons.
        person_detector: Name of one of torchvision's detectors.
        weights: Its weights; None: torchvision's for COCO.
        min_person_score: Persons with this score or more are used; None: as in the model's own test.
        start_second: The file's second at which the videos begin.
        interval: Seconds from one key frame to the next.

    Raises:
        InputError: The options contradict each other, or a file cannot be used.
    """
    check_range(0, 1, min_person_score=min_person_score)
    check_range(0.01, math.inf, interval=interval)
    if person_boxes is not None and weights is not None:
        raise InputError("--person-boxes and --weights both say where persons are; give one of them")
    if person_boxes is not None and not float(interval).is_integer():
        raise InputError(
            f"the boxes of a file are at whole seconds, and --interval is {interval:g}; give a whole number"
        )
    detector = replace(detector, model=detector.model.to(runtime.device).eval())
    min_score = detector.recipe.views.min_person_score if min_person_score is None else min_person_score
    request = DetectRequest(detector, runtime, interval, min_score)
    if person_boxes is None:
        threshold = min(min_score, _MIN_PERSON_SCORE)
        persons = load_person_detector(person_detector, weights, runtime=runtime, min_score=threshold)
        return replace(request, person_detector=persons)
    path = parse_path(person_boxes)
    boxes = read_video_persons(path, videos.names, detector, min_score=min_score, start_second=start_second)
    return replace(request, person_boxes=boxes)


def detect_videos(
    request: DetectRequest, videos: VideoSelection, *, progress: ProgressFn = lambda done, total: None
) -> Detections:
    """Detect what the persons in videos do; each rank does its share, and knows all.

    Args:
        progress: Called with the number of finished videos of this rank, with fractions, and the number in its share.

    Raises:
        InputError: No video can be used.
    """
    runtime, rows = request.runtime, videos.manifest.rows
    indices = range(runtime.rank, len(rows), runtime.world_size)
    share: dict[str, VideoDetections] = {}
    broken: dict[str, str] = {}
    for done, index in enumerate(indices):

        def report(seconds: float, duration: float, done: int = done) -> None:
            progress(done + (seconds / duration if duration else 0), len(indices))

        name = videos.names[index]
        try:
            share[name] = detect_video(request, name, rows[index], progress=report)
        except BrokenVideo as error:
            broken[name] = str(error)
    detections, skipped = gather(runtime, share), {**videos.skipped, **gather(runtime, broken)}
    if not detections:
        raise InputError(f"none of {len(skipped)} videos can be used; {next(iter(skipped.values()))}")
    actions = tuple(request.detector.actions.names.values())
    return Detections(request.detector.source, actions, tuple(detections.values()), skipped)


def detect_video(
    request: DetectRequest, video: str, row: VideoRow, *, progress: ProgressFn = lambda done, total: None
) -> VideoDetections:
    """Detect what the persons in a video do at each key frame, as in the model's test.

    Args:
        video: Its name in `request.person_boxes`.
        progress: Called with the seconds that are done, and all.

    Raises:
        BrokenVideo: No key frame decodes.
    """
    detector = request.detector
    find_persons, in_file = request.person_detector, request.person_boxes.get(video, {})
    persons_of = {round(second / request.interval): persons for second, persons in in_file.items()}
    indices = None if find_persons else set(persons_of)
    keyframes: dict[int, KeyframeDetections] = {}
    frame_size, broken = (0, 0), None

    def iter_clips(reader: VideoReader) -> Iterator[Clip]:
        """Yield the clips of key frames with persons; `keyframes` gets all, with scores of 0."""
        nonlocal frame_size, broken
        try:
            for clip in read_keyframe_clips(reader, detector.recipe.views, request.interval, rate, indices):
                frame_size, persons = clip.frame_size, persons_of.get(clip.index, _NO_PERSONS)
                if find_persons:
                    boxes, person_scores = find_persons([clip.image])[0]
                    confident = person_scores >= request.min_person_score
                    persons = PersonDetections(boxes[confident], person_scores[confident])
                scores = np.zeros((len(persons.boxes), len(detector.actions)), np.float32)
                keyframes[clip.index] = KeyframeDetections(clip.seconds, persons.boxes, persons.scores, scores)
                if len(persons.boxes):
                    pixels, pixel_boxes = map(torch.from_numpy, clip.build_clip(persons.boxes))
                    yield Clip(clip.index, pixels[None], clip.seconds, clip.seconds, pixel_boxes)
                progress(clip.seconds, duration)
        except BrokenVideo as error:
            broken = error

    def score(clip: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        with request.runtime.compute(detector.model):
            return {"scores": detector.model(clip, boxes).float().sigmoid()}

    with VideoReader(row.source) as reader:
        rate = reader.frame_rate or row.frame_rate or detector.recipe.views.sampling.frame_rate
        duration = reader.num_frames / rate
        for record in run(score, iter_clips(reader), request.runtime):
            keyframe, scores = keyframes[record.video], record.arrays["scores"]
            if not np.isfinite(scores).all():
                broken = BrokenVideo(row.source, f"has scores that are not finite at {keyframe.seconds:.1f} s")
                keyframes = {index: each for index, each in keyframes.items() if index < record.video}
                break
            if detector.recipe.use_person_scores:
                scores = scores * keyframe.person_scores[:, None].astype(np.float32)
            keyframes[record.video] = replace(keyframe, action_scores=scores)
        progress(duration, duration)  # the last key frame is before the end
    if broken is not None and not keyframes:
        raise broken
    return VideoDetections(video, row, rate, frame_size, PersonTracks(list(keyframes.values())), str(broken or ""))


def read_video_persons(
    path: PathOrUrl, videos: Sequence[str], detector: LoadedDetector, *, min_score: float, start_second: int = 0
) -> dict[str, dict[int, PersonDetections]]:
    """Read the persons of videos from a file, by the second from each video's first frame.

    The file may name a video by its path or a later part of it, with or without suffix.

    Args:
        path: A CSV of boxes, or annotations in AVA's formats.
        videos: Names of the videos.
        detector: Whose actions annotations may have.
        min_score: Boxes with this score or more; annotated boxes have none, and all are used.
        start_second: The file's second at which the videos begin.

    Raises:
        InputError: The file cannot be read, or names none of the videos.
    """
    rows = read_person_boxes(path)
    scored = not len(rows) or rows.score.max() <= 1
    if not scored:  # person numbers stand in place of the scores
        rows = read_annotations(path)
    names = set(rows.video_names)
    video_of: dict[str, str] = {}
    for video in videos:
        name = next((each for each in _list_name_variants(video) if each in names), None)
        if name in video_of:
            raise InputError(f"{path} has boxes of {name!r}, and two of the videos have this name; give one of them")
        if name is not None:
            video_of[name] = video
    if names and not video_of:
        raise InputError(
            f"{path} has boxes of {rows.video_names[0]!r}{' and others' if len(names) > 1 else ''}, but not of "
            f"{videos[0]!r}{' or the other videos' if len(videos) > 1 else ''}; name the videos as it does"
        )
    rows = rows.select_videos(set(video_of))  # a file may have those of a whole data set
    rows = rows.select(rows.second >= start_second)
    rows = replace(rows, action_id=np.full_like(rows.action_id, NO_ACTION))
    builder = KeyframeBuilder(detector.actions, [KeyframeVideo(name, path) for name in video_of])
    keyframes = builder.group(rows, min_score if scored else None)
    persons: dict[str, dict[int, PersonDetections]] = {video: {} for video in video_of.values()}
    for keyframe in (keyframes[index] for index in range(len(keyframes))):
        boxes = PersonDetections(keyframe.boxes, keyframe.scores)
        persons[video_of[keyframe.video.name]][keyframe.second - start_second] = boxes
    return persons


def _list_name_variants(video: str) -> Iterator[str]:
    """Yield the names that a file may have for a video: its path, or the end of it."""
    parts = video.split("/")
    for n in range(len(parts)):
        name = "/".join(parts[n:])
        yield name
        stem, dot, suffix = name.rpartition(".")
        if dot and "/" not in suffix:
            yield stem
