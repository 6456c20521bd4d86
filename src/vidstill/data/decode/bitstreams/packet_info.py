"""What is told of a packet before it is decoded, and the parts that packets of H.264 and HEVC have."""

from collections.abc import Callable
from typing import NamedTuple

PacketBytes = bytes | memoryview


class PacketInfo(NamedTuple):
    """What a packet is to the others.

    Args:
        is_keyframe: decoding may begin here: what is shown from here on comes out as if all before had been decoded.
        is_disposable: no other picture is predicted from it.
        is_open_gop: pictures behind it may say to forget ones before it, which are not there where decoding begins here.
        temporal_layer: its temporal layer; where there are several, only those of the highest are spare.
        display_order: sorts the pictures as they are shown, where headers tell; time stamps have to agree.
    """

    is_keyframe: bool
    is_disposable: bool
    is_open_gop: bool = False
    temporal_layer: int = 0
    display_order: tuple[int, int] | None = None


PacketParser = Callable[[PacketBytes], PacketInfo | None]
"""Looks at a stream's packets in turn; None for one that does not show exactly one frame, or may be damaged."""


def find_nal_units(packet: PacketBytes, length_bytes: int) -> list[int]:
    """Where network abstraction layer units begin, each after its length of `size` bytes; none in a damaged packet."""
    at, end, found = 0, len(packet), []
    while at + length_bytes < end:
        found.append(at + length_bytes)
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return found if at == end else []


class BitReader:
    """Fields of a header, one after the other.

    Args:
        escaped: a third byte after two zeros is there only so that no start code is met (H.264, HEVC).
    """

    def __init__(self, data: bytes, *, escaped: bool = True):
        data = data.replace(b"\0\0\3", b"\0\0") if escaped else data
        self._value, self._bits_left = int.from_bytes(data, "big"), 8 * len(data)

    def read_bits(self, num_bits: int) -> int:
        self._bits_left -= num_bits
        if self._bits_left < 0:
            raise ValueError("the header ends too soon")
        return (self._value >> self._bits_left) & ((1 << num_bits) - 1)

    def read_exp_golomb(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        rest = self._value & ((1 << self._bits_left) - 1)
        zeros = self._bits_left - rest.bit_length()
        return self.read_bits(2 * zeros + 1) - 1


def unwrap_picture_order(order: int, num_bits: int, previous_order: int) -> int:
    """The order whose last bits these are, near another one (H.264, 8.2.1.1; HEVC, 8.3.1)."""
    whole = 1 << num_bits
    before = previous_order % whole
    wraps = (before - order >= whole // 2) - (order - before > whole // 2)
    return previous_order - before + order + wraps * whole
