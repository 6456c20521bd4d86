"""`vidstill bench data`: the speed of reading, augmenting and loading clips, beside other installed readers."""

import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidstill.bench.augmentation import measure_augmentation
from vidstill.bench.loader import measure_loading
from vidstill.bench.machine import describe_machine
from vidstill.bench.quality import psnr, ssim
from vidstill.bench.readers import find_readers
from vidstill.bench.reading import ReadRequest, draw_frame_indices, measure_reading
from vidstill.bench.report import BenchmarkReport, PackingCost
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

_PACK_CONFIG = TranscodeConfig(short_side=8192)  # the defaults, without downscaling


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Size of the benchmark.

    Args:
        num_videos: Videos that clips are drawn from.
        clips_per_video: Clips drawn from each video.
        sampling: Frames of a clip.
        size: Rows and columns of augmented and loaded clips, in pixels.
        footage: Synthetic videos, used without data.
        seed: Random seed.
    """

    num_videos: int = 8
    clips_per_video: int = 10
    sampling: SpanSampling = SpanSampling()
    size: tuple[int, int] = (224, 224)
    footage: FootageConfig = FootageConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(1, math.inf, max_videos=self.num_videos, rounds=self.clips_per_video)


def benchmark_data(data: PathOrUrl | None, config: BenchmarkConfig) -> BenchmarkReport:
    """Time reading, augmenting and loading clips of a sample of a data set's videos, or of synthetic videos.

    Args:
        data: A directory of videos, a list, or the URL of either; None renders synthetic videos.

    Raises:
        InputError: There is no such data, or none of its videos decodes.
    """
    with tempfile.TemporaryDirectory(prefix="vidstill-bench-") as name:
        folder = Path(name)
        if data is None:
            videos = render_videos(folder, config.num_videos, config.footage, config.seed)
        else:
            videos = sample_videos(data, folder, config.num_videos, config.seed)
        raw = write_video_manifest(videos, folder / "raw.jsonl")
        packed, packs = _pack_videos(folder)
        requests = _make_read_requests(videos, packed, config)
        clips = [read_frames(request.sources["raw"], request.frame_indices[0]) for request in requests]
        readers, missing_readers = find_readers()
        return BenchmarkReport(
            command=_format_command(data, config),
            machine=describe_machine(),
            data_description=f"of {data}" if data else "synthetic",
            num_videos=len(videos),
            clips_per_video=config.clips_per_video,
            clip_description=f"{config.sampling.num_frames} frames at stride {config.sampling.stride}",
            reader_timings=measure_reading(readers, requests, config.seed),
            missing_readers=missing_readers,
            packing=_measure_packing(packs, clips, requests),
            augmentation_clips_per_second=_measure_crop_augmentation(clips, config),
            loader_timings=measure_loading(
                raw,
                packed,
                config.clips_per_video * len(videos),
                ClipsConfig(dataset="", sampling=config.sampling, size=config.size),
                config.seed,
            ),
        )


def _pack_videos(folder: Path) -> tuple[Manifest, PackResult]:
    with show_progress_bar("packing") as progress:
        packs = pack_dataset(
            folder / "raw.jsonl", folder / "packs", _PACK_CONFIG, workers=count_cores(), progress=progress
        )
    if packs.skipped:
        raise InputError(f"a video cannot be packed ({packs.skipped[0]}); leave it out of the data")
    return open_manifest(folder / "packs"), packs


def _make_read_requests(videos: list[BenchmarkVideo], packed: Manifest, config: BenchmarkConfig) -> list[ReadRequest]:
    return [
        ReadRequest(
            video.path.name,
            {"raw": video.path, "packed": row.source},
            draw_frame_indices(config.sampling, video.num_frames, config.clips_per_video, index, config.seed),
        )
        for index, (video, row) in enumerate(zip(videos, packed.rows, strict=True))
    ]


def _measure_packing(packs: PackResult, clips: list[Frames], requests: list[ReadRequest]) -> PackingCost:
    """Compare packed clips with raw ones, cropped to the packed size: odd sizes lose a row or a column."""
    psnrs, ssims = [], []
    for clip, request in zip(clips, requests, strict=True):
        packed = read_frames(request.sources["packed"], request.frame_indices[0])
        cropped = clip[:, : packed.shape[1], : packed.shape[2]]
        psnrs.append(psnr(cropped, packed))
        ssims.append(ssim(cropped, packed))
    return PackingCost(
        config=_PACK_CONFIG,
        raw_bytes=packs.bytes_before / packs.num_videos,
        packed_bytes=packs.bytes_after / packs.num_videos,
        psnr=float(np.mean(psnrs)),
        ssim=float(np.mean(ssims)),
    )


def _measure_crop_augmentation(clips: list[Frames], config: BenchmarkConfig) -> float:
    clips_config = ClipsConfig(
        dataset="",
        sampling=config.sampling,
        size=config.size,
        flip_probability=0.5,
        randaugment=RandAugment(),
        randaugment_stage="crop",
    )
    crops = [clips_config.crop.apply(clip, config.size, numpy_rng(config.seed, "crop")) for clip in clips]
    return measure_augmentation(crops, clips_config, config.clips_per_video, config.seed)


def _format_command(data: PathOrUrl | None, config: BenchmarkConfig) -> str:
    command = ["vidstill", "bench", "data", *([] if data is None else [str(data)])]
    return shlex.join([*command, "--max-videos", str(config.num_videos), "--rounds", str(config.clips_per_video)])
