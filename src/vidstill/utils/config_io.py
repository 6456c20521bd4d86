"""Configurations as plain JSON and back: what a run folder and a file of weights say about themselves."""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from vidstill.utils.types import InputError

T = TypeVar("T")

_CLASS = "is"  # names the class of a configuration: `vidstill.methods.amd:AMDConfig`


def to_plain(value: Any) -> Any:
    """A configuration as dicts, lists, numbers and strings; each dict names its class."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {_CLASS: f"{type(value).__module__}:{type(value).__qualname__}"}
        return named | {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as plain JSON")


def from_plain(expected: type[T], plain: Any) -> T:
    """The configuration that `to_plain` wrote; fields that are missing take their defaults.

    Only dataclasses of this package are made: nothing in the file is run.

    Raises:
        InputError: a field, a class or a value that this version does not know.
    """
    return _value(expected, plain, expected.__name__)


def _value(expected: Any, plain: Any, where: str) -> Any:
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if isinstance(plain, dict) and _CLASS in plain:
        found = _class(plain[_CLASS], where)
        if not _allows(expected, found):
            raise InputError(f"{where} is a {found.__name__}, which has no place there")
        return _instance(found, plain, where)
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        if not isinstance(plain, dict):
            raise InputError(f"{where} is {plain!r}; it has to hold the fields of a {expected.__name__}")
        return _instance(expected, plain, where)
    if origin is Literal:
        if plain not in args:
            raise InputError(f"{where} is {plain!r}; it is one of {', '.join(map(repr, args))}")
        return plain
    if origin in (types.UnionType, typing.Union):
        return None if plain is None and type(None) in args else _of_union(args, plain, where)
    if origin is tuple:
        if not isinstance(plain, list):
            raise InputError(f"{where} is {plain!r}; it has to be a list")
        kinds = [args[0]] * len(plain) if args[1:] == (...,) else args
        if len(kinds) != len(plain):
            raise InputError(f"{where} has {len(plain)} entries; it has to have {len(kinds)}")
        return tuple(_value(kind, item, where) for kind, item in zip(kinds, plain, strict=True))
    if expected is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if expected in (bool, int, float, str) and type(plain) is not expected:
        raise InputError(f"{where} is {plain!r}; it has to be of type {expected.__name__}")
    return plain


def _of_union(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _value(kind, plain, where)
        except InputError as error:
            mistake = error
    raise mistake


def _allows(expected: Any, found: type) -> bool:
    """Whether a value of this class may stand where that one is expected."""
    if typing.get_origin(expected) in (types.UnionType, typing.Union):
        return any(_allows(kind, found) for kind in typing.get_args(expected))
    return expected is Any or (isinstance(expected, type) and issubclass(found, expected))


def _class(name: Any, where: str) -> type:
    module, _, qualname = str(name).partition(":")
    if not module.startswith("vidstill."):
        raise InputError(f"{where} is of the class {name!r}, which is not vidstill's; the file is not to be trusted")
    try:
        found = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError):
        raise InputError(f"{where} is of the class {name!r}, which this version of vidstill does not have") from None
    ours = isinstance(found, type) and found.__module__.startswith("vidstill.")  # not what our module has imported
    if not (ours and dataclasses.is_dataclass(found)):
        raise InputError(f"{where} is of the class {name!r}, which is no configuration")
    return typing.cast(type, found)


def _instance(found: type, plain: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(found)
    names = [f.name for f in dataclasses.fields(found)]
    values = {}
    for name, item in plain.items():
        if name == _CLASS:
            continue
        if name not in names:
            raise InputError(f"{where} has no field {name!r}{near(name, names)}")
        values[name] = _value(hints[name], item, f"{where}.{name}")
    try:
        return found(**values)
    except TypeError as error:
        raise InputError(f"{where} is incomplete: {error}") from None


def near(word: str, words: Iterable[str]) -> str:
    """`; near are a, b` for the words that look like a misspelt one, or nothing."""
    alike = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; near are {', '.join(alike)}" if alike else ""
