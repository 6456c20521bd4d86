"""Reads a pickle of plain values and NumPy arrays of numbers without running anything that it names."""

import io
import pickle
from typing import Any

import numpy as np

from vidstill.data.storage.fetch import Place
from vidstill.utils.types import InputError

_ARRAYS = {
    f"{room}.{name}"
    for room in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
    for name in ("_reconstruct", "_frombuffer")
}
_NUMBERS = "biuf"  # kinds of numbers: truth values, whole ones with a sign and without, and such with a point


def read_plain_pickle(path: Place, data: bytes) -> Any:
    """What a pickle holds: numbers, texts, lists, tuples, dictionaries, and arrays of numbers.

    What it asks to be called is stood in for by our own functions, which only put numbers together.

    Raises:
        InputError: it asks for anything else, or is damaged.
    """
    try:
        return _plain(_Reader(io.BytesIO(data), encoding="latin1").load())
    except _Refused as refused:
        raise InputError(
            f"{path} is no pickle of plain arrays: it asks for {refused}; nothing of it was executed"
        ) from None
    except Exception as error:  # a pickle's bytes lead its reader to errors of every kind
        raise InputError(f"{path} is no readable pickle ({error}); fetch it again") from None


class _Refused(Exception):
    """Names what a pickle may not ask for."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in ("numpy.ndarray", "numpy.dtype"):
            return _Kind if name == "dtype" else _Array
        if asked in _ARRAYS:
            return _Array if name == "_reconstruct" else _from_buffer
        if asked == "_codecs.encode":  # bytes in the older protocols
            return _encoded
        if asked == "__builtin__.bytes":  # and where there are none
            return _no_bytes
        raise _Refused(asked)


class _Kind:
    """Stands in for a type of numbers."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        kind = np.dtype(str(self.code))
        if kind.kind not in _NUMBERS or kind.hasobject:
            raise _Refused(f"an array of {kind}")
        return kind.newbyteorder("<" if self.order == "<" else ">" if self.order == ">" else "=")


class _Array:
    """Stands in for an array, whose numbers come after it was made."""

    def __init__(self, *_: object):
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, kind, by_column, data = self.state
        return _shaped(data, kind, shape, "F" if by_column else "C")


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: str) -> Any:
    made = _Array()
    made.state = (1, shape, kind, order == "F", data)
    return made


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _shaped(data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(kind, _Kind) or not isinstance(data, bytes | bytearray | str | pickle.PickleBuffer):
        raise _Refused("an array of other things than numbers")
    content = data.encode("latin1") if isinstance(data, str) else bytes(data)  # a text is one of Python 2
    return np.frombuffer(content, kind.dtype()).reshape(tuple(map(int, shape)), order="F" if order == "F" else "C")


def _plain(value: Any) -> Any:
    """With arrays in place of what stood in for them."""
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
