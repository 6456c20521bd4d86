"""Long videos that are written in a second or two: a few groups of pictures whose packets come again and again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from encoded_videos import X264, encode
from remuxed_videos import Sample, read_samples, write_samples

PERIOD = 240
"""After so many frames the pictures come again; a frame shows its number, modulo this."""

GROUP = 30


def write_long_video(
    path: Path, frames: int, *, packet_bytes: int, options: str = "bf=3 b_strategy=0", rate: int = 30
) -> Path:
    """Write a video of H.264 with a keyframe every 30 frames; every packet is filled up to a size.

    Args:
        frames: Rounded up to whole periods.
        options: Further ones of x264.
    """
    part = encode(
        path.with_name(f"part_of_{path.stem}.mp4"),
        "libx264",
        f"{X264} {options}".replace("g=10", f"g={GROUP} keyint_min={GROUP} sc_threshold=0"),
        numbers=range(PERIOD),
        rate=rate,
    )
    return write_samples(_repeat(read_samples(part), frames, packet_bytes), part, path)


def _repeat(samples: Sequence[Sample], frames: int, packet_bytes: int) -> Iterator[Sample]:
    duration = samples[0].duration
    filled = [replace(sample, data=_fill(sample.data, packet_bytes)) for sample in samples]
    for start in range(0, frames, PERIOD):
        yield from (sample.move(start * duration) for sample in filled)


def _fill(data: bytes, size: int) -> bytes:
    """Add a unit of filler data (ITU-T H.264, 7.3.2.7), which decoders pass over."""
    length = max(size - len(data) - 4, 2)
    return data + length.to_bytes(4, "big") + b"\x0c" + b"\xff" * (length - 2) + b"\x80"
