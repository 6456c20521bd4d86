"""How the packets of each codec are looked at before they are decoded."""

from collections.abc import Callable

from vidstill.data.decode.bitstreams.h264 import h264
from vidstill.data.decode.bitstreams.hevc import hevc
from vidstill.data.decode.bitstreams.mpeg4 import Mpeg4
from vidstill.data.decode.bitstreams.packet_info import PacketBytes, PacketInfo, PacketParser

_INTRA_ONLY_CHECKS: dict[str, Callable[[bytes], bool]] = {  # whether a packet of such a codec is whole
    # with tables of its own: else they are an earlier picture's
    "mjpeg": lambda coded: (
        coded.rstrip(b"\0").endswith(b"\xff\xd9") and b"\xff\xdb" in coded[:1024] and b"\xff\xc4" in coded[:1024]
    ),
    "png": lambda coded: coded.endswith(b"IEND\xae\x42\x60\x82"),
    "prores": lambda coded: int.from_bytes(coded[:4], "big") == len(coded),
    "dnxhd": lambda coded: True,
}


def build_packet_parser(codec: str, extradata: bytes) -> PacketParser | None:
    """How packets of this codec are looked at; None for one that is decoded from its beginning.

    Args:
        codec: as FFmpeg names it.
        extradata: of the stream: H.264's and HEVC's parameters.
    """
    if codec in _INTRA_ONLY_CHECKS:
        whole = _INTRA_ONLY_CHECKS[codec]
        return lambda coded: PacketInfo(is_keyframe=True, is_disposable=True) if whole(bytes(coded)) else None
    if codec == "h264":
        return h264(extradata)
    if codec == "hevc":
        return hevc(extradata)
    if codec == "mpeg4":
        return Mpeg4(extradata).look
    return {"vp8": _parse_vp8, "vp9": _parse_vp9, "av1": _parse_av1}.get(codec)


def _parse_vp8(packet: PacketBytes) -> PacketInfo | None:
    """RFC 6386, 9.1: the first bit is 0 for a key frame, the fifth is show_frame."""
    return PacketInfo(is_keyframe=not packet[0] & 1, is_disposable=False) if packet[0] & 16 else None


def _parse_vp9(packet: PacketBytes) -> PacketInfo | None:
    """VP9 bitstream specification, 6.2 and annex B: frames of a superframe, of which one is shown."""
    frames = [packet[at] for at in _find_vp9_frames(packet) if at < len(packet)]
    # marker 2 bits, profile 2 (and one more in profile 3), show_existing_frame, frame_type, show_frame
    bits = [frame << 1 if frame & 0x30 == 0x30 else frame for frame in frames]
    shown = sum(bool(each & 8) or bool(each & 2) for each in bits)
    if shown != 1:
        return None
    first = bits[0]
    return PacketInfo(is_keyframe=not first & 8 and not first & 4 and bool(first & 2), is_disposable=False)


def _find_vp9_frames(packet: PacketBytes) -> list[int]:
    """Where the frames of a packet begin."""
    last = packet[-1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = len(packet) - 2 - count * width
    if last & 0xE0 != 0xC0 or index < 0 or packet[index] != last:
        return [0]
    starts = [0]
    for n in range(count - 1):
        at = index + 1 + n * width
        starts.append(starts[-1] + int.from_bytes(packet[at : at + width], "little"))
    return starts


def _parse_av1(packet: PacketBytes) -> PacketInfo | None:
    """AV1 bitstream specification, 5.3 and 5.9: open bitstream units; of a temporal unit's frames, one is shown."""
    shown, starts, at = 0, [], 0
    while at < len(packet):
        kind, extended, sized = packet[at] >> 3 & 15, packet[at] >> 2 & 1, packet[at] >> 1 & 1
        at += 1 + extended
        size, shift = (0, 0) if sized else (len(packet) - at, 0)
        while sized:
            if at >= len(packet):
                return None
            sized, size, shift = packet[at] >> 7, size | (packet[at] & 127) << shift, shift + 7
            at += 1
        if kind in (3, 6):  # a frame's header, alone or with its tiles
            if at >= len(packet):
                return None
            first = packet[at]  # show_existing_frame, frame_type 2 bits (0: key), show_frame
            shown += bool(first & 0x80) or bool(first & 0x10)
            starts.append(first & 0xF0 == 0x10)
        at += size
    return PacketInfo(is_keyframe=starts[0], is_disposable=False) if shown == 1 and at == len(packet) else None
