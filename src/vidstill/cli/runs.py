"""`vidstill runs …`: directories of runs."""

import json as jsons
import sys
from dataclasses import asdict
from pathlib import Path

from tyro.conf import Positional

from vidstill.cli.options import Json
from vidstill.pipelines.verify import verify_runs
from vidstill.utils.checksums import format_verification
from vidstill.utils.terminal import echo, show_progress_bar


def runs_verify_command(directory: Positional[Path], /, *, json: Json = False) -> None:
    """Compare every file of runs with its checksum; nothing is changed.

    These are the SHA-256 in SHA256SUMS, beside each state and in each weights file, the checksum of the log in the
    newest state, and those of TensorBoard's records. The exit code is 1 if a file is damaged or missing.

    Args:
        directory: A run directory, or one that holds runs.
    """
    with show_progress_bar("files") as progress:
        report = verify_runs(directory, progress=progress)
    echo(jsons.dumps(asdict(report), indent=1) if json else format_verification(report))
    if report.problems:
        sys.exit(1)
