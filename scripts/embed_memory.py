"""Measure the memory in which long videos are embedded in windows.

    python scripts/embed_memory.py [--minutes 1 10 60] [--window 2] [--hop 1] [--batch 16]

For each length, write a video of 128 x 96 pixels at 25 frames a second in which a bar moves, embed it in a process of
its own with an encoder of width 192 and depth 4 on clips of 16 frames of 64 x 64, and print one line of JSON: the
number of windows, the size of the features, the seconds it took, and the peak memory of the process in MB (Linux's
VmHWM), with the memory before the first window as `start_mb`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

RATE, ROWS, COLUMNS = 25, 96, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--window", type=float, default=2.0, help="seconds")
    parser.add_argument("--hop", type=float, default=1.0, help="seconds")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--measure", type=Path, help="a folder with a video, in this process")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.window, args.hop, args.batch)))
        return
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "video.mp4", minutes)
            options = ["--measure", folder, "--window", args.window, "--hop", args.hop, "--batch", args.batch]
            command = [sys.executable, __file__, *map(str, options)]
            result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            print(json.dumps({"minutes": minutes, **result}), flush=True)


def write_video(path: Path, minutes: float) -> None:
    """Write a video of a bar that moves from left to right in four seconds, again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = COLUMNS, ROWS, "yuv420p"
        image = np.full((ROWS, COLUMNS, 3), 60, np.uint8)
        image[:, :12] = 200
        for number in range(round(60 * minutes * RATE)):
            moved = np.roll(image, number * COLUMNS // (4 * RATE), axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))


def measure(folder: Path, window: float, hop: float, batch: int) -> dict[str, float]:
    import torch

    from vidstill.checkpoints.io import write_checkpoint
    from vidstill.data.datasets.train_clips import ClipsConfig
    from vidstill.data.transforms.frame_sampling import SpanSampling
    from vidstill.models.vit import ViTConfig
    from vidstill.pipelines.infer.embed import embed_videos
    from vidstill.pipelines.infer.embed_config import EmbedConfig
    from vidstill.pipelines.infer.encoder import load_encoder
    from vidstill.pipelines.run_config import Workers
    from vidstill.utils.config_io import to_dict

    torch.set_num_threads(1)
    config = ViTConfig(dim=192, depth=4, heads=3)
    clips = ClipsConfig(dataset="made", sampling=SpanSampling(num_frames=16, stride=4), size=(64, 64))
    tensors = {f"encoder.{name}": tensor for name, tensor in config.build().state_dict().items()}
    metadata = {"encoder": to_dict(config), "recipe": {"clips": to_dict(clips)}}
    write_checkpoint(folder / "model.safetensors", tensors, metadata)
    encoder = load_encoder(str(folder), precision="fp32")
    encoder.extract_features(torch.zeros(batch, 3, 16, 64, 64))
    start_mb, started = peak(), time.perf_counter()
    out, workers = folder / "features.npz", Workers(workers=0, device_batch=batch)
    result = embed_videos(encoder, [folder / "video.mp4"], out, EmbedConfig(window=window, hop=hop), workers=workers)
    return {
        "windows": result.rows,
        "features_mb": round(out.stat().st_size / 1e6, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "start_mb": start_mb,
        "peak_mb": peak(),
    }


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
