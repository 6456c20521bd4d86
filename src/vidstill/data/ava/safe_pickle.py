"""Reads a pickle of plain values and NumPy arrays of numbers without running anything that it names."""

import io
import pickle
from typing import Any

import numpy as np

from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.types import InputError

_ARRAY_FACTORIES = {
    f"{room}.{name}"
    for room in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
    for name in ("_reconstruct", "_frombuffer")
}
_NUMERIC_KINDS = "biuf"  # kinds of numbers: truth values, whole ones with a sign and without, and such with a point


def load_safe_pickle(path: PathOrUrl, data: bytes) -> Any:
    """What a pickle holds: numbers, texts, lists, tuples, dictionaries, and arrays of numbers.

    What it asks to be called is stood in for by our own functions, which only put numbers together.

    Raises:
        InputError: it asks for anything else, or is damaged.
    """
    try:
        return _resolve_stubs(_SafeUnpickler(io.BytesIO(data), encoding="latin1").load())
    except _UnsafePickleError as refused:
        raise InputError(
            f"{path} is no pickle of plain arrays: it asks for {refused}; nothing of it was executed"
        ) from None
    except Exception as error:  # a pickle's bytes lead its reader to errors of every kind
        raise InputError(f"{path} is no readable pickle ({error}); fetch it again") from None


class _UnsafePickleError(Exception):
    """Names what a pickle may not ask for."""


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in ("numpy.ndarray", "numpy.dtype"):
            return _DtypeStub if name == "dtype" else _ArrayStub
        if asked in _ARRAY_FACTORIES:
            return _ArrayStub if name == "_reconstruct" else _make_array_stub
        if asked == "_codecs.encode":  # bytes in the older protocols
            return _encode_latin1
        if asked == "__builtin__.bytes":  # and where there are none
            return _make_empty_bytes
        raise _UnsafePickleError(asked)


class _DtypeStub:
    """Stands in for a type of numbers."""

    def __init__(self, code: str, *_: object):
        self.code, self.byte_order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]

    def to_dtype(self) -> np.dtype:
        kind = np.dtype(str(self.code))
        if kind.kind not in _NUMERIC_KINDS or kind.hasobject:
            raise _UnsafePickleError(f"an array of {kind}")
        return kind.newbyteorder("<" if self.byte_order == "<" else ">" if self.byte_order == ">" else "=")


class _ArrayStub:
    """Stands in for an array, whose numbers come after it was made."""

    def __init__(self, *_: object):
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_array(self) -> np.ndarray:
        _, shape, kind, by_column, data = self.state
        return _build_array(data, kind, shape, "F" if by_column else "C")


def _make_array_stub(data: Any, kind: _DtypeStub, shape: Any, order: str) -> Any:
    made = _ArrayStub()
    made.state = (1, shape, kind, order == "F", data)
    return made


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _UnsafePickleError(f"the encoding {encoding}")
    return text.encode("latin1")


def _make_empty_bytes() -> bytes:
    return b""


def _build_array(data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(kind, _DtypeStub) or not isinstance(data, bytes | bytearray | str | pickle.PickleBuffer):
        raise _UnsafePickleError("an array of other things than numbers")
    content = data.encode("latin1") if isinstance(data, str) else bytes(data)  # a text is one of Python 2
    return np.frombuffer(content, kind.to_dtype()).reshape(tuple(map(int, shape)), order="F" if order == "F" else "C")


def _resolve_stubs(value: Any) -> Any:
    """With arrays in place of what stood in for them."""
    if isinstance(value, _ArrayStub):
        return value.to_array()
    if isinstance(value, dict):
        return {key: _resolve_stubs(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve_stubs(each) for each in value]
    return value
