"""Reads a pickle of dictionaries, lists, numbers and NumPy arrays without calling anything that it names."""

import io
import pickle
from functools import partial
from struct import unpack
from typing import Any, ClassVar

import numpy as np

from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.types import InputError

_MAX_EXPANSION = 16  # memory of the values by the size of the pickle, whose references can repeat a value without end
_RECONSTRUCT, _FROM_BUFFER = "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer"
_ALLOWED = {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "__builtin__.bytes", _RECONSTRUCT, _FROM_BUFFER}
_PythonUnpickler: Any = pickle._Unpickler  # the one in C allocates whatever sizes the file states


def load_safe_pickle(path: PathOrUrl, data: bytes) -> Any:
    """Return what a pickle holds.

    Raises:
        InputError: It names anything but arrays of numbers, is damaged, or would take far more memory than the file.
    """
    try:
        return _resolve(_Unpickler(io.BytesIO(data), encoding="latin1").load(), [_MAX_EXPANSION * len(data)])
    except _UnsafePickleError as error:
        raise InputError(
            f"{path} is no pickle of plain arrays: it asks for {error}; nothing of it was executed"
        ) from None
    except Exception as error:  # damaged bytes raise errors of every kind
        raise InputError(f"{path} is no readable pickle ({error}); download it again") from None


class _UnsafePickleError(Exception):
    """Names what a pickle may not ask for."""


class _Call:
    """A call that a pickle asks for, which is recorded and not made."""

    def __init__(self, name: str, *args: Any):
        self.name, self.args, self.state = name, args, args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(_PythonUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}".replace("._core.", ".core.")
        if full_name not in _ALLOWED:
            raise _UnsafePickleError(full_name)
        return partial(_Call, full_name)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(unpack("<Q", self.read(8))[0])))

    dispatch: ClassVar[dict[int, Any]] = {**_PythonUnpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}


def _resolve(value: Any, budget: list[int]) -> Any:
    """Replace recorded calls by arrays, while the budget of bytes lasts."""
    value = _build(value) if isinstance(value, _Call) else value
    budget[0] -= 1 + getattr(value, "nbytes", 0)
    if budget[0] < 0:
        raise _UnsafePickleError("far more memory than the file has bytes")
    if isinstance(value, dict):
        return {key: _resolve(each, budget) for key, each in value.items()}
    return [_resolve(each, budget) for each in value] if isinstance(value, list | tuple) else value


def _build(call: _Call) -> Any:
    if call.name == "_codecs.encode" and call.args[1:] == ("latin1",):
        return str(call.args[0]).encode("latin1")  # bytes in protocols 0 to 2
    if call.name == "__builtin__.bytes" and not call.args:
        return b""
    if call.name not in (_RECONSTRUCT, _FROM_BUFFER):
        raise _UnsafePickleError(f"a call of {call.name}")
    data, dtype, shape, order = call.args if call.name == _FROM_BUFFER else [call.state[i] for i in (4, 2, 1, 3)]
    kind = np.dtype(str(dtype.args[0]))
    if kind.kind not in "biuf":
        raise _UnsafePickleError(f"an array of {kind}")
    content = _build(data) if isinstance(data, _Call) else data.encode("latin1") if isinstance(data, str) else data
    kind = kind.newbyteorder(">" if dtype.state[1] == ">" else "<" if dtype.state[1] == "<" else "=")
    return np.frombuffer(content, kind).reshape(shape, order="F" if order in ("F", True) else "C")
