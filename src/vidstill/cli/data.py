"""What `vidstill data …` does: each verb's options are the function's signature, read by tyro."""

import json as jsons
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from vidstill.data.storage.fetch import parse_path
from vidstill.data.tools import inspect as looking
from vidstill.data.tools import pack as packs
from vidstill.data.tools import scan as scanning
from vidstill.data.tools.scan_report import format_scan_report as found_in_words
from vidstill.data.tools.stats import format_dataset_summary
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.engine.distributed import count_cores
from vidstill.figures.contact_sheet import check_sheet_path, draw_contact_sheet
from vidstill.synthetic.boxes import SyntheticBoxesConfig, make_box_dataset
from vidstill.synthetic.clips import SyntheticClipsConfig, make_clip_dataset
from vidstill.utils.files import write_bytes
from vidstill.utils.terminal import echo, show_progress_bar, to_json_value
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

_NO_PREFIX = tyro.conf.arg(name="")  # its fields are options without a prefix

_DEFAULT_TRANSCODE = TranscodeConfig()
_MAX_MESSAGES = 10  # of many sentences


def data_make_command(
    folder: Positional[Path],
    /,
    *,
    boxes: bool = False,
    train: int | None = None,
    val: int | None = None,
    unlabelled: int | None = None,
    frames: int | None = None,
    seconds: int | None = None,
    size: tuple[int, int] | None = None,
    fps: int | None = None,
    classes: tuple[str, ...] | None = None,
    seed: int = 0,
) -> None:
    """Draws clips whose classes differ in motion alone, with their lists; or, with --boxes, clips as AVA has them.

    A clip depends on the seed, its split, its number and the sizes, so a larger set holds a smaller.

    Args:
        folder: where to; what is already there is kept.
        boxes: figures that act, alone and with one another, with a box and its actions for each, every second.
        train: clips to train on, the classes in turn; None: 600, with --boxes 240.
        val: clips to test on; None: 300, with --boxes 80.
        unlabelled: clips to pre-train on, of which nothing is stated; None: 1800, with --boxes 400.
        frames: of a clip, whose movement takes all of them; None: 16. Not with --boxes.
        seconds: of a clip with boxes; None: 6.
        size: rows and columns in pixels, both even; None: 64 64, with --boxes 64 96.
        fps: frames per second; None: 8.
        classes: what is done; None: all that we can draw. Not with --boxes, whose actions are always all of them.
        seed: of all that is drawn.
    """
    asked = {"train": train, "val": val, "unlabelled": unlabelled, "size": size, "fps": fps, "seed": seed}
    ours = {"seconds": seconds} if boxes else {"frames": frames, "classes": classes}
    theirs = {"frames": frames, "classes": classes} if boxes else {"seconds": seconds}
    if strange := [f"--{name}" for name, value in theirs.items() if value is not None]:
        length = "with --boxes; --seconds" if boxes else "without --boxes; --frames"
        raise InputError(f"{' and '.join(strange)} cannot be given {length} says how long a clip is")
    given: dict[str, Any] = {name: value for name, value in (asked | ours).items() if value is not None}
    with show_progress_bar("clips") as made:
        if boxes:
            make_box_dataset(folder, SyntheticBoxesConfig(**given), progress=made)
        else:
            make_clip_dataset(folder, SyntheticClipsConfig(**given), progress=made)
    then = f"detect train RECIPE --data {folder}" if boxes else f"data inspect {folder}"
    echo(f"made: {folder}; next: vidstill {then}")


def data_inspect_command(
    data: Positional[str],
    /,
    *,
    root: str | None = None,
    fold: Literal[1, 2, 3] = 1,
    max_files: int = 32,
    contact_sheet: Path | None = None,
    json: bool = False,
) -> None:
    """Says what a data set is taken for, what it holds, and what is wrong with it; shows it, if asked to.

    Args:
        data: a folder of videos or of class folders, a list, packs, or an official data set; here or behind an address.
        root: the folder that a list's paths start from; None: the list's own.
        fold: which of the three official splits of UCF101 and HMDB51.
        max_files: how many videos are opened, where their list does not state what they are.
        contact_sheet: a PNG to write: a strip of pictures for each of up to 24 classes, or videos where there are no classes.
        json: as JSON, for programs.
    """
    start = None if root is None else parse_path(root)
    listings = looking.open_split_manifests(parse_path(data), root=start, fold=fold)
    if contact_sheet is not None:
        check_sheet_path(contact_sheet, listings)
    with show_progress_bar("videos") as looked:
        summary = looking.summarize_dataset(parse_path(data), listings, max_files=max_files, progress=looked)
    if contact_sheet is not None:
        with show_progress_bar("strips") as drawn:
            write_bytes(contact_sheet, draw_contact_sheet(data, listings, progress=drawn))
    echo(jsons.dumps(to_json_value(asdict(summary)), indent=1) if json else format_dataset_summary(summary))
    if contact_sheet is not None and not json:
        echo(f"\nsheet: {format_one_line(str(contact_sheet))}")


def bench_data_command(
    data: Positional[str | None] = None, /, *, max_videos: int = 8, rounds: int = 10, json: bool = False
) -> None:
    """Times reading, augmenting and loading clips, as videos are and packed, beside decord and torchcodec if installed.

    Args:
        data: videos to measure with, given as for `vidstill data inspect`; None: it films its own.
        max_videos: how many of the videos.
        rounds: clips that are drawn from each.
        json: as JSON, for programs: every single time as well.
    """
    from vidstill.bench.report import format_benchmark_report
    from vidstill.bench.run import BenchmarkConfig, benchmark_data

    found = benchmark_data(
        None if data is None else parse_path(data), BenchmarkConfig(num_videos=max_videos, clips_per_video=rounds)
    )
    echo(jsons.dumps(to_json_value(asdict(found)), indent=1) if json else format_benchmark_report(found))


def data_pack_command(
    data: Positional[str],
    /,
    *,
    out: Path,
    transcode: Annotated[TranscodeConfig, _NO_PREFIX] = _DEFAULT_TRANSCODE,
    videos_per_shard: int = packs.CLIPS_PER_SHARD,
    root: str | None = None,
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
) -> None:
    """Packs a data set into tar shards that decode fast; the same command again goes on where it was stopped.

    Args:
        data: a folder of videos or of class folders, a list or a scan's, packs, or an official data set.
        out: the folder of the packs; it, or a copy of it behind an address, is a data set: --data OUT.
        videos_per_shard: videos for each shard.
        root: the folder that a list's paths start from; None: the list's own.
        fold: which of the three official splits of UCF101 and HMDB51.
        workers: processes that decode and encode; -1: one for each core.
    """
    with show_progress_bar("videos") as done:
        packed = packs.pack_dataset(
            parse_path(data),
            out,
            transcode,
            clips_per_shard=videos_per_shard,
            root=None if root is None else parse_path(root),
            fold=fold,
            workers=count_cores() if workers < 0 else workers,
            progress=done,
        )
    sizes = f"{packed.bytes_before / 1e6:.1f} MB became {packed.bytes_after / 1e6:.1f} MB"
    ratio = f", {packed.bytes_after / packed.bytes_before:.2f} times" if packed.bytes_before else ""
    echo(f"packed: {out}, {packed.num_videos} videos, {sizes}{ratio}; next: vidstill data inspect {out}")
    if packed.skipped:
        echo(f"left out: {len(packed.skipped)} videos ({out / packs.SKIPPED_FILE})")
        for sentence in packed.skipped[:_MAX_MESSAGES]:
            echo(f"  {format_one_line(sentence)}")
        sys.exit(1)


def data_scan_command(
    data: Positional[str],
    /,
    *,
    out: Path | None = None,
    root: str | None = None,
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
    min_frames: int = scanning.MIN_FRAMES,
    json: bool = False,
) -> None:
    """Decodes every file once, into a list that is a data set; the same command again goes on where it was stopped.

    It ends with exit code 1 if a file is broken, or if the same video is in more than one split.

    Args:
        data: a folder of videos or of class folders, a list or a scan's, packs, or an official data set.
        out: the list to write, what is wrong with a file included; None: DATA.scan.jsonl beside the data.
        root: the folder that a list's paths start from; None: the list's own.
        fold: which of the three official splits of UCF101 and HMDB51.
        workers: processes that decode; -1: one for each core.
        min_frames: videos that have fewer are named.
        json: as JSON, for programs: all that was found.
    """
    with show_progress_bar("files") as done:
        found = scanning.scan_dataset(
            parse_path(data),
            out=out,
            root=None if root is None else parse_path(root),
            fold=fold,
            workers=count_cores() if workers < 0 else workers,
            min_frames=min_frames,
            progress=done,
        )
    echo(
        jsons.dumps({"good": found.is_clean, **to_json_value(asdict(found))}, indent=1)
        if json
        else found_in_words(found)
    )
    if not found.is_clean:
        sys.exit(1)
