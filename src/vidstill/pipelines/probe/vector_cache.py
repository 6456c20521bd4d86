"""Features that are computed once: files in a folder, named by what decides them, complete or absent."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from vidstill.checkpoints.io import list_checkpoint_files
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.manifest.manifest import Manifest
from vidstill.pipelines.infer.clip_encoder import Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.videos import extract_video_features
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import write_bytes
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

RUN_CACHE_FOLDER = "features"
"""Of a run's folder."""
DEFAULT_CACHE_FOLDER = Path(".vidstill-features")
"""In the current folder: of encoders that are files of weights."""

_METADATA_KEY = "vidstill"  # where a file says what it is, as JSON
_FORMAT_VERSION = 1  # of the files; another format has other keys


@dataclass(frozen=True)
class FeatureVectors:
    """The features of the videos that decode, a row each.

    Args:
        features: by what they are: `final`, or `block_6`.
        indices: of the rows, in the listing.
        broken: why each of the other videos does not decode, by its place.
    """

    features: dict[str, Float[Tensor, "n d"]]
    labels: Int[Tensor, "n"]
    indices: Int[Tensor, "n"]
    broken: dict[int, str]


@dataclass(frozen=True)
class FeatureRequest:
    """The features of a listing's videos.

    Args:
        folder: where they are kept.
        title: what the progress bar says.
    """

    encoder: VideoEncoder
    manifest: Manifest
    views: ViewsConfig
    layers: tuple[int, ...]
    folder: Path
    workers: int
    title: str

    def cache_path(self, pool: Pooling, suffix: str) -> Path:
        """The file that holds them: its name is a hash of all that decides them."""
        decides = {
            "format": _FORMAT_VERSION,
            "weights": hash_checkpoint(self.encoder.source),
            "videos": self.manifest.fingerprint,
            "views": to_dict(self.views),
            "features": self.encoder.name_outputs(self.layers),
            "pool": pool,
            "precision": self.encoder.runtime.precision,
        }
        return self.folder / (hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24] + suffix)

    def make_folder(self) -> None:
        """Raises an InputError where the folder cannot be there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cache_write_error(self.folder, error) from error

    def compute_features(
        self, pool: Pooling, broken: dict[int, str], *, per_view: bool = False
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "..."]]]]:
        """This process's share of the videos, as `extract_video_features` gives them, under a progress bar."""
        runtime = self.encoder.runtime
        of = len(range(runtime.rank, len(self.manifest.rows), runtime.world_size))
        found = extract_video_features(
            self.encoder,
            self.manifest,
            self.views,
            layers=self.layers,
            pool=pool,
            per_view=per_view,
            broken=broken,
            workers=self.workers,
        )
        with show_progress_bar(self.title) if runtime.is_main else nullcontext(lambda done, of: None) as tell:
            for done, each in enumerate(found, start=1):
                yield each
                tell(done + len(broken), of)


def resolve_cache_folder(encoder: VideoEncoder, folder: Path | None) -> Path:
    """Where an encoder's features are kept: where it is asked, in its run's folder, or else in this one."""
    return folder or (
        Path(encoder.source) / RUN_CACHE_FOLDER if Path(encoder.source).is_dir() else DEFAULT_CACHE_FOLDER
    )


def check_cache_folder(folder: Path) -> None:
    """Raises an InputError where features cannot be kept there: before the work, not after it."""
    there = find_existing_folder(folder)
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{folder} cannot be written; choose another folder with --cache")


def find_existing_folder(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def cache_write_error(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be written ({error.strerror}); choose another folder with --cache")


def ensure_vector_cache(request: FeatureRequest, pool: Pooling) -> Path:
    """The file of one vector a video and layer; if it is not there, all processes compute it and the first writes it.

    Raises:
        InputError: no video decodes, or the folder cannot be written.
    """
    path, runtime = request.cache_path(pool, ".safetensors"), request.encoder.runtime
    if runtime.broadcast(path.exists()):
        return path
    request.make_folder()
    broken: dict[int, str] = {}
    found = dict(request.compute_features(pool, broken))
    for theirs, their_broken in runtime.all_gather((found, broken)):
        found |= theirs
        broken |= their_broken
    check_any_decoded(request.manifest, len(found), broken)
    if not all(each.isfinite().all() for named in found.values() for each in named.values()):
        raise InputError(f"{request.encoder.source} makes features that are no finite numbers; try --precision fp32")
    if runtime.is_main:
        places = sorted(found)
        named = {name: torch.stack([found[place][name] for place in places]) for name in found[places[0]]}
        about = build_cache_metadata(request, broken)
        content = save({**named, "places": torch.tensor(places)}, metadata={_METADATA_KEY: json.dumps(about)})
        write_bytes(path, content)
    runtime.barrier()
    return path


def read_vectors(path: Path, manifest: Manifest) -> FeatureVectors:
    """What `ensure_vector_cache` wrote."""
    with safe_open(path, framework="pt") as file:
        named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()[_METADATA_KEY])
    places = named.pop("places")
    return FeatureVectors(named, select_labels(manifest, places), places, parse_broken(about))


def build_cache_metadata(request: FeatureRequest, broken: dict[int, str]) -> dict[str, object]:
    """What a file of features says of itself: for people, and which videos are not in it."""
    return {
        "encoder": request.encoder.source,
        "data": str(request.manifest.source),
        "broken": dict(sorted(broken.items())),
    }


def parse_broken(metadata: Mapping[str, Any]) -> dict[int, str]:
    return {int(place): why for place, why in metadata["broken"].items()}


def select_labels(manifest: Manifest, indices: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    return torch.from_numpy(manifest.rows.labels).long()[indices]


def check_any_decoded(manifest: Manifest, num_decoded: int, broken: dict[int, str]) -> None:
    if not num_decoded:
        raise InputError(f"none of the {len(broken)} videos of {manifest.source} decodes; {min(broken.items())[1]}")


def hash_checkpoint(source: str) -> str:
    """Of the bytes of an encoder's file; of several, of their hashes."""
    found = []
    for path in list_checkpoint_files(source):
        stat = path.stat()
        found.append(_hash_file(path, stat.st_mtime_ns, stat.st_size))
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


@lru_cache(maxsize=64)
def _hash_file(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
