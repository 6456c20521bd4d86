"""H.264's headers (ITU-T H.264, 7.3 and 7.4): one whole picture in a packet, none lost before it, when it is shown."""

from typing import NamedTuple

from vidstill.data.decode.bitstreams.packet_info import (
    BitReader,
    PacketBytes,
    PacketInfo,
    PacketParser,
    find_nal_units,
    unwrap_picture_order,
)

_WITH_COLOUR_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profiles, 7.3.2.1.1
_HEADER = 40  # bytes that hold the fields read here of a slice's header
_SPS, _PPS, _IDR, _SEI, _SLICE = 7, 8, 5, 6, 1  # nal_unit_type, table 7-1
_I = 2  # slice_type, table 7-6
_INTRA = {_I, 4, 7, 9}


def h264(extradata: bytes) -> PacketParser | None:
    """None for a stream whose headers are not read here: of fields, or as no file of the MP4 family has it."""
    if extradata[:1] != b"\1" or len(extradata) < 8 or extradata[5] & 31 != 1:
        return None
    at = 8 + int.from_bytes(extradata[6:8], "big")
    stated = [bytes(extradata[8:at])]
    for _ in range(extradata[at] if at < len(extradata) else 0):
        size = int.from_bytes(extradata[at + 1 : at + 3], "big")
        stated.append(bytes(extradata[at + 3 : at + 3 + size]))
        at += 2 + size
    sequence = _sequence(stated[0])
    return None if sequence is None else _Pictures(sequence, stated, (extradata[4] & 3) + 1).look


class _Sequence(NamedTuple):
    """What a sequence parameter set says of how its slices' headers are read."""

    number_bits: int
    order_bits: int  # 0: pictures are shown as they are decoded
    planes_apart: bool
    frames_only: bool


class _Slice(NamedTuple):
    first: int  # macroblock
    kind: int
    number: int  # frame_num
    order: int  # pic_order_cnt_lsb


def _sequence(unit: bytes) -> _Sequence | None:
    try:
        bits = BitReader(unit[1:])
        profile = bits.read_bits(24) >> 16
        bits.read_exp_golomb()
        planes_apart = False
        if profile in _WITH_COLOUR_FORMAT:
            planes_apart = bits.read_exp_golomb() == 3 and bool(bits.read_bits(1))
            bits.read_exp_golomb(), bits.read_exp_golomb(), bits.read_bits(1)  # depths, lossless
            if bits.read_bits(1):
                return None  # scaling matrices
        number_bits = bits.read_exp_golomb() + 4
        order_kind = bits.read_exp_golomb()
        order_bits = bits.read_exp_golomb() + 4 if order_kind == 0 else 0
        bits.read_exp_golomb()
        gaps = bits.read_bits(1)
        bits.read_exp_golomb(), bits.read_exp_golomb()  # width, height
        frames_only = bool(bits.read_bits(1))
    except ValueError:
        return None
    return None if order_kind == 1 or gaps else _Sequence(number_bits, order_bits, planes_apart, frames_only)


class _Pictures:
    """Follows the numbers of a stream's pictures: a gap in them tells of one that is lost."""

    def __init__(self, sequence: _Sequence, stated: list[bytes], size: int):
        self._sequence, self._stated, self._size = sequence, stated, size
        self._number = 0  # of the last picture that others may need
        self._order = 0  # of it, as all its bits
        self._period = 0  # since which picture orders count
        self._decoded = 0

    def look(self, coded: PacketBytes) -> PacketInfo | None:
        slices, needed, idr, recovers = list[_Slice](), 0, False, False
        for at in find_nal_units(coded, self._size):
            kind = coded[at] & 31
            if kind in (_SPS, _PPS) and not any(bytes(coded[at : at + len(each)]) == each for each in self._stated):
                return None
            if kind == _SEI:
                recovers = recovers or _is_recovery_point(coded[at + 1 : at + 8])
            elif kind in (_SLICE, _IDR):
                idr, needed = kind == _IDR, needed | coded[at] & 0x60
                short = idr and self._sequence.frames_only
                found = _short(coded[at + 1]) if short else self._slice(bytes(coded[at + 1 : at + _HEADER]), idr)
                if found is None:
                    return None
                slices.append(found)
        if [each.first == 0 for each in slices] != [n == 0 for n in range(max(1, len(slices)))]:
            return None  # no picture, two, or the second half of one
        if idr:
            self._period, self._order, expected = self._period + 1, 0, 0
        else:
            expected = (self._number + 1) % (1 << self._sequence.number_bits)
        if slices[0].number != expected:
            return None
        self._decoded += 1
        bits = self._sequence.order_bits
        order = unwrap_picture_order(slices[0].order, bits, self._order) if bits else self._decoded
        if needed:
            self._number, self._order = slices[0].number, order
        starts = idr or (recovers and all(each.kind in _INTRA for each in slices))
        return PacketInfo(
            is_keyframe=starts, is_disposable=not needed, is_open_gop=not idr, display_order=(self._period, order)
        )

    def _slice(self, header: bytes, idr: bool) -> _Slice | None:
        try:
            bits = BitReader(header)
            first, kind = bits.read_exp_golomb(), bits.read_exp_golomb()
            bits.read_exp_golomb()
            bits.read_bits(2 if self._sequence.planes_apart else 0)
            number = bits.read_bits(self._sequence.number_bits)
            if not self._sequence.frames_only and bits.read_bits(1):
                return None  # a field
            if idr:
                bits.read_exp_golomb()
            return _Slice(first, kind, number, bits.read_bits(self._sequence.order_bits))
        except ValueError:
            return None


def _short(first: int) -> _Slice:
    """What need be read of an IDR picture's: whether its slice is the first, whose macroblock 0 is the bit 1."""
    return _Slice(first=1 - (first >> 7), kind=_I, number=0, order=0)


def _is_recovery_point(message: PacketBytes) -> bool:
    """D.1.8: from here on, at once (recovery_frame_cnt 0, the bit 1), all is exact (exact_match_flag, the next bit)."""
    return len(message) > 2 and message[0] == 6 and message[2] >> 6 == 3
