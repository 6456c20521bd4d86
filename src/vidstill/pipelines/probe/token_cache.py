"""All tokens of every video, in half precision in a file that is read where it lies: what attentive probes look at."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from vidstill.pipelines.probe.config import tokens_of_a_clip
from vidstill.pipelines.probe.vector_cache import (
    Wanted,
    about_of,
    broken_in,
    check_some,
    labels_at,
    nearest_there,
    unwritable,
)
from vidstill.tasks.probes.attentive import Tokens
from vidstill.utils.files import HALF, write_json
from vidstill.utils.types import InputError

_BYTES = 2  # of a number in half precision


def check_room(wanted: Sequence[Wanted]) -> None:
    """Says how large the files will be that are not there yet; in the first process.

    Raises:
        InputError: a disk has no room for those that would be on it.
    """
    new: dict[int, list[Wanted]] = {}
    for each in wanted:
        if each.encoder.runtime.is_main and not each.path("tokens", ".json").exists():
            new.setdefault(nearest_there(each.folder).stat().st_dev, []).append(each)
    for together in new.values():
        folder = together[0].folder
        size, videos = sum(map(_size, together)), sum(len(each.listing.rows) for each in together)
        free = shutil.disk_usage(nearest_there(folder)).free
        what = f"all tokens of {videos} videos take {_in_words(size)}"
        if size > free:
            raise InputError(
                f"{what} and the disk of {folder} has {_in_words(free)} left; choose a folder on another one with "
                "--cache, fewer --views, or another probe"
            )
        print(f"probe: {what} in {folder}", file=sys.stderr)


def tokens_file(wanted: Wanted) -> Path:
    """The file that says what is in a table of tokens for each layer, beside it; every process writes its videos' rows.

    The processes of several machines need a folder that they share.

    Raises:
        InputError: no video decodes, a token's numbers are too large, or the folder cannot be written.
    """
    path, runtime = wanted.path("tokens", ".json"), wanted.encoder.runtime
    if runtime.agreed(path.exists()):
        return path
    wanted.make_folder()
    names = wanted.encoder.names(wanted.layers)
    halves = {name: _table(path, name).with_name(_table(path, name).name + HALF) for name in names}
    shape = len(wanted.listing.rows), _tokens(wanted), wanted.encoder.dim
    try:
        if runtime.is_main:
            for half in halves.values():
                _reserve(half, shape)
        runtime.wait()
        broken: dict[int, str] = {}
        count = _fill(wanted, halves, broken)
        for _, theirs in (gathered := runtime.gathered((count, broken))):
            broken |= theirs
        check_some(wanted.listing, sum(each for each, _ in gathered), broken)
        if runtime.is_main:
            for name, half in halves.items():
                os.replace(half, _table(path, name))
            write_json(path, about_of(wanted, broken) | {"names": names})
        runtime.wait()
    except OSError as error:
        raise unwritable(wanted.folder, error) from error
    finally:
        if runtime.is_main:
            for half in halves.values():
                half.unlink(missing_ok=True)
    return path


def read_tokens(path: Path, wanted: Wanted) -> tuple[dict[str, Tokens], dict[int, str]]:
    """What `tokens_file` wrote, by layer; and why each video that is not in it does not decode."""
    about = json.loads(path.read_text())
    broken = broken_in(about)
    rows = np.array([place for place in range(len(wanted.listing.rows)) if place not in broken])
    labels = labels_at(wanted.listing, torch.from_numpy(rows))
    tables = {name: np.load(_table(path, name), mmap_mode="r") for name in about["names"]}
    return {name: Tokens(table, rows, labels) for name, table in tables.items()}, broken


def _fill(wanted: Wanted, halves: dict[str, Path], broken: dict[int, str]) -> int:
    tables = {name: np.load(half, mmap_mode="r+") for name, half in halves.items()}
    count = 0
    for place, found in wanted.computed("tokens", broken, each_view=True):
        for name, grid in found.items():
            with np.errstate(over="ignore"):
                tokens = rearrange(grid, "v t h w d -> (v t h w) d").numpy().astype(np.float16)
            if not np.isfinite(tokens).all():
                raise InputError(
                    f"{wanted.encoder.source} makes tokens in {name} whose numbers do not fit into half precision; "
                    "take other --layers"
                )
            tables[name][place] = tokens
        count += 1
    for table in tables.values():
        table.flush()
    return count


def _reserve(half: Path, shape: tuple[int, ...]) -> None:
    """An empty table that has its room on the disk: a full one is met here, and not as a signal while it is filled."""
    np.lib.format.open_memmap(half, mode="w+", dtype=np.float16, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        with half.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, half.stat().st_size)


def _table(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.npy")


def _tokens(wanted: Wanted) -> int:
    """Of a video: those of all its views."""
    return tokens_of_a_clip(wanted.encoder, wanted.views) * wanted.views.views * wanted.views.crops


def _size(wanted: Wanted) -> int:
    return (
        _BYTES
        * len(wanted.encoder.names(wanted.layers))
        * len(wanted.listing.rows)
        * _tokens(wanted)
        * wanted.encoder.dim
    )


def _in_words(size: int) -> str:
    """86 kB, 4.2 GB."""
    thousands = min(4, (len(str(size)) - 1) // 3)
    return f"{size / 1000**thousands:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[thousands]}"
