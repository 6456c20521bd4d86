"""The readers of frames that are compared: ours, and what else is installed, each with one thread."""

import importlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.storage.fetch import VideoSource, fetch_source

ReadFramesFn = Callable[[VideoSource, Sequence[int]], Frames]

VIDSTILL, PYAV_LOOP, DECORD, TORCHCODEC = "vidstill", "PyAV's plain loop", "decord", "torchcodec"


def find_readers() -> tuple[dict[str, ReadFramesFn], dict[str, str]]:
    """Those that work here, by their names; and why the others do not."""
    there: dict[str, ReadFramesFn] = {VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav}
    missing = {}
    for name, made in _READER_FACTORIES.items():
        try:
            there[name] = made(importlib.import_module(name))
        except ImportError:
            missing[name] = f"not installed: pip install {name}"
        except (OSError, RuntimeError) as error:  # its libraries, or FFmpeg's, do not load
            missing[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return there, missing


def read_with_pyav(source: VideoSource, indices: Sequence[int]) -> Frames:
    """PyAV from the beginning to the last wanted frame, of which only the wanted ones are converted.

    It is what a full decode gives, so that the others' frames are held to these.
    """
    here, wanted, frames = fetch_source(source), set(indices), {}
    convert = VideoReformatter()
    container: Any
    with av.open(io.BytesIO(here) if isinstance(here, bytes) else f"file:{here}") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for n, frame in enumerate(container.decode(stream)):
            if n in wanted:
                rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                frames[n] = np.rot90(rgb, round(frame.rotation / 90))
            if n == max(wanted):
                break
    return np.stack([frames[n] for n in indices])


def _make_decord_reader(decord: Any) -> ReadFramesFn:
    def read(source: VideoSource, indices: Sequence[int]) -> Frames:
        here = fetch_source(source)
        file = io.BytesIO(here) if isinstance(here, bytes) else str(here)
        return decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1).get_batch(list(indices)).asnumpy()

    return read


def _make_torchcodec_reader(torchcodec: Any) -> ReadFramesFn:
    decoders = importlib.import_module("torchcodec.decoders")

    def read(source: VideoSource, indices: Sequence[int]) -> Frames:
        here = fetch_source(source)
        video = decoders.VideoDecoder(
            here if isinstance(here, bytes) else str(here),
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device="cpu",
            seek_mode="exact",
        )
        return video.get_frames_at(list(indices)).data.numpy()

    return read


_READER_FACTORIES: dict[str, Callable[[Any], ReadFramesFn]] = {
    DECORD: _make_decord_reader,
    TORCHCODEC: _make_torchcodec_reader,
}
