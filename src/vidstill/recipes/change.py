"""A recipe with some of its fields changed: on the command line, or from Python."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from inspect import isabstract
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from vidstill.engine.lr_schedule import CosineConfig
from vidstill.recipes.sources import load_variable
from vidstill.utils.config_io import parse_value, suggest_names, to_dict
from vidstill.utils.types import InputError


def change_recipe(config: Any, changes: Mapping[str, Any], option: str = "") -> Any:
    """Return a config with some fields changed; where the epochs are, the warm-up fits them (`with_epochs`).

    Args:
        config: The recipe or a part of it; a class, whose own defaults are taken, for a part that is brought in.
        changes: Values by field. For a part, a dict of its fields, in which `""` is its kind: `{"method": {"mask":
            {"": "random", "ratio": 0.9}}}`; or the kind alone; or None, which leaves the part out.
        option: The option of the part, for messages.

    Raises:
        InputError: The part has no such field or kind, lacks a value, or its values do not go together.
    """
    config_type = config if isinstance(config, type) else type(config)
    hints, config_fields, values = get_type_hints(config_type), {each.name: each for each in fields(config_type)}, {}
    for name, value in changes.items():
        path = f"{option}.{name.replace('_', '-')}" if option else f"--{name.replace('_', '-')}"
        if name not in config_fields:
            hint = suggest_names(name, config_fields) or "; leave it out"
            raise InputError(f"{path} is not an option of {config_type.__name__}, which this recipe has{hint}")
        part = config_fields[name].default if isinstance(config, type) else getattr(config, name)
        is_part = is_dataclass(part) or bool(list_part_types(hints[name]))
        if is_part and isinstance(value, str):
            value = {"": value}
        if is_part and isinstance(value, dict):
            values[name] = _change_part(part, config_fields[name].default, hints[name], value, path)
        else:
            values[name] = _convert_value(value, hints[name], path)
    if isinstance(config, CosineConfig) and "epochs" in values:
        config = config.with_epochs(values["epochs"])
    try:
        return config(**values) if isinstance(config, type) else replace(config, **values)
    except TypeError as error:
        raise InputError(f"{option} is incomplete: {error}") from None


def nest_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"schedule.epochs": 1}` as `{"schedule": {"epochs": 1}}`; beside its fields, a part's kind is `""`."""
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        *parts, last = name.split(".")
        fields = nested
        for part in parts:
            kind = fields.setdefault(part, {})
            fields[part] = fields = kind if isinstance(kind, dict) else {"": kind}
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(fields.get(last), dict):
            fields[last][""] = "None" if value is None else value
        else:
            fields[last] = value
    return nested


def _convert_value(value: Any, annotation: Any, option: str) -> Any:
    """Return a value in the field's type: a list as a tuple, a whole number as a float.

    Raises:
        InputError: It does not fit the field.
    """
    if is_dataclass(value):
        if annotation is Any or isinstance(value, _list_types(annotation)):
            return value
        raise InputError(f"{option} is a {type(value).__name__}, which is not allowed there")
    try:
        plain = to_dict(value)
    except TypeError:
        raise InputError(f"{option} is {value!r}; give a number, a text or a list of them") from None
    return parse_value(annotation, plain, option)


def _change_part(part: Any, default: Any, annotation: Any, changes: dict[str, Any], option: str) -> Any:
    """Change a part's kind, then its fields; an absent part begins as its field's default, else as its class."""
    kind, changes = changes.get(""), {name: value for name, value in changes.items() if name}
    if is_dataclass(kind):
        part, kind = _convert_value(kind, annotation, option), None
    if kind is not None and is_none(kind, annotation):
        if changes:
            name = next(iter(changes)).replace("_", "-")
            raise InputError(f"{option}.{name} contradicts {option} None; give one of them")
        return None
    part = part if is_dataclass(part) else default
    if kind is not None:
        kind_type = find_kind(annotation, kind, option)
        return change_recipe(kind_type, {**carry_fields(part, kind_type), **changes}, option)
    if not is_dataclass(part):
        types = list_part_types(annotation)
        part = next((each for each in types if changes.keys() <= {field.name for field in fields(each)}), types[0])
    return change_recipe(part, changes, option)


def check_changes(changes: Mapping[str, Any], path: str, requested: Any, actual: Any, source: str) -> None:
    """Raise an InputError if a model's source overrides a setting that the user gave.

    Args:
        changes: The settings that the user gave, of the whole recipe.
        path: The part of the recipe, `method.teacher.model`.
        requested: That part, with the changes.
        actual: That part as it is trained.
        source: The run directory or weights file that decides the rest.
    """
    for part in path.split("."):
        changes = changes.get(part, {}) if isinstance(changes, Mapping) else {}
    for name in changes if isinstance(changes, Mapping) else ():
        value, final = getattr(requested, name, None), getattr(actual, name, None)
        if value != final:
            option = f"--{path}.{name}".replace("_", "-")
            raise InputError(
                f"{option} is {format_value(value)}, but {source} has {format_value(final)}; leave it out, or start "
                "from another file"
            )


def format_value(value: Any) -> str:
    """Return a value as it is typed behind its option: those of a tuple with spaces between."""
    return " ".join(map(format_value, value)) if isinstance(value, tuple) else str(value)


def is_none(kind: str, annotation: Any) -> bool:
    """Return whether a typed kind leaves an optional part out."""
    return kind == "None" and NoneType in get_args(annotation)


def list_part_types(annotation: Any) -> tuple[Any, ...]:
    """Return the dataclasses that a field may hold."""
    return tuple(kind for kind in _list_types(annotation) if is_dataclass(kind) and not isabstract(kind))


def list_kinds(annotation: Any) -> list[str]:
    """Return what may be typed for a part itself; nothing, if there is no choice."""
    own, types = ["FILE.py:CLASS"] if _find_protocol(annotation) else [], list_part_types(annotation)
    kinds = list(map(get_kind, types)) if own or len(types) > 1 else []
    return [*kinds, *own, *(["None"] if NoneType in get_args(annotation) else [])]


def get_kind(config_type: type) -> str:
    """Return a class's name without its last word: RandomMask is `random`, RandomResizedCrop `random_resized`."""
    name = re.sub(r"(?<!^)[A-Z][a-z]+$", "", config_type.__name__)
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()


def find_kind(annotation: Any, kind: str, option: str) -> type:
    """Return the class that a kind names, or the user's own: `FILE.py:CLASS`, `package.module:CLASS`.

    Args:
        annotation: Of the field.
        kind: What was typed; capitals do not matter.
        option: The field's option, for messages.

    Raises:
        InputError: There is no such kind, or the user's class does not fit.
    """
    types, protocol = {get_kind(each): each for each in list_part_types(annotation)}, _find_protocol(annotation)
    kinds, name = list_kinds(annotation), kind.lower().replace("-", "_")
    if kinds and name in types:
        return types[name]
    if protocol is not None and ":" in kind:
        own = load_variable(kind)
        if not (isinstance(own, type) and is_dataclass(own) and issubclass(own, protocol)):
            raise InputError(f"{kind} cannot be {option}; it must be {protocol.__doc__.partition('.')[0].lower()}")
        return own
    if kinds:
        raise InputError(f"there is no {option} {kind!r}; it takes {', '.join(kinds)}")
    always = f"is always {' or '.join(types)} in this recipe" if types else "takes no value"
    raise InputError(f"{option} {kind}: this part {always}; its fields are options, see --help")


def carry_fields(part: Any, kind: type) -> dict[str, Any]:
    """Return the values that another kind of a part keeps: those of fields of the same name and type."""
    if not is_dataclass(part):
        return {}
    before, after = get_type_hints(type(part)), get_type_hints(kind)
    values = {}
    for name in (each.name for each in fields(kind) if each.init):
        if before.get(name) == after[name]:
            values[name] = getattr(part, name)
        elif (before.get(name), after[name]) == (int, float):
            values[name] = float(getattr(part, name))
    return values


def _list_types(annotation: Any) -> tuple[type, ...]:
    types = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(each for each in types if isinstance(each, type))


def _find_protocol(annotation: Any) -> Any:
    """Return the protocol that classes of the user's own must fit, if the field may hold them."""
    return next((each for each in _list_types(annotation) if getattr(each, "_is_protocol", False)), None)
