"""Features of a dataset's videos, computed once: memory-mapped tables, named by a hash of what decides them."""

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from vidstill.checkpoints.io import list_checkpoint_files
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.pipelines.infer.embed_config import Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.run import gather, iter_dataset_clips, mean_over_views, open_journal
from vidstill.pipelines.infer.writers.features import read_stamp
from vidstill.pipelines.probe.config import ProbeDataset, ProbeRunConfig, ProbeSplit
from vidstill.tasks.probes.attentive import FeatureDataset
from vidstill.utils.checksums import SIDECAR_SUFFIX, DamagedFile, hash_file, verify_sidecar, write_sidecar
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import convert_write_errors, rename_durably, write_json
from vidstill.utils.journal import Journal
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

RUN_CACHE_FOLDER = "features"
"""Inside a run directory."""
DEFAULT_CACHE_FOLDER = Path(".vidstill-features")
"""In the current directory: for encoders that are weights files."""

_FORMAT_VERSION = 2


class FeatureCache:
    """One encoder's features of the videos of a split, in a directory.

    Args:
        pool: With `tokens`, all tokens of all views in half precision; otherwise one vector in float32, the mean over
            the views.
        run_config: Layers, views, directory and workers.

    Raises:
        InputError: The directory cannot be written.
    """

    def __init__(
        self, encoder: VideoEncoder, dataset: ProbeDataset, split: ProbeSplit, pool: Pooling, run_config: ProbeRunConfig
    ):
        self.encoder, self.manifest, self.workers = encoder, dataset.splits[split], run_config
        self.title = f"features, {dataset.name} {split}"
        self.config = config = run_config.build_embed_config(pool)
        self.folder = _resolve_cache_folder(encoder, run_config.cache)
        self.views, _ = config.build_views(encoder.views)
        shapes = encoder.compute_shapes(config)
        if config.pool == "tokens":
            num_views = config.temporal_clips * config.spatial_crops
            shapes = {name: (num_views * t * h * w, dim) for name, (t, h, w, dim) in shapes.items()}
        self.shapes = {name: (len(self.manifest.rows), *shape) for name, shape in shapes.items()}
        self.dtype = np.dtype(np.float16 if config.pool == "tokens" else np.float32)
        self.num_bytes = self.dtype.itemsize * sum(map(math.prod, self.shapes.values()))
        self.identity = {
            "format": _FORMAT_VERSION,
            "weights": hash_checkpoint(encoder.source),
            "videos": self.manifest.fingerprint,
            "views": to_dict(self.views),
            "features": list(shapes),
            "pool": config.pool,
            "precision": encoder.runtime.precision,
        }
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        self.path = self.folder / f"{digest[:24]}.json"  # which is written last, beside one table per layer

    def compute(self) -> None:
        """Compute the features unless they exist; each process writes the rows of its videos, and a killed one resumes.

        Processes of several machines need a shared directory.

        Raises:
            InputError: No video decodes, the features are not finite in their type, or the directory cannot be written.
        """
        runtime = self.encoder.runtime
        stamps = runtime.run_on_main(lambda: [list(read_stamp(row.source)) for row in self.manifest.rows])
        digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
        if runtime.run_on_main(lambda: self._is_finished(digest)):
            return
        with open_journal(Journal(self.path, self.identity, runtime.rank), runtime) as journal:
            pending = runtime.run_on_main(partial(self._allocate_tables, journal, stamps))
            broken = gather(runtime, self._fill_tables(journal, pending, stamps))
            if len(broken) == len(self.manifest.rows):
                raise InputError(
                    f"none of the {len(broken)} {self.manifest.noun}s of {self.manifest.source} decodes; "
                    f"{min(broken.items())[1]}"
                )
            runtime.run_on_main(partial(self._finish, journal, broken, digest))

    def _is_finished(self, digest: str) -> bool:
        """Return whether the features are there, of files with these sizes and times; older versions recorded none."""
        if not self.path.exists():
            return False
        self._verify(self.path)
        return json.loads(self.path.read_text()).get("files") in (None, digest)

    def _allocate_tables(self, journal: Journal, stamps: list[list[int]]) -> Int[np.ndarray, "p"]:
        """Allocate the tables in the journal, and return the rows that are not finished with the present files."""
        records: dict[Any, dict[str, Any]] = journal.done()
        done = {row for row, record in records.items() if record.get("stamp") in (None, stamps[row])}
        with convert_write_errors(self.folder):
            for name, shape in self.shapes.items():
                path = journal.directory / f"{name}.npy"
                if records and not path.exists():  # a kill came between the renaming and the end
                    rename_durably(self._table_path(name), path)
                if not records:
                    np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=shape).flush()
                    if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a signal while it is filled
                        with path.open("r+b") as file:
                            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return np.array([row for row in range(len(self.manifest.rows)) if row not in done], np.int64)

    def _fill_tables(self, journal: Journal, pending: Int[np.ndarray, "p"], stamps: list[list[int]]) -> dict[int, str]:
        """Write this process's share of the pending rows, and return the rows that do not decode."""
        if not len(pending):
            return {}
        runtime = self.encoder.runtime
        tables = {name: np.load(journal.directory / f"{name}.npy", mmap_mode="r+") for name in self.shapes}
        is_pending = np.isin(np.arange(len(self.manifest.rows)), pending)
        dataset = ViewClips(replace(self.manifest, rows=self.manifest.rows.select(is_pending)), self.views)
        broken: dict[int, str] = {}
        clips = iter_dataset_clips(dataset, runtime, workers=self.workers.num_workers, broken=broken)
        merge = _flatten_tokens if self.config.pool == "tokens" else mean_over_views
        records = self.encoder.iter_features(clips, self.config, self.workers.device_batch, merge)
        total = len(range(runtime.rank, len(pending), runtime.world_size))
        with show_progress_bar(self.title, visible=runtime.is_main) as progress:
            for done, record in enumerate(records, start=1):
                for name, features in record.arrays.items():
                    if not np.isfinite(features).all():
                        raise InputError(
                            f"the features {name} of {self.encoder.source} are not finite in {self.dtype}; try "
                            "--precision fp32 or other --layers"
                        )
                    tables[name][pending[record.video]] = features
                row = int(pending[record.video])
                journal.append({"key": row, "stamp": stamps[row]})
                progress(done + len(broken), total)
        for table in tables.values():
            table.flush()
        return {int(pending[index]): reason for index, reason in broken.items()}

    def _finish(self, journal: Journal, broken: dict[int, str], digest: str) -> None:
        with convert_write_errors(self.folder):
            for name in self.shapes:
                table = journal.directory / f"{name}.npy"
                write_sidecar(self._table_path(name), hash_file(table))  # before: a kill leaves no table without it
                rename_durably(table, self._table_path(name))
            self.path.with_name(self.path.name + SIDECAR_SUFFIX).unlink(missing_ok=True)
        description = {"encoder": self.encoder.source, "data": str(self.manifest.source)}
        write_json(self.path, {**description, "names": list(self.shapes), "broken": broken, "files": digest})
        write_sidecar(self.path, hash_file(self.path))
        journal.remove()

    def read(self) -> tuple[dict[str, FeatureDataset], list[str]]:
        """Return the features of the videos that decode, by layer, memory-mapped; and why each other does not.

        Raises:
            DamagedFile: A file does not have its checksum.
        """
        self._verify(self.path)
        metadata = json.loads(self.path.read_text())
        rows = np.array([row for row in range(len(self.manifest.rows)) if str(row) not in metadata["broken"]])
        labels = torch.from_numpy(self.manifest.rows.labels).long()[rows]
        for path in map(self._table_path, metadata["names"]):
            self._verify(path)
        tables = {name: np.load(self._table_path(name), mmap_mode="r") for name in metadata["names"]}
        features = {name: FeatureDataset(table, rows, labels) for name, table in tables.items()}
        return features, list(metadata["broken"].values())

    def _verify(self, path: Path) -> None:
        try:
            verify_sidecar(path)
        except DamagedFile as error:
            raise DamagedFile(f"{error}; delete {self.path} to compute these features again") from None

    def _table_path(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{name}.npy")


def _flatten_tokens(views: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: rearrange(grid, "v t h w d -> (v t h w) d").half() for name, grid in views.items()}


def _resolve_cache_folder(encoder: VideoEncoder, folder: Path | None) -> Path:
    """Return a chosen directory, or that inside the run directory, or else the one in the current directory."""
    if folder is None:
        folder = Path(encoder.source) / RUN_CACHE_FOLDER if Path(encoder.source).is_dir() else DEFAULT_CACHE_FOLDER
    existing = _find_existing_folder(folder)
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise InputError(f"{folder} cannot be written; choose another directory with --cache")
    return folder


def _find_existing_folder(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def check_disk_space(caches: Sequence[FeatureCache]) -> None:
    """Print the size of the token tables that will be computed.

    Raises:
        InputError: A disk has no room for them.
    """
    by_disk: dict[int, list[FeatureCache]] = {}
    for each in caches:
        if each.encoder.runtime.is_main and not each.path.exists():
            by_disk.setdefault(_find_existing_folder(each.folder).stat().st_dev, []).append(each)
    for group in by_disk.values():
        folder, free = group[0].folder, shutil.disk_usage(_find_existing_folder(group[0].folder)).free
        size, videos = sum(each.num_bytes for each in group), sum(len(each.manifest.rows) for each in group)
        message = f"all tokens of {videos} {group[0].manifest.noun}s take {_format_bytes(size)}"
        if size > free:
            raise InputError(
                f"{message}, and the disk of {folder} has {_format_bytes(free)} left; choose a directory on another "
                "disk with --cache, fewer --temporal-clips, or another probe"
            )
        print(f"probe: {message} in {folder}", file=sys.stderr)


def _format_bytes(num_bytes: int) -> str:
    """Return 86 kB, or 4.2 GB."""
    thousands = min(4, (len(str(num_bytes)) - 1) // 3)
    return f"{num_bytes / 1000**thousands:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[thousands]}"


def hash_checkpoint(source: str) -> str:
    """Return the SHA-256 of a checkpoint's file, or of the hashes of its files."""
    hashes = [hash_file(path) for path in list_checkpoint_files(source)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
