"""Measure the memory of the decoding processes with a manifest of a million videos.

    python scripts/loader_memory.py [--rows 1000000] [--workers 2] [--samples 600]

Prints one line of JSON: the seconds from the manifest to the first batch, and the memory of each worker in MB: its own
(`private`), with its share of shared memory (`share`), and all that it maps (`resident`: torch's libraries,
the parent's memory at the fork and the clips that all workers share count in full for each). The rows name a few tiny
videos, made for the purpose.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.transforms.crop import MultiScaleCrop
from vidstill.data.transforms.frame_sampling import SpanSampling

FILES = 8
BATCH = 8  # videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=600, help="videos to decode before the measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), arguments.rows, arguments.workers, arguments.samples)))


def measure(folder: Path, rows: int, workers: int, samples: int) -> dict[str, object]:
    manifest = make_manifest(folder, rows)
    config = ClipsConfig(
        dataset="made",
        sampling=SpanSampling(num_frames=16, stride=4),
        crop=MultiScaleCrop(),
        flip_probability=0.5,
        repeats=1,
    )
    start = time.perf_counter()
    steps = samples // BATCH
    batches = iter_train_batches(
        TrainClips(manifest, config, seed=0),
        videos_per_step=BATCH,
        steps_per_epoch=rows // BATCH,
        total_steps=steps + 100,  # so that the workers are still alive
        workers=workers,
        device=torch.device("cpu"),
    )
    next(batches)
    first = time.perf_counter() - start
    for _ in range(steps - 1):
        next(batches)
    workers_mb = [read_memory(process.pid) for process in multiprocessing.active_children()]
    batches.close()
    return {"rows": rows, "videos": steps * BATCH, "first_batch_s": round(first, 2), "workers_mb": workers_mb}


def make_manifest(folder: Path, rows: int) -> Manifest:
    """Make rows that name a few videos of 90 frames, as a list without frame counts and frame rates does."""
    names = [write_video(folder / f"{number}.mp4", number) for number in range(FILES)]
    paths = (f"{'./' * (number // FILES % 9)}{names[number % FILES]}" for number in range(rows))
    table = VideoTable(folder, paths, {"label": np.arange(rows) % 400})
    return Manifest(table, tuple(map(str, range(400))), "made", folder, "")


def write_video(path: Path, seed: int) -> str:
    pictures = np.random.default_rng(seed).integers(0, 255, (9, 15, 20, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(90):
            picture = np.kron(pictures[number // 10], np.ones((16, 16, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path.name


def read_memory(process: int) -> dict[str, float]:
    """Return a process's memory in MB, as Linux counts it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    sizes = {"private": private, "share": kib["Pss"], "resident": kib["Rss"]}
    return {name: round(size * 1024 / 1e6, 1) for name, size in sizes.items()}


if __name__ == "__main__":
    main()
