"""Words of the command line → the arguments of a function, whose signature they follow; read by tyro."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

T = TypeVar("T")


def call(work: Callable[..., None], words: Sequence[str], prog: str, more: str = "", **defaults: Any) -> None:
    """Reads the options that the function's signature names, then calls it.

    It is not called by tyro, which would take an InputError of the work for one of its own.

    Args:
        prog: the words that come before the options.
        more: what the help says after the function's first line.
    """

    @functools.wraps(work)
    def read(*given: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(work, *given, **named)

    tyro.cli(
        functools.partial(read, **defaults) if defaults else read,
        args=words,
        prog=prog,
        description=(work.__doc__ or "").partition("\n")[0] + more,
        config=(
            tyro.conf.AvoidSubcommands,  # --mixing.mixup 0.2, not a subcommand for each kind of value
            tyro.conf.PositionalMetavarFromFieldName,
            *([] if defaults else [tyro.conf.FlagCreatePairsOff]),  # --json, no --no-json; of a recipe's switches, both
        ),
    )()


def without_or_with(value: T, words: Sequence[str]) -> tuple[T, list[str]]:
    """A configuration without the parts that are typed as None, and with those that it lacked and has an option of.

    `--mixing None` takes mixing out; `--method.decoder.dim 64 …` brings a decoder in, whose fields are as its place has
    them, or else as they are by themselves; those that are not then have to be typed. tyro alone reads the fields of
    the parts that there are, and takes none out.

    Returns:
        The configuration, and the words that are left to be read.
    """
    left = list(words)
    for path, fresh in _may_be_none(value):
        if (none := _taking_out(left, _option(path))) is not None:
            value = _replaced(value, path, None)
            del left[none]
        elif _at(value, path) is None and any(_name(word).startswith(f"{_option(path)}.") for word in left):
            value = _replaced(value, path, fresh)
    return value, left


def may_be_without(value: Any) -> list[str]:
    """The options of a configuration's parts that may be None."""
    return [_option(path) for path, _ in _may_be_none(value)]


def _may_be_none(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where a part may be None, and what it is where it comes in: dataclasses alone; tyro knows other fields' None."""
    hints = get_type_hints(type(value))
    for field in fields(value):
        kinds, here = get_args(hints[field.name]), (*path, field.name)
        part = next((kind for kind in kinds if is_dataclass(kind)), None)
        if part is not None and NoneType in kinds:
            yield here, field.default if is_dataclass(field.default) else _empty(part)
        if is_dataclass(inner := getattr(value, field.name)):
            yield from _may_be_none(inner, here)


def _empty(kind: Any) -> Any:
    """A part whose fields without a value of their own have to be typed; tyro's word for that is of no field's type."""
    part: Any = object.__new__(kind)
    for field in fields(kind):
        own = field.default if field.default_factory is MISSING else field.default_factory()
        object.__setattr__(part, field.name, tyro.MISSING if own is MISSING else own)
    return part


def _taking_out(words: Sequence[str], option: str) -> slice | None:
    """Where `--mixing None` or `--mixing=None` stands."""
    for at, word in enumerate(words):
        if _name(word) == option:
            if word.endswith("=None"):
                return slice(at, at + 1)
            if "=" not in word and "None" in words[at + 1 : at + 2]:
                return slice(at, at + 2)
    return None


def _option(path: tuple[str, ...]) -> str:
    return "--" + ".".join(path).replace("_", "-")


def _name(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _at(value: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(getattr, path, value)


def _replaced(value: Any, path: tuple[str, ...], part: Any) -> Any:
    first, *rest = path
    return replace(value, **{first: _replaced(getattr(value, first), tuple(rest), part) if rest else part})
