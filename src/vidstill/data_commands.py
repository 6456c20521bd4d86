"""What `vidstill data …` does: each verb's options are the function's signature, read by tyro."""

import json as jsons
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from vidstill.data import inspect as looking
from vidstill.data.made import MadeConfig, make_clips
from vidstill.terminal import aligned, flat, plain, progress_bar, tell

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix

_MADE = MadeConfig()


def make(folder: Positional[Path], /, *, clips: Annotated[MadeConfig, Flat] = _MADE) -> None:
    """Draws clips whose classes differ in motion alone, with their lists.

    Args:
        folder: where to; what is already there is kept.
    """
    with progress_bar("clips") as made:
        make_clips(folder, clips, made=made)
    tell(f"made: {folder}; next: vidstill data inspect {folder}")


def inspect(data: Positional[Path], /, *, root: Path | None = None, files: int = 32, json: bool = False) -> None:
    """Says what a data set is taken for, what it holds, and what is wrong with it.

    Args:
        data: a folder of videos or of class folders, or a list.
        root: the folder that a list's paths start from; None: the list's own.
        files: how many videos are opened.
        json: as JSON, for programs.
    """
    summary = plain(asdict(looking.inspect(data, root=root, files=files)))
    tell(jsons.dumps(summary, indent=1) if json else aligned(flat(summary)))


VERBS: dict[str, Callable[..., None]] = {"data make": make, "data inspect": inspect}
