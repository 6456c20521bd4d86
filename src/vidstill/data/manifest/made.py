"""Drawn clips as a dataset: rows whose sources are addresses, see `parse_made`."""

import math
from functools import partial

import numpy as np

from vidstill.data.manifest.manifest import Manifest, ManifestReader, Split, match_splits
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.synthetic.dataset import ClipJob, SyntheticClipsConfig
from vidstill.synthetic.made import MadeAddress, format_clip_name, is_made, parse_made
from vidstill.utils.types import InputError


def detect_made(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Open the drawn clips of an address; None for any other path.

    Raises:
        InputError: It cannot be drawn, or a root is given.
    """
    if not is_made(path):
        return None
    if root is not None:
        raise InputError(f"{path} is drawn and has no files; leave out --root")
    config, job = parse_made(path)
    if job is not None:
        return ManifestReader((), lambda split: _build_manifest(config, [job], (), "one drawn clip"))
    splits = match_splits([name for name in ("train", "val") if config.count_clips(name)])
    return ManifestReader(splits, partial(_read_split, config, splits))


def check_has_files(path: PathOrUrl) -> None:
    """Raise an InputError for drawn clips, where files are written about."""
    if is_made(path):
        raise InputError(f"{path} is drawn and has no files; write them first: vidstill data make DIRECTORY")


def _read_split(config: SyntheticClipsConfig, splits: tuple[Split, ...], split: Split | None) -> Manifest:
    name = split or "train" if splits or split == "val" else "unlabelled"
    if not config.count_clips(name):
        raise InputError(f"{MadeAddress(config)} has no {name} split; give {name}=300 too")
    jobs: list[ClipJob] = [(name, number) for number in range(config.count_clips(name))]
    if not splits:
        return _build_manifest(config, jobs, (), "drawn clips")
    return _build_manifest(config, jobs, config.classes, f"drawn clips, the {name} split")


def _build_manifest(
    config: SyntheticClipsConfig, jobs: list[ClipJob], classes: tuple[str, ...], description: str
) -> Manifest:
    numbers, (height, width) = np.array([number for _, number in jobs]), config.size
    facts = {"frames": config.frames, "frame_rate": config.fps, "height": height, "width": width}
    facts["file_size"] = 3 * config.frames * math.prod(config.size)  # of the drawn clip
    columns = {name: np.full(len(jobs), value) for name, value in facts.items()}
    if classes:
        columns["label"] = numbers % len(classes)
    address = str(MadeAddress(config))
    rows = VideoTable(address, map(format_clip_name, jobs), columns)
    return Manifest(rows, classes, description, address, rows.compute_fingerprint())
