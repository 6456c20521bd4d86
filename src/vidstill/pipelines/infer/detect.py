"""A detector is asked about any video: what the persons in it do, moment by moment, in memory that does not grow."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, Float64

from vidstill.data.ava.box_ops import expand_boxes, to_pixel_boxes
from vidstill.data.ava.box_table import NO_ACTION
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling, round_half_up
from vidstill.data.ava.keyframes import group_boxes
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
from vidstill.data.ava.samples import BoxViewsConfig
from vidstill.data.ava.transforms import ResizeCropFlip, build_view_transform
from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import TimedFrame, count_frames, iter_timed_frames, read_frame_rate
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, VideoSource, fetch_source, source_name
from vidstill.engine.distributed import Runtime
from vidstill.figures.tracks import KeyframeDetections, PersonTracks
from vidstill.pipelines.detector_checkpoint import LoadedDetector
from vidstill.pipelines.infer.person_detector import PersonDetections
from vidstill.utils.types import InputError

NO_PERSONS = PersonDetections(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class DetectRequest:
    """What videos are asked by.

    Args:
        interval: seconds from one moment to the next; the first is a video's first frame.
        min_person_score: boxes of persons with this score or more are asked about.
        person_detector: finds the persons in pictures; None: they are `known`.
        person_boxes: by video, those at each of its seconds from its first frame; nobody is there at others.
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
        frame_rate: frames per second, by which its moments were found.
        frame_size: rows and columns of its upright frames.
        error: why it ends before the video does, where that does not decode to its end.
    """

    video: str
    row: VideoRow
    frame_rate: float
    frame_size: tuple[int, int]
    tracks: PersonTracks
    error: str = ""


def detect_video(
    request: DetectRequest, video: str, row: VideoRow, *, progress: Callable[[float], None] = lambda seconds: None
) -> VideoDetections:
    """What the persons in a video do, at each moment as the model's test asks: only the answers are kept.

    Args:
        progress: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one moment of it decodes.
    """
    here, broken = fetch_source(row.source), None
    views = request.detector.views
    rate = read_frame_rate(here) or row.frame_rate or views.sampling.frame_rate
    known = None if request.person_detector is not None else request.person_boxes.get(video, {})
    needs = None if known is None else {round(second / request.interval) for second in known}
    moments: list[KeyframeDetections] = []
    size = (0, 0)
    try:
        for taken in read_keyframe_clips(here, views, interval=request.interval, frame_rate=rate, indices=needs):
            size = taken.frame_size
            persons = _find_persons(request, known, taken)
            scores = _score_actions(request, taken, persons)
            if not np.isfinite(scores).all():
                raise BrokenVideo(here, f"has scores that are no finite numbers at {taken.seconds:.1f} s")
            moments.append(KeyframeDetections(taken.seconds, persons.boxes, persons.scores, scores))
            progress(taken.seconds)
    except BrokenVideo as error:
        broken = BrokenVideo(row.source, error.reason)
    if broken is not None and not moments:
        raise broken
    return VideoDetections(video, row, rate, size, PersonTracks(moments), str(broken or ""))


def _find_persons(
    request: DetectRequest, person_boxes: Mapping[int, PersonDetections] | None, keyframe_clip: "KeyframeClip"
) -> PersonDetections:
    """Those who are asked about."""
    if person_boxes is not None:
        return person_boxes.get(round(keyframe_clip.index * request.interval), NO_PERSONS)
    assert request.person_detector is not None
    found = request.person_detector([keyframe_clip.image])[0]
    good = found.scores >= request.min_person_score
    return PersonDetections(found.boxes[good], found.scores[good])


def _score_actions(
    request: DetectRequest, keyframe_clip: "KeyframeClip", persons: PersonDetections
) -> Float32[np.ndarray, "m a"]:
    loaded, device = request.detector, request.runtime.device
    if not len(persons.boxes):
        return np.zeros((0, len(loaded.actions)), np.float32)
    clip, boxes = keyframe_clip.build_clip(persons.boxes)
    with torch.inference_mode(), request.runtime.autocast():
        colours = torch.from_numpy(clip).to(device).float().div_(255)
        logits = loaded.model(colours[None], torch.from_numpy(boxes).to(device)[None])[0]
    scores: Float32[np.ndarray, "m a"] = logits.float().sigmoid().cpu().numpy()
    return scores * persons.scores[:, None].astype(np.float32) if loaded.use_person_scores else scores


class KeyframeClip:
    """A moment of a video: its key frame, and the frames of the clip around it, as far as they were met.

    Args:
        index: among the moments, from 0.
        seconds: at which the key frame is shown.
        keyframe: the number of the key frame.
        frame_numbers: the numbers of the clip's frames; none, where nobody is asked about.
    """

    seconds: float
    image: ImageArray

    def __init__(self, index: int, keyframe: int, frame_numbers: Sequence[int], views: BoxViewsConfig):
        self.index, self.keyframe, self.frame_numbers, self._views = index, keyframe, frame_numbers, views
        self.last_frame = max([keyframe, *frame_numbers])
        self.frames: dict[int, ImageArray] = {}

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def build_clip(self, boxes: Float64[np.ndarray, "m 4"]) -> tuple[np.ndarray, Float32[np.ndarray, "m 4"]]:
        """The clip in bytes, (3, t, h, w), and boxes in its pixels, as a test's are."""
        views = self._views
        _, boxes = _build_test_transform(self.frame_size, views).apply(
            self.image[None], to_pixel_boxes(boxes, self.frame_size, views.rule), views.rule
        )
        frames = np.stack([self.frames[number] for number in self.frame_numbers])
        boxes = expand_boxes(boxes, views.box_expansion, (frames.shape[1], frames.shape[2]))
        return np.ascontiguousarray(rearrange(frames, "t h w c -> c t h w")), boxes.astype(np.float32)


def read_keyframe_clips(
    source: VideoSource, views: BoxViewsConfig, *, interval: float, frame_rate: float, indices: set[int] | None = None
) -> Iterator[KeyframeClip]:
    """The moments of a video in their order, while it is decoded once; frames are kept as long as one needs them.

    Args:
        interval: seconds from one moment to the next.
        frame_rate: frames per second.
        indices: the places of the moments whose clips are wanted; None: all.

    Raises:
        BrokenVideo: behind the last moment that decodes, if something is wrong there.
    """
    total = count_frames(source)
    coming = _plan_keyframes(views, total, interval, frame_rate, indices)
    reach = _count_frames_before(views.sampling, frame_rate)
    ahead, waiting = next(coming, None), deque[KeyframeClip]()
    number, size = -1, None
    for number, shown in enumerate(iter_timed_frames(source, default_frame_rate=frame_rate)):
        while ahead is not None and ahead.keyframe - reach <= number:
            waiting.append(ahead)
            ahead = next(coming, None)
        asking = [each for each in waiting if number == each.keyframe or number in each.frame_numbers]
        if asking:
            size = _add_frame(asking, number, shown, views, size, source_name(source))
        while waiting and waiting[0].last_frame <= number:
            yield waiting.popleft()
        if ahead is None and not waiting:
            return
    raise BrokenVideo(source, f"ends early: {number + 1} of {total} frames decode")


def _plan_keyframes(
    views: BoxViewsConfig, num_frames: int, interval: float, frame_rate: float, indices: set[int] | None
) -> Iterator[KeyframeClip]:
    sampling, place = views.sampling, 0
    while (key := round_half_up(centre := place * interval * frame_rate)) < num_frames:
        around: list[int] = []
        if indices is None or place in indices:
            offsets = sampling.compute_video_offsets(
                key, num_frames - key, frame_rate_ratio=frame_rate / sampling.frame_rate, subframe_offset=centre - key
            )
            around = [key + offset for offset in offsets]
        yield KeyframeClip(place, key, around, views)
        place += 1


def _count_frames_before(sampling: KeyframeSampling, frame_rate: float) -> int:
    """Frames before a key frame of which one may be in its clip."""
    return math.ceil(-min(0, *sampling.compute_offsets()) * frame_rate / sampling.frame_rate) + 1


def _add_frame(
    keyframe_clips: Sequence[KeyframeClip],
    frame_number: int,
    frame: TimedFrame,
    views: BoxViewsConfig,
    frame_size: tuple[int, int] | None,
    source_name: str,
) -> tuple[int, int]:
    """Gives a frame to those who ask for it, and its size.

    Raises:
        BrokenVideo: it has another size than those before.
    """
    picture = frame.to_image()
    height, width = picture.shape[:2]
    if frame_size not in (None, (height, width)):
        raise BrokenVideo(source_name, f"changes its size to {width}x{height} at frame {frame_number} or before")
    small: ImageArray | None = None
    for each in keyframe_clips:
        if frame_number == each.keyframe:
            each.image, each.seconds = picture, frame.pts_seconds
        if frame_number in each.frame_numbers:
            if small is None:
                small = _build_test_transform((height, width), views).apply(
                    picture[None], np.zeros((0, 4)), views.rule
                )[0][0]
            each.frames[frame_number] = small
    return height, width


def _build_test_transform(frame_size: tuple[int, int], views: BoxViewsConfig) -> ResizeCropFlip:
    return build_view_transform(frame_size, views.short_side, views.crop_size, views.rule)


def read_video_persons(
    path: PathOrUrl, videos: Sequence[str], detector: LoadedDetector, *, min_score: float, start_second: int = 0
) -> dict[str, dict[int, PersonDetections]]:
    """The persons of a file in videos, by the second from each one's first frame. The file may call a video by its
    path or a later part of it, with its suffix or without.

    Args:
        min_score: boxes with this score or more; of annotated boxes, which have none, all.
        start_second: the file's second at which the videos begin.

    Raises:
        InputError: the file cannot be read, or names none of the videos.
    """
    rows = read_person_boxes(path)
    scored = not len(rows) or rows.score.max() <= 1
    if not scored:  # what is in the place of a score numbers the persons
        rows = read_annotations(path)
    there = set(rows.video_names)
    calls = {
        video: word for video in videos if (word := next(filter(there.__contains__, _list_name_variants(video)), None))
    }
    if there and not calls:
        raise InputError(
            f"{path} has boxes of {rows.video_names[0]!r}{' and others' if len(there) > 1 else ''}, and not of "
            f"{videos[0]!r}{' or another one that is named' if len(videos) > 1 else ''}; call the videos as it does"
        )
    films = [KeyframeVideo(name, path) for name in dict.fromkeys(calls.values())]
    rows = rows.select_videos(set(calls.values()))  # a file may have those of a whole data set
    if len(films) < len(calls):
        twice = next(name for name in calls.values() if list(calls.values()).count(name) > 1)
        raise InputError(f"{path} has boxes of {twice!r}, and two of the videos are called so; ask about one of them")
    rows = rows.select(rows.second >= start_second)
    keyframes = group_boxes(
        replace(rows, action_id=np.full_like(rows.action_id, NO_ACTION)),
        detector.actions,
        films,
        min_score=min_score if scored else None,
    )
    persons: dict[str, dict[int, PersonDetections]] = {video: {} for video in calls}
    video_of = {name: video for video, name in calls.items()}
    for keyframe in (keyframes[index] for index in range(len(keyframes))):
        boxes = PersonDetections(keyframe.boxes, keyframe.scores)
        persons[video_of[keyframe.video.name]][keyframe.second - start_second] = boxes
    return persons


def _list_name_variants(video: str) -> Iterator[str]:
    """What a file of boxes may call a video: its path, or less and less of it."""
    parts = video.split("/")
    for n in range(len(parts)):
        name = "/".join(parts[n:])
        yield name
        stem, dot, suffix = name.rpartition(".")
        if dot and "/" not in suffix:
            yield stem
