"""What the first bytes of a coded picture tell before it is decoded: may decoding begin here, does another need it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

Coded = bytes | memoryview


class Look(NamedTuple):
    """What a packet is to the others.

    Args:
        starts: decoding may begin here: what is shown from here on comes out as if all before had been decoded.
        spare: no other picture is predicted from it.
        layer: its temporal layer; where there are several, only those of the highest are spare.
    """

    starts: bool
    spare: bool
    layer: int = 0


Looker = Callable[[Coded], Look | None]
"""Gives None for a packet that does not show exactly one frame, or of which that is not certain."""

_INTRA_ONLY = {"mjpeg", "png", "bmp", "prores", "dnxhd", "rawvideo", "huffyuv", "utvideo", "v210", "jpeg2000"}


def looker(codec: str, extradata: bytes) -> Looker | None:
    """How packets of this codec are looked at; None for one that is decoded from its beginning.

    Args:
        codec: as FFmpeg names it.
        extradata: of the stream; says for H.264 and HEVC how the parts of a packet are set apart.
    """
    if codec in _INTRA_ONLY:
        return lambda coded: Look(starts=True, spare=True)
    if codec == "h264":
        size = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 4 else 0
        return lambda coded: _h264(coded, size)
    if codec == "hevc":
        size = (extradata[21] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 21 else 0
        return lambda coded: _hevc(coded, size)
    return {"mpeg4": _mpeg4, "vp8": _vp8, "vp9": _vp9, "av1": _av1}.get(codec)


def _units(coded: Coded, size: int) -> Iterator[int]:
    """Where the network abstraction layer units begin: each after its length of `size` bytes, or after a start code."""
    at, end = 0, len(coded)
    if size:
        while at + size < end:
            yield at + size
            at += size + int.from_bytes(coded[at : at + size], "big")
        return
    coded = bytes(coded)
    while 0 <= (at := coded.find(b"\0\0\1", at)) < end - 3:
        at += 3
        yield at


def _h264(coded: Coded, size: int) -> Look | None:
    """ITU-T H.264, 7.3.1 and 7.4.1: nal_ref_idc and nal_unit_type."""
    kinds, referred, recovers = [], 0, False
    for at in _units(coded, size):
        kind = coded[at] & 31
        if 1 <= kind <= 5:
            kinds.append(kind)
            referred |= coded[at] & 0x60
        elif kind == 6:
            recovers = recovers or _is_recovery_point(coded[at + 1 : at + 12])
    if not kinds:
        return None
    return Look(starts=kinds[0] == 5 or recovers, spare=not referred)


def _is_recovery_point(message: Coded) -> bool:
    """H.264, D.1.8: the message says that from here on, at once (recovery_frame_cnt 0), all is exact."""
    # payload type 6, its size, then recovery_frame_cnt as ue(v) 0: a bit 1; then exact_match_flag
    return len(message) > 2 and message[0] == 6 and message[2] >> 6 == 3


def _hevc(coded: Coded, size: int) -> Look | None:
    """ITU-T H.265, table 7-1; after 16 to 18 (broken links) and 36, 37 (ends) decoders leave out pictures."""
    kinds, layer = [], 0
    for at in _units(coded, size):
        kind = coded[at] >> 1 & 63
        if 16 <= kind <= 18 or kind in (36, 37):
            return None
        if kind < 32:
            kinds.append(kind)
            layer = coded[at + 1] & 7 if at + 1 < len(coded) else 0
    if not kinds:
        return None
    return Look(starts=kinds[0] in (19, 20, 21), spare=kinds[0] < 16 and kinds[0] % 2 == 0, layer=layer)


def _mpeg4(coded: Coded) -> Look | None:
    """ISO/IEC 14496-2, 6.2.5: one coded picture, of type I (0), P (1), B (2) or S (3).

    Two in a packet are B-frames packed as DivX did; what holds none but a header stands for a picture that is not
    coded, and any coded one is longer.
    """
    coded = bytes(coded)
    at = coded.find(b"\0\0\1\xb6")
    if at < 0 or coded.find(b"\0\0\1\xb6", at + 4) >= 0 or len(coded) - at < _SHORTEST_MPEG4:
        return None
    kind = coded[at + 4] >> 6
    return Look(starts=kind == 0, spare=kind == 2)


_SHORTEST_MPEG4 = 12  # bytes; a picture that is not coded has 4 of start code and some 3 of time


def _vp8(coded: Coded) -> Look | None:
    """RFC 6386, 9.1: the first bit is 0 for a key frame, the fifth is show_frame."""
    return Look(starts=not coded[0] & 1, spare=False) if coded[0] & 16 else None


def _vp9(coded: Coded) -> Look | None:
    """VP9 bitstream specification, 6.2 and annex B: frames of a superframe, of which one is shown."""
    frames = [coded[at] for at in _vp9_frames(coded) if at < len(coded)]
    # marker 2 bits, profile 2 (and one more in profile 3), show_existing_frame, frame_type, show_frame
    bits = [frame << 1 if frame & 0x30 == 0x30 else frame for frame in frames]
    shown = sum(bool(each & 8) or bool(each & 2) for each in bits)
    if shown != 1:
        return None
    first = bits[0]
    return Look(starts=not first & 8 and not first & 4 and bool(first & 2), spare=False)


def _vp9_frames(coded: Coded) -> list[int]:
    """Where the frames of a packet begin."""
    last = coded[-1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = len(coded) - 2 - count * width
    if last & 0xE0 != 0xC0 or index < 0 or coded[index] != last:
        return [0]
    starts = [0]
    for n in range(count - 1):
        at = index + 1 + n * width
        starts.append(starts[-1] + int.from_bytes(coded[at : at + width], "little"))
    return starts


def _av1(coded: Coded) -> Look | None:
    """AV1 bitstream specification, 5.3 and 5.9: open bitstream units; of a temporal unit's frames, one is shown."""
    shown, starts, at = 0, [], 0
    while at < len(coded):
        kind, extended, sized = coded[at] >> 3 & 15, coded[at] >> 2 & 1, coded[at] >> 1 & 1
        at += 1 + extended
        size, shift = (0, 0) if sized else (len(coded) - at, 0)
        while sized:
            if at >= len(coded):
                return None
            sized, size, shift = coded[at] >> 7, size | (coded[at] & 127) << shift, shift + 7
            at += 1
        if kind in (3, 6):  # a frame's header, alone or with its tiles
            if at >= len(coded):
                return None
            first = coded[at]  # show_existing_frame, frame_type 2 bits (0: key), show_frame
            shown += bool(first & 0x80) or bool(first & 0x10)
            starts.append(first & 0xF0 == 0x10)
        at += size
    return Look(starts=starts[0], spare=False) if shown == 1 else None
