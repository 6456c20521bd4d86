"""Writes videos whose frames show their own number, for tests that ask which frame came out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np

BITS = 8


def numbered(number: int, rows: int = 32) -> np.ndarray:
    """A picture `(rows, 64, 3)` of eight bars, bright where the number's bit is set."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8)
    return np.broadcast_to(np.repeat(40 + 170 * bits, 8)[None, :, None], (rows, 8 * BITS, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that a picture shows; it may have been resized."""
    bars = frame.mean((0, 2)).reshape(BITS, -1).mean(1)
    return sum(int(bright) << bit for bit, bright in enumerate(bars > 125))


def write_video(
    path: Path,
    frames: int = 20,
    *,
    codec: str = "libx264",
    gop: int = 6,
    numbers: Sequence[int] | None = None,
    index_first: bool = False,
    options: Mapping[str, str] | None = None,
) -> Path:
    """A video of frames 0 … frames-1, or of the given numbers, with B frames where the codec has them.

    Args:
        options: of the encoder, in place of its group's length and its B frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 8 * BITS, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        if options is not None:
            stream.options = dict(options)
        else:
            stream.gop_size = gop
            if codec in ("libx264", "mpeg4"):
                stream.max_b_frames = 2
        for number in range(frames) if numbers is None else numbers:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut_short(path: Path, share: float = 0.5) -> Path:
    """Keeps only the first part of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
