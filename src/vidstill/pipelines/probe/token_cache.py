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

from vidstill.pipelines.probe.config import count_clip_tokens
from vidstill.pipelines.probe.vector_cache import (
    FeatureRequest,
    build_cache_metadata,
    cache_write_error,
    check_any_decoded,
    find_existing_folder,
    parse_broken,
    select_labels,
)
from vidstill.tasks.probes.attentive import TokenDataset
from vidstill.utils.files import PARTIAL_SUFFIX, rename_durably, write_json
from vidstill.utils.types import InputError

_BYTES_PER_NUMBER = 2  # of a number in half precision


def check_disk_space(requests: Sequence[FeatureRequest]) -> None:
    """Says how large the files will be that are not there yet; in the first process.

    Raises:
        InputError: a disk has no room for those that would be on it.
    """
    new: dict[int, list[FeatureRequest]] = {}
    for each in requests:
        if each.encoder.runtime.is_main and not each.cache_path("tokens", ".json").exists():
            new.setdefault(find_existing_folder(each.folder).stat().st_dev, []).append(each)
    for together in new.values():
        folder = together[0].folder
        size, videos = sum(map(_count_bytes, together)), sum(len(each.manifest.rows) for each in together)
        free = shutil.disk_usage(find_existing_folder(folder)).free
        what = f"all tokens of {videos} videos take {_format_bytes(size)}"
        if size > free:
            raise InputError(
                f"{what} and the disk of {folder} has {_format_bytes(free)} left; choose a folder on another one with "
                "--cache, fewer --views, or another probe"
            )
        print(f"probe: {what} in {folder}", file=sys.stderr)


def ensure_token_cache(request: FeatureRequest) -> Path:
    """The file that says what is in a table of tokens for each layer, beside it; every process writes its videos' rows.

    The processes of several machines need a folder that they share.

    Raises:
        InputError: no video decodes, a token's numbers are too large, or the folder cannot be written.
    """
    path, runtime = request.cache_path("tokens", ".json"), request.encoder.runtime
    if runtime.broadcast(path.exists()):
        return path
    request.make_folder()
    names = request.encoder.name_outputs(request.layers)
    halves = {name: _table_path(path, name).with_name(_table_path(path, name).name + PARTIAL_SUFFIX) for name in names}
    shape = len(request.manifest.rows), _count_video_tokens(request), request.encoder.dim
    try:
        if runtime.is_main:
            for half in halves.values():
                _allocate_table(half, shape)
        runtime.barrier()
        broken: dict[int, str] = {}
        count = _write_tokens(request, halves, broken)
        for _, theirs in (gathered := runtime.all_gather((count, broken))):
            broken |= theirs
        check_any_decoded(request.manifest, sum(each for each, _ in gathered), broken)
        if runtime.is_main:
            for name, half in halves.items():
                rename_durably(half, _table_path(path, name))
            write_json(path, build_cache_metadata(request, broken) | {"names": names})
        runtime.barrier()
    except OSError as error:
        raise cache_write_error(request.folder, error) from error
    finally:
        if runtime.is_main:
            for half in halves.values():
                half.unlink(missing_ok=True)
    return path


def read_tokens(path: Path, request: FeatureRequest) -> tuple[dict[str, TokenDataset], dict[int, str]]:
    """What `ensure_token_cache` wrote, by layer; and why each video that is not in it does not decode."""
    about = json.loads(path.read_text())
    broken = parse_broken(about)
    rows = np.array([place for place in range(len(request.manifest.rows)) if place not in broken])
    labels = select_labels(request.manifest, torch.from_numpy(rows))
    tables = {name: np.load(_table_path(path, name), mmap_mode="r") for name in about["names"]}
    return {name: TokenDataset(table, rows, labels) for name, table in tables.items()}, broken


def _write_tokens(request: FeatureRequest, part_files: dict[str, Path], broken: dict[int, str]) -> int:
    tables = {name: np.load(half, mmap_mode="r+") for name, half in part_files.items()}
    count = 0
    for place, found in request.compute_features("tokens", broken, per_view=True):
        for name, grid in found.items():
            with np.errstate(over="ignore"):
                tokens = rearrange(grid, "v t h w d -> (v t h w) d").numpy().astype(np.float16)
            if not np.isfinite(tokens).all():
                raise InputError(
                    f"{request.encoder.source} makes tokens in {name} whose numbers do not fit into half precision; "
                    "take other --layers"
                )
            tables[name][place] = tokens
        count += 1
    for table in tables.values():
        table.flush()
    return count


def _allocate_table(path: Path, shape: tuple[int, ...]) -> None:
    """An empty table that has its room on the disk: a full one is met here, and not as a signal while it is filled."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _table_path(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.npy")


def _count_video_tokens(request: FeatureRequest) -> int:
    """Of a video: those of all its views."""
    return (
        count_clip_tokens(request.encoder, request.views) * request.views.temporal_clips * request.views.spatial_crops
    )


def _count_bytes(request: FeatureRequest) -> int:
    return (
        _BYTES_PER_NUMBER
        * len(request.encoder.name_outputs(request.layers))
        * len(request.manifest.rows)
        * _count_video_tokens(request)
        * request.encoder.dim
    )


def _format_bytes(num_bytes: int) -> str:
    """86 kB, 4.2 GB."""
    thousands = min(4, (len(str(num_bytes)) - 1) // 3)
    return f"{num_bytes / 1000**thousands:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[thousands]}"
