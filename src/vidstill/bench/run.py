"""`vidstill bench data`: how fast clips are read, augmented and loaded, beside what else is installed."""

import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidstill.bench.augmentation import measure_augmentation
from vidstill.bench.findings import BenchmarkReport, PackingCost
from vidstill.bench.loader import measure_loading
from vidstill.bench.machine import describe_machine
from vidstill.bench.quality import psnr, ssim
from vidstill.bench.readers import find_readers
from vidstill.bench.reading import ReadRequest, draw_frame_indices, measure_reading
from vidstill.bench.videos import BenchmarkVideo, render_videos, sample_videos, write_video_manifest
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.tools.pack import PackResult, pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.engine.distributed import count_cores
from vidstill.synthetic.footage import FootageConfig
from vidstill.utils.rng import numpy_rng
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError, check_range

_PACK_CONFIG = TranscodeConfig(short_side=8192)  # as packed by default, but that no video is made smaller


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is measured.

    Args:
        num_videos: videos that clips are drawn from.
        clips_per_video: clips that are drawn from each.
        sampling: which frames a clip has.
        size: rows and columns of a clip where it is augmented, and where it is loaded.
        footage: what is filmed where no data are given.
    """

    num_videos: int = 8
    clips_per_video: int = 10
    sampling: SpanSampling = SpanSampling()
    size: tuple[int, int] = (224, 224)
    footage: FootageConfig = FootageConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(1, math.inf, clips=self.num_videos, rounds=self.clips_per_video)


def benchmark_data(data: PathOrUrl | None, config: BenchmarkConfig) -> BenchmarkReport:
    """Times reading, augmenting and loading clips of some of a data set's videos, or of videos of its own.

    Args:
        data: a folder of videos, a list, or an address of either; None: videos that are filmed for it.

    Raises:
        InputError: there is no such data, or no video in it that decodes.
    """
    with tempfile.TemporaryDirectory(prefix="vidstill-bench-") as name:
        folder = Path(name)
        if data is None:
            videos = render_videos(folder, config.num_videos, config.footage, config.seed)
        else:
            videos = sample_videos(data, folder, config.num_videos, config.seed)
        raw = write_video_manifest(videos, folder / "raw.jsonl")
        packed, packs = _pack_videos(folder)
        reads = _make_read_requests(videos, packed, config)
        first = [read_frames(read.sources["raw"], read.frame_indices[0]) for read in reads]
        there, missing = find_readers()
        return BenchmarkReport(
            command=_format_command(data, config),
            machine=describe_machine(),
            data_description=f"of {data}" if data else "filmed for this",
            num_videos=len(videos),
            clips_per_video=config.clips_per_video,
            clip_description=f"{config.sampling.num_frames} frames at stride {config.sampling.stride}",
            reader_timings=measure_reading(there, reads, config.seed),
            missing_readers=missing,
            packing=_measure_packing(packs, first, reads),
            augmentation_clips_per_second=_measure_crop_augmentation(first, config),
            loader_timings=measure_loading(
                raw,
                packed,
                config.clips_per_video * len(videos),
                ClipsConfig(dataset="", sampling=config.sampling, size=config.size),
                config.seed,
            ),
        )


def _pack_videos(folder: Path) -> tuple[Manifest, PackResult]:
    with show_progress_bar("packing") as done:
        packs = pack_dataset(folder / "raw.jsonl", folder / "packs", _PACK_CONFIG, workers=count_cores(), progress=done)
    if packs.skipped:
        raise InputError(f"a video cannot be packed ({packs.skipped[0]}); leave it out of the data")
    return open_manifest(folder / "packs"), packs


def _make_read_requests(videos: list[BenchmarkVideo], packed: Manifest, config: BenchmarkConfig) -> list[ReadRequest]:
    return [
        ReadRequest(
            video.path.name,
            {"raw": video.path, "packed": row.source},
            draw_frame_indices(config.sampling, video.num_frames, config.clips_per_video, number, config.seed),
        )
        for number, (video, row) in enumerate(zip(videos, packed.rows, strict=True))
    ]


def _measure_packing(packs: PackResult, first: list[Frames], reads: list[ReadRequest]) -> PackingCost:
    """The packed clips beside the raw ones, which may have a row or a column more, where that is odd."""
    noise, alike = [], []
    for frames, read in zip(first, reads, strict=True):
        packed = read_frames(read.sources["packed"], read.frame_indices[0])
        cut = frames[:, : packed.shape[1], : packed.shape[2]]
        noise.append(psnr(cut, packed))
        alike.append(ssim(cut, packed))
    return PackingCost(
        config=_PACK_CONFIG,
        raw_bytes=packs.bytes_before / packs.num_videos,
        packed_bytes=packs.bytes_after / packs.num_videos,
        psnr=float(np.mean(noise)),
        ssim=float(np.mean(alike)),
    )


def _measure_crop_augmentation(first: list[Frames], config: BenchmarkConfig) -> float:
    clips = ClipsConfig(
        dataset="",
        sampling=config.sampling,
        size=config.size,
        flip_probability=0.5,
        randaugment=RandAugment(),
        randaugment_stage="crop",
    )
    crops = [clips.crop.apply(frames, config.size, numpy_rng(config.seed, "crop")) for frames in first]
    return measure_augmentation(crops, clips, config.clips_per_video, config.seed)


def _format_command(data: PathOrUrl | None, config: BenchmarkConfig) -> str:
    words = ["vidstill", "bench", "data", *([] if data is None else [str(data)])]
    return shlex.join([*words, "--clips", str(config.num_videos), "--rounds", str(config.clips_per_video)])
