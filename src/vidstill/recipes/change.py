"""A recipe with some of its fields changed: on the command line, or from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from vidstill.utils.types import InputError


def change_recipe(config: Any, changes: Mapping[str, Any], option: str = "") -> Any:
    """Return a config with some fields changed.

    Args:
        config: The recipe or a part of it; a class, whose own defaults are taken, for a part that is brought in.
        changes: Values by field, parts as dicts, `{"schedule": {"epochs": 1}}`; a part of None is `{"": "None"}`.
        option: The option of the part, for messages.

    Raises:
        InputError: The part has no such field, lacks a value, or its values do not go together.
    """
    config_type = config if isinstance(config, type) else type(config)
    hints, config_fields, values = get_type_hints(config_type), {each.name: each for each in fields(config_type)}, {}
    for name, value in changes.items():
        path = f"{option}.{name.replace('_', '-')}" if option else f"--{name.replace('_', '-')}"
        if name not in config_fields:
            raise InputError(f"{path} is not an option of {config_type.__name__}, which this recipe has; leave it out")
        if isinstance(value, dict):
            part = config_fields[name].default if isinstance(config, type) else getattr(config, name)
            value = _apply_to_part(part, config_fields[name].default, list_part_types(hints[name]), value, path)
        values[name] = value
    try:
        return config(**values) if isinstance(config, type) else replace(config, **values)
    except TypeError as error:
        raise InputError(f"{option} is incomplete: {error}") from None


def _apply_to_part(part: Any, default: Any, types: Sequence[type], changes: dict[str, Any], option: str) -> Any:
    """Return None for `--mixup None`; an absent part begins as its field's default, else as its class."""
    if "" in changes:
        if others := [name for name in changes if name]:
            raise InputError(f"{option}.{others[0].replace('_', '-')} contradicts {option} None; give one of them")
        return None
    if not is_dataclass(part):
        fitting = (kind for kind in types if changes.keys() <= {each.name for each in fields(kind)})
        part = default if is_dataclass(default) else next(fitting, types[0])
    return change_recipe(part, changes, option)


def list_part_types(annotation: Any) -> tuple[Any, ...]:
    """Return the dataclasses that a field may hold."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind))
