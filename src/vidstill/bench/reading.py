"""Frame readers compared, ours and other installed ones: the same frames of the same videos, interleaved on one core.

Each reader has one thread.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Literal, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from vidstill.data.decode.container import open_container
from vidstill.data.decode.reader import Frames, VideoReader, read_frames
from vidstill.data.storage.fetch import VideoSource, fetch_source, source_name
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.timing import pin_to_one_core, time_in_random_order

MAX_PIXEL_DIFFERENCE = 2.0
"""Grey levels: frames whose pixels differ by more on average count as other frames, or as wrong colours."""

VIDSTILL, PYAV_LOOP, DECORD, TORCHCODEC = "vidstill", "PyAV's plain loop", "decord", "torchcodec"

FileKind = Literal["raw", "packed"]

ReadFramesFn = Callable[[VideoSource, Sequence[int]], Frames]


# ---- Readers --------------------------------------------------------------------------------------------------------


def find_readers() -> tuple[dict[str, ReadFramesFn], dict[str, str]]:
    """Return the readers that work on this machine, by name, and why the others do not."""
    readers: dict[str, ReadFramesFn] = {VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav}
    missing = {}
    for name, module, read in (
        (DECORD, "decord", _read_with_decord),
        (TORCHCODEC, "torchcodec.decoders", _read_with_torchcodec),
    ):
        try:
            import_module(module)
            readers[name] = read
        except ImportError:
            missing[name] = f"not installed: pip install {name}"
        except (OSError, RuntimeError) as error:  # its libraries, or FFmpeg's, do not load
            missing[name] = _get_first_line(error)
    return readers, missing


def read_with_pyav(source: VideoSource, indices: Sequence[int]) -> Frames:
    """Decode with PyAV from the first to the last requested frame, and convert only the requested ones.

    These are the frames of a full decode, which the other readers' frames are compared with.
    """
    requested, frames = set(indices), {}
    convert = VideoReformatter()
    with open_container(fetch_source(source), source_name(source)) as (container, _):
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for n, frame in enumerate(container.decode(stream)):
            if n in requested:
                rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                frames[n] = np.rot90(rgb, round(frame.rotation / 90))
            if n == max(requested):
                break
    return np.stack([frames[n] for n in indices])


def _read_with_decord(source: VideoSource, indices: Sequence[int]) -> Frames:
    import decord

    return decord.VideoReader(_fetch_file(source), ctx=decord.cpu(0), num_threads=1).get_batch(list(indices)).asnumpy()


def _read_with_torchcodec(source: VideoSource, indices: Sequence[int]) -> Frames:
    from torchcodec.decoders import VideoDecoder

    options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "device": "cpu", "seek_mode": "exact"}
    return VideoDecoder(_fetch_file(source), **options).get_frames_at(list(indices)).data.numpy()


def _fetch_file(source: VideoSource) -> str | io.BytesIO:
    file = fetch_source(source)
    return io.BytesIO(file) if isinstance(file, bytes) else str(file)


def _get_first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- Comparison -----------------------------------------------------------------------------------------------------


class ReadRequest(NamedTuple):
    """One video, raw and packed, and the frame numbers to read in each round."""

    name: str
    sources: Mapping[FileKind, VideoSource]
    frame_indices: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class ReaderTiming:
    """A reader's speed on one core."""

    reader: str
    file_kind: FileKind
    seconds_per_clip: float | None = None  # median over the rounds, mean over the videos
    clips_per_second: float | None = None
    speedup_over_pyav: float | None = None  # PyAV's plain loop on the raw videos; None if either gives other frames
    speedup_over_decord: float | None = None  # on the raw videos; None as above
    min_speedup_over_pyav: float | None = None  # on the same files, for the video where it is smallest
    frame_utilization: float | None = None  # share of the decoded frames that were requested; None if not reported
    pixel_difference: float | None = None  # mean difference from a full decode in grey levels, of the worst video
    error: str = ""  # why the reader is not compared
    all_seconds: list[list[float]]  # by round and video


_Contender = tuple[str, FileKind]


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


def measure_reading(readers: dict[str, ReadFramesFn], requests: Sequence[ReadRequest], seed: int) -> list[ReaderTiming]:
    """Check that all readers return the same frames, then time each on every kind of file, interleaved.

    Args:
        readers: Functions by name.
        requests: Videos with the same number of rounds and the same kinds of files.
        seed: Random seed of the order.
    """
    timings: dict[_Contender, ReaderTiming] = {}
    contenders = [(name, kind) for kind in requests[0].sources for name in readers]
    with show_progress_bar("comparing frames") as report_progress, pin_to_one_core():
        for name, kind in contenders:
            difference, error = _compare_frames(readers[name], requests, kind)
            timings[name, kind] = ReaderTiming(
                reader=name, file_kind=kind, pixel_difference=difference, error=error, all_seconds=[]
            )
            report_progress(len(timings), len(contenders))
    num_rounds = len(requests[0].frame_indices)
    able = [key for key in contenders if timings[key].pixel_difference is not None]
    seconds = {key: np.zeros((num_rounds, len(requests))) for key in able}
    with show_progress_bar("reading") as report_progress, pin_to_one_core():
        for n in range(num_rounds * len(requests)):
            turn, k = divmod(n, len(requests))
            sources, indices = requests[k].sources, requests[k].frame_indices[turn]
            reads = {(name, kind): partial(readers[name], sources[kind], indices) for name, kind in able}
            for key, duration in time_in_random_order(reads, numpy_rng(seed, f"turns {n}")).items():
                seconds[key][turn, k] = duration
            report_progress(n + 1, num_rounds * len(requests))
    medians = {key: np.median(each, axis=0) for key, each in seconds.items()}

    def compute_speedups(key: _Contender, other: _Contender) -> tuple[float | None, float | None]:
        """Return the speed-up over another reader on all videos and on the worst; None if either gives other frames."""
        if other not in medians or timings[key].error or timings[other].error:
            return None, None
        return float(medians[other].mean() / medians[key].mean()), float((medians[other] / medians[key]).min())

    for name, kind in able:
        key, mean = (name, kind), medians[name, kind].mean()
        timings[key] = replace(
            timings[key],
            seconds_per_clip=float(mean),
            clips_per_second=float(1 / mean),
            speedup_over_pyav=compute_speedups(key, (PYAV_LOOP, "raw"))[0],
            speedup_over_decord=compute_speedups(key, (DECORD, "raw"))[0],
            min_speedup_over_pyav=compute_speedups(key, (PYAV_LOOP, kind))[1],
            frame_utilization=_measure_frame_utilization(requests, kind) if name == VIDSTILL else None,
            all_seconds=seconds[key].tolist(),
        )
    return list(timings.values())


def _compare_frames(read: ReadFramesFn, requests: Sequence[ReadRequest], kind: FileKind) -> tuple[float | None, str]:
    """Return the pixel difference from a full decode, None if the reader fails, and what is wrong, as a clause."""
    worst, mismatches = 0.0, []
    for request in requests:
        source, indices = request.sources[kind], request.frame_indices[0]
        expected = read_with_pyav(source, indices)
        try:
            frames = read(source, indices)
        except Exception as error:  # foreign readers raise exceptions of any type
            return None, f"fails on {request.name}: {_get_first_line(error)}"
        if frames.shape != expected.shape:
            mismatches.append(f"{request.name}, of {frames.shape[2]}x{frames.shape[1]} pixels")
            continue
        difference = float(np.abs(frames.astype(np.int16) - expected).mean())
        worst = max(worst, difference)
        if difference > MAX_PIXEL_DIFFERENCE:
            mismatches.append(f"{request.name}, off by {difference:.1f} levels")
    count = f"{len(mismatches)} of {len(requests)} videos"
    return worst, f"gives other frames of {count}, first of {mismatches[0]}" if mismatches else ""


def _measure_frame_utilization(requests: Sequence[ReadRequest], kind: FileKind) -> float:
    num_requested = num_decoded = 0
    for request in requests:
        for indices in request.frame_indices:
            num_requested += len(set(indices))
            with VideoReader(request.sources[kind]) as reader:
                reader.read_frames(indices)
                num_decoded += reader.num_decoded_frames
    return num_requested / num_decoded
