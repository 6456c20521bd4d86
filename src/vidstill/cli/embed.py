"""`vidstill embed`: its options are the function's signature, read by tyro."""

import json as jsons
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from vidstill.cli.options import NO_PREFIX, Fold, Json, SplitOption
from vidstill.data.storage.fetch import parse_path
from vidstill.pipelines.infer.embed import EmbedResult
from vidstill.pipelines.infer.embed import embed as embed_videos
from vidstill.pipelines.infer.embed_config import EmbedConfig
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.pipelines.infer.writers.feature_store import FormatName
from vidstill.pipelines.workers import Workers
from vidstill.utils.terminal import echo, echo_skipped, show_progress_bar
from vidstill.utils.text import pluralize


def embed_command(
    source: Positional[str],
    videos: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    format: FormatName | None = None,
    features: Annotated[EmbedConfig, NO_PREFIX] = EmbedConfig(),  # noqa: B008  # it is frozen
    split: SplitOption = "all",
    fold: Fold = 1,
    workers: Annotated[Workers, NO_PREFIX] = Workers(),
    json: Json = False,
) -> None:
    """Write an encoder's features of videos; the same command resumes, and computes nothing twice.

    The exit code is 1 if a video could not be embedded; all others are. A batch has 16 clips unless --device-batch says
    otherwise, and --precision auto continues with the precision of the output.

    Args:
        source: Run directory or checkpoint.
        videos: Files, folders, lists and data sets, local or behind URLs.
        out: The file to write, or for npy the folder; unfinished work is in OUT.journal.
        format: None: the suffix of OUT decides, .npz, .safetensors or .parquet; without suffix one npy file per video.
    """
    encoder = load_encoder(source, precision=workers.precision)
    with show_progress_bar("videos", visible=encoder.runtime.is_main) as progress:
        result = embed_videos(
            encoder,
            [parse_path(video) for video in videos],
            out,
            features,
            format=format,
            split=split,
            fold=fold,
            workers=workers,
            progress=progress,
        )
    if json:
        echo(jsons.dumps(asdict(result), indent=1, default=str))
    else:
        echo(_format_result(result))
        echo_skipped(result.broken)
    if result.broken:
        sys.exit(1)


def _format_result(result: EmbedResult) -> str:
    unchanged = result.videos - result.new_videos
    summary = f"{pluralize(result.new_videos, 'video')} embedded" if result.new_videos else "nothing to do"
    summary += f" ({result.changed_videos} of them again, as they have changed)" if result.changed_videos else ""
    summary += f", {pluralize(unchanged, 'video')} unchanged" if unchanged else ""
    shapes = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in result.shapes.items())
    return f"features: {result.out} ({result.format}); {summary}; {pluralize(result.rows, 'row')} of {shapes}"
