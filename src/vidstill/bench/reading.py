"""Readers against one another: the same frames of the same videos, in turns, on one core."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from vidstill.bench.readers import DECORD, OURS, PLAIN_LOOP, Reader, read_plainly
from vidstill.bench.timing import in_turns, one_core
from vidstill.data.decode.reader import read_counted
from vidstill.data.storage.fetch import Source
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.terminal import progress_bar

ROUNDING = 2.0
"""Levels: frames whose pixels differ by more than this, on average, are other frames, or in other colours."""

Kind = Literal["raw", "packed"]


class Read(NamedTuple):
    """What is read: a video as it is and packed, and for each round the numbers of the frames that are asked for."""

    name: str
    sources: dict[Kind, Source]
    draws: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a reader did on one core.

    Args:
        seconds: a clip: over the rounds the median, of that over the videos the mean.
        times_plain, times_decord: how many times as fast as PyAV's plain loop, and decord, on the raw videos; None
            where that is not known, or where the frames are others.
        least: how many times as fast as PyAV's plain loop on the same files, on the video where it is the least.
        used: the share of the decoded frames that was asked for; None where the reader does not tell.
        difference: of its pixels from a full decode's of the same file, in levels: the largest of the videos' means.
        wrong: why it is not compared.
        each: seconds, by rounds and videos.
    """

    reader: str
    files: Kind
    seconds: float | None = None
    clips_per_second: float | None = None
    times_plain: float | None = None
    times_decord: float | None = None
    least: float | None = None
    used: float | None = None
    difference: float | None = None
    wrong: str = ""
    each: list[list[float]]


def draws(sampling: SpanSampling, frames: int, rounds: int, video: int, seed: int) -> list[list[int]]:
    """As training draws them in so many epochs."""
    seeds = [sample_seed(seed, n, video) for n in range(rounds)]
    return [sampling.draw(frames, numpy_chance(each, "frames")) for each in seeds]


class _Check(NamedTuple):
    """Whether a reader gives the frames that a full decode gives.

    Args:
        reads: every one of the videos.
        difference: as a Reading has it; None where there are no pixels to compare.
        wrong: what is wrong, a clause.
    """

    reads: bool
    difference: float | None
    wrong: str = ""


def reading(readers: dict[str, Reader], videos: Sequence[Read], seed: int) -> list[Reading]:
    """Every reader on every kind of file; first it is seen whether they give the same frames."""
    contenders = [(name, kind) for kind in videos[0].sources for name in readers]
    checks: dict[tuple[str, Kind], _Check] = {}
    with progress_bar("comparing frames") as done, one_core():
        for name, kind in contenders:
            checks[name, kind] = _checked(readers[name], videos, kind)
            done(len(checks), len(contenders))
    racing = [each for each in contenders if checks[each].reads]
    rounds = len(videos[0].draws)
    seconds = {each: np.zeros((rounds, len(videos))) for each in racing}
    with progress_bar("reading") as done, one_core():
        for n in range(rounds * len(videos)):
            turn, k = divmod(n, len(videos))
            works = {
                (name, kind): partial(readers[name], videos[k].sources[kind], videos[k].draws[turn])
                for name, kind in racing
            }
            for each, took in in_turns(works, numpy_chance(seed, f"turns {n}")).items():
                seconds[each][turn, k] = took
            done(n + 1, rounds * len(videos))
    return [_standing(each, checks, seconds, videos) for each in contenders]


def _checked(read: Reader, videos: Sequence[Read], kind: Kind) -> _Check:
    worst, others = 0.0, []
    for video in videos:
        source, indices = video.sources[kind], video.draws[0]
        whole = read_plainly(source, indices)
        try:
            frames = read(source, indices)
        except Exception as error:  # other people's readers raise what they like
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            return _Check(False, None, f"fails on {video.name}: {why}")
        if frames.shape != whole.shape:
            others.append(f"{video.name}, of {frames.shape[2]}x{frames.shape[1]} pixels")
            continue
        off = float(np.abs(frames.astype(np.int16) - whole).mean())
        worst = max(worst, off)
        if off > ROUNDING:
            others.append(f"{video.name}, off by {off:.1f} levels")
    if others:
        return _Check(True, worst, f"gives other frames of {len(others)} of {len(videos)} videos, first of {others[0]}")
    return _Check(True, worst)


def _standing(
    contender: tuple[str, Kind],
    checks: dict[tuple[str, Kind], _Check],
    seconds: dict[tuple[str, Kind], Float[np.ndarray, "rounds videos"]],
    videos: Sequence[Read],
) -> Reading:
    (name, kind), check = contender, checks[contender]
    if not check.reads:
        return Reading(reader=name, files=kind, wrong=check.wrong, each=[])
    mine = np.median(seconds[contender], axis=0)

    def times(other: tuple[str, Kind]) -> tuple[float | None, float | None]:
        """How many times as fast as another, on all videos and at the least; None if either's frames are others."""
        if check.wrong or other not in seconds or checks[other].wrong:
            return None, None
        theirs = np.median(seconds[other], axis=0)
        return float(theirs.mean() / mine.mean()), float((theirs / mine).min())

    return Reading(
        reader=name,
        files=kind,
        seconds=float(mine.mean()),
        clips_per_second=float(1 / mine.mean()),
        times_plain=times((PLAIN_LOOP, "raw"))[0],
        times_decord=times((DECORD, "raw"))[0],
        least=times((PLAIN_LOOP, kind))[1],
        used=_used(videos, kind) if name == OURS else None,
        difference=check.difference,
        wrong=check.wrong,
        each=seconds[contender].tolist(),
    )


def _used(videos: Sequence[Read], kind: Kind) -> float:
    asked = decoded = 0
    for video in videos:
        for indices in video.draws:
            asked += len(set(indices))
            decoded += read_counted(video.sources[kind], indices)[1]
    return asked / decoded
