"""Where decoding may begin in a stream, read from its packets without decoding them."""

from collections.abc import Callable
from typing import Any

ReadKeyframe = Callable[[Any], bool | None]
"""Packet → whether decoding may begin at it; None where it may be damaged or does not show exactly one frame."""

REORDERING_CODECS = frozenset({"h264", "hevc", "mpeg4"})
"""Codecs read here whose frames may be shown in another order than they are decoded in (B-frames)."""


def find_keyframe_reader(codec: str, extradata: bytes) -> ReadKeyframe | None:
    """Return how keyframes of a stream are recognized; None for a stream that is decoded from the file's start.

    For codecs with B-frames it is the container's flag; whoever decodes from such a packet has to check that the
    decoder calls its frame a keyframe too.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's, which holds the decoder configuration record of H.264 and HEVC.
    """
    if codec == "mpeg4":
        return lambda packet: packet.is_keyframe
    if codec in REORDERING_CODECS:
        record = 4 if codec == "h264" else 21  # of ISO/IEC 14496-15: where the size of a unit's length field stands
        if extradata[:1] != b"\1" or len(extradata) <= record:
            return None
        length_bytes = (extradata[record] & 3) + 1
        return lambda packet: packet.is_keyframe if _has_whole_units(memoryview(packet), length_bytes) else None
    read = _PACKET_READERS.get(codec)
    return None if read is None else lambda packet: read(bytes(packet))


def may_skip_unreferenced(codec: str, extradata: bytes) -> bool:
    """Return whether an unneeded frame can be skipped where FFmpeg calls it unreferenced (`skip_frame=NONREF`).

    In a HEVC stream of several temporal layers such a frame may still be referenced from a higher layer; their number
    stands in the decoder configuration record (ISO/IEC 14496-15, 8.3.3.1).
    """
    return codec == "h264" or (codec == "hevc" and extradata[21] >> 3 & 7 == 1)


def _has_whole_units(packet: memoryview, length_bytes: int) -> bool:
    """Return whether a packet of H.264 or HEVC consists of whole units, each after its length."""
    offset = 0
    while offset + length_bytes < len(packet):
        offset += length_bytes + int.from_bytes(packet[offset : offset + length_bytes], "big")
    return offset == len(packet)


def _read_mjpeg(packet: bytes) -> bool | None:
    """A whole baseline image: one scan of all components, whose tables it defines; else an earlier picture's may apply.

    ITU-T T.81, annex B: segments of marker, length and content, until the scan.
    """
    offset = 2
    tables: set[int] = set()  # of Huffman codes by class (4 bits) and number, of quantizers by 2 and number
    needed_tables: set[int] = set()
    num_components = 0
    while packet[offset : offset + 1] == b"\xff":
        marker, end = packet[offset + 1], offset + 2 + int.from_bytes(packet[offset + 2 : offset + 4], "big")
        segment, offset = packet[offset + 4 : end], end
        if marker == 0xDB:
            tables |= {0x20 | segment[at] & 15 for at in range(0, len(segment), 65)}
        elif marker == 0xC4:
            at = 0
            while at + 17 <= len(segment):
                tables.add(segment[at])
                at += 17 + sum(segment[at + 1 : at + 17])
        elif marker == 0xC0 and len(segment) > 5:
            num_components = segment[5]
            needed_tables |= {0x20 | table for table in segment[8 : 6 + 3 * num_components : 3]}
        elif marker == 0xDA and segment:
            for selectors in segment[2 : 1 + 2 * num_components : 2]:
                needed_tables |= {selectors >> 4, 0x10 | selectors & 15}
            is_whole = segment[0] == num_components > 0 and packet.rstrip(b"\0").endswith(b"\xff\xd9")
            return True if is_whole and needed_tables <= tables else None
    return None


def _read_vp9(packet: bytes) -> bool | None:
    """VP9 bitstream specification, 6.2 and annex B: of the frames of a superframe, exactly one is shown."""
    headers = [packet[start] for start in _find_vp9_frames(packet) if start < len(packet)]
    # marker 2 bits, profile 2 (and one more in profile 3), show_existing_frame, frame_type, show_frame
    headers = [header << 1 if header & 0x30 == 0x30 else header for header in headers]
    if sum(bool(header & 8) or bool(header & 2) for header in headers) != 1:
        return None
    return not headers[0] & 8 and not headers[0] & 4 and bool(headers[0] & 2)


def _find_vp9_frames(packet: bytes) -> list[int]:
    """Return the offsets of the frames in a packet."""
    last = packet[-1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = len(packet) - 2 - count * width
    if last & 0xE0 != 0xC0 or index < 0 or packet[index] != last:
        return [0]
    starts = [0]
    for n in range(count - 1):
        offset = index + 1 + n * width
        starts.append(starts[-1] + int.from_bytes(packet[offset : offset + width], "little"))
    return starts


def _read_av1(packet: bytes) -> bool | None:
    """AV1 bitstream specification, 5.3 and 5.9: of the frames of a temporal unit, exactly one is shown."""
    num_shown, keyframes, offset = 0, [], 0
    while offset < len(packet):
        unit_type, has_extension, has_size = packet[offset] >> 3 & 15, packet[offset] >> 2 & 1, packet[offset] >> 1 & 1
        offset += 1 + has_extension
        size, shift = (0, 0) if has_size else (len(packet) - offset, 0)
        while has_size:
            if offset >= len(packet):
                return None
            has_size, size, shift = packet[offset] >> 7, size | (packet[offset] & 127) << shift, shift + 7
            offset += 1
        if unit_type in (3, 6):  # a frame header, alone or with its tiles
            if offset >= len(packet):
                return None
            header = packet[offset]  # show_existing_frame, frame_type 2 bits (0: key), show_frame
            num_shown += bool(header & 0x80) or bool(header & 0x10)
            keyframes.append(header & 0xF0 == 0x10)
        offset += size
    return keyframes[0] if num_shown == 1 and offset == len(packet) else None


_PACKET_READERS: dict[str, Callable[[bytes], bool | None]] = {
    "mjpeg": _read_mjpeg,
    "png": lambda packet: packet.endswith(b"IEND\xae\x42\x60\x82") or None,
    "prores": lambda packet: int.from_bytes(packet[:4], "big") == len(packet) or None,
    "dnxhd": lambda packet: True,
    # RFC 6386, 9.1: the first bit is 0 for a keyframe, the fifth is show_frame
    "vp8": lambda packet: not packet[0] & 1 if packet[0] & 16 else None,
    "vp9": _read_vp9,
    "av1": _read_av1,
}
