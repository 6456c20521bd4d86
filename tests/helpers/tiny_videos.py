"""Writes videos whose frames show their own number, for tests of which frame was read."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8


def numbered(number: int, rows: int = 32, bits: int = BITS) -> np.ndarray:
    """Return an image `(rows, 8 * bits, 3)` of bars, bright where the number's bit is set."""
    is_bright = np.array([(number >> bit) & 1 for bit in range(bits)], np.uint8)
    return np.broadcast_to(np.repeat(40 + 170 * is_bright, 8)[None, :, None], (rows, 8 * bits, 3)).copy()


def number_of(frame: np.ndarray, bits: int = BITS) -> int:
    """Return the number that an image shows; it may have been resized."""
    bars = [bar.mean() for bar in np.array_split(frame, bits, axis=1)]
    return sum(int(bright > 125) << bit for bit, bright in enumerate(bars))


def write_images(
    path: Path,
    images: Sequence[np.ndarray],
    codec: str = "libx264",
    rate: int = 25,
    *,
    ticks: Sequence[int] | None = None,
    muxing: Mapping[str, str] | None = None,
    degrees: int = 0,
    **stream_attributes: Any,
) -> Path:
    """Write images as a video.

    Args:
        ticks: When each is shown, in frames at the rate; None: one after another.
        muxing: Options of the container.
        degrees: By which a player turns it, counter-clockwise.
        stream_attributes: Such as `gop_size` or `max_b_frames`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(muxing or {})) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        for name, value in stream_attributes.items():
            setattr(stream, name, value)
        if degrees:
            stream.set_display_rotation(degrees)
        for n, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[n], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


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
    """Write frames 0 … frames-1, or of the given numbers, with B frames where the codec has them.

    Args:
        options: Of the encoder, in place of its group's length and its B frames.
    """
    attributes: dict[str, Any] = {"gop_size": gop} if options is None else {"options": dict(options)}
    if options is None and codec in ("libx264", "mpeg4"):
        attributes["max_b_frames"] = 2
    images = [numbered(number) for number in (range(frames) if numbers is None else numbers)]
    muxing = {"movflags": "faststart"} if index_first else {}
    return write_images(path, images, codec, muxing=muxing, **attributes)


def cut_short(path: Path, share: float = 0.5) -> Path:
    """Keep only the first part of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
