"""What is told of a packet before it is decoded, and the parts that packets of H.264 and HEVC have."""

from collections.abc import Callable
from typing import NamedTuple

Coded = bytes | memoryview


class Look(NamedTuple):
    """What a packet is to the others.

    Args:
        starts: decoding may begin here: what is shown from here on comes out as if all before had been decoded.
        spare: no other picture is predicted from it.
        amid: pictures behind it may say to forget ones before it, which are not there where decoding begins here.
        layer: its temporal layer; where there are several, only those of the highest are spare.
        shown: sorts the pictures as they are shown, where headers tell; time stamps have to agree.
    """

    starts: bool
    spare: bool
    amid: bool = False
    layer: int = 0
    shown: tuple[int, int] | None = None


Looker = Callable[[Coded], Look | None]
"""Looks at a stream's packets in turn; None for one that does not show exactly one frame, or may be damaged."""


def units(coded: Coded, size: int) -> list[int]:
    """Where network abstraction layer units begin, each after its length of `size` bytes; none in a damaged packet."""
    at, end, found = 0, len(coded), []
    while at + size < end:
        found.append(at + size)
        at += size + int.from_bytes(coded[at : at + size], "big")
    return found if at == end else []


class Bits:
    """Fields of a header, one after the other.

    Args:
        escaped: a third byte after two zeros is there only so that no start code is met (H.264, HEVC).
    """

    def __init__(self, data: bytes, *, escaped: bool = True):
        data = data.replace(b"\0\0\3", b"\0\0") if escaped else data
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise ValueError("the header ends too soon")
        return (self._value >> self._left) & ((1 << bits) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        return self.take(2 * zeros + 1) - 1


def unwrapped(order: int, bits: int, last: int) -> int:
    """The order whose last bits these are, near another one (H.264, 8.2.1.1; HEVC, 8.3.1)."""
    whole = 1 << bits
    before = last % whole
    wraps = (before - order >= whole // 2) - (order - before > whole // 2)
    return last - before + order + wraps * whole
