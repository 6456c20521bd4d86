"""`vidstill bench data`: how fast clips are read, augmented and loaded, beside what else is installed."""

import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidstill.bench.augmentation import Augmented, augmentation, this_device
from vidstill.bench.findings import Findings, Packing
from vidstill.bench.loader import loading
from vidstill.bench.machine import this_machine
from vidstill.bench.quality import psnr, ssim
from vidstill.bench.readers import readers
from vidstill.bench.reading import Read, draws, reading
from vidstill.bench.videos import Video, drawn_videos, listed, own_videos
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import read_listing
from vidstill.data.storage.fetch import Place
from vidstill.data.tools.pack import Packed, pack
from vidstill.data.tools.transcode import RecodeConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.engine.distributed import cores
from vidstill.synthetic.footage import Footage
from vidstill.utils.rng import numpy_chance
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError, within

_PACKS = RecodeConfig(short_side=8192)  # as packed by default, but that no video is made smaller


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured.

    Args:
        clips: videos that clips are drawn from.
        rounds: clips that are drawn from each.
        sampling: which frames a clip has.
        size: rows and columns of a clip where it is augmented, and where it is loaded.
        batches: clips that are augmented at once.
        footage: what is filmed where no data are given.
    """

    clips: int = 8
    rounds: int = 10
    sampling: SpanSampling = SpanSampling()
    size: tuple[int, int] = (224, 224)
    batches: tuple[int, ...] = (8, 64)
    footage: Footage = Footage()
    seed: int = 0

    def __post_init__(self) -> None:
        within(1, math.inf, clips=self.clips, rounds=self.rounds)


def bench_data(data: Place | None, config: BenchConfig) -> Findings:
    """Times reading, augmenting and loading clips of some of a data set's videos, or of videos of its own.

    Args:
        data: a folder of videos, a list, or an address of either; None: videos that are filmed for it.

    Raises:
        InputError: there is no such data, or no video in it that decodes.
    """
    with tempfile.TemporaryDirectory(prefix="vidstill-bench-") as name:
        folder = Path(name)
        if data is None:
            videos = own_videos(folder, config.clips, config.footage, config.seed)
        else:
            videos = drawn_videos(data, folder, config.clips, config.seed)
        raw = listed(videos, folder / "raw.jsonl")
        packed, packs = _packed(folder)
        reads = _reads(videos, packed, config)
        first = [read_frames(read.sources["raw"], read.draws[0]) for read in reads]
        there, missing = readers()
        return Findings(
            command=_command(data, config),
            machine=this_machine(),
            data=f"of {data}" if data else "filmed for this",
            videos=len(videos),
            rounds=config.rounds,
            clip=f"{config.sampling.frames} frames at stride {config.sampling.stride}",
            reading=reading(there, reads, config.seed),
            missing=missing,
            packing=_packing(packs, first, reads),
            device=this_device(),
            augmentation=_augmentation(first, config),
            loading=loading(
                raw,
                packed,
                config.rounds * len(videos),
                ClipsConfig(dataset="", sampling=config.sampling, size=config.size),
                config.seed,
            ),
        )


def _packed(folder: Path) -> tuple[Listing, Packed]:
    with progress_bar("packing") as done:
        packs = pack(folder / "raw.jsonl", folder / "packs", _PACKS, workers=cores(), done=done)
    if packs.left_out:
        raise InputError(f"a video cannot be packed ({packs.left_out[0]}); leave it out of the data")
    return read_listing(folder / "packs"), packs


def _reads(videos: list[Video], packed: Listing, config: BenchConfig) -> list[Read]:
    return [
        Read(
            video.path.name,
            {"raw": video.path, "packed": row.source},
            draws(config.sampling, video.frames, config.rounds, number, config.seed),
        )
        for number, (video, row) in enumerate(zip(videos, packed.rows, strict=True))
    ]


def _packing(packs: Packed, first: list[Frames], reads: list[Read]) -> Packing:
    """The packed clips beside the raw ones, which may have a row or a column more, where that is odd."""
    noise, alike = [], []
    for frames, read in zip(first, reads, strict=True):
        packed = read_frames(read.sources["packed"], read.draws[0])
        cut = frames[:, : packed.shape[1], : packed.shape[2]]
        noise.append(psnr(cut, packed))
        alike.append(ssim(cut, packed))
    return Packing(
        settings=_PACKS,
        raw=packs.before / packs.videos,
        packed=packs.after / packs.videos,
        psnr=float(np.mean(noise)),
        ssim=float(np.mean(alike)),
    )


def _augmentation(first: list[Frames], config: BenchConfig) -> list[Augmented]:
    clips = ClipsConfig(
        dataset="",
        sampling=config.sampling,
        size=config.size,
        flip=0.5,
        randaugment=RandAugment(),
        randaugment_on="crop",
    )
    crops = [clips.crop.apply(frames, config.size, numpy_chance(config.seed, "crop")) for frames in first]
    return augmentation(crops, config.batches, clips, config.rounds, config.seed)


def _command(data: Place | None, config: BenchConfig) -> str:
    words = ["vidstill", "bench", "data", *([] if data is None else [str(data)])]
    return shlex.join([*words, "--clips", str(config.clips), "--rounds", str(config.rounds)])
