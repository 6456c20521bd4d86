"""H.264's headers (ITU-T H.264, 7.3 and 7.4): one whole picture in a packet, none lost before it, when it is shown."""

from typing import NamedTuple

from vidstill.data.decode.bitstreams.packet_info import Bits, Coded, Look, Looker, units, unwrapped

_WITH_COLOUR_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profiles, 7.3.2.1.1
_HEADER = 40  # bytes that hold the fields read here of a slice's header
_SPS, _PPS, _IDR, _SEI, _SLICE = 7, 8, 5, 6, 1  # nal_unit_type, table 7-1
_I = 2  # slice_type, table 7-6
_INTRA = {_I, 4, 7, 9}


def h264(extradata: bytes) -> Looker | None:
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
        bits = Bits(unit[1:])
        profile = bits.take(24) >> 16
        bits.golomb()
        planes_apart = False
        if profile in _WITH_COLOUR_FORMAT:
            planes_apart = bits.golomb() == 3 and bool(bits.take(1))
            bits.golomb(), bits.golomb(), bits.take(1)  # depths, lossless
            if bits.take(1):
                return None  # scaling matrices
        number_bits = bits.golomb() + 4
        order_kind = bits.golomb()
        order_bits = bits.golomb() + 4 if order_kind == 0 else 0
        bits.golomb()
        gaps = bits.take(1)
        bits.golomb(), bits.golomb()  # width, height
        frames_only = bool(bits.take(1))
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

    def look(self, coded: Coded) -> Look | None:
        slices, needed, idr, recovers = list[_Slice](), 0, False, False
        for at in units(coded, self._size):
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
        order = unwrapped(slices[0].order, bits, self._order) if bits else self._decoded
        if needed:
            self._number, self._order = slices[0].number, order
        starts = idr or (recovers and all(each.kind in _INTRA for each in slices))
        return Look(starts=starts, spare=not needed, amid=not idr, shown=(self._period, order))

    def _slice(self, header: bytes, idr: bool) -> _Slice | None:
        try:
            bits = Bits(header)
            first, kind = bits.golomb(), bits.golomb()
            bits.golomb()
            bits.take(2 if self._sequence.planes_apart else 0)
            number = bits.take(self._sequence.number_bits)
            if not self._sequence.frames_only and bits.take(1):
                return None  # a field
            if idr:
                bits.golomb()
            return _Slice(first, kind, number, bits.take(self._sequence.order_bits))
        except ValueError:
            return None


def _short(first: int) -> _Slice:
    """What need be read of an IDR picture's: whether its slice is the first, whose macroblock 0 is the bit 1."""
    return _Slice(first=1 - (first >> 7), kind=_I, number=0, order=0)


def _is_recovery_point(message: Coded) -> bool:
    """D.1.8: from here on, at once (recovery_frame_cnt 0, the bit 1), all is exact (exact_match_flag, the next bit)."""
    return len(message) > 2 and message[0] == 6 and message[2] >> 6 == 3
