"""The frame readers that are compared: ours and other installed ones, each with one thread."""

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
    """Return the readers that work on this machine, by name, and why the others do not."""
    readers: dict[str, ReadFramesFn] = {VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav}
    missing = {}
    for name, make_reader in _READER_FACTORIES.items():
        try:
            readers[name] = make_reader()
        except ImportError:
            missing[name] = f"not installed: pip install {name}"
        except (OSError, RuntimeError) as error:  # its libraries, or FFmpeg's, do not load
            missing[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return readers, missing


def read_with_pyav(source: VideoSource, indices: Sequence[int]) -> Frames:
    """Decode with PyAV from the first to the last requested frame, and convert only the requested ones.

    These are the frames of a full decode, which the other readers' frames are compared with.
    """
    here, requested, frames = fetch_source(source), set(indices), {}
    convert = VideoReformatter()
    container: Any
    with av.open(io.BytesIO(here) if isinstance(here, bytes) else f"file:{here}") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for n, frame in enumerate(container.decode(stream)):
            if n in requested:
                rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                frames[n] = np.rot90(rgb, round(frame.rotation / 90))
            if n == max(requested):
                break
    return np.stack([frames[n] for n in indices])


def _make_decord_reader() -> ReadFramesFn:
    import decord

    def read(source: VideoSource, indices: Sequence[int]) -> Frames:
        here = fetch_source(source)
        file = io.BytesIO(here) if isinstance(here, bytes) else str(here)
        return decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1).get_batch(list(indices)).asnumpy()

    return read


def _make_torchcodec_reader() -> ReadFramesFn:
    from torchcodec.decoders import VideoDecoder

    def read(source: VideoSource, indices: Sequence[int]) -> Frames:
        here = fetch_source(source)
        video = VideoDecoder(
            here if isinstance(here, bytes) else str(here),
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device="cpu",
            seek_mode="exact",
        )
        return video.get_frames_at(list(indices)).data.numpy()

    return read


_READER_FACTORIES: dict[str, Callable[[], ReadFramesFn]] = {
    DECORD: _make_decord_reader,
    TORCHCODEC: _make_torchcodec_reader,
}
