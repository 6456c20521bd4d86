"""Words of the command line → the arguments of a function, whose signature they follow; read by tyro."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

T = TypeVar("T")


def call_with_options(
    function: Callable[..., None], args: Sequence[str], prog: str, description_suffix: str = "", **defaults: Any
) -> None:
    """Reads the options that the function's signature names, then calls it.

    It is not called by tyro, which would take an InputError of the work for one of its own.

    Args:
        prog: the words that come before the options.
        description_suffix: what the help says after the function's first line.
    """

    @functools.wraps(function)
    def read(*given: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(function, *given, **named)

    tyro.cli(
        functools.partial(read, **defaults) if defaults else read,
        args=args,
        prog=prog,
        description=(function.__doc__ or "").partition("\n")[0] + description_suffix,
        config=(
            tyro.conf.AvoidSubcommands,  # --mixing.mixup 0.2, not a subcommand for each kind of value
            tyro.conf.PositionalMetavarFromFieldName,
            *([] if defaults else [tyro.conf.FlagCreatePairsOff]),  # --json, no --no-json; of a recipe's switches, both
        ),
    )()


def resolve_optional_parts(config: T, args: Sequence[str]) -> tuple[T, list[str]]:
    """A configuration without the parts that are typed as None, and with those that it lacked and has an option of.

    `--mixing None` takes mixing out; `--method.decoder.dim 64 …` brings a decoder in, whose fields are as its place has
    them, or else as they are by themselves; those that are not then have to be typed. tyro alone reads the fields of
    the parts that there are, and takes none out.

    Returns:
        The configuration, and the words that are left to be read.
    """
    left = list(args)
    for path, fresh in _iter_optional_parts(config):
        if (none := _find_none_option(left, _format_option(path))) is not None:
            config = _replace_at_path(config, path, None)
            del left[none]
        elif _get_at_path(config, path) is None and any(
            _parse_option_name(word).startswith(f"{_format_option(path)}.") for word in left
        ):
            config = _replace_at_path(config, path, fresh)
    return config, left


def list_optional_parts(config: Any) -> list[str]:
    """The options of a configuration's parts that may be None."""
    return [_format_option(path) for path, _ in _iter_optional_parts(config)]


def _iter_optional_parts(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where a part may be None, and what it is where it comes in: dataclasses alone; tyro knows other fields' None."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        kinds, here = get_args(hints[field.name]), (*path, field.name)
        part = next((kind for kind in kinds if is_dataclass(kind)), None)
        if part is not None and NoneType in kinds:
            yield here, field.default if is_dataclass(field.default) else _make_required_part(part)
        if is_dataclass(inner := getattr(config, field.name)):
            yield from _iter_optional_parts(inner, here)


def _make_required_part(config_type: Any) -> Any:
    """A part whose fields without a value of their own have to be typed; tyro's word for that is of no field's type."""
    part: Any = object.__new__(config_type)
    for field in fields(config_type):
        own = field.default if field.default_factory is MISSING else field.default_factory()
        object.__setattr__(part, field.name, tyro.MISSING if own is MISSING else own)
    return part


def _find_none_option(args: Sequence[str], option: str) -> slice | None:
    """Where `--mixing None` or `--mixing=None` stands."""
    for at, word in enumerate(args):
        if _parse_option_name(word) == option:
            if word.endswith("=None"):
                return slice(at, at + 1)
            if "=" not in word and "None" in args[at + 1 : at + 2]:
                return slice(at, at + 2)
    return None


def _format_option(path: tuple[str, ...]) -> str:
    return "--" + ".".join(path).replace("_", "-")


def _parse_option_name(arg: str) -> str:
    return arg.partition("=")[0].replace("_", "-")


def _get_at_path(config: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(getattr, path, config)


def _replace_at_path(config: Any, path: tuple[str, ...], part: Any) -> Any:
    first, *rest = path
    return replace(config, **{first: _replace_at_path(getattr(config, first), tuple(rest), part) if rest else part})
