"""Options of the command line, read once by tyro: those of a function's signature, and the fields of a recipe."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from vidstill.recipes.change import (
    carry_fields,
    find_kind,
    format_value,
    get_kind,
    is_none,
    list_kinds,
    list_part_types,
)
from vidstill.utils.escapes import allow_colors

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
    with allow_colors(args):
        return tyro.cli(bind, args=args, prog=prog, description=description, config=config)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The fields of a recipe, or of a part of it, as options; tyro reads them as a dict of what was typed.

    Args:
        types: The classes that the config may be of.
        config: The config whose values the help shows as defaults, or some of them by field, beside the class's own;
            None: they are not known, or this part is absent.
        absent: What the help says where there is no default.
        option: That of the part: `method.mask`.
        kinds: What the part's option itself takes: `--method.mask random`, `--mixup None`.
        default_kind: The kind that it has without.
        arguments: What was typed behind each option, by `method.mask`; a part's fields are those of the kind in it.
    """

    types: tuple[Any, ...]
    config: Any = None
    absent: str = "not in this recipe"
    option: str = ""
    kinds: Sequence[str] = ()
    default_kind: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> Mapping[str, Any]:
        if is_dataclass(self.config):
            return {each.name: getattr(self.config, each.name) for each in fields(self.config)}
        return self.config or {}


@dataclass(frozen=True)
class _RunOptions:
    """The fields of a run config as options, with a default run directory."""

    config_type: Any
    out: Any


def parse_recipe_options(
    options: RecipeOptions,
    run_config_type: type,
    args: Sequence[str],
    prog: str,
    *,
    description: str,
    out: Any,
    takes_init: bool = True,
) -> tuple[Any, str | None, dict[str, Any]]:
    """Return the run config, what the run starts from, and the typed fields of the recipe.

    Args:
        options: The fields of the recipe.
        run_config_type: Its fields are options too.
        args: The words after the recipe's name.
        prog: The words before the options, for the usage line.
        description: The first line of the help.
        out: The run directory where `--out` is not typed.
        takes_init: Whether `--init` is an option.

    Raises:
        SystemExit: tyro has printed the help (code 0) or what is wrong with an option (2).
    """
    options = replace(options, arguments=_read_arguments(args))
    words = "run directory, weights file or shipped:NAME to start from; scratch, or None: random weights"
    init = tyro.conf.arg(help=words)
    command_fields: list[tuple[str, Any, Any]] = [
        ("run_config", Annotated[_RunOptions, NO_PREFIX], _RunOptions(run_config_type, out)),
        *([("init", Annotated[str | None, init], None)] if takes_init else []),
        ("recipe", Annotated[RecipeOptions, NO_PREFIX], options),
    ]
    command = make_dataclass("Command", command_fields)
    with allow_colors(args):
        typed: Any = tyro.cli(
            command, args=args, prog=prog, description=description, config=_CONFIG, registry=_registry
        )
    return typed.run_config, getattr(typed, "init", None), typed.recipe


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


@functools.cache
def _list_fields(config_type: Any) -> Sequence[StructFieldSpec]:
    """Return the fields of a dataclass as tyro reads them: with types, defaults and the comments in its source."""
    struct = ConstructorRegistry.get_struct_spec(StructTypeInfo.make(config_type, MISSING_NONPROP, False))
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
    if options.kinds:  # a field without a name of its own
        specs[""] = _make_kind_option(options)
    for config_type in options.types:
        for spec in _list_fields(config_type):
            specs.setdefault(spec.name, _make_option(spec, options))
    return StructConstructorSpec(_keep_typed, tuple(specs.values()))


def _keep_typed(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != {}}


def _make_kind_option(options: RecipeOptions) -> StructFieldSpec:
    """A part's option, of which change_recipe checks the kind: the help alone lists them."""
    hint = f"(default: {options.default_kind})" if options.default_kind and options.kinds != ["None"] else ""
    annotation: Any = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(options.kinds)}}}", help_behavior_hint=hint)]
    meanings = {"FILE.py:CLASS": "FILE.py:CLASS: your own", "None": "None: leave this part out"}
    kind = "kind; its fields follow" if options.kinds != ["None"] else ""
    text = "; ".join(filter(None, [kind, *(meanings[each] for each in options.kinds if each in meanings)]))
    return StructFieldSpec("", annotation, _UNTYPED, text)


def _make_option(spec: StructFieldSpec, options: RecipeOptions) -> StructFieldSpec:
    """A field as an option whose default is shown only: typed or not must be known."""
    is_known = options.config is not None
    value = options.values.get(spec.name, spec.default) if is_known else None
    types = list_part_types(spec.type)
    if types or is_dataclass(value):
        name = f"{options.option}.{spec.name}".lstrip(".")
        kind: str | None = options.arguments.get(name)
        config: Any = value if is_dataclass(value) else None
        default_kind = get_kind(type(value)) if is_dataclass(value) else "None" if is_known else ""
        if kind is not None and not is_none(kind, spec.type):
            types = (find_kind(spec.type, kind, f"--{name.replace('_', '-')}"),)
            config = carry_fields(value, types[0]) if is_known else None
        elif is_dataclass(value):
            types = (type(value),)
        part = RecipeOptions(
            types=types,
            config=config,
            absent=options.absent,
            option=name,
            kinds=list_kinds(spec.type),
            default_kind=default_kind,
            arguments=options.arguments,
        )
        return replace(spec, type=RecipeOptions, default=part)
    hint = f"({options.absent})"
    if is_known:
        hint = "(required)" if value is MISSING_NONPROP else f"(default: {format_value(value)})"
    annotation: Any = Annotated[spec.type, tyro.conf.arg(help_behavior_hint=hint)]
    return replace(spec, type=annotation, default=_UNTYPED)


def _read_arguments(args: Sequence[str]) -> dict[str, str]:
    """Return the word behind each option, by its name without hyphens."""
    arguments: dict[str, str] = {}
    for arg, following in pairwise([*args, "--"]):
        name, equals, value = arg.partition("=")
        if name.startswith("--") and (equals or not following.startswith("--")):
            arguments[name[2:].replace("-", "_")] = value if equals else following
    return arguments
