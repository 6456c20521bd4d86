"""Readers against one another: the same frames of the same videos, in turns, on one core."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from vidstill.bench.readers import DECORD, PYAV_LOOP, VIDSTILL, ReadFramesFn, read_with_pyav
from vidstill.bench.timing import pin_to_one_core, time_in_random_order
from vidstill.data.decode.reader import read_frames_with_count
from vidstill.data.storage.fetch import VideoSource
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar

MAX_PIXEL_DIFFERENCE = 2.0
"""Levels: frames whose pixels differ by more than this, on average, are other frames, or in other colours."""

FileKind = Literal["raw", "packed"]


class ReadRequest(NamedTuple):
    """What is read: a video as it is and packed, and for each round the numbers of the frames that are asked for."""

    name: str
    sources: dict[FileKind, VideoSource]
    frame_indices: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class ReaderTiming:
    """What a reader did on one core.

    Args:
        seconds_per_clip: a clip: over the rounds the median, of that over the videos the mean.
        times_plain, times_decord: how many times as fast as PyAV's plain loop, and decord, on the raw videos; None
            where that is not known, or where the frames are others.
        min_speedup_over_pyav: how many times as fast as PyAV's plain loop on the same files, on the video where it is the least.
        frame_utilization: the share of the decoded frames that was asked for; None where the reader does not tell.
        pixel_difference: of its pixels from a full decode's of the same file, in levels: the largest of the videos' means.
        error: why it is not compared.
        all_seconds: seconds, by rounds and videos.
    """

    reader: str
    file_kind: FileKind
    seconds_per_clip: float | None = None
    clips_per_second: float | None = None
    speedup_over_pyav: float | None = None
    speedup_over_decord: float | None = None
    min_speedup_over_pyav: float | None = None
    frame_utilization: float | None = None
    pixel_difference: float | None = None
    error: str = ""
    all_seconds: list[list[float]]


def draw_frame_indices(
    sampling: SpanSampling, num_frames: int, num_draws: int, index: int, seed: int
) -> list[list[int]]:
    """As training draws them in so many epochs."""
    seeds = [derive_sample_seed(seed, n, index) for n in range(num_draws)]
    return [sampling.draw_indices(num_frames, numpy_rng(each, "frames")) for each in seeds]


class _FrameCheck(NamedTuple):
    """Whether a reader gives the frames that a full decode gives.

    Args:
        can_read: every one of the videos.
        pixel_difference: as a Reading has it; None where there are no pixels to compare.
        error: what is wrong, a clause.
    """

    can_read: bool
    pixel_difference: float | None
    error: str = ""


def measure_reading(readers: dict[str, ReadFramesFn], requests: Sequence[ReadRequest], seed: int) -> list[ReaderTiming]:
    """Every reader on every kind of file; first it is seen whether they give the same frames."""
    contenders = [(name, kind) for kind in requests[0].sources for name in readers]
    checks: dict[tuple[str, FileKind], _FrameCheck] = {}
    with show_progress_bar("comparing frames") as done, pin_to_one_core():
        for name, kind in contenders:
            checks[name, kind] = _check_reader(readers[name], requests, kind)
            done(len(checks), len(contenders))
    racing = [each for each in contenders if checks[each].can_read]
    rounds = len(requests[0].frame_indices)
    seconds = {each: np.zeros((rounds, len(requests))) for each in racing}
    with show_progress_bar("reading") as done, pin_to_one_core():
        for n in range(rounds * len(requests)):
            turn, k = divmod(n, len(requests))
            works = {
                (name, kind): partial(readers[name], requests[k].sources[kind], requests[k].frame_indices[turn])
                for name, kind in racing
            }
            for each, took in time_in_random_order(works, numpy_rng(seed, f"turns {n}")).items():
                seconds[each][turn, k] = took
            done(n + 1, rounds * len(requests))
    return [_summarize_reader(each, checks, seconds, requests) for each in contenders]


def _check_reader(read: ReadFramesFn, videos: Sequence[ReadRequest], kind: FileKind) -> _FrameCheck:
    worst, others = 0.0, []
    for video in videos:
        source, indices = video.sources[kind], video.frame_indices[0]
        whole = read_with_pyav(source, indices)
        try:
            frames = read(source, indices)
        except Exception as error:  # other people's readers raise what they like
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            return _FrameCheck(False, None, f"fails on {video.name}: {why}")
        if frames.shape != whole.shape:
            others.append(f"{video.name}, of {frames.shape[2]}x{frames.shape[1]} pixels")
            continue
        off = float(np.abs(frames.astype(np.int16) - whole).mean())
        worst = max(worst, off)
        if off > MAX_PIXEL_DIFFERENCE:
            others.append(f"{video.name}, off by {off:.1f} levels")
    if others:
        return _FrameCheck(
            True, worst, f"gives other frames of {len(others)} of {len(videos)} videos, first of {others[0]}"
        )
    return _FrameCheck(True, worst)


def _summarize_reader(
    contender: tuple[str, FileKind],
    checks: dict[tuple[str, FileKind], _FrameCheck],
    seconds: dict[tuple[str, FileKind], Float[np.ndarray, "rounds videos"]],
    videos: Sequence[ReadRequest],
) -> ReaderTiming:
    (name, kind), check = contender, checks[contender]
    if not check.can_read:
        return ReaderTiming(reader=name, file_kind=kind, error=check.error, all_seconds=[])
    mine = np.median(seconds[contender], axis=0)

    def times(other: tuple[str, FileKind]) -> tuple[float | None, float | None]:
        """How many times as fast as another, on all videos and at the least; None if either's frames are others."""
        if check.error or other not in seconds or checks[other].error:
            return None, None
        theirs = np.median(seconds[other], axis=0)
        return float(theirs.mean() / mine.mean()), float((theirs / mine).min())

    return ReaderTiming(
        reader=name,
        file_kind=kind,
        seconds_per_clip=float(mine.mean()),
        clips_per_second=float(1 / mine.mean()),
        speedup_over_pyav=times((PYAV_LOOP, "raw"))[0],
        speedup_over_decord=times((DECORD, "raw"))[0],
        min_speedup_over_pyav=times((PYAV_LOOP, kind))[1],
        frame_utilization=_measure_frame_utilization(videos, kind) if name == VIDSTILL else None,
        pixel_difference=check.pixel_difference,
        error=check.error,
        all_seconds=seconds[contender].tolist(),
    )


def _measure_frame_utilization(videos: Sequence[ReadRequest], kind: FileKind) -> float:
    asked = decoded = 0
    for video in videos:
        for indices in video.frame_indices:
            asked += len(set(indices))
            decoded += read_frames_with_count(video.sources[kind], indices)[1]
    return asked / decoded
