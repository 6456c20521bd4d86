"""Finished videos whose packets are lost, doubled, exchanged, restamped or edited: what careless programs do."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from encoded_videos import make_base, open_output


@dataclass(frozen=True)
class Sample:
    """One packet of a video stream; its times in ticks, which last `tick` seconds."""

    data: bytes
    pts: int
    dts: int
    key: bool
    duration: int
    tick: Fraction

    def move(self, ticks: int) -> "Sample":
        return replace(self, pts=self.pts + ticks, dts=self.dts + ticks)


Change = Callable[[list[Sample]], Iterable[Sample]]


def read_samples(path: Path) -> list[Sample]:
    """Return the packets of the best video stream."""
    with av.open(str(path)) as file:
        packets = file.demux(file.streams.best("video"))
        return [Sample(bytes(p), p.pts, p.dts, p.is_keyframe, p.duration or 0, p.time_base) for p in packets if p.size]


def write_samples(samples: Iterable[Sample], like: Path, path: Path, *, muxing: str = "", noise: int = 0) -> Path:
    """Write packets into one stream that claims to be like that of another file; `noise` damages some bytes."""
    with av.open(str(like)) as template, open_output(path, muxing) as out:
        source = template.streams.best("video")
        if source.codec_context.name == "libdav1d":  # what decodes AV1 cannot be asked to write it
            stream = out.add_stream("libsvtav1", source.average_rate)
            stream.width, stream.height, stream.pix_fmt = source.width, source.height, source.pix_fmt
        else:
            stream = out.add_stream_from_template(source)
        through = av.BitStreamFilterContext(f"noise=amount={noise}", source) if noise else None
        for sample in samples:
            packet = av.Packet(sample.data) if sample.data else av.Packet()
            packet.pts, packet.dts, packet.time_base = sample.pts, sample.dts, sample.tick
            packet.duration, packet.is_keyframe = sample.duration, sample.key
            for one in through.filter(packet) if through else [packet]:
                one.stream = stream
                out.mux_one(one)
    return path


def remux(source: Path, path: Path, change: Change = list, **options: Any) -> Path:
    """Write the same video into another container, its packets changed on the way."""
    return write_samples(change(read_samples(source)), source, path, **options)


def drop(*indices: int) -> Change:
    return lambda samples: [sample for n, sample in enumerate(samples) if n not in indices]


def double(index: int, *, move: bool = False) -> Change:
    """Repeat one packet, at once, or with what follows moved on."""

    def change(samples: list[Sample]) -> list[Sample]:
        return [*samples[: index + 1], *(sample.move(sample.duration * move) for sample in samples[index:])]

    return change


def exchange(index: int, *fields: str, other: int | None = None) -> Change:
    """Give two packets, neighbours unless another is named, each other's `data`, `pts` or both."""

    def change(samples: list[Sample]) -> list[Sample]:
        changed, second = list(samples), index + 1 if other is None else other
        for one, two in ((index, second), (second, index)):
            changed[one] = replace(samples[one], **{name: getattr(samples[two], name) for name in fields})
        return changed

    return change


def flag(is_key: Callable[[int], bool]) -> Change:
    """Let packets claim to be keyframes by their position."""
    return lambda samples: [replace(sample, key=is_key(n)) for n, sample in enumerate(samples)]


def edit(edit_data: Callable[[bytes], bytes], *indices: int) -> Change:
    """Change the bytes of some packets; of all if none are named."""
    return lambda samples: [
        replace(s, data=edit_data(s.data)) if not indices or n in indices else s for n, s in enumerate(samples)
    ]


def restamp(compute: Callable[[int, Sample], tuple[int, int]]) -> Change:
    """Give each packet the (pts, dts) that its position and old self have; counted in frames if it has a duration."""

    def change(samples: list[Sample]) -> list[Sample]:
        stamps = [compute(n, sample) for n, sample in enumerate(samples)]
        return [replace(s, pts=pts, dts=dts) for s, (pts, dts) in zip(samples, stamps, strict=True)]

    return change


def merge_pairs(samples: Sequence[Sample]) -> list[Sample]:
    """Put two frames into each packet."""
    return [replace(one, data=one.data + two.data) for one, two in zip(samples[::2], samples[1::2], strict=True)]


def split_units(data: bytes) -> list[bytes]:
    """Return the units of a packet of H.264 or H.265, each with its length."""
    parts = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        parts.append(data[:end])
        data = data[end:]
    return parts


def halve(samples: Sequence[Sample]) -> list[Sample]:
    """Spread each frame's slices over two packets."""
    halves = []
    for s in samples:
        units, step = split_units(s.data), s.duration // 2
        halves.append(replace(s, data=b"".join(units[:-2]), duration=step))
        halves.append(replace(s, data=b"".join(units[-2:]), key=False, duration=step).move(step))
    return halves


def patch(path: Path, pattern: bytes, offset: int, value: bytes) -> Path:
    """Overwrite bytes at a distance from a pattern."""
    data = bytearray(path.read_bytes())
    at = data.index(pattern) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def draw_change(rng: random.Random) -> Change:
    """Draw one or two careless changes: packets lost, doubled, restamped, or flagged otherwise."""

    def draw(samples: list[Sample], index: int) -> list[Sample]:
        last = len(samples)
        match rng.randrange(9):
            case 0:
                return drop(*rng.sample(range(1, last), min(rng.choice((1, 1, 2, 5)), last - 1)))(samples)
            case 1:
                return samples[:index] + samples[index + rng.randint(2, 15) :]
            case 2:
                return rng.choice((samples[index:], samples[: index + 1]))
            case 3:
                return exchange(index, "pts", other=rng.choice((index - 1, rng.randrange(last))))(samples)
            case 4:
                other = samples[rng.randrange(last)].data
                return edit(lambda data: other, index)(samples)
            case 5:
                return flag(lambda n: rng.random() < 0.5)(samples)
            case 6:
                back = rng.choice((index, index // 2, 3))
                return [s.move(-s.duration * back) if n >= index else s for n, s in enumerate(samples)]
            case kind:
                return double(index, move=kind == 7)(samples)

    def change(samples: list[Sample]) -> list[Sample]:
        for _ in range(rng.choice((1, 1, 2))):
            samples = draw(samples, rng.randrange(1, len(samples) - 1))
            if len(samples) < 4:
                break
        first = min(s.pts for s in samples)
        return [replace(s, pts=s.pts - first + 40 * s.duration, dts=n + 1) for n, s in enumerate(samples)]

    return change


def _show(compute: Callable[[int, float], float]) -> Change:
    """Give each packet the time of presentation, in frames, that its position and old time have; dts ascend."""
    return restamp(lambda n, s: (round((compute(n, s.pts / s.duration) + 9) * s.duration), n + 1))


DECODE_ORDER = restamp(lambda n, s: (n * s.duration, n * s.duration))  # as AVI to MKV by a careless program
BEFORE_ZERO = restamp(lambda n, s: (s.pts - 13 * s.duration, s.dts - 13 * s.duration))
HOURS_LATER = restamp(lambda n, s: (s.pts + 450_000 * s.duration, s.dts + 450_000 * s.duration))  # five hours
A_GAP = restamp(lambda n, s: tuple(at + 45_000 * s.duration * (n >= 20) for at in (s.pts, s.dts)))  # half an hour
ALL_KEYS, NO_KEYS = flag(lambda n: True), flag(lambda n: False)
LATE_KEYS = flag(lambda n: n % 10 == 3)
EXCHANGED = _show(lambda n, time: {12: 13, 13: 12}.get(n, n))
INTERLEAVED = _show(lambda n, time: n % 20 + 0.5 * (n >= 20))  # the second half between the first
_FRAGMENTS = {"muxing": "movflags=frag_keyframe+empty_moov"}
_NEGATIVE = {"muxing": "avoid_negative_ts=disabled"}

REMUXED: dict[str, tuple[str, Change] | tuple[str, Change, dict[str, Any]]] = {
    "all_keys_hevc.mkv": ("x265_open_gop.mp4", ALL_KEYS),
    "all_keys_hevc.mp4": ("x265_open_gop.mp4", ALL_KEYS),
    "all_keys.mp4": ("x264_b3.mp4", ALL_KEYS),
    "all_keys_vp9.webm": ("vp9.webm", ALL_KEYS),
    "all_keys_mpeg4.avi": ("mpeg4_b.avi", ALL_KEYS),
    "no_keys.avi": ("mpeg4_b.avi", NO_KEYS),
    "no_keys.mp4": ("x264_b3.mp4", NO_KEYS),
    "no_keys_mjpeg.mkv": ("mjpeg.mkv", NO_KEYS),
    "late_keys.mp4": ("x264_b3.mp4", LATE_KEYS),
    "late_keys_mpeg4.avi": ("mpeg4_b.avi", LATE_KEYS),
    "late_keys_hevc.mp4": ("x265_closed.mp4", LATE_KEYS),
    "late_keys_vp8.webm": ("vp8.webm", LATE_KEYS),
    "cut_front.mkv": ("x264_b3.mp4", drop(0, 1, 2)),
    "cut_front.mp4": ("x264_b3.mp4", drop(0, 1, 2)),
    "cut_front_open_gop.mkv": ("x264_open_gop.mp4", drop(*range(10))),
    "cut_front_hevc.mkv": ("x265_open_gop.mp4", drop(0, 1, 2)),
    "cut_front_hevc_to_its_key.mkv": ("x265_open_gop.mp4", drop(*range(10))),
    "cut_front_mpeg4.avi": ("mpeg4_b.avi", drop(0, 1, 2)),
    "cut_front_vp8.webm": ("vp8.webm", drop(0, 1, 2)),
    "cut_front_vp9.webm": ("vp9.webm", drop(0, 1, 2)),
    "cut_front_av1.mkv": ("av1.mkv", drop(0, 1, 2)),
    "lost_reference.mkv": ("x264_b3.mp4", drop(11)),
    "lost_b.mkv": ("x264_b3.mp4", drop(13)),
    "lost_reference_mpeg4.avi": ("mpeg4_b.avi", drop(11)),
    "lost_reference_vp9.webm": ("vp9.webm", drop(11)),
    "lost_key.mkv": ("x264_b3.mp4", drop(20)),
    "lost_reference_hevc.mkv": ("x265_closed.mp4", drop(11)),
    "lost_key_hevc.mkv": ("x265_open_gop.mp4", drop(*range(15, 25))),
    "lost_reference_vp8.webm": ("vp8.webm", drop(11)),
    "dropped_mjpeg.avi": ("mjpeg.avi", drop(7, 8, 21)),  # AVI states dropped frames as chunks of no bytes
    "dropped_mpeg4.avi": ("msmpeg4v3.avi", drop(7, 8, 21)),
    "doubled_reference.mkv": ("x264_b3.mp4", double(11)),
    "doubled_b.mkv": ("x264_b3.mp4", double(13)),
    "doubled_key.mkv": ("x264_b3.mp4", double(20)),
    "doubled_vp9.webm": ("vp9.webm", double(11)),
    "doubled_b_hevc.mkv": ("x265_closed.mp4", double(13)),
    "repeated_reference.mkv": ("x264_b3.mp4", double(11, move=True)),
    "repeated_b.mkv": ("x264_b3.mp4", double(13, move=True)),
    "repeated_key.mp4": ("x264_b3.mp4", double(20, move=True)),
    "repeated_hevc.mkv": ("x265_closed.mp4", double(11, move=True)),
    "repeated_vp9.webm": ("vp9.webm", double(11, move=True)),
    "repeated_mpeg4.avi": ("mpeg4_b.avi", double(11, move=True)),
    "swapped.mkv": ("x264_b3.mp4", exchange(12, "data", "pts")),
    "swapped_at_the_key.mkv": ("x264_b3.mp4", exchange(19, "data", "pts", "key")),
    "swapped_data.mp4": ("x264_b3.mp4", exchange(12, "data")),
    "swapped_data.mkv": ("x264_no_b.mp4", exchange(12, "data")),
    "swapped_data_b.mkv": ("x264_b3.mp4", exchange(13, "data")),
    "swapped_data_mpeg4.mkv": ("mpeg4_b.mp4", exchange(12, "data")),
    "exchanged_in_time.mp4": ("x264_b3.mp4", exchange(12, "pts")),
    "exchanged_in_time_no_b.mkv": ("x264_no_b.mp4", EXCHANGED),
    "exchanged_av1.mkv": ("av1.mkv", EXCHANGED),
    "interleaved_vp9.webm": ("vp9.webm", INTERLEAVED),
    "interleaved_mpeg4.mkv": ("mpeg4.mp4", INTERLEAVED),
    "interleaved_no_b.mkv": ("x264_no_b.mp4", INTERLEAVED),
    "stamps_in_decode_order.mkv": ("x264_b3.mp4", DECODE_ORDER),
    "stamps_in_decode_order.mp4": ("x264_b3.mp4", DECODE_ORDER),
    "stamps_in_decode_order_hevc.mp4": ("x265_closed.mp4", DECODE_ORDER),
    "stamps_in_decode_order_mpeg4.mkv": ("mpeg4_b.mkv", DECODE_ORDER),
    "hours_later.mp4": ("x264_b3.mp4", HOURS_LATER),
    "hours_later.mkv": ("x264_b3.mp4", HOURS_LATER),
    "a_gap.mp4": ("x264_b3.mp4", A_GAP),
    "a_gap.mkv": ("x264_b3.mp4", A_GAP),
    "before_zero.mkv": ("x264_b3.mp4", BEFORE_ZERO, _NEGATIVE),
    "before_zero.mp4": ("x264_b3.mp4", BEFORE_ZERO, _NEGATIVE),
    "back_to_the_start.mkv": ("x264_b3.mp4", _show(lambda n, time: time + 31 - 20 * (n >= 20))),
    "one_time_for_two.mkv": ("x264_b3.mp4", _show(lambda n, time: time // 2 * 2)),
    "one_time_for_two_vp9.webm": ("vp9.webm", _show(lambda n, time: time // 2 * 2)),
    "one_time_for_all.mp4": ("x264_b3.mp4", _show(lambda n, time: 0)),
    "irregular.mkv": ("x264_b3.mp4", _show(lambda n, time: time + time * time / 8)),
    "reversed_stamps.mkv": ("x264_no_b.mp4", _show(lambda n, time: 51 - time)),
    "reversed_stamps.mp4": ("x264_no_b.mp4", _show(lambda n, time: 51 - time)),
    "from_avi.mkv": ("x264_b3.avi", list),
    "av1.avi": ("av1.mp4", list),
    "from_ts.mp4": ("x264_open_gop.ts", list),
    "vp9.avi": ("vp9.webm", list),
    "fragmented.mp4": ("x264_b3.mp4", list, _FRAGMENTS),
    "fragmented_dash.mp4": ("x264_open_gop.mp4", list, {"muxing": "movflags=dash+delay_moov frag_duration=300000"}),
    "fragmented_every_frame.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=frag_every_frame+empty_moov"}),
    "no_edit_list.mp4": ("x264_b3.mp4", list, {"muxing": "use_editlist=0"}),
    "negative_offsets.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=negative_cts_offsets"}),
    "fragmented_hevc.mp4": ("x265_open_gop.mp4", list, {"muxing": "movflags=frag_keyframe+default_base_moof"}),
    "clusters_of_three.mkv": ("x264_open_gop.mp4", list, {"muxing": "cluster_size_limit=400"}),
    "no_cues.mkv": ("x264_b3.mp4", list, {"muxing": "live=1"}),
    "noise.mkv": ("x264_b3.mp4", list, {"noise": 400}),
    "noise_mpeg4.avi": ("mpeg4_b.avi", list, {"noise": 200}),
    "noise_hevc.mkv": ("x265_open_gop.mp4", list, {"noise": 300}),
    "noise_vp8.webm": ("vp8.webm", list, {"noise": 2000}),
    "noise_vp9.webm": ("vp9.webm", list, {"noise": 2000}),
    "noise_av1.mkv": ("av1.mkv", list, {"noise": 300}),
    "pairs.mkv": ("x264_no_b.mp4", merge_pairs),
    "pairs_b.mp4": ("x264_b3.mp4", merge_pairs),
    "pairs_av1.mkv": ("av1.mkv", merge_pairs),
    "halves.mkv": ("x264_slices.mp4", halve),
    "halves.mp4": ("x264_slices.mp4", halve),
    "first_slice_lost.mp4": ("x264_slices.mp4", edit(lambda data: b"".join(split_units(data)[1:]), 11, 13, 22)),
    "last_slice_lost.mp4": ("x264_slices.mp4", edit(lambda data: b"".join(split_units(data)[:-1]), 11, 13, 22)),
    "end_of_sequence.mkv": ("x264_b3.mp4", edit(lambda data: data + b"\0\0\0\1\x0a", 12, 25)),
    "end_of_stream.mp4": ("x264_open_gop.mp4", edit(lambda data: data + b"\0\0\0\1\x0b", 9, 19)),
    "end_of_sequence_hevc.mkv": ("x265_open_gop.mp4", edit(lambda data: data + b"\0\0\0\2\x48\1", 9, 19)),
}


def write_remuxed(path: Path, row: tuple) -> Path:
    return remux(make_base(path, row[0]), path, row[1], **(row[2] if len(row) > 2 else {}))
