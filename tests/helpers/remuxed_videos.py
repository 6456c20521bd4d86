"""What may happen to a finished video: its packets lost, doubled, swapped, restamped; its headers at odds with it."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from encoded_videos import muxing_of


@dataclass(frozen=True)
class Sample:
    """One packet of a video stream; its times in ticks, which last `tick` seconds."""

    data: bytes
    pts: int | None
    dts: int | None
    key: bool
    duration: int
    tick: Fraction

    def moved(self, ticks: int) -> "Sample":
        return replace(self, pts=self.pts + ticks, dts=self.dts + ticks)


Change = Callable[[list[Sample]], Iterable[Sample]]


def samples_of(path: Path) -> list[Sample]:
    """The packets of the best video stream."""
    with av.open(str(path)) as file:
        stream = file.streams.best("video")
        return [
            Sample(bytes(p), p.pts, p.dts, p.is_keyframe, p.duration or 0, p.time_base)
            for p in file.demux(stream)
            if p.size
        ]


def parameters_of(path: Path) -> bytes:
    """What the decoder is told before the first packet."""
    with av.open(str(path)) as file:
        return bytes(file.streams.best("video").codec_context.extradata or b"")


def join(
    parts: Sequence[Sequence[Sample]],
    like: Path,
    path: Path,
    *,
    container: str | None = None,
    muxing: str = "",
    filtered: str = "",
) -> Path:
    """Writes packets, part after part, into one stream that claims to be like that of another file.

    Args:
        filtered: a bitstream filter that every packet goes through.
    """
    with av.open(str(like)) as template, av.open(str(path), "w", format=container, options=muxing_of(muxing)) as out:
        stream = _like(template.streams.best("video"), out)
        through = av.BitStreamFilterContext(filtered, template.streams.best("video")) if filtered else None
        for sample in (sample for part in parts for sample in part):
            packet = av.Packet(sample.data) if sample.data else av.Packet()
            packet.pts, packet.dts, packet.time_base = sample.pts, sample.dts, sample.tick
            packet.duration, packet.is_keyframe = sample.duration, sample.key
            for one in through.filter(packet) if through else [packet]:
                one.stream = stream
                out.mux_one(one)
    return path


def _like(stream: Any, out: Any) -> Any:
    """A stream for the same coding."""
    if stream.codec_context.name != "libdav1d":
        return out.add_stream_from_template(stream)
    copy = out.add_stream("libsvtav1", stream.average_rate)  # what decodes AV1 cannot be asked to write it
    copy.width, copy.height, copy.pix_fmt = stream.width, stream.height, stream.pix_fmt
    return copy


def remux(source: Path, path: Path, change: Change = list, **kinds: str) -> Path:
    """The same video in another container, its packets changed on the way."""
    return join([list(change(samples_of(source)))], source, path, **kinds)


def without(*places: int) -> Change:
    return lambda samples: [sample for n, sample in enumerate(samples) if n not in places]


def doubled(place: int) -> Change:
    """One packet comes twice, at once."""
    return lambda samples: [*samples[: place + 1], *samples[place:]]


def repeated(place: int) -> Change:
    """One packet comes twice, and what follows moves on."""

    def change(samples: list[Sample]) -> list[Sample]:
        return [*samples[: place + 1], *(sample.moved(sample.duration) for sample in samples[place:])]

    return change


def swapped(place: int) -> Change:
    """Two neighbours change their places and keep their own times of presentation."""

    def change(samples: list[Sample]) -> list[Sample]:
        one, other = samples[place : place + 2]
        pair = [replace(other, dts=one.dts), replace(one, dts=other.dts)]
        return [*samples[:place], *pair, *samples[place + 2 :]]

    return change


def shuffled_data(place: int) -> Change:
    """Two neighbours change their contents, not their times."""

    def change(samples: list[Sample]) -> list[Sample]:
        one, other = samples[place : place + 2]
        return [*samples[:place], replace(one, data=other.data), replace(other, data=one.data), *samples[place + 2 :]]

    return change


def flagged(key: Callable[[int, bool], bool]) -> Change:
    """Which packets claim to be key frames, by their place and what they are."""
    return lambda samples: [replace(sample, key=key(n, sample.key)) for n, sample in enumerate(samples)]


def edited(places: Iterable[int], edit: Callable[[bytes], bytes]) -> Change:
    """Some packets hold other bytes."""
    chosen = set(places)
    return lambda samples: [replace(s, data=edit(s.data)) if n in chosen else s for n, s in enumerate(samples)]


def restamped(time: Callable[[int, Sample], tuple[int | None, int | None]]) -> Change:
    """Each packet has the (pts, dts) that its place and old self give."""

    def change(samples: list[Sample]) -> list[Sample]:
        stamps = [time(n, sample) for n, sample in enumerate(samples)]
        return [replace(s, pts=pts, dts=dts) for s, (pts, dts) in zip(samples, stamps, strict=True)]

    return change


def after(first: Sequence[Sample], second: Sequence[Sample]) -> list[Sample]:
    """The second part's packets, moved to begin where the first part's end."""
    return [s.moved(max(one.pts + one.duration for one in first)) for s in second]


def patched(path: Path, find: bytes, place: int, value: bytes, *, every: bool = False) -> Path:
    """Overwrites bytes at a distance from the first (or every) place where a pattern is found."""
    data, at = bytearray(path.read_bytes()), -1
    assert find in data, f"{path} holds no {find!r}"
    while (at := data.find(find, at + 1)) >= 0:
        data[at + place : at + place + len(value)] = value
        if not every:
            break
    path.write_bytes(data)
    return path


def random_change(chance: random.Random) -> Change:
    """Packets lost, doubled, restamped, or flagged otherwise, as careless programs do; one or two such things."""

    def lost(samples: list[Sample], place: int) -> list[Sample]:
        gone = set(chance.sample(range(1, len(samples)), min(chance.choice((1, 1, 2, 5)), len(samples) - 1)))
        return [s for n, s in enumerate(samples) if n not in gone]

    def gap(samples: list[Sample], place: int) -> list[Sample]:
        return samples[:place] + samples[place + chance.randint(2, 15) :]

    def late(samples: list[Sample], place: int) -> list[Sample]:
        return samples[place:]

    def short(samples: list[Sample], place: int) -> list[Sample]:
        return samples[: place + 1]

    def exchanged(samples: list[Sample], place: int) -> list[Sample]:
        other = chance.choice((place - 1, chance.randrange(len(samples))))
        changed = list(samples)
        changed[place] = replace(samples[place], pts=samples[other].pts)
        changed[other] = replace(samples[other], pts=samples[place].pts)
        return changed

    def replaced(samples: list[Sample], place: int) -> list[Sample]:
        other = chance.randrange(len(samples))
        return [replace(s, data=samples[other].data) if n == place else s for n, s in enumerate(samples)]

    def misflagged(samples: list[Sample], place: int) -> list[Sample]:
        return [replace(s, key=chance.random() < 0.5) for s in samples]

    def set_back(samples: list[Sample], place: int) -> list[Sample]:
        back = chance.choice((place, place // 2, 3))
        return [s.moved(-s.duration * back) if n >= place else s for n, s in enumerate(samples)]

    kinds = (lost, gap, late, short, exchanged, replaced, misflagged, set_back)

    def change(samples: list[Sample]) -> list[Sample]:
        for _ in range(chance.choice((1, 1, 2))):
            place = chance.randrange(1, len(samples) - 1)
            samples = chance.choice((*kinds, lambda all, n: doubled(n)(all), lambda all, n: repeated(n)(all)))(
                samples, place
            )
            if len(samples) < 4:
                break
        first = min(s.pts for s in samples)
        return [replace(s, pts=s.pts - first + 40 * s.duration, dts=n + 1) for n, s in enumerate(samples)]

    return change
