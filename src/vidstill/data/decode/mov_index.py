"""The packets of an MP4 or MOV as its header lists them, so that none has to be read to find some frames."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from vidstill.data.decode.codecs import find_keyframe_reader
from vidstill.data.decode.mov_header import MovHeader, iter_atoms
from vidstill.data.decode.packets import PacketTable, number_frames

_CODECS = frozenset({"h264", "hevc"})  # ISO/IEC 14496-15: a sample is one frame, and the sync samples are keyframes
_NUM_COMPARED = 64  # entries of FFmpeg's index, spread over the file


@dataclass(frozen=True)
class _Samples:
    """A track's samples in decoding order; times in its ticks."""

    sizes: Int64[np.ndarray, "samples"]  # bytes
    dts: Int64[np.ndarray, "samples"]
    pts: Int64[np.ndarray, "samples"]  # without the shift of the edit list
    keyframes: Bool[np.ndarray, "samples"]


def build_mov_table(
    container: Any, stream: Any, header: MovHeader, *, num_frames: int | None = None
) -> PacketTable | None:
    """Build the whole table of a stream from the header of an MP4 or MOV.

    Args:
        num_frames: The number of frames that a full decode gave, if known; the header has to agree.

    Returns:
        None where the header leaves a doubt: fragments, several edits or sample descriptions, samples that the file
        does not hold, codecs whose packets may show no frame or two, or what FFmpeg's own index does not confirm.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec not in _CODECS or not find_keyframe_reader(codec, bytes(stream.codec_context.extradata or b"")):
        return None
    samples = _read_samples(header.data, stream.id)
    if samples is None or stream.start_time is None or num_frames not in (None, len(samples.dts)):
        return None
    if not _is_confirmed(container, stream, samples):
        return None
    latest = np.maximum.accumulate(samples.pts)
    keyframes = samples.keyframes.copy()
    keyframes[1:] &= samples.pts[1:] > latest[:-1]
    pts = samples.pts + (stream.start_time - samples.pts.min())
    has_decode_times = bool(np.ptp(samples.pts - samples.dts))
    return number_frames(stream, keyframes, samples.pts, pts=pts, has_decode_times=has_decode_times)


def _is_confirmed(container: Any, stream: Any, samples: _Samples) -> bool:
    """Return whether FFmpeg's index has the same samples, and the file holds them.

    With one edit, the first or the last frame that is shown would be discarded if any were.
    """
    entries, last = stream.index_entries, len(samples.dts) - 1
    if not stream.frames == len(entries) == len(samples.dts):
        return False
    positions = {*np.linspace(0, last, _NUM_COMPARED, dtype=int).tolist(), *range(min(_NUM_COMPARED, last))}
    positions |= {int(samples.pts.argmin()), int(samples.pts.argmax())}
    shift = entries[0].timestamp - samples.dts[0]
    return all(
        entry.timestamp - samples.dts[position] == shift
        and entry.size == samples.sizes[position]
        and entry.pos + entry.size <= container.size
        and not entry.is_discard
        for position, entry in ((position, entries[position]) for position in positions)
    )


def _read_samples(header: bytes, track_id: int) -> _Samples | None:
    """Read the samples of a track; None if they are stated in any way but the plain one."""
    tracks: list[dict[bytes, bytes]] = [{}]
    counts: list[Counter[bytes]] = [Counter()]
    for kind, content in iter_atoms(header):
        if kind in (b"mvex", b"cmvd"):
            return None
        if kind == b"trak":
            tracks.append({})
            counts.append(Counter())
        else:
            tracks[-1][kind] = content
            counts[-1][kind] += 1
    matches = [n for n, atoms in enumerate(tracks) if b"tkhd" in atoms and _read_track_id(atoms[b"tkhd"]) == track_id]
    if len(matches) != 1 or max(counts[matches[0]].values()) > 1:
        return None
    atoms = tracks[matches[0]]
    required = (b"stsd", b"stsz", b"stts")
    if any(kind not in atoms for kind in required) or not _has_one_edit(atoms.get(b"elst", b"")):
        return None
    sizes, num_descriptions = _read_sizes(atoms[b"stsz"]), int.from_bytes(atoms[b"stsd"][4:8], "big")
    num_samples = len(sizes)
    durations = _expand(atoms[b"stts"], num_samples)
    offsets = _expand(atoms[b"ctts"], num_samples) if b"ctts" in atoms else np.zeros(num_samples, np.int64)
    keyframes = _read_keyframes(atoms.get(b"stss"), num_samples)
    if num_descriptions != 1 or not num_samples or not sizes.all():
        return None
    if durations is None or offsets is None or keyframes is None or durations.min() < 0:
        return None
    dts = np.cumsum(durations) - durations
    return _Samples(sizes, dts, dts + offsets, keyframes)


def _read_track_id(content: bytes) -> int:
    return int.from_bytes(content[20:24] if content[:1] == b"\1" else content[12:16], "big")


def _read_rows(content: bytes, row: Any) -> Any:
    """Return the whole rows of a table, which follow 8 bytes."""
    row = np.dtype(row)
    num_rows = max(len(content) - 8, 0) // row.itemsize
    return np.ndarray(num_rows, row, content, 8) if num_rows else np.empty(0, row)


def _has_one_edit(content: bytes) -> bool:
    """Return whether at most one part of a track is shown, perhaps after a pause."""
    if not content:
        return True
    width = 8 if content[0] == 1 else 4
    edits = _read_rows(content, [("duration", f">i{width}"), ("start", f">i{width}"), ("rate", ">i4")])
    return len(edits) == 1 or (len(edits) == 2 and int(edits["start"][0]) == -1)


def _read_sizes(content: bytes) -> Int64[np.ndarray, "samples"]:
    size, count = (int.from_bytes(content[start : start + 4], "big") for start in (4, 8))
    return np.full(count, size) if size else _read_rows(content[4:], ">u4")[:count].astype(np.int64)


def _expand(content: bytes, num_samples: int) -> Int64[np.ndarray, "samples"] | None:
    """Expand runs of equal values; None if they are not of as many samples."""
    runs = _read_rows(content, [("count", ">u4"), ("value", ">i4")])
    counts = runs["count"].astype(np.int64)
    return np.repeat(runs["value"].astype(np.int64), counts) if counts.sum() == num_samples else None


def _read_keyframes(content: bytes | None, num_samples: int) -> Bool[np.ndarray, "samples"] | None:
    if content is None:
        return np.ones(num_samples, bool)
    numbers = _read_rows(content, ">u4").astype(np.int64)  # from 1
    if not len(numbers) or numbers.min() < 1 or numbers.max() > num_samples:
        return None
    keyframes = np.zeros(num_samples, bool)
    keyframes[numbers - 1] = True
    return keyframes
