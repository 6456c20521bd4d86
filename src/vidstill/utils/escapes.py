"""Text on its way to a terminal: controls in names, metadata and messages are shown escaped, in this place alone."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters without tab and line feed: ESC, CSI, carriage return
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # no width, or another direction
    "\ud800-\udfff\U000e0000-\U000e007f]"  # bytes of a name that are no UTF-8; tags, which are not shown
)


def escape_controls(text: str) -> str:
    """Replace each character that controls a terminal by JSON's escape, such as `\\u001b`, so that JSON stays valid."""
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    data = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))


class EscapingStream:
    """A text stream that shows controls escaped.

    Args:
        raw: Where the text goes; anything that stands for standard output.
    """

    def __init__(self, raw: Any):
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(escape_controls(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def get_raw_stream(name: str) -> Any:
    """Return `sys.stdout` or `sys.stderr` by its name, for a library that writes escapes of its own."""
    stream = getattr(sys, name)
    return stream.raw if isinstance(stream, EscapingStream) else stream


@contextmanager
def escape_output() -> Iterator[None]:
    """Show controls escaped in all that is written to standard output and standard error during the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = EscapingStream(sys.stdout), EscapingStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def allow_colors(words: Sequence[str]) -> Iterator[None]:
    """Let the block write colours, unless the words, which it may repeat, hold controls themselves."""
    before = sys.stdout, sys.stderr
    if all(word == escape_controls(word) for word in words):
        sys.stdout, sys.stderr = get_raw_stream("stdout"), get_raw_stream("stderr")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
