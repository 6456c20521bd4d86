"""Options of the command line, read once by tyro: those of a function's signature, and the fields of a recipe."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, make_dataclass, replace
from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, get_args

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from vidstill.recipes.change import list_part_types

NO_PREFIX = tyro.conf.arg(name="")
"""Marks a config whose fields are options without a prefix."""

Source = Annotated[str, tyro.conf.arg(help="Run directory or weights file.")]
Json = Annotated[bool, tyro.conf.arg(help="Print JSON.")]
Root = Annotated[str | None, tyro.conf.arg(help="Directory that a list's paths are relative to; None: the list's own.")]
Fold = Annotated[Literal[1, 2, 3], tyro.conf.arg(help="Which of the three official splits of UCF101 and HMDB51.")]
SplitOption = Annotated[Literal["all", "train", "val"], tyro.conf.arg(help="Split of datasets that have several.")]

_CONFIG = (
    tyro.conf.AvoidSubcommands,  # --mixup.probability 0.5, not a subcommand for each type of value
    tyro.conf.PositionalMetavarFromFieldName,
)


def parse_options(function: Callable[..., None], args: Sequence[str], prog: str) -> Callable[[], None]:
    """Return the call of `function` with the arguments that its options name.

    tyro does not make the call itself: it would report an InputError of the work as one of its own.

    Args:
        function: Its signature and docstring are the options and their help.
        args: The words after the verb.
        prog: The words before the options, for the usage line.

    Raises:
        SystemExit: tyro has printed the help (code 0) or what is wrong with an option (2).
    """
    original = inspect.unwrap(function)  # whose docstring tyro reads: it would break lines where the source does
    original.__doc__ = re.sub(r"\n {12,}", " ", original.__doc__ or "")

    @functools.wraps(function)
    def bind(*positional: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(function, *positional, **named)

    description = (function.__doc__ or "").partition("\n")[0]
    config = (*_CONFIG, tyro.conf.FlagCreatePairsOff)  # --json alone, no --no-json
    return tyro.cli(bind, args=args, prog=prog, description=description, config=config)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The fields of a recipe, or of a part of it, as options; tyro reads them as a dict of what was typed.

    Args:
        types: The classes that the config may be of.
        config: The values that the help shows as defaults; None: they are not known, or this part is absent.
        absent: What the help says where there is no default.
        optional: Whether the config may be None: `--mixup None`.
    """

    types: tuple[Any, ...]
    config: Any = None
    absent: str = "not in this recipe"
    optional: bool = False


@dataclass(frozen=True)
class _RunOptions:
    """The fields of a run config as options, with a default run directory."""

    config_type: Any
    out: Any


def parse_recipe_options(
    options: RecipeOptions, run_config_type: type, args: Sequence[str], prog: str, *, description: str, out: Any
) -> tuple[Any, str | None, dict[str, Any]]:
    """Return the run config, what the run starts from, and the typed fields of the recipe.

    Args:
        options: The fields of the recipe.
        run_config_type: Its fields are options too.
        args: The words after the recipe's name.
        prog: The words before the options, for the usage line.
        description: The first line of the help.
        out: The run directory where `--out` is not typed.

    Raises:
        SystemExit: tyro has printed the help (code 0) or what is wrong with an option (2).
    """
    init = tyro.conf.arg(help="run directory or weights file to start from; None: random weights")
    command = make_dataclass(
        "Command",
        [
            ("run_config", Annotated[_RunOptions, NO_PREFIX], _RunOptions(run_config_type, out)),
            ("init", Annotated[str | None, init], None),
            ("recipe", Annotated[RecipeOptions, NO_PREFIX], options),
        ],
    )
    typed: Any = tyro.cli(command, args=args, prog=prog, description=description, config=_CONFIG, registry=_registry)
    return typed.run_config, typed.init, typed.recipe


_registry = ConstructorRegistry()


class _Partial(TypedDict, total=False):
    field: int


@_registry.struct_rule
def _list_run_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not isinstance(info.default, _RunOptions):
        return None
    specs = _list_fields(info.default.config_type)
    specs = [replace(spec, default=info.default.out) if spec.name == "out" else spec for spec in specs]
    return StructConstructorSpec(info.default.config_type, tuple(specs))


def _list_fields(config_type: Any, config: Any = MISSING_NONPROP) -> Sequence[StructFieldSpec]:
    """Return the fields of a dataclass as tyro reads them: with types, defaults and the comments in its source."""
    struct = ConstructorRegistry.get_struct_spec(StructTypeInfo.make(config_type, config, False))
    assert isinstance(struct, StructConstructorSpec)
    return struct.fields


_UNTYPED = _list_fields(_Partial)[0].default
"""The default with which tyro leaves a field out unless it is typed: that of a TypedDict(total=False)."""


@_registry.struct_rule
def _list_recipe_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    options = info.default
    if not isinstance(options, RecipeOptions):
        return None
    specs: dict[str, StructFieldSpec] = {}
    if options.optional:  # a field without a name of its own: --mixup None
        nothing: Any = Annotated[Literal["None"], tyro.conf.arg(help_behavior_hint="")]
        specs[""] = StructFieldSpec("", nothing, _UNTYPED, "None: leave this part out")
    for config_type in options.types if options.config is None else (type(options.config),):
        for spec in _list_fields(config_type, MISSING_NONPROP if options.config is None else options.config):
            specs.setdefault(spec.name, _make_option(spec, options))

    def keep_typed(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != {}}

    return StructConstructorSpec(keep_typed, tuple(specs.values()))


def _make_option(spec: StructFieldSpec, options: RecipeOptions) -> StructFieldSpec:
    """A field as an option whose default is shown only: typed or not must be known."""
    parts, value = list_part_types(spec.type), None if options.config is None else spec.default
    if parts or is_dataclass(value):
        optional = NoneType in get_args(spec.type)
        part = replace(options, types=parts, config=value, optional=optional)
        return replace(spec, type=RecipeOptions, default=part)
    hint = f"({options.absent})" if options.config is None else f"(default: {_format_value(value)})"
    annotation: Any = Annotated[spec.type, tyro.conf.arg(help_behavior_hint=hint)]
    return replace(spec, type=annotation, default=_UNTYPED)


def _format_value(value: Any) -> str:
    return " ".join(map(_format_value, value)) if isinstance(value, tuple) else str(value)
