"""Arguments of the functions that users call: each is held against its annotation, so that a slip is an InputError."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from vidstill.utils.types import InputError

P = ParamSpec("P")
R = TypeVar("R")

_MAX_CHARACTERS = 60


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with its arguments checked: `precision is 'fp8'; it must be 'auto', 'bf16', …`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        annotations = get_type_hints(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if not _fits(value, annotations[name]):
                text = repr(value) if len(repr(value)) <= _MAX_CHARACTERS else f"a {type(value).__name__}"
                raise InputError(f"{name} is {text}; it must be {_describe(annotations[name])}")
        return function(*args, **kwargs)

    return call


def _fits(value: object, annotation: Any) -> bool:
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in args)
    if origin is Sequence:
        return (
            isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(each, args[0]) for each in value)
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(each, args[0]) for each in value)
    if origin in (int, float):
        return isinstance(value, int | origin) and not isinstance(value, bool)
    return origin is Any or isinstance(value, origin)


def _describe(annotation: Any) -> str:
    """Return an annotation as it is written, and a Literal as its values."""
    args = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(_describe, args)).replace("str or PathLike[str]", "a path")
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(repr, args))}" if len(args) > 1 else repr(args[0])
    if get_origin(annotation) is Sequence:
        return f"a sequence of {_describe(args[0])}"
    if get_origin(annotation) is Mapping:
        return "a mapping"
    return "None" if annotation is type(None) else inspect.formatannotation(annotation).rpartition(".")[2]
