"""torch's checkpoints, by any suffix: looked through first, then read by `torch.load(weights_only=True)` alone."""

import io
import pickletools
import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vidstill.utils.types import InputError

ZIP_MAGIC = b"PK\x03\x04"  # since torch 1.6
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before: the number that they begin with

STATE_DICT_KEYS = ("model", "module", "model_state", "state_dict")
"""Where the tensors stand: MAE's and VideoMAE's trainers, DeepSpeed, PySlowFast, mmaction2 and Lightning."""

_METADATA_KEYS = ("args", "cfg", "config", "epoch", "meta", "hyper_parameters")  # that say how the tensors were made
_MODULE_PREFIX = "Align_"  # MaskAgain's trainer writes its projections beside the model, module by module
_EMA_KEYS = ("model_ema", "ema", "ema_state_dict", "state_dict_ema")
_MAX_PICKLE_BYTES = 2**28  # bytes; without the numbers: a checkpoint of a thousand tensors has a fifth of a million
_MAX_RECORDS = 2**16
_MAX_DEPTH, _MAX_VALUES, _MAX_STRING_LENGTH = 12, 20_000, 2**17  # of what stands beside the tensors


class _InertObject:
    """Is put where a file asks for an object of STAND_INS: takes everything, keeps nothing."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _InertMapping(_InertObject):
    """And of MAPPINGS: torch's reader fills dictionaries alone."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


def read_torch_checkpoint(path: Path, display_name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, mapped from the file where its format allows it; and what stands beside them, as plain values.

    Args:
        display_name: of the file, for the sentences.

    Raises:
        InputError: it holds other things than tensors and plain values, claims more than it holds, or is damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_MAGIC))
            file.seek(0)
            zipped = head.startswith(ZIP_MAGIC)
            if not zipped and head != LEGACY_MAGIC:
                raise UnsafePickle("it is cut off, or of another format")
            content = _inspect_zip(file, path, size) if zipped else _inspect_legacy(file, size)
        where = _find_state_dict_key(content)
        places = _locate_tensors(content, where)
        if not places or not all(isinstance(key, str) and isinstance(places[key][1], TensorSpec) for key in places):
            raise InputError(
                f"{display_name} holds no named tensors; a checkpoint of the family has them as {', '.join(STATE_DICT_KEYS)}, or alone"
            )
        if sum(claim.nbytes for _, claim in places.values()) > 4 * size + 2**20:
            raise UnsafePickle("its tensors claim more numbers than it holds")
        tensors = _load_tensors(path, zipped, places)
    except InputError:
        raise
    except UnsafePickle as refused:
        raise _build_unsafe_error(display_name, str(refused)) from None
    except Exception:  # readers raise whatever bytes lead them to
        raise _build_unsafe_error(display_name, "it is cut off, or of another format") from None
    return tensors, _extract_metadata(content, where)


def _build_unsafe_error(display_name: str, reason: str) -> InputError:
    return InputError(f"{display_name} is no file of plain tensors ({reason}); it was not executed")


@dataclass(frozen=True)
class StorageSpec:
    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that would be made of a storage."""

    storage: StorageSpec
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        count = self.storage.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


def _load_tensors(
    path: Path, is_zip: bool, locations: Mapping[str, tuple[tuple[str, ...], TensorSpec]]
) -> dict[str, Tensor]:
    """What torch reads at these places; each is what was claimed."""
    inert: list[Any] = [(_InertObject, name) for name in INERT_OBJECTS] + [
        (_InertMapping, name) for name in INERT_MAPPINGS
    ]
    mapped = is_zip and path.suffix != ".safetensors"  # torch would take one by this name for another's format
    with torch.serialization.safe_globals(inert), warnings.catch_warnings(action="ignore"), path.open("rb") as file:
        content = torch.load(str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    tensors = {}
    for name, (steps, claim) in locations.items():
        tensor: Tensor = reduce(dict.__getitem__, steps, content).detach()
        held = tensor.untyped_storage().nbytes()
        if tensor.shape != claim.shape or tensor.dtype != claim.storage.dtype or held < claim.storage.nbytes:
            raise UnsafePickle(f"{name!r} is not what it claims to be")
        tensors[name] = tensor
    return tensors


def _inspect_zip(file: BinaryIO, path: Path, size: int) -> Any:
    """The records lie side by side and uncompressed, as torch leaves them: none can hold more than the file."""
    records = _list_zip_records(file, size)
    folder = next(iter(records), "").partition("/")[0]
    pickle = records.get(f"{folder}/data.pkl")
    if pickle is None:
        raise UnsafePickle("it is a zip archive of something else")
    if pickle > _MAX_PICKLE_BYTES:
        raise UnsafePickle(f"what it says of its tensors has {pickle} bytes")
    reader = torch._C.PyTorchFileReader(str(path))  # so that what is looked at is what torch reads
    look = PickleInspector()
    content = look.interpret(pickletools.genops(io.BytesIO(reader.get_record("data.pkl"))))
    for storage in look.storages.values():
        held = records.get(f"{folder}/data/{storage.key}")
        if held != storage.nbytes:
            raise UnsafePickle(f"it claims {storage.nbytes} bytes where it holds {held or 0}")
    return content


def _list_zip_records(file: BinaryIO, size: int) -> dict[str, int]:
    """How many bytes each record of a zip archive has, which torch wrote and nobody changed."""
    file.seek(max(0, size - 98))
    tail = file.read(98)  # the three records that end it: (zip64's, where that is,) the plain one
    count, length, start, stop = *struct.unpack("<HII", tail[-12:-2]), size - 22
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise UnsafePickle("it is cut off, or of another format")
    if tail[-42:-38] == b"PK\x06\x07":
        if tail[-98:-94] != b"PK\x06\x06" or struct.unpack("<Q", tail[-34:-26])[0] != size - 98:
            raise UnsafePickle("its list of records is not as torch writes it")
        count, length, start, stop = *struct.unpack("<QQQ", tail[-66:-42]), size - 98
    if count > _MAX_RECORDS or start + length != stop or length > 2**10 * _MAX_RECORDS:
        raise UnsafePickle("its list of records is not as torch writes it")
    file.seek(start)
    listed, records, place, total = file.read(length), {}, 0, 0
    for _ in range(count):
        flags, method = struct.unpack_from("<HH", listed, place + 8)
        packed, plain, name_length, extra, comment = struct.unpack_from("<IIHHH", listed, place + 20)
        name = listed[place + 46 : place + 46 + name_length].decode()
        if 2**32 - 1 in (packed, plain):
            packed, plain = _parse_zip64_sizes(listed[place + 46 + name_length :][:extra], packed, plain)
        if listed[place : place + 4] != b"PK\x01\x02" or flags & 1 or method or packed != plain or name in records:
            raise UnsafePickle(
                "it is a zip archive that torch did not write: its records are packed, encrypted or double"
            )
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise UnsafePickle("its records have names that lead out of it")
        records[name] = plain
        total += plain
        place += 46 + name_length + extra + comment
    if total > size or place != length:
        raise UnsafePickle(f"its records claim {total} bytes, and it has {size}")
    return records


def _parse_zip64_sizes(extra: bytes, compressed_size: int, size: int) -> tuple[int, int]:
    """Of a record of 4 GB or more: the first of what stands beside its name."""
    kind, _ = struct.unpack_from("<HH", extra)
    found = list(struct.unpack_from("<QQ", extra, 4)) if kind == 1 else []
    size = found.pop(0) if size == 2**32 - 1 else size
    return (found.pop(0) if compressed_size == 2**32 - 1 else compressed_size), size


def _inspect_legacy(file: BinaryIO, size: int) -> Any:
    """Five pickles: a number, a version, sizes of C's types, what is wanted, its stores; then their numbers."""
    look = PickleInspector()
    found = [look.interpret(pickletools.genops(file)) for _ in range(5)]
    _, version, _, content, keys = found
    held = sum(8 + storage.nbytes for storage in look.storages.values())
    if version != 1001 or not isinstance(keys, list) or sorted(keys) != sorted(look.storages):
        raise UnsafePickle("its list of stores is not as torch writes it")
    if held > size - file.tell():
        raise UnsafePickle(f"it claims {held} bytes where it holds {size - file.tell()}")
    return content


def _find_state_dict_key(content: Any) -> str | None:
    """The word under which the tensors stand; None: they stand alone."""
    return next(
        (word for word in STATE_DICT_KEYS if isinstance(content, dict) and isinstance(content.get(word), dict)), None
    )


def _locate_tensors(content: Any, state_dict_key: str | None) -> dict[Any, tuple[tuple[Any, ...], Any]]:
    """By its name, the way to each tensor and what is there; of modules beside the model, as `module.name`."""
    if state_dict_key is None:
        return {name: ((name,), value) for name, value in content.items()} if isinstance(content, dict) else {}
    found = {name: ((state_dict_key, name), value) for name, value in content[state_dict_key].items()}
    for word, box in content.items():
        if isinstance(word, str) and word.startswith(_MODULE_PREFIX) and isinstance(box, dict):
            found |= {f"{word}.{name}": ((word, name), value) for name, value in box.items()}
    return found


def _extract_metadata(content: dict[Any, Any], state_dict_key: str | None) -> dict[str, Any]:
    if state_dict_key is None:
        return {}
    known = (state_dict_key, *_METADATA_KEYS)
    left_out = [str(name) for name in content if name not in known and not str(name).startswith(_MODULE_PREFIX)]
    notes = [f"the tensors stand as {state_dict_key!r}"]
    if averages := [name for name in _EMA_KEYS if name in left_out]:
        notes.append(f"{averages[0]!r}, the weights' running average, stands beside them and was left out")
    if others := [name for name in left_out if name not in averages]:
        notes.append(f"left out beside the tensors: {', '.join(others[:20])}")
    room = [_MAX_VALUES]
    said = {name: _to_json_value(content[name], room) for name in _METADATA_KEYS if name in content}
    return {name: value for name, value in said.items() if value is not _NO_VALUE} | {"notes": notes}


_NO_VALUE = object()


def _to_json_value(value: Any, budget: list[int], depth: int = 0) -> Any:
    """As JSON has it; _NO_VALUE for what is no plain value, or beyond the room: lists of shared lists have no end."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH or (isinstance(value, str) and len(value) > _MAX_STRING_LENGTH):
        return _NO_VALUE
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [found for each in value if (found := _to_json_value(each, budget, depth + 1)) is not _NO_VALUE]
    if isinstance(value, ObjectSpec):
        return _object_to_json_value(value, budget, depth)
    if isinstance(value, dict):
        found = {str(key): _to_json_value(each, budget, depth + 1) for key, each in value.items() if budget[0] > 0}
        return {key: each for key, each in found.items() if each is not _NO_VALUE}
    return _NO_VALUE


@dataclass
class ObjectSpec:
    """An object of STAND_INS or MAPPINGS."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


def _object_to_json_value(spec: ObjectSpec, budget: list[int], depth: int) -> Any:
    """Options as a dictionary, a number of NumPy's as one, a place as a text."""
    match spec:
        case ObjectSpec(name) if name in INERT_MAPPINGS:
            return _to_json_value(spec.items, budget, depth)
        case ObjectSpec("argparse.Namespace" | "types.SimpleNamespace", _, dict() as state):
            return _to_json_value(state, budget, depth)
        case ObjectSpec("pathlib.PosixPath" | "pathlib.WindowsPath", parts):
            return "/".join(part for part in parts if isinstance(part, str))[:_MAX_STRING_LENGTH]
        case ObjectSpec(_, (ObjectSpec("numpy.dtype", (str(kind), *_), (_, "<" | "|", *_)), bytes(number))):
            codes = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "b1": "<?", "u1": "<B"}
            if kind in codes and len(number) == struct.calcsize(codes[kind]):
                return struct.unpack(codes[kind], number)[0]
    return _NO_VALUE


INERT_OBJECTS = {
    # options of trainers
    "argparse.Namespace",
    "types.SimpleNamespace",
    # numbers: a schedule's rates are NumPy's, and with them an optimizer's state
    *(f"numpy.{room}.multiarray.{name}" for room in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    # what else stands beside the tensors in public files: logs and places
    "mmengine.logging.history_buffer.HistoryBuffer",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
}


INERT_MAPPINGS = {
    "fvcore.common.config.CfgNode",
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "mmengine.config.config.ConfigDict",
}


_TENSOR_REBUILDERS = {
    f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
}


_TORCH_CALLABLES = _TENSOR_REBUILDERS | {
    "_codecs.encode",  # bytes, as older protocols have them
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
}


_DTYPES = {f"torch.{name}": kind for name in dir(torch) if isinstance(kind := getattr(torch, name), torch.dtype)}


_STORAGE_DTYPES = {
    f"torch.{name}Storage": kind
    for name, kind in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


_ALLOWED_GLOBALS = {*INERT_OBJECTS, *INERT_MAPPINGS, *_TORCH_CALLABLES, *_STORAGE_DTYPES, *_DTYPES}


_MAX_INSTRUCTIONS = (
    5_000_000  # instructions: a checkpoint of a thousand tensors with its optimizer has a tenth of a million
)


_KEY_TYPES = (
    str,
    int,
    float,
    bool,
    bytes,
    type(None),
)  # what a dictionary's keys are; hashing others may take for ever


class UnsafePickle(Exception):
    """Says what a pickle may not hold or ask for."""


@dataclass(frozen=True)
class GlobalReference:
    """A name that is asked for."""

    name: str


class PickleInspector:
    """
    Attributes:
        storages: all that are claimed, by their keys.
    """

    def __init__(self) -> None:
        self.storages: dict[str, StorageSpec] = {}

    def interpret(self, instructions: Iterable[tuple[Any, Any, Any]]) -> Any:
        """What the instructions, as `pickletools.genops` gives them, would leave.

        Raises:
            Refused: they ask for what is not on the list, or claim what cannot be.
            IndexError, KeyError, …: they contradict themselves.
        """
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        for count, (code, value, _) in enumerate(instructions):
            if count > _MAX_INSTRUCTIONS:
                raise UnsafePickle(f"it has more than {_MAX_INSTRUCTIONS} instructions")
            match code.name:
                case "PROTO":
                    if value != 2:
                        raise UnsafePickle(f"it is a pickle of protocol {value} and not of torch's usual one, 2")
                case "MARK":
                    marks.append(stack)
                    stack = []
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(code.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                    stack.append(value)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_SET":
                    stack.append(set())
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    many = int(code.name[-1])
                    stack[-many:] = [tuple(stack[-many:])] if len(stack) >= many else _raise_contradiction()
                case "TUPLE":
                    items, stack = stack, marks.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    _check_list(stack[-1]).append(item)
                case "APPENDS":
                    items, stack = stack, marks.pop()
                    _check_list(stack[-1]).extend(items)
                case "SETITEM":
                    item, key = stack.pop(), stack.pop()
                    _check_dict(stack[-1])[_check_key(key)] = item
                case "SETITEMS":
                    items, stack = stack, marks.pop()
                    _check_dict(stack[-1]).update(
                        (_check_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True)
                    )
                case "BINPUT" | "LONG_BINPUT":
                    memo[value] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[value])
                case "GLOBAL":
                    stack.append(_resolve_global(value))
                case "BINPERSID":
                    stack.append(self._resolve_storage(stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    args, asked = stack.pop(), stack.pop()
                    stack.append(_build_object(asked, args, is_call=code.name == "REDUCE"))
                case "BUILD":
                    state = stack.pop()
                    _set_state(stack[-1], state)
                case "STOP":
                    return stack.pop()
                case _:
                    raise UnsafePickle(f"it has the instruction {code.name}, which files of torch do not have")
        raise UnsafePickle("it is cut off")

    def _resolve_storage(self, persistent_id: Any) -> StorageSpec:
        match persistent_id:
            case ("storage", GlobalReference(name), str(key), str(), int(numel)) if name in _STORAGE_DTYPES:
                found = StorageSpec(key, _STORAGE_DTYPES[name], numel)
            case ("storage", GlobalReference(name), str(key), str(), int(numel), None) if (
                name in _STORAGE_DTYPES
            ):  # before torch 1.6
                found = StorageSpec(key, _STORAGE_DTYPES[name], numel)
            case _:
                raise UnsafePickle("it claims a store of numbers that is none of torch's usual ones")
        if numel < 0 or self.storages.setdefault(key, found) != found:
            raise UnsafePickle("it claims stores of numbers that contradict one another")
        return found


def _resolve_global(qualified_name: str) -> GlobalReference:
    module, _, name = qualified_name.partition(" ")
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full not in _ALLOWED_GLOBALS:
        raise UnsafePickle(f"it asks for {re.sub(r'[^A-Za-z0-9_.]', '?', full)[:100]}")
    return GlobalReference(full)


def _build_object(reference: Any, args: Any, *, is_call: bool) -> Any:
    name = reference.name if isinstance(reference, GlobalReference) else ""
    if not isinstance(args, tuple) or not name or name in _STORAGE_DTYPES:
        raise UnsafePickle("it calls what is no function")
    if name in INERT_OBJECTS or name in INERT_MAPPINGS:
        return ObjectSpec(name, args)
    if not is_call:
        raise UnsafePickle(f"it makes a {name} without its maker")
    match name, args:
        case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", (StorageSpec() as storage, *where):
            return _build_tensor_spec(storage, where)
        case "torch._utils._rebuild_parameter", (TensorSpec() as claim, bool(), dict()):
            return claim
        case "_codecs.encode", (str(text), "latin1"):
            return text.encode("latin1")
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", (list(pairs),):
            return {_check_key(key): value for key, value in pairs}
        case "collections.Counter", () | (dict(),):
            return dict(*args)
        case "builtins.set", (list(items),):
            return {_check_key(item) for item in items}
        case "torch.Size", (tuple(sizes),) if all(isinstance(size, int) for size in sizes):
            return sizes
        case "torch.device", (str(),) | (str(), int()):
            return reference
    raise UnsafePickle(f"it calls {name} otherwise than torch does")


def _build_tensor_spec(storage: StorageSpec, arguments: list[Any]) -> TensorSpec:
    match arguments:
        case [int(offset), tuple(shape), tuple(stride), *_] if len(shape) == len(stride) <= 16:
            numbers = (offset, *shape, *stride)
            if all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers):
                last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
                if 0 in shape or last < storage.numel:
                    return TensorSpec(storage, shape)
                raise UnsafePickle(
                    f"it claims a tensor of {' × '.join(map(str, shape))} of a store of {storage.numel} numbers"
                )
    raise UnsafePickle("it claims a tensor whose shape is none")


def _set_state(target: Any, state: Any) -> None:
    """An ordered dictionary of tensors has `_metadata`, versions of modules; any other word could hide its methods."""
    if isinstance(target, ObjectSpec):
        target.state = state
    elif not (isinstance(target, dict) and isinstance(state, dict) and set(state) <= {"_metadata"}):
        raise UnsafePickle("it changes an object otherwise than torch does")


def _check_key(key: Any) -> Any:
    if isinstance(key, _KEY_TYPES) or (isinstance(key, tuple) and all(isinstance(each, _KEY_TYPES) for each in key)):
        return key
    raise UnsafePickle("it has a dictionary whose keys are no names or numbers")


def _check_dict(target: Any) -> dict[Any, Any]:
    if isinstance(target, ObjectSpec) and target.name in INERT_MAPPINGS:
        return target.items
    return target if isinstance(target, dict) else _raise_contradiction()


def _check_list(target: Any) -> list[Any]:
    return target if isinstance(target, list) else _raise_contradiction()


def _raise_contradiction() -> Any:
    raise UnsafePickle("its instructions contradict one another")
