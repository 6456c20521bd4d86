"""What `vidstill embed` does: its options are the function's signature, read by tyro."""

import json as jsons
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.data.storage.fetch import parse_path
from vidstill.engine.distributed import Precision
from vidstill.pipelines.infer.embed import EmbedResult, FeatureFormat
from vidstill.pipelines.infer.embed import embed as embed_all
from vidstill.pipelines.infer.embed_config import EmbedConfig, EmbedSplitChoice
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.pipelines.workers import Workers
from vidstill.utils.terminal import echo, show_progress_bar
from vidstill.utils.text import format_one_line, pluralize

_MAX_MESSAGES = 10  # of many sentences
_DEFAULT_FEATURES = EmbedConfig()


def embed_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    format: FeatureFormat | None = None,
    features: Annotated[EmbedConfig, tyro.conf.arg(name="")] = _DEFAULT_FEATURES,
    split: EmbedSplitChoice = "all",
    fold: Literal[1, 2, 3] = 1,
    batch: int = 16,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Writes an encoder's features of videos; the same command again goes on where it stopped, and does nothing twice.

    It ends with exit code 1 if a video could not be embedded; the others are.

    Args:
        source: a run's folder or a file of weights.
        videos: files, folders, lists and data sets, here or behind addresses.
        out: the file to write, or for npy the folder; unfinished work lies in OUT.part.
        format: of OUT; None: as it ends with .npz, .safetensors or .parquet; a folder with an npy for each video if it
            has no end.
        split: which part of a data set that has splits.
        fold: which of the three official splits of UCF101 and HMDB51.
        batch: clips that go through the encoder at once.
        workers: processes that decode; -1: one less than there are cores. Windows are decoded in this process.
        device_batch: clips that a device takes at once; None: all of the batch.
        precision: auto: that of the features which are there, else bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = Workers(workers=workers, device_batch=device_batch, precision=precision)
    encoder = replace(load_encoder(source, precision=precision), device_batch=launch.device_batch)
    bar: Any = show_progress_bar("videos") if os.environ.get("RANK", "0") == "0" else nullcontext()
    with bar as done:
        found = embed_all(
            encoder,
            [parse_path(video) for video in videos],
            out,
            features,
            format=format,
            split=split,
            fold=fold,
            batch=batch,
            workers=launch.num_workers,
            progress=done,
        )
    echo(jsons.dumps(found.to_dict(), indent=1) if json else _format_result(found))
    if found.broken:
        sys.exit(1)


def _format_result(result: EmbedResult) -> str:
    there = result.videos - result.new_videos
    did = f"{pluralize(result.new_videos, 'video')} embedded" if result.new_videos else "nothing to do"
    did += f" ({result.changed_videos} anew, as they have changed)" if result.changed_videos else ""
    did += f", {pluralize(there, 'video')} there already" if there else ""
    shapes = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in result.shapes.items())
    lines = [f"features: {result.out} ({result.format}); {did}; {pluralize(result.rows, 'row')} of {shapes}"]
    if result.broken:
        lines.append(f"left out: {pluralize(len(result.broken), 'video')}")
        lines += [f"  {format_one_line(sentence)}" for sentence in result.broken[:_MAX_MESSAGES]]
    return "\n".join(lines)
