"""torch's checkpoint files, with any suffix: checked without making anything, then read with `weights_only=True`.

`weights_only` runs no code, but takes as much memory as a pickle asks for. So Python's own unpickler reads it first:
every name in it stands for something inert, and every storage for the size that it claims.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vidstill.utils.types import InputError

_ZIP_MAGIC = b"PK\x03\x04"  # since torch 1.6
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before: the magic number that they begin with
_STATE_DICT_KEYS = ("model", "module", "model_state", "state_dict")
"""Where the tensors are: trainers of MAE and VideoMAE, DeepSpeed, PySlowFast, mmaction2 and Lightning."""
_EMA_KEYS = ("model_ema", "ema", "ema_state_dict", "state_dict_ema")
_MODULE_PREFIX = "Align_"  # MaskAgain's trainer saves its projections beside the model, module by module
_MAX_PICKLE_BYTES = 2**25  # without storages: a checkpoint of a thousand tensors has a fifth of a million
_CUT_OFF = "it is cut off, or of another format"
_MAX_READS, _MAX_NAME_LENGTH, _MAX_RECORDS = 2**22, 2**10, 2**16


class _UnsafePickle(Exception):
    """Says what a file may not hold."""


class _Inert:
    """What a pickled object becomes: it takes everything and does nothing."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


class _Mapping(dict[Any, Any]):
    """A dictionary whose keys hash quickly, and whose state is dropped."""

    def __init__(self, items: Any = ()):
        super().__init__()
        for key, value in items.items() if isinstance(items, dict) else items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        simple = (str, int, float, bytes, type(None))
        if not all(isinstance(part, simple) for part in (key if isinstance(key, tuple) else (key,))):
            raise _UnsafePickle("a dictionary has keys that are no names or numbers")
        super().__setitem__(key, value)

    def __setstate__(self, _: Any) -> None:
        pass


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class _Tensor(NamedTuple):
    storage: _Storage
    shape: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _Tensor:
    """Return a tensor that lies within its storage."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    is_outside = 0 not in shape and last >= storage.numel
    if len(shape) > 16 or min(0, offset, *shape, *stride) < 0 or is_outside:
        raise _UnsafePickle(f"it claims a tensor of shape {shape} in a storage of {storage.numel} numbers")
    return _Tensor(storage, shape)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_set(items: list[Any]) -> None:
    _Mapping((item, None) for item in items)  # checks what is hashed


def _encode_latin1(text: str, codec: str) -> bytes:
    """Bytes, as protocol 2 has them; other codecs can make a text longer and longer."""
    if codec != "latin1":
        raise _UnsafePickle(f"it encodes a text as {codec!r:.20}")
    return text.encode("latin1")


_FOREIGN_CLASSES: dict[str, Any] = dict.fromkeys((
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace", "pathlib.PosixPath",
    "pathlib.WindowsPath", "mmengine.logging.history_buffer.HistoryBuffer",
), _Inert) | dict.fromkeys((
    "fvcore.common.config.CfgNode", "yacs.config.CfgNode", "easydict.EasyDict", "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
), _Mapping)  # fmt: skip
_ALLOWED: dict[str, Any] = {
    **{f"torch.{name}": _Inert for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)},
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool, "torch.Size": _Inert, "torch.device": _Inert,
    "torch._utils._rebuild_tensor": _rebuild_tensor, "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter, "collections.OrderedDict": _Mapping,
    "collections.Counter": _Mapping, "builtins.set": _rebuild_set, "_codecs.encode": _encode_latin1, **_FOREIGN_CLASSES,
}  # fmt: skip
_OPCODES = (
    pickle.PROTO, pickle.MARK, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1,
    pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.EMPTY_DICT,
    pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND,
    pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET,
    pickle.LONG_BINGET, pickle.GLOBAL, pickle.BINPERSID, pickle.REDUCE, pickle.NEWOBJ, pickle.BUILD,
)  # fmt: skip
_PythonUnpickler: Any = pickle._Unpickler  # that of C takes memory for whichever memo slot is named


class _Checker(_PythonUnpickler):
    """Unpickles into what `_ALLOWED` has, by the opcodes that torch writes, and collects the claimed storages."""

    dispatch: ClassVar = {code[0]: _PythonUnpickler.dispatch[code[0]] for code in _OPCODES}
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Mapping())

    def __init__(self, file: io.BufferedIOBase):
        self.storages: dict[str, _Storage] = {}
        self._file, self._bytes_left, self._reads_left = file, _MAX_PICKLE_BYTES, _MAX_READS
        super().__init__(self)

    def read(self, size: int) -> bytes:
        self._bytes_left -= size
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise _UnsafePickle("its description of the tensors is too long")
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(_MAX_NAME_LENGTH)

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full_name not in _ALLOWED:
            raise _UnsafePickle(f"it asks for {re.sub(r'[^A-Za-z0-9_.]', '?', full_name)[:100]}")
        return _ALLOWED[full_name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel), *rest) if rest in ([], [None]):
                storage = _Storage(key, dtype, numel)
                if numel >= 0 and self.storages.setdefault(key, storage) == storage:
                    return storage
        raise _UnsafePickle("it claims storages that torch does not write, or that contradict one another")


def read_torch_checkpoint(path: Path, display_name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Read the tensors, mapped from the file where its format allows it.

    Args:
        path: The file.
        display_name: What messages call it.

    Returns:
        The tensors, and notes on where they are and what is beside them.

    Raises:
        InputError: It holds other things than tensors and plain values, claims more than it holds, or is damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
            file.seek(0)
            is_zip = head.startswith(_ZIP_MAGIC)
            if not is_zip and head != _LEGACY_MAGIC:
                raise _UnsafePickle(_CUT_OFF)
            content = _check_zip(file, path, size) if is_zip else _check_legacy(file, size)
        content = content if isinstance(content, dict) else {}
        key = next((key for key in _STATE_DICT_KEYS if isinstance(content.get(key), dict)), None)
        specs = _locate_tensors(content, key)
        if not specs or not all(isinstance(name, str) and isinstance(specs[name][1], _Tensor) for name in specs):
            raise InputError(
                f"{display_name} holds no named tensors; expected alone, or under {', '.join(_STATE_DICT_KEYS)}"
            )
        if sum(prod(spec.shape) * spec.storage.dtype.itemsize for _, spec in specs.values()) > 4 * size + 2**20:
            raise _UnsafePickle("its tensors claim more numbers than it holds")
        tensors = _load_tensors(path, is_zip, specs)
    except InputError:
        raise
    except Exception as error:  # readers raise all kinds on damaged bytes
        reason = str(error) if isinstance(error, _UnsafePickle) else _CUT_OFF
        raise InputError(f"{display_name} is no file of plain tensors ({reason}); no code in it was run") from None
    return tensors, _describe_content(content, key)


def _check_zip(file: io.BufferedIOBase, path: Path, size: int) -> Any:
    """The records are stored side by side and uncompressed, as torch writes them: none holds more than the file."""
    file.seek(-22, io.SEEK_END)
    if file.read(4) != b"PK\x05\x06":  # the end record is the last one, without a comment
        raise _UnsafePickle(_CUT_OFF)
    infos = zipfile.ZipFile(file).infolist()
    records = {info.orig_filename: info.file_size for info in infos}
    is_plain = all(info.compress_type == 0 and info.file_size == info.compress_size for info in infos)
    is_encrypted = any(info.flag_bits & 1 for info in infos)
    if not infos or not is_plain or is_encrypted or len(infos) != len(records) or len(infos) > _MAX_RECORDS:
        raise _UnsafePickle("it is a zip archive that torch did not write: its records are packed, encrypted or double")
    if sum(records.values()) > size or min(info.header_offset for info in infos) != 0:
        raise _UnsafePickle(f"its records claim {sum(records.values())} bytes, and it has {size}")
    if any(".." in name.split("/") or name.startswith("/") or re.search(r"[\\\0]", name) for name in records):
        raise _UnsafePickle("its records have names that lead out of it")
    directory = next(iter(records)).partition("/")[0]
    if records.get(f"{directory}/data.pkl", _MAX_PICKLE_BYTES) >= _MAX_PICKLE_BYTES:
        raise _UnsafePickle("it is a zip archive of something else")
    reader = torch._C.PyTorchFileReader(str(path))  # so that the same bytes are checked that torch reads
    checker = _Checker(io.BytesIO(reader.get_record("data.pkl")))
    content = checker.load()
    for storage in checker.storages.values():
        held = records.get(f"{directory}/data/{storage.key}", 0)
        if held != storage.nbytes:
            raise _UnsafePickle(f"it claims {storage.nbytes} bytes where it holds {held}")
    return content


def _check_legacy(file: io.BufferedIOBase, size: int) -> Any:
    """Five pickles (a magic number, a version, sizes of C types, the content, its storages), then the numbers."""
    checker = _Checker(file)
    _, version, _, content, keys = [checker.load() for _ in range(5)]
    if version != 1001 or not isinstance(keys, list) or sorted(keys) != sorted(checker.storages):
        raise _UnsafePickle("its list of storages is not as torch writes it")
    claimed = sum(8 + storage.nbytes for storage in checker.storages.values())
    if claimed > size - file.tell():
        raise _UnsafePickle(f"it claims {claimed} bytes where it holds {size - file.tell()}")
    return content


def _load_tensors(path: Path, is_zip: bool, specs: Mapping[str, tuple[tuple[str, ...], _Tensor]]) -> dict[str, Tensor]:
    """Read the file with torch, and compare each tensor with its description."""
    classes: list[Any] = [(_Inert if kind is _Inert else _make_dict, name) for name, kind in _FOREIGN_CLASSES.items()]
    is_mapped = is_zip and path.suffix != ".safetensors"  # torch would take this suffix for the other format
    with torch.serialization.safe_globals(classes), warnings.catch_warnings(action="ignore"), path.open("rb") as file:
        source = str(path) if is_mapped else file
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
    tensors = {}
    for name, (keys, spec) in specs.items():
        tensor: Tensor = reduce(dict.__getitem__, keys, content).detach()
        held = tensor.untyped_storage().nbytes()
        if tensor.shape != spec.shape or tensor.dtype != spec.storage.dtype or held < spec.storage.nbytes:
            raise _UnsafePickle(f"{name!r} is not what it claims to be")
        tensors[name] = tensor
    return tensors


class _make_dict:
    """For torch's reader, which fills dictionaries alone."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def _locate_tensors(content: dict[Any, Any], state_dict_key: str | None) -> dict[Any, tuple[tuple[Any, ...], Any]]:
    """Return the keys that lead to each tensor, and what is there; of modules beside the model, under `module.name`."""
    if state_dict_key is None:
        return {name: ((name,), value) for name, value in content.items()}
    located = {name: ((state_dict_key, name), value) for name, value in content[state_dict_key].items()}
    for module, state in content.items():
        if isinstance(module, str) and module.startswith(_MODULE_PREFIX) and isinstance(state, dict):
            located |= {f"{module}.{name}": ((module, name), value) for name, value in state.items()}
    return located


def _describe_content(content: dict[Any, Any], state_dict_key: str | None) -> list[str]:
    if state_dict_key is None:
        return []
    others = [str(name) for name in content if name != state_dict_key and not str(name).startswith(_MODULE_PREFIX)]
    notes = [f"the tensors are under {state_dict_key!r}"]
    if averages := [name for name in _EMA_KEYS if name in others]:
        notes.append(f"{averages[0]!r}, the EMA of the weights, is there too and was left out")
    if others := [name for name in others if name not in averages]:
        notes.append(f"left out beside the tensors: {', '.join(others[:20])}")
    return notes
