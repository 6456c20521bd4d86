"""HEVC's headers (ITU-T H.265, 7.3 and 7.4): one whole picture in a packet, none lost before it, when it is shown."""

from typing import NamedTuple

from vidstill.data.decode.bitstreams.packet_info import (
    BitReader,
    PacketBytes,
    PacketInfo,
    PacketParser,
    find_nal_units,
    unwrap_picture_order,
)

_SPS, _PPS = 33, 34  # nal_unit_type, table 7-1
_BROKEN = {16, 17, 18, 36, 37}  # broken links, and ends of sequence: decoders leave out pictures after them
_IDR, _CRA = {19, 20}, 21
_HEADER = 40  # bytes that hold the fields read here of a slice's header


class _Parameters(NamedTuple):
    """What the parameter sets say of how slices' headers are read."""

    order_bits: int
    planes_apart: bool
    output_stated: bool
    extra_bits: int


def hevc(extradata: bytes) -> PacketParser | None:
    """None for a stream whose headers are not read here: of several parameter sets, or without them in its head."""
    if extradata[:1] != b"\1" or len(extradata) < 23:
        return None
    stated = _parameter_sets(extradata)
    try:
        (sequence,) = (each for each in stated if each[0] >> 1 & 63 == _SPS)
        (picture,) = (each for each in stated if each[0] >> 1 & 63 == _PPS)
        parameters = _parameters(BitReader(sequence[2:]), BitReader(picture[2:]))
    except ValueError:  # none, several, or one that ends too soon
        return None
    return _Pictures(parameters, stated, (extradata[21] & 3) + 1).look


def _parameter_sets(extradata: bytes) -> list[bytes]:
    """The units of ISO/IEC 14496-15's decoder configuration record."""
    at, found = 23, []
    for _ in range(extradata[22]):
        count, at = int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size, at = int.from_bytes(extradata[at : at + 2], "big"), at + 2
            found.append(extradata[at : at + size])
            at += size
    return [each for each in found if len(each) > 2]


def _parameters(sequence: BitReader, picture: BitReader) -> _Parameters:
    sequence.read_bits(4)
    layers = sequence.read_bits(3)
    sequence.read_bits(1 + 88 + 8)  # 7.3.3: general profile, tier and level
    present = [sequence.read_bits(2) for _ in range(8 if layers else 0)][:layers]
    for each in present:
        sequence.read_bits(88 * (each >> 1) + 8 * (each & 1))
    sequence.read_exp_golomb()
    planes_apart = sequence.read_exp_golomb() == 3 and bool(sequence.read_bits(1))
    sequence.read_exp_golomb(), sequence.read_exp_golomb()  # width, height
    if sequence.read_bits(1):
        [sequence.read_exp_golomb() for _ in range(4)]  # what of them is shown
    sequence.read_exp_golomb(), sequence.read_exp_golomb()  # depths
    order_bits = sequence.read_exp_golomb() + 4
    picture.read_exp_golomb(), picture.read_exp_golomb(), picture.read_bits(1)
    return _Parameters(order_bits, planes_apart, bool(picture.read_bits(1)), picture.read_bits(3))


class _Pictures:
    """Follows the orders of a stream's pictures."""

    def __init__(self, parameters: _Parameters, stated: list[bytes], size: int):
        self._parameters, self._stated, self._size = parameters, stated, size
        self._order = 0  # of the last picture of the lowest layer that others may need
        self._period = 0  # since which orders count

    def look(self, coded: PacketBytes) -> PacketInfo | None:
        kinds, firsts, order, layer = list[int](), list[bool](), 0, 0
        for at in find_nal_units(coded, self._size):
            kind = coded[at] >> 1 & 63
            if kind in _BROKEN or at + 2 >= len(coded):
                return None
            if kind in (_SPS, _PPS) and not any(bytes(coded[at : at + len(each)]) == each for each in self._stated):
                return None
            if kind >= 32:
                continue
            kinds.append(kind)
            firsts.append(bool(coded[at + 2] & 0x80))  # first_slice_segment_in_pic_flag
            if len(kinds) == 1:
                layer = coded[at + 1] & 7
                found = self._stated_order(bytes(coded[at + 2 : at + _HEADER]), kind)
                if found is None:
                    return None
                order = found
        if firsts.count(True) != 1 or not firsts[0]:
            return None  # no picture, two, or the second half of one
        kind = kinds[0]
        if kind in _IDR:
            self._period, self._order = self._period + 1, 0
        else:
            order = unwrap_picture_order(order, self._parameters.order_bits, self._order)
        spare = kind < 16 and kind % 2 == 0
        if layer == 1 and not 6 <= kind <= 9 and not spare:  # 8.3.1; neither do leading pictures count
            self._order = order
        return PacketInfo(
            is_keyframe=kind in _IDR or kind == _CRA,
            is_disposable=spare,
            temporal_layer=layer,
            display_order=(self._period, order),
        )

    def _stated_order(self, header: bytes, kind: int) -> int | None:
        """slice_pic_order_cnt_lsb; None for a picture that is not shown."""
        try:
            bits = BitReader(header)
            bits.read_bits(1)
            if kind >= 16 and bits.read_bits(1):
                return None  # no_output_of_prior_pics_flag: pictures that wait are not shown
            bits.read_exp_golomb()
            bits.read_bits(self._parameters.extra_bits)
            bits.read_exp_golomb()
            if self._parameters.output_stated and not bits.read_bits(1):
                return None
            bits.read_bits(2 if self._parameters.planes_apart else 0)
            return 0 if kind in _IDR else bits.read_bits(self._parameters.order_bits)
        except ValueError:
            return None
