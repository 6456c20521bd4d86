"""`vidstill bench data`: the speed of reading, augmenting and loading clips, beside other installed readers."""

import math
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidstill.bench.quality import psnr, ssim
from vidstill.bench.reading import ReadRequest, draw_frame_indices, find_readers, measure_reading
from vidstill.bench.report import BenchmarkReport, LoaderTiming, PackingCost, describe_machine
from vidstill.bench.videos import collect_videos
from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.tools.pack import PackResult, pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.engine.cpu import count_cores
from vidstill.synthetic.footage import FootageConfig
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.timing import pin_to_one_core
from vidstill.utils.types import InputError, check_range

_PACK_CONFIG = TranscodeConfig(short_side=8192)  # the defaults, without downscaling
_WORKER_COUNTS = (0, 1, 2)
_BATCH_SIZE = 4  # videos, or all if there are fewer


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Size of the benchmark."""

    num_videos: int = 8  # that clips are drawn from
    clips_per_video: int = 10  # drawn from each
    sampling: SpanSampling = SpanSampling()  # frames of a clip
    size: tuple[int, int] = (224, 224)  # rows and columns of augmented and loaded clips, in pixels
    footage: FootageConfig = FootageConfig()  # synthetic videos, used without data
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(1, math.inf, max_videos=self.num_videos, rounds=self.clips_per_video)

    @property
    def clips(self) -> ClipsConfig:
        return ClipsConfig(dataset="", sampling=self.sampling, size=self.size)


def benchmark_data(data: PathOrUrl | None, config: BenchmarkConfig) -> BenchmarkReport:
    """Time reading, augmenting and loading clips of a sample of a data set's videos, or of synthetic videos.

    Args:
        data: A directory of videos, a list, or the URL of either; None renders synthetic videos.

    Raises:
        InputError: There is no such data, or none of its videos decodes.
    """
    command = ["vidstill", "bench", "data", *([] if data is None else [str(data)])]
    command += ["--max-videos", str(config.num_videos), "--rounds", str(config.clips_per_video)]
    with tempfile.TemporaryDirectory(prefix="vidstill-bench-") as name:
        folder = Path(name)
        raw, frame_counts = collect_videos(data, folder, config.num_videos, config.footage, config.seed)
        packs = _pack_videos(folder)
        packed = open_manifest(folder / "packs")
        requests = [
            ReadRequest(
                Path(video.name).name,
                {"raw": video.source, "packed": packed.rows[index].source},
                draw_frame_indices(config.sampling, num_frames, config.clips_per_video, index, config.seed),
            )
            for index, (video, num_frames) in enumerate(zip(raw.rows, frame_counts, strict=True))
        ]
        clips = [read_frames(request.sources["raw"], request.frame_indices[0]) for request in requests]
        readers, missing_readers = find_readers()
        return BenchmarkReport(
            command=shlex.join(command),
            machine=describe_machine(),
            data_description=f"of {data}" if data else "synthetic",
            num_videos=len(requests),
            clips_per_video=config.clips_per_video,
            clip_description=f"{config.sampling.num_frames} frames at stride {config.sampling.stride}",
            reader_timings=measure_reading(readers, requests, config.seed),
            missing_readers=missing_readers,
            packing=_measure_packing(packs, clips, requests),
            augmentation_clips_per_second=_measure_augmentation(clips, config),
            loader_timings=_measure_loading(raw, packed, config),
        )


def _pack_videos(folder: Path) -> PackResult:
    with show_progress_bar("packing") as progress:
        raw, out = folder / "raw.jsonl", folder / "packs"
        packs = pack_dataset(raw, out, _PACK_CONFIG, workers=count_cores(), progress=progress)
    if packs.skipped:
        raise InputError(f"a video cannot be packed ({packs.skipped[0]}); leave it out of the data")
    return packs


def _measure_packing(packs: PackResult, clips: Sequence[Frames], requests: Sequence[ReadRequest]) -> PackingCost:
    """Compare packed clips with raw ones, cropped to the packed size: odd sizes lose a row or a column."""
    pairs = []
    for clip, request in zip(clips, requests, strict=True):
        packed = read_frames(request.sources["packed"], request.frame_indices[0])
        pairs.append((clip[:, : packed.shape[1], : packed.shape[2]], packed))
    return PackingCost(
        config=_PACK_CONFIG,
        raw_bytes=packs.bytes_before / packs.num_videos,
        packed_bytes=packs.bytes_after / packs.num_videos,
        psnr=float(np.mean([psnr(*pair) for pair in pairs])),
        ssim=float(np.mean([ssim(*pair) for pair in pairs])),
    )


def _measure_augmentation(clips: Sequence[Frames], config: BenchmarkConfig) -> float:
    """Return the clips per second that one core flips and augments by RandAugment: the median over the rounds."""
    augmentation = replace(config.clips, flip_probability=0.5, randaugment=RandAugment(), randaugment_stage="crop")
    crops = [augmentation.crop.apply(clip, config.size, numpy_rng(config.seed, "crop")) for clip in clips]
    rates = []
    with show_progress_bar("augmenting") as report_progress, pin_to_one_core():
        for n in range(config.clips_per_video):
            start = time.perf_counter()
            for k, crop in enumerate(crops):
                augmentation.augment_crop(crop, derive_sample_seed(config.seed, n, k))
            rates.append(len(crops) / (time.perf_counter() - start))
            report_progress(n + 1, config.clips_per_video)
    return float(np.median(rates))


def _measure_loading(raw: Manifest, packed: Manifest, config: BenchmarkConfig) -> list[LoaderTiming]:
    timings = []
    with show_progress_bar("loading") as report_progress:
        for num_workers in _WORKER_COUNTS:
            raw_rate, packed_rate = (_measure_loader_rate(each, config, num_workers) for each in (raw, packed))
            timings.append(
                LoaderTiming(
                    num_workers=num_workers, raw_clips_per_second=raw_rate, packed_clips_per_second=packed_rate
                )
            )
            report_progress(len(timings), len(_WORKER_COUNTS))
    return timings


def _measure_loader_rate(manifest: Manifest, config: BenchmarkConfig, num_workers: int) -> float:
    """Time all clips but those of the first batch, in which workers start."""
    batch_size = min(_BATCH_SIZE, len(manifest.rows))
    batches = iter_train_batches(
        TrainClips(manifest, config.clips, seed=config.seed),
        videos_per_step=batch_size,
        steps_per_epoch=len(manifest.rows) // batch_size,
        total_steps=1 + math.ceil(config.clips_per_video * len(manifest.rows) / batch_size),
        workers=num_workers,
        device=torch.device("cpu"),
    )
    next(batches)
    start = time.perf_counter()
    num_delivered = sum(len(batch.clip) for batch in batches)
    return num_delivered / (time.perf_counter() - start)
