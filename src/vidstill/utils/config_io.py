"""Configurations as plain JSON and back, as run directories and weight files hold them."""

import ast
import dataclasses
import difflib
import importlib
import sys
import types
import typing
from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from vidstill.utils.types import InputError

T = TypeVar("T")

_CLASS_KEY = "class"  # holds the class of a configuration: `vidstill.methods.amd:AMDConfig`


class ClassesOf(NamedTuple):
    """`Annotated[Any, ClassesOf("vidstill.methods")]`: a configuration that a module of this package defines."""

    package: str


def to_dict(value: Any) -> Any:
    """Return a configuration as dicts, lists, numbers and strings; each dict names its class."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        class_name = {_CLASS_KEY: f"{type(value).__module__}:{type(value).__qualname__}"}
        return class_name | {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as plain JSON")


def from_dict(expected_type: type[T], value: Any, *, own_classes: bool = False) -> T:
    """Return the configuration that `to_dict` wrote; missing fields take their defaults.

    Only dataclasses that the annotations of the fields name are made: nothing in the file is executed, and nothing that
    it names is imported, but for a module of the package of a `ClassesOf`.

    Args:
        expected_type: The dataclass.
        value: What was read from the file.
        own_classes: Import dataclasses of other modules than this package's too. Only for a file that the user names
            as a recipe: never for weights, which are passed on.

    Raises:
        InputError: A field, a class or a value is unknown to this version.
    """
    return parse_value(expected_type, value, expected_type.__name__, own_classes)


def parse_value(expected: Any, value: Any, where: str, own_classes: bool = False) -> Any:
    """Return what `to_dict` made of a value as the type of its annotation.

    Args:
        expected: The annotation.
        value: Plain JSON.
        where: What messages call the value.
        own_classes: As for `from_dict`.

    Raises:
        InputError: It does not fit.
    """
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated and args[0] is not Any:  # how it is typed on a command line
        return parse_value(args[0], value, where, own_classes)
    if isinstance(value, dict) and _CLASS_KEY in value:
        config_class = _find_class(value[_CLASS_KEY], expected, where, own_classes)
        return _build_instance(config_class, value, where, own_classes)
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; it must hold the fields of a {expected.__name__}")
        return _build_instance(expected, value, where, own_classes)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        for member_type in (each for each in args if each is not type(None)):
            try:
                return parse_value(member_type, value, where, own_classes)
            except InputError as error:
                last_error = error
        raise last_error
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}; it must be a list")
        item_types = [args[0]] * len(value) if args[1:] == (...,) else args
        if len(item_types) != len(value):
            raise InputError(f"{where} has {len(value)} entries; it must have {len(item_types)}")
        return tuple(parse_value(kind, item, where, own_classes) for kind, item in zip(item_types, value, strict=True))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected in (bool, int, float, str) and type(value) is not expected:
        raise InputError(f"{where} is {value!r}; it must be of type {expected.__name__}")
    if isinstance(expected, type) and not isinstance(value, expected):
        raise InputError(f"{where} is {value!r}; it must be a {expected.__name__}")
    return value


def _find_class(name: Any, expected: Any, where: str, own_classes: bool) -> type:
    """Return the class of a value: one that its annotation names or describes, or one of the user's that fits it.

    An abstract class describes those of its package.
    """
    module, _, qualname = str(name).partition(":")
    args = typing.get_args(expected)
    members = args if typing.get_origin(expected) in (types.UnionType, typing.Union) else (expected,)
    classes = tuple(each for each in members if isinstance(each, type) and each is not type(None))
    for each in classes:
        if dataclasses.is_dataclass(each) and name == f"{each.__module__}:{each.__qualname__}":
            return each
    is_own = module.startswith("vidstill.")
    if not (is_own or own_classes):
        raise InputError(f"{where} is of the class {name!r}, which is not vidstill's; the file is not to be trusted")
    package = module.rpartition(".")[0]
    is_in_package = ClassesOf(package) in args or any(
        ABC in each.__bases__ and each.__module__.rpartition(".")[0] == package for each in classes
    )
    if is_own and not (is_in_package or (own_classes and expected is Any)):
        names = ", ".join(each.__name__ for each in classes) or "no configuration"
        raise InputError(f"{where} is of the class {name!r}, but this version of vidstill allows {names} there")
    if not _defines_class(module, qualname):
        advice = "no module here defines; run in the directory of its file, or install its package"
        advice = "this version of vidstill does not have" if is_own else advice
        raise InputError(f"{where} is of the class {name!r}, which {advice}")
    try:
        config_class = getattr(importlib.import_module(module), qualname)
    except Exception as error:
        if is_own:
            raise
        raise InputError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(config_class, type) and dataclasses.is_dataclass(config_class)):
        raise InputError(f"{where} is of the class {name!r}, which is not a configuration")
    is_open = expected is Any or any(isinstance(each, ClassesOf) for each in args)
    if not (is_open or issubclass(config_class, classes)):
        raise InputError(f"{where} is a {config_class.__name__}, which is not allowed there")
    return config_class


def _defines_class(module: str, name: str) -> bool:
    """Return whether a module's source file defines a class, without importing the module or its packages."""
    path, spec, parts = None, None, module.split(".")
    for end in range(1, len(parts) + 1):
        finders = (finder.find_spec(".".join(parts[:end]), path) for finder in sys.meta_path)
        spec = next((each for each in finders if each is not None), None)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    if spec is None or not str(spec.origin).endswith(".py"):
        return False
    try:
        tree = ast.parse(Path(str(spec.origin)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)


def _build_instance(config_class: type, data: dict[str, Any], where: str, own_classes: bool) -> Any:
    hints = typing.get_type_hints(config_class, include_extras=True)
    names = [f.name for f in dataclasses.fields(config_class)]
    values = {}
    for name, item in data.items():
        if name == _CLASS_KEY:
            continue
        if name not in names:
            raise InputError(f"{where} has no field {name!r}{suggest_names(name, names)}")
        values[name] = parse_value(hints[name], item, f"{where}.{name}", own_classes)
    try:
        return config_class(**values)
    except TypeError as error:
        raise InputError(f"{where} is incomplete: {error}") from None


def suggest_names(name: str, candidates: Iterable[str]) -> str:
    """Return `; near are a, b` for the candidates that look like a misspelt name, or an empty string."""
    matches = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.5)
    return f"; near are {', '.join(matches)}" if matches else ""
