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

from vidstill.checkpoints.io import weights_files
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.manifest.manifest import Listing
from vidstill.pipelines.infer.clip_encoder import Pool
from vidstill.pipelines.infer.encoder import Encoder
from vidstill.pipelines.infer.videos import video_features
from vidstill.utils.config_io import to_plain
from vidstill.utils.files import write_whole
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError

RUN_FOLDER = "features"
"""Of a run's folder."""
OWN_FOLDER = Path(".vidstill-features")
"""In the current folder: of encoders that are files of weights."""

_ABOUT = "vidstill"  # where a file says what it is, as JSON
_FORMAT = 1  # of the files; another format has other keys


@dataclass(frozen=True)
class Vectors:
    """The features of the videos that decode, a row each.

    Args:
        named: by what they are: `final`, or `block_6`.
        places: of the rows, in the listing.
        broken: why each of the other videos does not decode, by its place.
    """

    named: dict[str, Float[Tensor, "n d"]]
    labels: Int[Tensor, "n"]
    places: Int[Tensor, "n"]
    broken: dict[int, str]


@dataclass(frozen=True)
class Wanted:
    """The features of a listing's videos.

    Args:
        folder: where they are kept.
        title: what the progress bar says.
    """

    encoder: Encoder
    listing: Listing
    views: ViewsConfig
    layers: tuple[int, ...]
    folder: Path
    workers: int
    title: str

    def path(self, pool: Pool, suffix: str) -> Path:
        """The file that holds them: its name is a hash of all that decides them."""
        decides = {
            "format": _FORMAT,
            "weights": weights_hash(self.encoder.source),
            "videos": self.listing.fingerprint,
            "views": to_plain(self.views),
            "features": self.encoder.names(self.layers),
            "pool": pool,
            "precision": self.encoder.runtime.precision,
        }
        return self.folder / (hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24] + suffix)

    def make_folder(self) -> None:
        """Raises an InputError where the folder cannot be there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def computed(
        self, pool: Pool, broken: dict[int, str], *, each_view: bool = False
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "..."]]]]:
        """This process's share of the videos, as `video_features` gives them, under a progress bar."""
        runtime = self.encoder.runtime
        of = len(range(runtime.rank, len(self.listing.rows), runtime.world))
        found = video_features(
            self.encoder,
            self.listing,
            self.views,
            layers=self.layers,
            pool=pool,
            each_view=each_view,
            broken=broken,
            workers=self.workers,
        )
        with progress_bar(self.title) if runtime.is_main else nullcontext(lambda done, of: None) as tell:
            for done, each in enumerate(found, start=1):
                yield each
                tell(done + len(broken), of)


def cache_folder(encoder: Encoder, asked: Path | None) -> Path:
    """Where an encoder's features are kept: where it is asked, in its run's folder, or else in this one."""
    return asked or (Path(encoder.source) / RUN_FOLDER if Path(encoder.source).is_dir() else OWN_FOLDER)


def check_folder(folder: Path) -> None:
    """Raises an InputError where features cannot be kept there: before the work, not after it."""
    there = nearest_there(folder)
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{folder} cannot be written; choose another folder with --cache")


def nearest_there(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be written ({error.strerror}); choose another folder with --cache")


def vectors_file(wanted: Wanted, pool: Pool) -> Path:
    """The file of one vector a video and layer; if it is not there, all processes compute it and the first writes it.

    Raises:
        InputError: no video decodes, or the folder cannot be written.
    """
    path, runtime = wanted.path(pool, ".safetensors"), wanted.encoder.runtime
    if runtime.agreed(path.exists()):
        return path
    wanted.make_folder()
    broken: dict[int, str] = {}
    found = dict(wanted.computed(pool, broken))
    for theirs, their_broken in runtime.gathered((found, broken)):
        found |= theirs
        broken |= their_broken
    check_some(wanted.listing, len(found), broken)
    if not all(each.isfinite().all() for named in found.values() for each in named.values()):
        raise InputError(f"{wanted.encoder.source} makes features that are no finite numbers; try --precision fp32")
    if runtime.is_main:
        places = sorted(found)
        named = {name: torch.stack([found[place][name] for place in places]) for name in found[places[0]]}
        about = about_of(wanted, broken)
        content = save({**named, "places": torch.tensor(places)}, metadata={_ABOUT: json.dumps(about)})
        try:
            write_whole(path, content)
        except OSError as error:
            raise unwritable(wanted.folder, error) from error
    runtime.wait()
    return path


def read_vectors(path: Path, listing: Listing) -> Vectors:
    """What `vectors_file` wrote."""
    with safe_open(path, framework="pt") as file:
        named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()[_ABOUT])
    places = named.pop("places")
    return Vectors(named, labels_at(listing, places), places, broken_in(about))


def about_of(wanted: Wanted, broken: dict[int, str]) -> dict[str, object]:
    """What a file of features says of itself: for people, and which videos are not in it."""
    return {
        "encoder": wanted.encoder.source,
        "data": str(wanted.listing.source),
        "broken": dict(sorted(broken.items())),
    }


def broken_in(about: Mapping[str, Any]) -> dict[int, str]:
    return {int(place): why for place, why in about["broken"].items()}


def labels_at(listing: Listing, places: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    return torch.from_numpy(listing.rows.labels).long()[places]


def check_some(listing: Listing, found: int, broken: dict[int, str]) -> None:
    if not found:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} decodes; {min(broken.items())[1]}")


def weights_hash(source: str) -> str:
    """Of the bytes of an encoder's file; of several, of their hashes."""
    found = []
    for path in weights_files(source):
        stat = path.stat()
        found.append(_hash(path, stat.st_mtime_ns, stat.st_size))
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


@lru_cache(maxsize=64)
def _hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
