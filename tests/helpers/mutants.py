"""Damages video files at random, each mutant known by a seed and a number, and watches what reading them does."""

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from vidstill.data.decode.reader import VideoReader, count_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo

HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x40000000, 0x00FFFFFF, 0xFFFF, 0x7FFF, 0x4000)

Bytes = bytearray


def _flip(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    for _ in range(chance.choice((1, 4, 16, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _flip_in_head(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(min(len(data), 1500))] ^= 1 << chance.randrange(8)
    return data


def _overwrite(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    start, length = chance.randrange(len(data)), chance.choice((1, 3, 16, 200, 2000))
    length = min(length, len(data) - start)
    data[start : start + length] = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return data


def _cut(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    one, two = sorted(chance.sample(range(len(data) + 1), 2))
    return chance.choice((data[:one], data[one:], data[:one] + data[two:], data[one:two]))


def _splice(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    """One file's head on another's body."""
    place = chance.choice((64, 300, 1000, len(data) // 2))
    return data[:place] + other[min(place, len(other) // 2) :]


def _repeat(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    one, two = sorted(chance.sample(range(len(data) + 1), 2))
    piece, place = data[one : min(two, one + 4000)], chance.randrange(len(data))
    return data[:place] + piece * chance.choice((1, 2, 20)) + data[place:]


def _insert(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    """A piece of another file in the middle of one."""
    start, place = chance.randrange(len(other)), chance.randrange(len(data))
    return data[:place] + other[start : start + chance.choice((4, 50, 1000))] + data[place:]


def _exaggerate(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    """Lengths, offsets, counts and sizes become huge: any bytes of a header may be one."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        width, order = chance.choice((1, 2, 2, 3, 4, 4, 8)), chance.choice(("big", "little"))
        head = chance.choice((200, 1500, len(data)))
        place = chance.randrange(max(min(head, len(data)) - width, 1))
        if chance.random() < 0.3:  # the end of a file holds indices
            place = len(data) - 1 - place
        value = chance.choice(HUGE) & ((1 << 8 * width) - 1)
        data[place : place + width] = value.to_bytes(width, order)
    return data


def _enlarge(data: Bytes, other: bytes, chance: random.Random) -> Bytes:
    """What may be the picture's size, 64 by 64, claims to be 16,384."""
    small, large = chance.choice(((b"\0\x40", b"\x40\0"), (b"\x40\0", b"\0\x40"), (b"\x40", b"\xff")))
    places = [n for n in range(min(len(data), 4000)) if data[n : n + len(small)] == small]
    for place in chance.sample(places, min(len(places), chance.choice((1, 2, 50)))):
        data[place : place + len(large)] = large
    return data


KINDS: tuple[Callable[[Bytes, bytes, random.Random], Bytes], ...] = (
    _flip, _flip_in_head, _overwrite, _cut, _splice, _repeat, _insert, _exaggerate, _enlarge,
)  # fmt: skip


def mutant(sources: Sequence[Path], seed: int, number: int) -> tuple[str, str, bytes]:
    """What was done, the suffix of the file it was done to, and its bytes; the same for the same sources."""
    chance = random.Random(f"{seed}/{number}")
    source, other = chance.choice(sources), chance.choice(sources)
    kinds = [chance.choice(KINDS) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    data = bytearray(source.read_bytes())
    for kind in kinds:
        data = kind(data, other.read_bytes(), chance) or bytearray(1)
    named = f"{' and '.join(kind.__name__[1:] for kind in kinds)} of {source.name} (with {other.name})"
    return named, source.suffix, bytes(data)


def outcome(source: Path | bytes, seed: int) -> str:
    """Reads a file as a data set would: "frames", "broken", or the error that nobody expects."""
    try:
        frames = count_frames(source)
        chance = random.Random(seed)
        read_frames(source, sorted({0, frames // 2, frames - 1, chance.randrange(frames)}))
        with VideoReader(source) as reader:
            reader.read_frames([0, reader.num_frames - 1])
    except BrokenVideo as error:
        return "broken" if str(error) else "an error without words"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "frames"


@dataclass(frozen=True)
class Reading:
    """What came of one file.

    Args:
        seconds: of computing; a process that gives no answer is ended by the clock.
        resident, peak: memory of the process after it and at its worst, in bytes.
    """

    number: int
    what: str
    outcome: str
    seconds: float
    resident: int
    peak: int


def memory() -> tuple[int, int]:
    """This process's resident memory, now and at its worst since it was last asked, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # begins the worst anew
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024


Make = Callable[[int], tuple[str, str, bytes]]
"""Gives a file by its number: what it is, its suffix, its bytes; for other processes, so a module's function."""


def _read(line: Connection, make: Make) -> None:
    with tempfile.TemporaryDirectory() as folder:
        while True:
            number = line.recv()
            what, suffix, data = make(number)
            source: Path | bytes = data
            if number % 2:  # half of them from a file, whose suffix is believed
                source = Path(folder) / f"mutant{suffix}"
                source.write_bytes(data)
            start = time.process_time()
            result = outcome(source, number)
            line.send(Reading(number, what, result, time.process_time() - start, *memory()))


class _Reader:
    """A process that reads one file after another."""

    def __init__(self, make: Make):
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_read, args=(theirs, make), daemon=True)
        self.process.start()
        theirs.close()
        self.number, self.since = -1, 0.0

    def give(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.line.send(number)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def readings(
    make: Make, numbers: Sequence[int], *, processes: int = 2, limit_seconds: float = 30
) -> Iterator[list[Reading]]:
    """Each process's readings in their order; one that dies or gives no answer is ended, and another takes over.

    Args:
        limit_seconds: by the clock, for one file; the first also waits for what a process imports.
    """
    left = list(reversed(numbers))
    done: dict[_Reader, list[Reading]] = {}

    def begin() -> None:
        if left:
            done[reader := _Reader(make)] = []
            busy.append(reader)
            reader.give(left.pop())

    busy: list[_Reader] = []
    for _ in range(processes):
        begin()
    while busy:
        wait([reader.line for reader in busy], timeout=0.5)
        for reader in list(busy):
            lost = ""
            if reader.line.poll():
                try:
                    done[reader].append(reader.line.recv())
                except EOFError:
                    reader.process.join()
                    lost = f"crash ({reader.process.exitcode})"
            elif time.monotonic() - reader.since > limit_seconds + 30 * (not done[reader]):
                lost = f"no answer in {limit_seconds} s"
            else:
                continue
            if lost:
                reader.end()
                busy.remove(reader)
                done[reader].append(Reading(reader.number, make(reader.number)[0], lost, limit_seconds, 0, 0))
                begin()
            elif left:
                reader.give(left.pop())
            else:
                reader.end()
                busy.remove(reader)
    yield from done.values()
