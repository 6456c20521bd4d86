"""Paths as the functions take them, and as the pipelines do."""

import os
from collections.abc import Sequence
from pathlib import Path

from vidstill.checkpoints.shipped import SCRATCH
from vidstill.utils.types import StrPath


def optional_text(path: StrPath | None) -> str | None:
    """Return a path or URL as text; None stays None."""
    return None if path is None else os.fspath(path)


def parse_init(init: StrPath | None) -> str | None:
    """Return what a run starts from as text; "scratch" is None, random weights."""
    return None if init == SCRATCH else optional_text(init)


def optional_path(path: StrPath | None) -> Path | None:
    """Return a local path; None stays None."""
    return None if path is None else Path(path)


def list_texts(paths: StrPath | Sequence[StrPath]) -> tuple[str, ...]:
    """Return one path or URL, or several, as texts."""
    return tuple(os.fspath(each) for each in ([paths] if isinstance(paths, str | os.PathLike) else paths))
