"""What a pickle of torch would make, found out without making any of it: values, claims of tensors, names asked for.

torch's own reader (`weights_only=True`) runs none of a file's code, but it makes whatever sizes the file asks for. So
its instructions are followed here first, with claims in place of tensors; what is not on the lists below is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

STAND_INS = {
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
"""Objects of these are plain data. They are not made, and their modules not imported: something inert takes their place
and keeps nothing. Of options and numbers the plain values are taken from the instructions."""

MAPPINGS = {
    "fvcore.common.config.CfgNode",
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "mmengine.config.config.ConfigDict",
}
"""As STAND_INS, of what is a dictionary."""

_TENSORS = {f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}
_TORCHS = _TENSORS | {
    "_codecs.encode",  # bytes, as older protocols have them
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
}
_DTYPES = {f"torch.{name}": kind for name in dir(torch) if isinstance(kind := getattr(torch, name), torch.dtype)}
_STORAGES = {
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
_KNOWN = {*STAND_INS, *MAPPINGS, *_TORCHS, *_STORAGES, *_DTYPES}
_MOST = 5_000_000  # instructions: a checkpoint of a thousand tensors with its optimizer has a tenth of a million
_NAMES = (str, int, float, bool, bytes, type(None))  # what a dictionary's keys are; hashing others may take for ever


class Refused(Exception):
    """Says what a pickle may not hold or ask for."""


@dataclass(frozen=True)
class Storage:
    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Claim:
    """A tensor that would be made of a storage."""

    storage: Storage
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        count = self.storage.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Asked:
    """A name that is asked for."""

    name: str


@dataclass
class Thing:
    """An object of STAND_INS or MAPPINGS."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


class Look:
    """
    Attributes:
        storages: all that are claimed, by their keys.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def follow(self, instructions: Iterable[tuple[Any, Any, Any]]) -> Any:
        """What the instructions, as `pickletools.genops` gives them, would leave.

        Raises:
            Refused: they ask for what is not on the list, or claim what cannot be.
            IndexError, KeyError, …: they contradict themselves.
        """
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        for count, (code, value, _) in enumerate(instructions):
            if count > _MOST:
                raise Refused(f"it has more than {_MOST} instructions")
            match code.name:
                case "PROTO":
                    if value != 2:
                        raise Refused(f"it is a pickle of protocol {value} and not of torch's usual one, 2")
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
                    stack[-many:] = [tuple(stack[-many:])] if len(stack) >= many else _nothing()
                case "TUPLE":
                    items, stack = stack, marks.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    _list(stack[-1]).append(item)
                case "APPENDS":
                    items, stack = stack, marks.pop()
                    _list(stack[-1]).extend(items)
                case "SETITEM":
                    item, key = stack.pop(), stack.pop()
                    _dict(stack[-1])[_key(key)] = item
                case "SETITEMS":
                    items, stack = stack, marks.pop()
                    _dict(stack[-1]).update((_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True))
                case "BINPUT" | "LONG_BINPUT":
                    memo[value] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[value])
                case "GLOBAL":
                    stack.append(_asked(value))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    args, asked = stack.pop(), stack.pop()
                    stack.append(_made(asked, args, called=code.name == "REDUCE"))
                case "BUILD":
                    state = stack.pop()
                    _set_state(stack[-1], state)
                case "STOP":
                    return stack.pop()
                case _:
                    raise Refused(f"it has the instruction {code.name}, which files of torch do not have")
        raise Refused("it is cut off")

    def _storage(self, wanted: Any) -> Storage:
        match wanted:
            case ("storage", Asked(name), str(key), str(), int(numel)) if name in _STORAGES:
                found = Storage(key, _STORAGES[name], numel)
            case ("storage", Asked(name), str(key), str(), int(numel), None) if name in _STORAGES:  # before torch 1.6
                found = Storage(key, _STORAGES[name], numel)
            case _:
                raise Refused("it claims a store of numbers that is none of torch's usual ones")
        if numel < 0 or self.storages.setdefault(key, found) != found:
            raise Refused("it claims stores of numbers that contradict one another")
        return found


def _asked(value: str) -> Asked:
    module, _, name = value.partition(" ")
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full not in _KNOWN:
        raise Refused(f"it asks for {re.sub(r'[^A-Za-z0-9_.]', '?', full)[:100]}")
    return Asked(full)


def _made(asked: Any, args: Any, *, called: bool) -> Any:
    name = asked.name if isinstance(asked, Asked) else ""
    if not isinstance(args, tuple) or not name or name in _STORAGES:
        raise Refused("it calls what is no function")
    if name in STAND_INS or name in MAPPINGS:
        return Thing(name, args)
    if not called:
        raise Refused(f"it makes a {name} without its maker")
    match name, args:
        case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", (Storage() as storage, *where):
            return _claim(storage, where)
        case "torch._utils._rebuild_parameter", (Claim() as claim, bool(), dict()):
            return claim
        case "_codecs.encode", (str(text), "latin1"):
            return text.encode("latin1")
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", (list(pairs),):
            return {_key(key): value for key, value in pairs}
        case "collections.Counter", () | (dict(),):
            return dict(*args)
        case "builtins.set", (list(items),):
            return {_key(item) for item in items}
        case "torch.Size", (tuple(sizes),) if all(isinstance(size, int) for size in sizes):
            return sizes
        case "torch.device", (str(),) | (str(), int()):
            return asked
    raise Refused(f"it calls {name} otherwise than torch does")


def _claim(storage: Storage, where: list[Any]) -> Claim:
    match where:
        case [int(offset), tuple(shape), tuple(stride), *_] if len(shape) == len(stride) <= 16:
            numbers = (offset, *shape, *stride)
            if all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers):
                last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
                if 0 in shape or last < storage.numel:
                    return Claim(storage, shape)
                raise Refused(
                    f"it claims a tensor of {' × '.join(map(str, shape))} of a store of {storage.numel} numbers"
                )
    raise Refused("it claims a tensor whose shape is none")


def _set_state(target: Any, state: Any) -> None:
    """An ordered dictionary of tensors has `_metadata`, versions of modules; any other word could hide its methods."""
    if isinstance(target, Thing):
        target.state = state
    elif not (isinstance(target, dict) and isinstance(state, dict) and set(state) <= {"_metadata"}):
        raise Refused("it changes an object otherwise than torch does")


def _key(key: Any) -> Any:
    if isinstance(key, _NAMES) or (isinstance(key, tuple) and all(isinstance(each, _NAMES) for each in key)):
        return key
    raise Refused("it has a dictionary whose keys are no names or numbers")


def _dict(target: Any) -> dict[Any, Any]:
    if isinstance(target, Thing) and target.name in MAPPINGS:
        return target.items
    return target if isinstance(target, dict) else _nothing()


def _list(target: Any) -> list[Any]:
    return target if isinstance(target, list) else _nothing()


def _nothing() -> Any:
    raise Refused("its instructions contradict one another")
