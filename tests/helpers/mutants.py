"""Damages video files at random, each mutant known by a seed and a number, and measures how reading them ends."""

import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidstill.data.decode.reader import VideoReader, count_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo

HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x40000000, 0x00FFFFFF, 0xFFFF, 0x7FFF, 0x4000)
KINDS = ("flip", "flip in the head", "overwrite", "cut", "splice", "repeat", "insert", "exaggerate", "enlarge")


def damage(data: bytearray, other: bytes, kind: str, rng: random.Random) -> bytearray:
    """Damage a file in one way, with parts of another file."""
    size = len(data)
    at, (one, two) = rng.randrange(size), sorted(rng.sample(range(size + 1), 2))
    match kind:
        case "flip" | "flip in the head":
            for _ in range(rng.choice((1, 4, 16, 64))):
                data[rng.randrange(size if kind == "flip" else min(size, 1500))] ^= 1 << rng.randrange(8)
        case "overwrite":
            length = min(rng.choice((1, 3, 16, 200, 2000)), size - at)
            data[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
        case "cut":
            return rng.choice((data[:one], data[one:], data[:one] + data[two:], data[one:two]))
        case "splice":  # one file's head on another's body
            end = rng.choice((64, 300, 1000, size // 2))
            return data[:end] + other[min(end, len(other) // 2) :]
        case "repeat":
            return data[:at] + data[one : min(two, one + 4000)] * rng.choice((1, 2, 20)) + data[at:]
        case "insert":
            start = rng.randrange(len(other))
            return data[:at] + other[start : start + rng.choice((4, 50, 1000))] + data[at:]
        case "exaggerate":  # lengths, offsets, counts and sizes become huge: any bytes of a header may be one
            for _ in range(rng.choice((1, 1, 2, 4))):
                width, order = rng.choice((1, 2, 2, 3, 4, 4, 8)), rng.choice(("big", "little"))
                at = rng.randrange(max(min(rng.choice((200, 1500, size)), size) - width, 1))
                if rng.random() < 0.3:  # the end of a file holds indices
                    at = size - 1 - at
                data[at : at + width] = (rng.choice(HUGE) & ((1 << 8 * width) - 1)).to_bytes(width, order)
        case "enlarge":  # any bytes that may be the frame's size, 64 by 64, claim 16,384
            small, large = rng.choice(((b"\0\x40", b"\x40\0"), (b"\x40\0", b"\0\x40"), (b"\x40", b"\xff")))
            offsets = [n for n in range(min(size, 4000)) if data[n : n + len(small)] == small]
            for at in rng.sample(offsets, min(len(offsets), rng.choice((1, 2, 50)))):
                data[at : at + len(large)] = large
    return data


def make_mutant(sources: Sequence[Path], seed: int, number: int) -> tuple[str, str, bytes]:
    """Return what was done, the file's suffix and its bytes; the same for the same sources."""
    rng = random.Random(f"{seed}/{number}")
    source, other = rng.choice(sources), rng.choice(sources)
    kinds = [rng.choice(KINDS) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    data = bytearray(source.read_bytes())
    for kind in kinds:
        data = damage(data, other.read_bytes(), kind, rng) or bytearray(1)
    return f"{' and '.join(kinds)} of {source.name} (with {other.name})", source.suffix, bytes(data)


def read_as_dataset(source: Path | bytes, seed: int) -> str:
    """Return how reading a file as a data set would ends: "frames", "broken", or the error that nobody expects."""
    try:
        frames = count_frames(source)
        read_frames(source, sorted({0, frames // 2, frames - 1, random.Random(seed).randrange(frames)}))
        with VideoReader(source) as reader:
            reader.read_frames([0, reader.num_frames - 1])
    except BrokenVideo as error:
        return "broken" if str(error) else "an error without words"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "frames"


@dataclass(frozen=True)
class Reading:
    """How the reading of one file ended.

    Args:
        seconds: Of computing.
        resident, peak: Memory of the process after it and at its worst, in bytes.
    """

    name: str
    outcome: str
    process: int
    seconds: float
    resident: int
    peak: int


def read_file(file: tuple[str, str, bytes], number: int) -> Reading:
    """Read a file of a name, a suffix and bytes, in this process."""
    name, suffix, data = file
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        source: Path | bytes = data
        if number % 2:  # a file, whose suffix is believed
            source = Path(folder) / f"mutant{suffix}"
            source.write_bytes(data)
        outcome = read_as_dataset(source, number)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # the worst begins anew
    memory = [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")]
    return Reading(name, outcome, os.getpid(), time.process_time() - start, *memory)
