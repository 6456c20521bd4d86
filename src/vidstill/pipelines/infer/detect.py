"""A detector is asked about any video: what the persons in it do, moment by moment, in memory that does not grow."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, Float64

from vidstill.data.ava.box_columns import merged, wanted
from vidstill.data.ava.box_ops import extended, in_pixels
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.frame_sampling import KeySampling, nearest
from vidstill.data.ava.proposals import read_annotations, read_persons
from vidstill.data.ava.samples import BoxViewsConfig
from vidstill.data.ava.transforms import Look, central
from vidstill.data.decode.images import Picture
from vidstill.data.decode.probe import count_frames, frame_rate
from vidstill.data.decode.stream import Shown, timed
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Place, Source, fetched, name_of
from vidstill.engine.distributed import Runtime
from vidstill.figures.tracks import Moment, Tracks
from vidstill.pipelines.detector_checkpoint import Loaded
from vidstill.pipelines.infer.person_detector import Persons
from vidstill.utils.types import InputError

NOBODY = Persons(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class Asker:
    """What videos are asked by.

    Args:
        every: seconds from one moment to the next; the first is a video's first frame.
        least: boxes of persons with this score or more are asked about.
        persons: finds the persons in pictures; None: they are `known`.
        known: by video, those at each of its seconds from its first frame; nobody is there at others.
    """

    detector: Loaded
    runtime: Runtime
    every: float
    least: float = 0.0
    persons: Callable[[Sequence[Picture]], list[Persons]] | None = None
    known: Mapping[str, Mapping[int, Persons]] = field(default_factory=dict)


@dataclass(frozen=True)
class Detected:
    """What the persons in a video do.

    Args:
        rate: frames per second, by which its moments were found.
        size: rows and columns of its upright frames.
        wrong: why it ends before the video does, where that does not decode to its end.
    """

    video: str
    row: Row
    rate: float
    size: tuple[int, int]
    tracks: Tracks
    wrong: str = ""


def detected(asker: Asker, video: str, row: Row, *, done: Callable[[float], None] = lambda seconds: None) -> Detected:
    """What the persons in a video do, at each moment as the model's test asks: only the answers are kept.

    Args:
        done: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one moment of it decodes.
    """
    here, wrong = fetched(row.source), ""
    views = asker.detector.views
    rate = frame_rate(here) or row.rate or views.sampling.rate
    known = None if asker.persons is not None else asker.known.get(video, {})
    needs = None if known is None else {round(second / asker.every) for second in known}
    moments: list[Moment] = []
    size = (0, 0)
    try:
        for taken in clips_at(here, views, every=asker.every, rate=rate, needs=needs):
            size = taken.size
            persons = _persons(asker, known, taken)
            scores = _scores(asker, taken, persons)
            if not np.isfinite(scores).all():
                raise BrokenVideo(f"{name_of(here)} has scores that are no finite numbers at {taken.seconds:.1f} s")
            moments.append(Moment(taken.seconds, persons.boxes, persons.scores, scores))
            done(taken.seconds)
    except BrokenVideo as error:
        wrong = str(error).replace(name_of(here), name_of(row.source))
    if not moments:
        raise BrokenVideo(wrong)
    return Detected(video, row, rate, size, Tracks(moments), wrong)


def _persons(asker: Asker, known: Mapping[int, Persons] | None, taken: "Taken") -> Persons:
    """Those who are asked about."""
    if known is not None:
        return known.get(round(taken.place * asker.every), NOBODY)
    assert asker.persons is not None
    found = asker.persons([taken.picture])[0]
    good = found.scores >= asker.least
    return Persons(found.boxes[good], found.scores[good])


def _scores(asker: Asker, taken: "Taken", persons: Persons) -> Float32[np.ndarray, "m a"]:
    loaded, device = asker.detector, asker.runtime.device
    if not len(persons.boxes):
        return np.zeros((0, len(loaded.actions)), np.float32)
    clip, boxes = taken.clip(persons.boxes)
    with torch.inference_mode(), asker.runtime.autocast():
        colours = torch.from_numpy(clip).to(device).float().div_(255)
        logits = loaded.model(colours[None], torch.from_numpy(boxes).to(device)[None])[0]
    scores: Float32[np.ndarray, "m a"] = logits.float().sigmoid().cpu().numpy()
    return scores * persons.scores[:, None].astype(np.float32) if loaded.times_person_score else scores


class Taken:
    """A moment of a video: its key frame, and the frames of the clip around it, as far as they were met.

    Args:
        place: among the moments, from 0.
        seconds: at which the key frame is shown.
        key: the number of the key frame.
        wanted: the numbers of the clip's frames; none, where nobody is asked about.
    """

    seconds: float
    picture: Picture

    def __init__(self, place: int, key: int, wanted: Sequence[int], views: BoxViewsConfig):
        self.place, self.key, self.wanted, self._views = place, key, wanted, views
        self.last = max([key, *wanted])
        self.met: dict[int, Picture] = {}

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.shape[0], self.picture.shape[1]

    def clip(self, fractions: Float64[np.ndarray, "m 4"]) -> tuple[np.ndarray, Float32[np.ndarray, "m 4"]]:
        """The clip in bytes, (3, t, h, w), and boxes in its pixels, as a test's are."""
        views = self._views
        _, boxes = _look(self.size, views).apply(
            self.picture[None], in_pixels(fractions, self.size, views.rule), views.rule
        )
        frames = np.stack([self.met[number] for number in self.wanted])
        boxes = extended(boxes, views.extend, (frames.shape[1], frames.shape[2]))
        return np.ascontiguousarray(rearrange(frames, "t h w c -> c t h w")), boxes.astype(np.float32)


def clips_at(
    source: Source, views: BoxViewsConfig, *, every: float, rate: float, needs: set[int] | None = None
) -> Iterator[Taken]:
    """The moments of a video in their order, while it is decoded once; frames are kept as long as one needs them.

    Args:
        every: seconds from one moment to the next.
        rate: frames per second.
        needs: the places of the moments whose clips are wanted; None: all.

    Raises:
        BrokenVideo: behind the last moment that decodes, if something is wrong there.
    """
    total = count_frames(source)
    coming = _planned(views, total, every, rate, needs)
    reach = _reach(views.sampling, rate)
    ahead, waiting = next(coming, None), deque[Taken]()
    number, size = -1, None
    for number, shown in enumerate(timed(source, rate=rate)):
        while ahead is not None and ahead.key - reach <= number:
            waiting.append(ahead)
            ahead = next(coming, None)
        asking = [each for each in waiting if number == each.key or number in each.wanted]
        if asking:
            size = _met(asking, number, shown, views, size, name_of(source))
        while waiting and waiting[0].last <= number:
            yield waiting.popleft()
        if ahead is None and not waiting:
            return
    raise BrokenVideo(f"{name_of(source)} ends early: {number + 1} of {total} frames decode")


def _planned(views: BoxViewsConfig, total: int, every: float, rate: float, needs: set[int] | None) -> Iterator[Taken]:
    sampling, place = views.sampling, 0
    while (key := nearest(centre := place * every * rate)) < total:
        around: list[int] = []
        if needs is None or place in needs:
            offsets = sampling.places(key, total - key, ratio=rate / sampling.rate, beyond=centre - key)
            around = [key + offset for offset in offsets]
        yield Taken(place, key, around, views)
        place += 1


def _reach(sampling: KeySampling, rate: float) -> int:
    """Frames before a key frame of which one may be in its clip."""
    return math.ceil(-min(0, *sampling.offsets()) * rate / sampling.rate) + 1


def _met(
    asking: Sequence[Taken],
    number: int,
    shown: Shown,
    views: BoxViewsConfig,
    size: tuple[int, int] | None,
    name: str,
) -> tuple[int, int]:
    """Gives a frame to those who ask for it, and its size.

    Raises:
        BrokenVideo: it has another size than those before.
    """
    picture = shown.picture()
    height, width = picture.shape[:2]
    if size not in (None, (height, width)):
        raise BrokenVideo(f"{name} changes its size to {width}x{height} at frame {number} or before")
    small: Picture | None = None
    for each in asking:
        if number == each.key:
            each.picture, each.seconds = picture, shown.seconds
        if number in each.wanted:
            if small is None:
                small = _look((height, width), views).apply(picture[None], np.zeros((0, 4)), views.rule)[0][0]
            each.met[number] = small
    return height, width


def _look(size: tuple[int, int], views: BoxViewsConfig) -> Look:
    return central(size, views.short_side, views.crop, views.rule)


def known_persons(
    place: Place, videos: Sequence[str], detector: Loaded, *, least: float, start: int = 0
) -> dict[str, dict[int, Persons]]:
    """The persons of a file in videos, by the second from each one's first frame. The file may call a video by its
    path or a later part of it, with its suffix or without.

    Args:
        least: boxes with this score or more; of annotated boxes, which have none, all.
        start: the file's second at which the videos begin.

    Raises:
        InputError: the file cannot be read, or names none of the videos.
    """
    rows = read_persons(place).rows
    scored = not len(rows) or rows.score.max() <= 1
    if not scored:  # what is in the place of a score numbers the persons
        rows = read_annotations(place)
    there = set(rows.videos)
    calls = {video: word for video in videos if (word := next(filter(there.__contains__, _words(video)), None))}
    if there and not calls:
        raise InputError(
            f"{place} has boxes of {rows.videos[0]!r}{' and others' if len(there) > 1 else ''}, and not of "
            f"{videos[0]!r}{' or another one that is named' if len(videos) > 1 else ''}; call the videos as it does"
        )
    films = [Film(name, place) for name in dict.fromkeys(calls.values())]
    rows = rows.of(set(calls.values()))  # a file may have those of a whole data set
    if len(films) < len(calls):
        twice = next(name for name in calls.values() if list(calls.values()).count(name) > 1)
        raise InputError(f"{place} has boxes of {twice!r}, and two of the videos are called so; ask about one of them")
    boxes = merged(
        wanted(
            *(rows, films, detector.actions),
            keep=lambda second: second >= start,
            excluded=(),
            least=least if scored else None,
            annotated=False,
            labelled=False,
        )
    )
    found: dict[str, dict[int, Persons]] = {video: {} for video in calls}
    asked = list(calls)
    _, begins = np.unique(boxes.moment, return_index=True)
    for begin, end in pairwise([*begins.tolist(), len(boxes)]):
        persons = Persons(boxes.box[begin:end], boxes.score[begin:end])
        found[asked[boxes.film[begin]]][int(boxes.second[begin]) - start] = persons
    return found


def _words(video: str) -> Iterator[str]:
    """What a file of boxes may call a video: its path, or less and less of it."""
    parts = video.split("/")
    for n in range(len(parts)):
        name = "/".join(parts[n:])
        yield name
        stem, dot, suffix = name.rpartition(".")
        if dot and "/" not in suffix:
            yield stem
