"""Frame readers compared: the same frames of the same videos, interleaved on one core."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from vidstill.bench.readers import DECORD, PYAV_LOOP, VIDSTILL, ReadFramesFn, read_with_pyav
from vidstill.bench.timing import pin_to_one_core, time_in_random_order
from vidstill.data.decode.reader import VideoReader
from vidstill.data.storage.fetch import VideoSource
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar

MAX_PIXEL_DIFFERENCE = 2.0
"""Grey levels: frames whose pixels differ by more on average count as other frames, or as wrong colours."""

FileKind = Literal["raw", "packed"]


class ReadRequest(NamedTuple):
    """One video, raw and packed, and the frame numbers to read in each round."""

    name: str
    sources: dict[FileKind, VideoSource]
    frame_indices: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class ReaderTiming:
    """A reader's speed on one core.

    Args:
        seconds_per_clip: Median over the rounds, mean over the videos.
        speedup_over_pyav: Over PyAV's plain loop on the raw videos; None if unknown or if either gives other frames.
        speedup_over_decord: Over decord on the raw videos; None as above.
        min_speedup_over_pyav: Over PyAV's plain loop on the same files, for the video where it is smallest.
        frame_utilization: Share of the decoded frames that were requested; None if the reader does not report it.
        pixel_difference: Mean difference from a full decode of the same file in grey levels, of the worst video.
        error: Why the reader is not compared.
        all_seconds: Seconds by round and video.
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
    """Draw a video's frame numbers as training does in `num_draws` epochs.

    Args:
        index: The video's index in its data set.
        seed: The run's random seed.
    """
    seeds = [derive_sample_seed(seed, epoch, index) for epoch in range(num_draws)]
    return [sampling.draw_indices(num_frames, numpy_rng(sample_seed, "frames")) for sample_seed in seeds]


class _FrameCheck(NamedTuple):
    """Whether a reader returns the frames of a full decode.

    Args:
        can_read: The reader reads every video.
        pixel_difference: As in `ReaderTiming`; None if there are no pixels to compare.
        error: What is wrong, as a clause.
    """

    can_read: bool
    pixel_difference: float | None
    error: str = ""


def measure_reading(readers: dict[str, ReadFramesFn], requests: Sequence[ReadRequest], seed: int) -> list[ReaderTiming]:
    """Check that all readers return the same frames, then time each on every kind of file, interleaved.

    Args:
        readers: Functions by name.
        requests: Videos with the same number of rounds and the same kinds of files.
        seed: Random seed of the order.
    """
    contenders = [(name, kind) for kind in requests[0].sources for name in readers]
    checks: dict[tuple[str, FileKind], _FrameCheck] = {}
    with show_progress_bar("comparing frames") as report_progress, pin_to_one_core():
        for name, kind in contenders:
            checks[name, kind] = _check_reader(readers[name], requests, kind)
            report_progress(len(checks), len(contenders))
    num_rounds = len(requests[0].frame_indices)
    seconds = {key: np.zeros((num_rounds, len(requests))) for key in contenders if checks[key].can_read}
    with show_progress_bar("reading") as report_progress, pin_to_one_core():
        for n in range(num_rounds * len(requests)):
            turn, k = divmod(n, len(requests))
            reads = {
                (name, kind): partial(readers[name], requests[k].sources[kind], requests[k].frame_indices[turn])
                for name, kind in seconds
            }
            for key, duration in time_in_random_order(reads, numpy_rng(seed, f"turns {n}")).items():
                seconds[key][turn, k] = duration
            report_progress(n + 1, num_rounds * len(requests))
    return [_summarize_reader(key, checks, seconds, requests) for key in contenders]


def _check_reader(read: ReadFramesFn, requests: Sequence[ReadRequest], kind: FileKind) -> _FrameCheck:
    worst, mismatches = 0.0, []
    for request in requests:
        source, indices = request.sources[kind], request.frame_indices[0]
        expected = read_with_pyav(source, indices)
        try:
            frames = read(source, indices)
        except Exception as error:  # foreign readers raise exceptions of any type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return _FrameCheck(False, None, f"fails on {request.name}: {reason}")
        if frames.shape != expected.shape:
            mismatches.append(f"{request.name}, of {frames.shape[2]}x{frames.shape[1]} pixels")
            continue
        difference = float(np.abs(frames.astype(np.int16) - expected).mean())
        worst = max(worst, difference)
        if difference > MAX_PIXEL_DIFFERENCE:
            mismatches.append(f"{request.name}, off by {difference:.1f} levels")
    if not mismatches:
        return _FrameCheck(True, worst)
    count = f"{len(mismatches)} of {len(requests)} videos"
    return _FrameCheck(True, worst, f"gives other frames of {count}, first of {mismatches[0]}")


def _summarize_reader(
    contender: tuple[str, FileKind],
    checks: dict[tuple[str, FileKind], _FrameCheck],
    seconds: dict[tuple[str, FileKind], Float[np.ndarray, "rounds videos"]],
    requests: Sequence[ReadRequest],
) -> ReaderTiming:
    (name, kind), check = contender, checks[contender]
    if not check.can_read:
        return ReaderTiming(reader=name, file_kind=kind, error=check.error, all_seconds=[])
    medians = np.median(seconds[contender], axis=0)

    def compute_speedups(other: tuple[str, FileKind]) -> tuple[float | None, float | None]:
        """Return the speed-up over another reader on all videos and on the worst; None if either gives other frames."""
        if check.error or other not in seconds or checks[other].error:
            return None, None
        other_medians = np.median(seconds[other], axis=0)
        return float(other_medians.mean() / medians.mean()), float((other_medians / medians).min())

    return ReaderTiming(
        reader=name,
        file_kind=kind,
        seconds_per_clip=float(medians.mean()),
        clips_per_second=float(1 / medians.mean()),
        speedup_over_pyav=compute_speedups((PYAV_LOOP, "raw"))[0],
        speedup_over_decord=compute_speedups((DECORD, "raw"))[0],
        min_speedup_over_pyav=compute_speedups((PYAV_LOOP, kind))[1],
        frame_utilization=_measure_frame_utilization(requests, kind) if name == VIDSTILL else None,
        pixel_difference=check.pixel_difference,
        error=check.error,
        all_seconds=seconds[contender].tolist(),
    )


def _measure_frame_utilization(requests: Sequence[ReadRequest], kind: FileKind) -> float:
    num_requested = num_decoded = 0
    for request in requests:
        for indices in request.frame_indices:
            num_requested += len(set(indices))
            with VideoReader(request.sources[kind]) as reader:
                reader.read_frames(indices)
                num_decoded += reader.num_decoded_frames
    return num_requested / num_decoded
