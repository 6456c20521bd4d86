"""MPEG-4's headers (ISO/IEC 14496-2, 6.2): one coded picture in a packet, its kind, and which headers it follows."""

from vidstill.data.decode.bitstreams.packet_info import BitReader, PacketBytes, PacketInfo

_PICTURE, _GROUP = b"\0\0\1\xb6", b"\0\0\1\xb3"
_GROUP_BYTES = 7  # its start code, and its time of day
_HEADER = 32  # bytes that hold the fields read here of a picture's header
_I, _B = 0, 2  # vop_coding_type, table 6-20


class Mpeg4:
    """Looks at a stream's packets in turn.

    Two pictures in a packet are B-frames packed as DivX did; one that is not coded stands for none. Headers before a
    picture have to be the first packet's, if there are any: a decoder keeps what they say.
    """

    def __init__(self, extradata: bytes):
        self._extradata = extradata
        self._headers: bytes | None = None
        self._time_bits: int | None = None
        self._others = 0  # pictures so far that are no B frames
        self._since = 0  # B frames since the last of them

    def look(self, packet: PacketBytes) -> PacketInfo | None:
        coded = bytes(packet)
        at = coded.find(_PICTURE)
        if at < 0 or coded.find(_PICTURE, at + 4) >= 0:
            return None
        group = coded.find(_GROUP, 0, at)
        headers = coded[:at] if group < 0 else coded[:group] + coded[group + _GROUP_BYTES : at]
        if self._headers is None:
            self._headers = headers
            self._time_bits = _time_bits(headers) or _time_bits(self._extradata)
        if self._time_bits is None or headers not in (b"", self._headers):
            return None
        kind = _kind(coded[at + 4 : at + _HEADER], self._time_bits)
        if kind is None:
            return None
        self._others, self._since = (self._others, self._since + 1) if kind == _B else (self._others + 1, 0)
        shown = self._others - (kind == _B), self._since  # at once, or when the next one that is no B frame comes
        return PacketInfo(
            is_keyframe=kind == _I and headers == self._headers, is_disposable=kind == _B, display_order=shown
        )


def _kind(header: bytes, time_bits: int) -> int | None:
    """A picture's (6.2.5); None for one that is not coded."""
    try:
        bits = BitReader(header, escaped=False)
        kind = bits.read_bits(2)
        while bits.read_bits(1):
            pass  # modulo_time_base
        bits.read_bits(1 + time_bits + 1)
        return kind if bits.read_bits(1) else None
    except ValueError:
        return None


def _time_bits(headers: bytes) -> int | None:
    """How many bits a picture's time has, by the object layer's header (6.2.3), if it is there and is of rectangles."""
    starts = (headers.find(bytes([0, 0, 1, code])) for code in range(0x20, 0x30))
    at = next((start for start in starts if start >= 0), None)
    if at is None:
        return None
    try:
        bits = BitReader(headers[at + 4 :], escaped=False)
        bits.read_bits(1 + 8)
        bits.read_bits(7 if bits.read_bits(1) else 0)  # version and priority
        bits.read_bits(16 if bits.read_bits(4) == 15 else 0)  # a pixel's shape
        if bits.read_bits(1):
            bits.read_bits(2 + 1)
            bits.read_bits(79 if bits.read_bits(1) else 0)  # rate and buffer
        if bits.read_bits(2):
            return None
        bits.read_bits(1)
        return max(1, (bits.read_bits(16) - 1).bit_length())
    except ValueError:
        return None
