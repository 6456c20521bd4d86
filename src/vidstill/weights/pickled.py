"""torch's checkpoints, by any suffix: looked through first, then read by `torch.load(weights_only=True)` alone."""

import io
import pickletools
import struct
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vidstill.types import InputError
from vidstill.weights.look import MAPPINGS, STAND_INS, Claim, Look, Refused, Thing

ZIP = b"PK\x03\x04"  # since torch 1.6
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before: the number that they begin with

WRAPPERS = ("model", "module", "model_state", "state_dict")
"""Where the tensors stand: MAE's and VideoMAE's trainers, DeepSpeed, PySlowFast, mmaction2 and Lightning."""

_BESIDE = ("args", "cfg", "config", "epoch", "meta", "hyper_parameters")  # that say how the tensors were made
_MODULES = "Align_"  # MaskAgain's trainer writes its projections beside the model, module by module
_AVERAGES = ("model_ema", "ema", "ema_state_dict", "state_dict_ema")
_LARGEST_PICKLE = 2**28  # bytes; without the numbers: a checkpoint of a thousand tensors has a fifth of a million
_MOST_RECORDS = 2**16
_DEEPEST, _MOST_VALUES, _LONGEST = 12, 20_000, 2**17  # of what stands beside the tensors


class _Inert:
    """Is put where a file asks for an object of STAND_INS: takes everything, keeps nothing."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _InertMapping(_Inert):
    """And of MAPPINGS: torch's reader fills dictionaries alone."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


def read_pickled(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, mapped from the file where its format allows it; and what stands beside them, as plain values.

    Args:
        name: of the file, for the sentences.

    Raises:
        InputError: it holds other things than tensors and plain values, claims more than it holds, or is damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY))
            file.seek(0)
            zipped = head.startswith(ZIP)
            if not zipped and head != LEGACY:
                raise Refused("it is cut off, or of another format")
            content = _look_zip(file, path, size) if zipped else _look_legacy(file, size)
        where = _wrapper(content)
        places = _places(content, where)
        if not places or not all(isinstance(key, str) and isinstance(places[key][1], Claim) for key in places):
            raise InputError(
                f"{name} holds no named tensors; a checkpoint of the family has them as {', '.join(WRAPPERS)}, or alone"
            )
        if sum(claim.nbytes for _, claim in places.values()) > 4 * size + 2**20:
            raise Refused("its tensors claim more numbers than it holds")
        tensors = _torchs(path, zipped, places)
    except InputError:
        raise
    except Refused as refused:
        raise _refusal(name, str(refused)) from None
    except Exception:  # readers raise whatever bytes lead them to
        raise _refusal(name, "it is cut off, or of another format") from None
    return tensors, _said(content, where)


def _refusal(name: str, reason: str) -> InputError:
    return InputError(f"{name} is no file of plain tensors ({reason}); it was not executed")


def _torchs(path: Path, zipped: bool, places: Mapping[str, tuple[tuple[str, ...], Claim]]) -> dict[str, Tensor]:
    """What torch reads at these places; each is what was claimed."""
    inert: list[Any] = [(_Inert, name) for name in STAND_INS] + [(_InertMapping, name) for name in MAPPINGS]
    mapped = zipped and path.suffix != ".safetensors"  # torch would take one by this name for another's format
    with torch.serialization.safe_globals(inert), warnings.catch_warnings(action="ignore"), path.open("rb") as file:
        content = torch.load(str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    tensors = {}
    for name, (steps, claim) in places.items():
        tensor: Tensor = reduce(dict.__getitem__, steps, content).detach()
        held = tensor.untyped_storage().nbytes()
        if tensor.shape != claim.shape or tensor.dtype != claim.storage.dtype or held < claim.storage.nbytes:
            raise Refused(f"{name!r} is not what it claims to be")
        tensors[name] = tensor
    return tensors


def _look_zip(file: BinaryIO, path: Path, size: int) -> Any:
    """The records lie side by side and uncompressed, as torch leaves them: none can hold more than the file."""
    records = _records(file, size)
    folder = next(iter(records), "").partition("/")[0]
    pickle = records.get(f"{folder}/data.pkl")
    if pickle is None:
        raise Refused("it is a zip archive of something else")
    if pickle > _LARGEST_PICKLE:
        raise Refused(f"what it says of its tensors has {pickle} bytes")
    reader = torch._C.PyTorchFileReader(str(path))  # so that what is looked at is what torch reads
    look = Look()
    content = look.follow(pickletools.genops(io.BytesIO(reader.get_record("data.pkl"))))
    for storage in look.storages.values():
        held = records.get(f"{folder}/data/{storage.key}")
        if held != storage.nbytes:
            raise Refused(f"it claims {storage.nbytes} bytes where it holds {held or 0}")
    return content


def _records(file: BinaryIO, size: int) -> dict[str, int]:
    """How many bytes each record of a zip archive has, which torch wrote and nobody changed."""
    file.seek(max(0, size - 98))
    tail = file.read(98)  # the three records that end it: (zip64's, where that is,) the plain one
    count, length, start, stop = *struct.unpack("<HII", tail[-12:-2]), size - 22
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise Refused("it is cut off, or of another format")
    if tail[-42:-38] == b"PK\x06\x07":
        if tail[-98:-94] != b"PK\x06\x06" or struct.unpack("<Q", tail[-34:-26])[0] != size - 98:
            raise Refused("its list of records is not as torch writes it")
        count, length, start, stop = *struct.unpack("<QQQ", tail[-66:-42]), size - 98
    if count > _MOST_RECORDS or start + length != stop or length > 2**10 * _MOST_RECORDS:
        raise Refused("its list of records is not as torch writes it")
    file.seek(start)
    listed, records, place, total = file.read(length), {}, 0, 0
    for _ in range(count):
        flags, method = struct.unpack_from("<HH", listed, place + 8)
        packed, plain, name_length, extra, comment = struct.unpack_from("<IIHHH", listed, place + 20)
        name = listed[place + 46 : place + 46 + name_length].decode()
        if 2**32 - 1 in (packed, plain):
            packed, plain = _long_sizes(listed[place + 46 + name_length :][:extra], packed, plain)
        if listed[place : place + 4] != b"PK\x01\x02" or flags & 1 or method or packed != plain or name in records:
            raise Refused("it is a zip archive that torch did not write: its records are packed, encrypted or double")
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise Refused("its records have names that lead out of it")
        records[name] = plain
        total += plain
        place += 46 + name_length + extra + comment
    if total > size or place != length:
        raise Refused(f"its records claim {total} bytes, and it has {size}")
    return records


def _long_sizes(extra: bytes, packed: int, plain: int) -> tuple[int, int]:
    """Of a record of 4 GB or more: the first of what stands beside its name."""
    kind, _ = struct.unpack_from("<HH", extra)
    found = list(struct.unpack_from("<QQ", extra, 4)) if kind == 1 else []
    plain = found.pop(0) if plain == 2**32 - 1 else plain
    return (found.pop(0) if packed == 2**32 - 1 else packed), plain


def _look_legacy(file: BinaryIO, size: int) -> Any:
    """Five pickles: a number, a version, sizes of C's types, what is wanted, its stores; then their numbers."""
    look = Look()
    found = [look.follow(pickletools.genops(file)) for _ in range(5)]
    _, version, _, content, keys = found
    held = sum(8 + storage.nbytes for storage in look.storages.values())
    if version != 1001 or not isinstance(keys, list) or sorted(keys) != sorted(look.storages):
        raise Refused("its list of stores is not as torch writes it")
    if held > size - file.tell():
        raise Refused(f"it claims {held} bytes where it holds {size - file.tell()}")
    return content


def _wrapper(content: Any) -> str | None:
    """The word under which the tensors stand; None: they stand alone."""
    return next((word for word in WRAPPERS if isinstance(content, dict) and isinstance(content.get(word), dict)), None)


def _places(content: Any, where: str | None) -> dict[Any, tuple[tuple[Any, ...], Any]]:
    """By its name, the way to each tensor and what is there; of modules beside the model, as `module.name`."""
    if where is None:
        return {name: ((name,), value) for name, value in content.items()} if isinstance(content, dict) else {}
    found = {name: ((where, name), value) for name, value in content[where].items()}
    for word, box in content.items():
        if isinstance(word, str) and word.startswith(_MODULES) and isinstance(box, dict):
            found |= {f"{word}.{name}": ((word, name), value) for name, value in box.items()}
    return found


def _said(content: dict[Any, Any], where: str | None) -> dict[str, Any]:
    if where is None:
        return {}
    known = (where, *_BESIDE)
    left_out = [str(name) for name in content if name not in known and not str(name).startswith(_MODULES)]
    notes = [f"the tensors stand as {where!r}"]
    if averages := [name for name in _AVERAGES if name in left_out]:
        notes.append(f"{averages[0]!r}, the weights' running average, stands beside them and was left out")
    if others := [name for name in left_out if name not in averages]:
        notes.append(f"left out beside the tensors: {', '.join(others[:20])}")
    room = [_MOST_VALUES]
    said = {name: _plain(content[name], room) for name in _BESIDE if name in content}
    return {name: value for name, value in said.items() if value is not _NO_VALUE} | {"notes": notes}


_NO_VALUE = object()


def _plain(value: Any, room: list[int], deep: int = 0) -> Any:
    """As JSON has it; _NO_VALUE for what is no plain value, or beyond the room: lists of shared lists have no end."""
    room[0] -= 1
    if room[0] < 0 or deep > _DEEPEST or (isinstance(value, str) and len(value) > _LONGEST):
        return _NO_VALUE
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [found for each in value if (found := _plain(each, room, deep + 1)) is not _NO_VALUE]
    if isinstance(value, Thing):
        return _plain_thing(value, room, deep)
    if isinstance(value, dict):
        found = {str(key): _plain(each, room, deep + 1) for key, each in value.items() if room[0] > 0}
        return {key: each for key, each in found.items() if each is not _NO_VALUE}
    return _NO_VALUE


def _plain_thing(thing: Thing, room: list[int], deep: int) -> Any:
    """Options as a dictionary, a number of NumPy's as one, a place as a text."""
    match thing:
        case Thing(name) if name in MAPPINGS:
            return _plain(thing.items, room, deep)
        case Thing("argparse.Namespace" | "types.SimpleNamespace", _, dict() as state):
            return _plain(state, room, deep)
        case Thing("pathlib.PosixPath" | "pathlib.WindowsPath", parts):
            return "/".join(part for part in parts if isinstance(part, str))[:_LONGEST]
        case Thing(_, (Thing("numpy.dtype", (str(kind), *_), (_, "<" | "|", *_)), bytes(number))):
            codes = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "b1": "<?", "u1": "<B"}
            if kind in codes and len(number) == struct.calcsize(codes[kind]):
                return struct.unpack(codes[kind], number)[0]
    return _NO_VALUE
