"""Drawn clips by address, without files: `made:train=600,val=300` is a dataset, `made:…/val/000012` a clip of it."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8

from vidstill.synthetic.dataset import DRAWING_VERSION, ClipJob, SyntheticClipsConfig
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clips
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError, check_range

_PREFIX = "made:"
_EXAMPLE = "made:train=600,val=300,size=32x32,frames=8"
_COUNTS = ("train", "val", "unlabelled")
_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in fields(SyntheticClipsConfig) if field.default is not MISSING
} | dict.fromkeys(_COUNTS, 0)

_MAX_CLIPS, _MAX_PIXELS = 10**7, 2**26  # of a dataset, and of a clip in all its frames

# Small clips are drawn many at once in a sixth of the time; large ones are not. Sums of a clip that is drawn among
# others may be rounded otherwise, so that it is always drawn among the same.
_MAX_BLOCK_CLIPS, _MAX_BLOCK_PIXELS = 16, 2**17


class MadeAddress(NamedTuple):
    """A dataset of drawn clips, or one of its clips."""

    config: SyntheticClipsConfig
    job: ClipJob | None = None  # the clip

    def __str__(self) -> str:
        """Return the address with only what differs from the defaults, as rows and run directories have it."""
        values = {name: getattr(self.config, name) for name in _DEFAULTS}
        items = [f"{name}={_format_value(value)}" for name, value in values.items() if value != _DEFAULTS[name]]
        clip = "" if self.job is None else "/" + format_clip_name(self.job)
        return f"{_PREFIX}//{','.join(items)}{clip}"


def is_made(path: object) -> TypeGuard[str]:
    """Return whether a path or an address is that of drawn clips."""
    return isinstance(path, str) and path.startswith(_PREFIX)


def format_clip_name(job: ClipJob) -> str:
    """Return a clip's name in its dataset: `val/000012`."""
    return f"{job[0]}/{job[1]:06d}"


@lru_cache(maxsize=256)
def parse_made(text: str) -> MadeAddress:
    """Read an address: `made:` (or `made://`), the fields of `SyntheticClipsConfig` as key=value, and perhaps a clip.

    Of train, val and unlabelled at least one is given, and unlabelled without the others. `classes` is how many of
    MOTION_CLASSES are drawn, or their names joined by `+`.

    Raises:
        InputError: It cannot be drawn.
    """
    spec, slash, clip = text.removeprefix(_PREFIX).removeprefix("//").partition("/")
    values = dict(_DEFAULTS)
    for position, item in enumerate(spec.split(",") if spec else ()):
        key, equals, value = item.partition("=")
        if not equals or key not in _DEFAULTS:
            near = get_close_matches(key, _DEFAULTS, 1)
            hint = f"did you mean {near[0]}=…?" if near else f"keys are {', '.join(_DEFAULTS)}"
            raise InputError(f"{shorten(text)} has {shorten(item)} in it; {hint}")
        if key in {other.partition("=")[0] for other in spec.split(",")[:position]}:
            raise InputError(f"{shorten(text)} states {key} twice; state it once")
        values[key] = _parse_value(text, key, value)
    if not any(values[name] for name in _COUNTS):
        raise InputError(f"{shorten(text)} names no clips; give train, val or unlabelled, such as {_EXAMPLE}")
    if values["unlabelled"] and (values["train"] or values["val"]):
        raise InputError(f"{shorten(text)} has clips with labels and without; give unlabelled in an address of its own")
    check_range(0, _MAX_CLIPS, **{name: values[name] for name in _COUNTS})
    if (pixels := values["frames"] * math.prod(values["size"])) > _MAX_PIXELS:
        raise InputError(f"{shorten(text)} has clips of {pixels:,} pixels; draw at most {_MAX_PIXELS:,}")
    config = SyntheticClipsConfig(**values)
    return MadeAddress(config, _parse_clip(text, clip, config) if slash else None)


def _parse_value(text: str, key: str, value: str) -> Any:
    if key == "classes" and not re.fullmatch(r"\d+", value):
        return tuple(value.split("+"))
    pattern, hint = (r"(\d+)x(\d+)", "rows x columns, such as 32x32") if key == "size" else (r"(\d+)", "a whole number")
    match = re.fullmatch(pattern, value, re.ASCII)
    if match is None:
        raise InputError(f"{shorten(text)} has the {key} {shorten(value)}; give {hint}")
    numbers = tuple(map(int, match.groups()))
    if key == "classes" and not 1 <= numbers[0] <= len(MOTION_CLASSES):
        raise InputError(f"{shorten(text)} has {numbers[0]} classes; give 1 to {len(MOTION_CLASSES)}")
    return numbers if key == "size" else MOTION_CLASSES[: numbers[0]] if key == "classes" else numbers[0]


def _parse_clip(text: str, clip: str, config: SyntheticClipsConfig) -> ClipJob:
    match = re.fullmatch(r"(\w+)/(\d+)", clip, re.ASCII)
    if match is None or match[1] not in _COUNTS or int(match[2]) >= config.count_clips(match[1]):
        last = next((split, config.count_clips(split) - 1) for split in _COUNTS if config.count_clips(split))
        raise InputError(f"{shorten(text)} has no clip {shorten(clip)}; its last one is {format_clip_name(last)}")
    return match[1], int(match[2])


def _format_value(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    if value == MOTION_CLASSES[: len(value)]:
        return str(len(value))
    return ("+" if isinstance(value[0], str) else "x").join(map(str, value))


def identify_made(address: str) -> str:
    """Return a digest of an address and of how clips are drawn, which changes where the clips do."""
    return hashlib.sha256(f"{parse_made(address)} {DRAWING_VERSION}".encode()).hexdigest()


def draw_made_clip(address: str) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the clip of an address.

    Raises:
        InputError: It is the address of a dataset, or of nothing that can be drawn.
    """
    config, (split, number) = _parse_clip_address(address)
    first = _find_block(config, number)
    return _draw_block(config, split, first)[number - first]


def draw_made_block(address: str) -> dict[str, UInt8[np.ndarray, "t h w 3"]]:
    """Draw all clips that are drawn together with that of an address, and return them by their addresses.

    Raises:
        InputError: As `draw_made_clip`.
    """
    config, (split, number) = _parse_clip_address(address)
    first = _find_block(config, number)
    clips = enumerate(_draw_block(config, split, first), first)
    return {str(MadeAddress(config, (split, each))): frames for each, frames in clips}


def _parse_clip_address(address: str) -> tuple[SyntheticClipsConfig, ClipJob]:
    config, job = parse_made(address)
    if job is None:
        example = format_clip_name((next(split for split in _COUNTS if config.count_clips(split)), 0))
        raise InputError(f"{address} is a dataset; give one of its clips, such as {address}/{example}")
    return config, job


def _find_block(config: SyntheticClipsConfig, number: int) -> int:
    """Return the first clip of those that are drawn together with a clip."""
    return number - number % _count_block_clips(config)


def _count_block_clips(config: SyntheticClipsConfig) -> int:
    rows, columns = config.size
    return min(_MAX_BLOCK_CLIPS, max(1, _MAX_BLOCK_PIXELS // (config.frames * rows * columns)))


@lru_cache(maxsize=1)  # of videos that are read in order, others follow
def _draw_block(config: SyntheticClipsConfig, split: str, first: int) -> UInt8[np.ndarray, "b t h w 3"]:
    jobs = [(split, first + position) for position in range(_count_block_clips(config))]
    actions, seeds = zip(*map(config.choose_clip, jobs), strict=True)
    clips = draw_clips(actions, torch.tensor(seeds), config.frames, config.size)
    return np.ascontiguousarray(rearrange(clips.numpy(), "b c t h w -> b t h w c"))
