"""Writes MP4 files whose tables say just what they are told, true or not."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from remuxed_videos import Sample


def box(name: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name.encode()) + body


def full(name: str, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *parts)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *(v % (1 << 32) for v in values))


UPRIGHT = numbers(1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def entry(kind: str, parameters: bytes, size: tuple[int, int] = (64, 64)) -> bytes:
    """One sample description: `avc1` with its avcC, `hvc1` with its hvcC, `mp4v` with its esds."""
    inner = {"avc1": "avcC", "avc3": "avcC", "hvc1": "hvcC", "hev1": "hvcC"}[kind]
    head = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", *size)
    head += numbers(72 << 16, 72 << 16, 0) + struct.pack(">H", 1) + bytes(32) + struct.pack(">Hh", 24, -1)
    return box(kind, head, box(inner, parameters))


def write_mp4(
    path: Path,
    samples: Sequence[Sample],
    entries: Sequence[bytes],
    *,
    entry_of: Sequence[int] | None = None,
    edits: Sequence[tuple[int, int]] | None = None,
    keys: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
    size: tuple[int, int] = (64, 64),
    matrix: bytes = UPRIGHT,
) -> Path:
    """A movie of one track, each sample a chunk of its own.

    Args:
        entry_of: which sample description each sample has, from 1.
        edits: (duration, start) in ticks of the track; a start of -1 is a pause.
        keys: places of key frames, from 0; else what the samples say.
        sizes: of the samples in bytes, as the table has them.
        offsets: places of the samples' bytes, counted from the first sample's.
        size: in pixels, of the track.
    """
    tick = samples[0].tick
    scale = round(1 / tick)
    steps = [b.dts - a.dts for a, b in pairwise(samples)] + [samples[-1].duration]
    delays = [s.pts - s.dts for s in samples]
    keys = [n for n, s in enumerate(samples) if s.key] if keys is None else keys
    sizes = [len(s.data) for s in samples] if sizes is None else sizes
    starts = [sum(len(s.data) for s in samples[:n]) for n in range(len(samples))] if offsets is None else offsets
    length = sum(steps)

    def movie(base: int) -> bytes:
        of = entry_of or [1] * len(samples)
        table = box(
            "stbl",
            full("stsd", numbers(len(entries)), *entries),
            full("stts", numbers(len(steps)), *(numbers(1, step) for step in steps)),
            full("ctts", numbers(len(delays)), *(numbers(1, delay) for delay in delays), version=1),
            full("stss", numbers(len(keys)), *(numbers(n + 1) for n in keys)),
            full("stsc", numbers(len(of)), *(numbers(n + 1, 1, kind) for n, kind in enumerate(of))),
            full("stsz", numbers(0, len(sizes)), *(numbers(s) for s in sizes)),
            full("stco", numbers(len(starts)), *(numbers(base + s) for s in starts)),
        )
        data = box("dinf", full("dref", numbers(1), full("url ", flags=1)))
        info = box("minf", full("vmhd", bytes(8), flags=1), data, table)
        media = box(
            "mdia",
            full("mdhd", numbers(0, 0, scale, length), bytes(4)),
            full("hdlr", bytes(4), b"vide", bytes(13)),
            info,
        )
        head = numbers(0, 0, 1, 0, length), bytes(16), matrix, numbers(size[0] << 16, size[1] << 16)
        list_of_edits = b""
        if edits is not None:
            lines = (numbers(duration, start, 1 << 16) for duration, start in edits)
            list_of_edits = box("edts", full("elst", numbers(len(edits)), *lines))
        track = box("trak", full("tkhd", *head, flags=3), list_of_edits, media)
        clock = numbers(0, 0, scale, length, 1 << 16), struct.pack(">H", 256), bytes(10), UPRIGHT, bytes(24), numbers(2)
        return box("moov", full("mvhd", *clock), track)

    kind = box("ftyp", b"isom", numbers(512), b"isomiso2avc1mp41")
    base = len(kind) + len(movie(0)) + 8
    path.write_bytes(kind + movie(base) + box("mdat", *(s.data for s in samples)))
    return path
