"""What `vidstill embed` does: its options are the function's signature, read by tyro."""

import json as jsons
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.data.storage.fetch import place_of
from vidstill.engine.distributed import Precision
from vidstill.pipelines.infer.embed import Embedded, FileFormat
from vidstill.pipelines.infer.embed import embed as embed_all
from vidstill.pipelines.infer.embed_config import EmbedConfig, Splits
from vidstill.pipelines.infer.encoder import load
from vidstill.pipelines.train.session import Launch
from vidstill.utils.terminal import progress_bar, tell
from vidstill.utils.text import counted, one_line

_SHOWN = 10  # of many sentences
_FEATURES = EmbedConfig()


def embed(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    format: FileFormat | None = None,
    features: Annotated[EmbedConfig, tyro.conf.arg(name="")] = _FEATURES,
    split: Splits = "all",
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
    launch = Launch(data=Path(), out=out, workers=workers, device_batch=device_batch, precision=precision)
    encoder = replace(load(source, precision=precision), device_batch=launch.device_batch)
    bar: Any = progress_bar("videos") if os.environ.get("RANK", "0") == "0" else nullcontext()
    with bar as done:
        found = embed_all(
            encoder,
            [place_of(video) for video in videos],
            out,
            features,
            format=format,
            split=split,
            fold=fold,
            batch=batch,
            workers=launch.decoders,
            done=done,
        )
    tell(jsons.dumps(found.plain(), indent=1) if json else _in_words(found))
    if found.broken:
        sys.exit(1)


def _in_words(found: Embedded) -> str:
    there = found.videos - found.embedded
    did = f"{counted(found.embedded, 'video')} embedded" if found.embedded else "nothing to do"
    did += f" ({found.changed} anew, as they have changed)" if found.changed else ""
    did += f", {counted(there, 'video')} there already" if there else ""
    shapes = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in found.shapes.items())
    lines = [f"features: {found.out} ({found.format}); {did}; {counted(found.rows, 'row')} of {shapes}"]
    if found.broken:
        lines.append(f"left out: {counted(len(found.broken), 'video')}")
        lines += [f"  {one_line(sentence)}" for sentence in found.broken[:_SHOWN]]
    return "\n".join(lines)


VERBS: dict[str, Callable[..., None]] = {"embed": embed}
