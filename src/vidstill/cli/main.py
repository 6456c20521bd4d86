"""The command line, `vidstill VERB …`: finds the verb, and turns mistakes into one sentence and an exit code."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

USAGE = """usage: vidstill VERB …

  quickstart                         walk the whole road on clips it makes itself: teacher, student, test, table, report
  recipes [PATTERN] [--show NAME]    list the recipes; show one fully resolved, with the source of its numbers
  pretrain RECIPE --data DATA        pre-train by a recipe, distillations included, from scratch or --init RUN_OR_FILE
  finetune RECIPE --data DATA        train and test a classifier, from an encoder (--init RUN_OR_FILE) or from scratch
  finetune auto --data DATA          the same by a recipe that is made for the data, and says why it is so
  evaluate RUN_OR_FILE --data DATA   test a fine-tuned model: accuracy, classes, calibration; --out DIR: each video
  predict RUN_OR_FILE VIDEO…         what is done in videos, and when: a table, a plot, the video with it drawn over
  probe linear RUN --data DATA …     what a frozen encoder tells apart; also probe knn and probe attentive, on features
                                     that are computed once
  probe all RUN… --data DATA …       every probe of encoders on data sets, in one table
  embed RUN_OR_FILE VIDEO… --out OUT features of videos, of whole data sets, of long ones in windows, in files
  detect train RECIPE --data DATA    train and test a detector of what persons in boxes do, on AVA or one's own data
  detect evaluate RUN_OR_CSV --data DATA  test a detector, or score the rows of any, by AVA's mean average precision
  detect boxes DATA --out FILE.csv   the persons in key frames, or in each second of videos, by torchvision's detectors
  detect predict RUN VIDEO…          what persons do in videos, by the second: a table, the video with boxes drawn over
  data make FOLDER                   draw clips: classes that differ in motion alone; --boxes: persons and what they do
  data scan DATA                     decode every file once: what is broken, short or there twice, and every true length
  data pack DATA --out FOLDER        make videos quick to decode: re-encoded into tar shards, with an index
  data inspect DATA                  what a data set holds, and what is wrong with it; --sheet FILE.png shows it
  bench data [DATA]                  how fast clips are read, augmented and loaded, beside decord and torchcodec
  weights list [PATTERN]             published checkpoints: size, accuracy, licence, where; --commercial filters
  weights inspect RUN_OR_FILE        what weights are: layout, model, licence, and what becomes of every tensor
  weights convert FILE --to KIND     write weights anew: as ours, as an authors' or transformers' file, as ONNX or torch
  doctor                             what this machine can do: devices, precision, decoders, space, versions

Each verb has --help; every field of a recipe is an option: vidstill pretrain amd.small_k400 --help. The same command
again resumes a run. DATA is a folder of videos, a folder of class folders, or a list of `path label`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and gives the exit code: 0 only if the work is done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):  # before torch is imported, which takes seconds
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(f"vidstill {_get_version()}")
        return 0

    try:
        return _run_arguments(arguments)
    except KeyboardInterrupt:
        return _print_error("interrupted; a run goes on from its last saved state with the same command", 130)
    except BrokenPipeError:  # what reads our output has seen enough, as in `vidstill recipes | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as left:  # tyro has printed help (0), or what it could not read (2)
        return int(left.code or 0)


def _run_arguments(arguments: list[str]) -> int:
    from vidstill.cli.verbs import run_command
    from vidstill.engine.trainer import RunStopped
    from vidstill.utils.types import InputError

    try:
        run_command(arguments)
        sys.stdout.flush()
    except InputError as error:
        return _print_error(str(error), 2)
    except RunStopped as stop:
        return _print_error(str(stop), stop.exit_code)
    return 0


def _print_error(message: str, exit_code: int) -> int:
    """Says it, with the number of the process where that is not the first of several."""
    rank = os.environ.get("RANK", "0")
    print(f"vidstill{'' if rank == '0' else f' (process {rank})'}: {message}", file=sys.stderr)
    return exit_code


def _get_version() -> str:
    try:
        return version("vidstill")
    except PackageNotFoundError:
        return "(not installed)"


def run_and_exit() -> None:
    """Runs this process's command line and ends it.

    One of several is ended without clean-up, in which it was now and then aborted after its work was done ("terminate
    called without an active exception", seen with Gloo on CPUs; leaving the process group first did not help).
    """
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
