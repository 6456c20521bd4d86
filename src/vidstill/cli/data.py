"""`vidstill data …`; a function's signature is its options."""

import json as jsons
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from vidstill.cli.options import NO_PREFIX, Fold, Json, Root
from vidstill.data.manifest.hold_out import SplitBy
from vidstill.data.storage.fetch import parse_path
from vidstill.data.tools.pack import CLIPS_PER_SHARD, SKIPPED_FILE, pack_dataset
from vidstill.data.tools.scan import MIN_FRAMES, scan_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.tools.verify import verify_dataset
from vidstill.engine.cpu import count_cores
from vidstill.utils.checksums import format_verification
from vidstill.utils.files import write_bytes
from vidstill.utils.locks import lock_outputs
from vidstill.utils.terminal import echo, echo_skipped, show_progress_bar, to_json_value
from vidstill.utils.text import format_one_line, pluralize

_DEFAULT_TRANSCODE = TranscodeConfig()


def data_make_command(
    directory: Positional[Path],
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
    """Draw synthetic clips whose classes differ only in motion, with lists; or, with --boxes, clips in AVA's format.

    A clip depends on the seed, its split, its number and the sizes, so a larger data set contains a smaller one.

    Args:
        directory: Where the clips are written; clips that exist are kept.
        boxes: Draw figures that act, alone and with each other, with a box and actions for each figure and second.
        train: Training clips, the classes in turn; None: 600, with --boxes 240.
        val: Test clips; None: 300, with --boxes 80.
        unlabelled: Clips without labels, for pre-training; None: 1800, with --boxes 400.
        frames: Frames per clip; its motion spans all of them; None: 16. Not with --boxes.
        seconds: Seconds per clip with --boxes; None: 6.
        size: Rows and columns in pixels, both even; None: 64 64, with --boxes 64 96.
        fps: Frames per second; None: 8.
        classes: Motions to draw; None: all. Not with --boxes, whose clips have all actions.
        seed: Random seed.
    """
    from vidstill.synthetic.make import make_clips

    make_clips(
        directory,
        boxes=boxes,
        train=train,
        val=val,
        unlabelled=unlabelled,
        frames=frames,
        seconds=seconds,
        size=size,
        fps=fps,
        classes=classes,
        seed=seed,
    )
    next_command = f"detect train RECIPE --data {directory}" if boxes else f"data inspect {directory}"
    echo(f"made: {directory}; next: vidstill {next_command}")


def data_inspect_command(
    data: Positional[str],
    /,
    *,
    root: Root = None,
    fold: Fold = 1,
    max_files: int = 32,
    contact_sheet: Path | None = None,
    json: Json = False,
) -> None:
    """Print how a data set is read, what it contains, and its problems; draw a contact sheet of it.

    Args:
        data: Directory of videos or of class directories, list, packed shards, or an official data set; path or URL;
            or drawn clips: made:train=600,val=300.
        max_files: Videos to open, where the list does not state their sizes.
        contact_sheet: PNG to write: a strip of frames for each of up to 24 classes, or videos without classes.
    """
    from vidstill.data.manifest.open import open_split_manifests
    from vidstill.data.tools.inspect import format_dataset_summary, summarize_dataset
    from vidstill.figures.contact_sheet import check_sheet_path, draw_contact_sheet

    manifests = open_split_manifests(parse_path(data), root=root, fold=fold)
    if contact_sheet is not None:
        check_sheet_path(contact_sheet, manifests)
    with lock_outputs(contact_sheet):
        with show_progress_bar("files") as progress:
            summary = summarize_dataset(parse_path(data), manifests, max_files=max_files, progress=progress)
        text = format_dataset_summary(summary)
        if contact_sheet is not None:
            with show_progress_bar("strips") as progress:
                write_bytes(contact_sheet, draw_contact_sheet(data, manifests, progress=progress))
            text += f"\n\ncontact sheet: {format_one_line(str(contact_sheet))}"
    echo(jsons.dumps(to_json_value(asdict(summary)), indent=1) if json else text)


def data_split_command(
    data: Positional[str],
    /,
    *,
    out: Path,
    val_share: float = 0.2,
    by: SplitBy = "clip",
    seed: int = 0,
    root: Root = None,
    json: Json = False,
) -> None:
    """Split a data set into lists to train and to validate on, each class alike; --data OUT reads both.

    Args:
        data: Directory of videos or of class directories, or list.
        out: Directory of train.csv, val.csv and classes.txt.
        val_share: Share of the videos that are held out for validation.
        by: Which videos stay on one side: clip, the rows of one file; group, those with the same value in a table's
            column `group` (a person, a place, a recording), or of UCF101's groups by their names; directory, those in
            one directory.
        seed: Random seed.
    """
    from vidstill.data.tools.split import split_dataset

    report = split_dataset(parse_path(data), out, val_share=val_share, by=by, seed=seed, root=root)
    lines = [*report.format_lines(), f"next: vidstill finetune auto --data {out}"]
    echo(jsons.dumps(to_json_value(asdict(report)), indent=1) if json else "\n".join(lines))


def data_pack_command(
    data: Positional[str],
    /,
    *,
    out: Path,
    transcode: Annotated[TranscodeConfig, NO_PREFIX] = _DEFAULT_TRANSCODE,
    videos_per_shard: int = CLIPS_PER_SHARD,
    root: Root = None,
    fold: Fold = 1,
    workers: int = -1,
) -> None:
    """Re-encode a data set into tar shards that decode fast; the same command again resumes.

    Args:
        data: Directory of videos or of class directories, list (a scan's too), packed shards, or an official data set.
        out: Directory of the shards; it, or a copy of it at a URL, is a data set: --data OUT.
        videos_per_shard: Videos in each shard.
        workers: Processes that decode and encode; -1: one per CPU core.
    """
    with show_progress_bar("packing") as progress:
        result = pack_dataset(
            parse_path(data),
            out,
            transcode,
            clips_per_shard=videos_per_shard,
            root=root,
            fold=fold,
            workers=count_cores() if workers < 0 else workers,
            progress=progress,
        )
    sizes = f"{result.bytes_before / 1e6:.1f} MB became {result.bytes_after / 1e6:.1f} MB"
    ratio = f" ({result.bytes_after / result.bytes_before:.2f} times)" if result.bytes_before else ""
    count = pluralize(result.num_videos, result.noun)
    echo(f"packed: {out}, {count}, {sizes}{ratio}; next: vidstill data inspect {out}")
    if result.skipped:
        echo_skipped(result.skipped, noun=result.noun)
        echo(f"all are listed in {out / SKIPPED_FILE}")
        sys.exit(1)


def data_scan_command(
    data: Positional[str],
    /,
    *,
    out: Path | None = None,
    root: Root = None,
    fold: Fold = 1,
    workers: int = -1,
    min_frames: int = MIN_FRAMES,
    json: Json = False,
) -> None:
    """Decode every file once, into a list that is a data set; the same command again resumes.

    The exit code is 1 if a file is broken or the same video is in several splits.

    Args:
        data: Directory of videos or of class directories, list (a scan's too), packed shards, or an official data set.
        out: List to write, with the errors of the files; None: DATA.scan.jsonl beside the data.
        workers: Processes that decode; -1: one per CPU core.
        min_frames: Shorter videos are reported.
    """
    from vidstill.data.tools.scan_report import format_scan_report

    with show_progress_bar("files") as progress:
        report = scan_dataset(
            parse_path(data),
            out=out,
            root=root,
            fold=fold,
            workers=count_cores() if workers < 0 else workers,
            min_frames=min_frames,
            progress=progress,
        )
    fields = {"is_clean": report.is_clean, **to_json_value(asdict(report))}
    echo(jsons.dumps(fields, indent=1) if json else format_scan_report(report))
    if not report.is_clean:
        sys.exit(1)


def data_verify_command(data: Positional[str], /, *, json: Json = False) -> None:
    """Compare every file of packs, or of a scanned data set, with its SHA-256; nothing is decoded or changed.

    The exit code is 1 if a file is missing or has changed.

    Args:
        data: Packed shards, a data set with the list of a scan beside it, or such a list.
    """
    with show_progress_bar("files") as progress:
        report = verify_dataset(parse_path(data), progress=progress)
    echo(jsons.dumps(asdict(report), indent=1) if json else format_verification(report))
    if report.problems:
        sys.exit(1)
