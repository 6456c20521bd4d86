"""The command line, `vidstill VERB …`: finds the verb, imports its function, and turns errors into exit codes."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from vidstill.utils.escapes import escape_output
from vidstill.utils.signals import get_exit_code, raise_signals

VERBS = {  # what each takes and does, and its function, whose module is imported when the verb is typed
    "quickstart": ("", "distil a small model and show what that is for: table and report", "train:quickstart_command"),
    "recipes": ("[PATTERN] [--show NAME]", "list recipes; show one and its sources", "recipes:recipes_command"),
    "pretrain": ("RECIPE --data DATA", "pre-train an encoder by masking or distillation", "train:pretrain_command"),
    "finetune": ("RECIPE --data DATA", "fine-tune and test; recipe auto: fit to the data", "train:finetune_command"),
    "evaluate": ("RUN_OR_FILE --data DATA", "test a fine-tuned classifier", "train:evaluate_command"),
    "predict": ("RUN_OR_FILE VIDEO…", "classify videos, over time too; plot, annotate", "infer:predict_command"),
    "probe linear": ("RUN_OR_FILE --data DATA…", "linear probe of a frozen encoder", "probe:probe_linear_command"),
    "probe knn": ("RUN_OR_FILE --data DATA…", "k nearest neighbours on its features", "probe:probe_knn_command"),
    "probe attentive": ("RUN_OR_FILE --data DATA…", "attentive probe", "probe:probe_attentive_command"),
    "probe all": ("RUN_OR_FILE… --data DATA…", "all probes of encoders, one table", "probe:probe_all_command"),
    "embed": ("RUN_OR_FILE VIDEO… --out OUT", "write features of videos to files", "infer:embed_command"),
    "detect train": ("RECIPE --data DATA", "train and test an action detector", "detect:detect_train_command"),
    "detect evaluate": ("RUN_OR_CSV --data DATA", "AVA's mAP of a detector", "detect:detect_evaluate_command"),
    "detect boxes": ("DATA --out FILE.csv", "detect persons in key frames or videos", "detect:detect_boxes_command"),
    "detect predict": ("RUN_OR_FILE VIDEO…", "detect actions; annotate videos", "detect:detect_predict_command"),
    "data make": ("DIR", "draw synthetic clips; --boxes: with persons and actions", "data:data_make_command"),
    "data scan": ("DATA", "decode every file once; find broken and duplicate videos", "data:data_scan_command"),
    "data pack": ("DATA --out DIR", "re-encode videos into tar shards that decode fast", "data:data_pack_command"),
    "data split": ("DATA --out DIR", "train and val lists, by clip, group or directory", "data:data_split_command"),
    "data inspect": ("DATA", "classes, sizes and problems; a contact sheet", "data:data_inspect_command"),
    "data verify": ("DATA", "compare videos and packs with their checksums", "data:data_verify_command"),
    "bench step": ("RECIPE", "speed and memory of a training step, beside others", "bench:bench_step_command"),
    "bench infer": ("MODEL", "speed and memory of a classifier, beside others", "bench:bench_infer_command"),
    "bench attention": ("", "speed of the kernels of attention on this machine", "bench:bench_attention_command"),
    "bench data": ("[DATA]", "speed of decoding, augmentation and loading", "bench:bench_data_command"),
    "weights list": ("[PATTERN]", "published checkpoints: size, accuracy, licence, URL", "weights_list:list_weights"),
    "weights inspect": ("RUN_OR_FILE", "layout, model, licence and tensors of a file", "weights:inspect_weights"),
    "weights convert": ("FILE --to KIND", "convert to another layout, ONNX or torch.export", "weights:convert_weights"),
    "weights verify": ("RUN_OR_FILE…", "compare weights with their checksums", "weights:verify_weights_command"),
    "runs verify": ("DIR", "compare every file of runs with its checksum", "runs:runs_verify_command"),
    "doctor": ("", "devices, precision, decoders, disk space, versions", "doctor:doctor_command"),
}

_RESUMING_VERBS = frozenset(
    {
        *("quickstart", "pretrain", "finetune", "embed", "detect train", "detect boxes"),
        *("probe linear", "probe knn", "probe attentive", "probe all"),  # their features are cached
        *("data make", "data scan", "data pack"),
    }
)

USAGE = "\n".join(
    [
        "usage: vidstill VERB …\n",
        *(f"  {f'{verb} {arguments}':<42} {summary}" for verb, (arguments, summary, _) in VERBS.items()),
        "\nEvery verb has --help. Every field of a recipe is an option: vidstill pretrain amd.small_k400 --help.",
        "The same command again resumes a run. DATA is a directory of videos, a directory of class directories, a list",
        "of `path label`, or packed shards; a path or URL. RUN_OR_FILE is a run directory or a weights file. RECIPE is",
        "a name, a recipe of your own (FILE.py:NAME, package.module:NAME), a run directory, or a JSON file.\n",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 only if the work is done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((verb for n in (2, 1) if (verb := " ".join(arguments[:n])) in VERBS), None)
    with escape_output():
        if verb is None:
            return _print_without_verb(arguments)
        _let_threads_sleep()
        try:
            with raise_signals():
                command = _parse_command(verb, arguments[len(verb.split()) :])
                command()
                sys.stdout.flush()
            return 0
        except KeyboardInterrupt as error:
            resumable, number = verb in _RESUMING_VERBS, getattr(error, "number", signal.SIGINT)
            cause = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
            effect = "goes on where it was" if resumable else "begins anew"
            return _print_error(
                f"interrupted{cause}; the same command {effect}", get_exit_code(number, resumable=resumable)
            )
        except BrokenPipeError:  # the reader of our output has closed it, as in `vidstill recipes | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except SystemExit as exit:  # tyro has printed help (0), or an error in an option (2)
            return int(exit.code or 0)
        except Exception as error:
            message, code = _describe_error(error)
            if not message:
                raise
            return _print_error(message, code)


def _let_threads_sleep() -> None:
    """Have OpenMP's threads sleep soon while they wait; it is read when torch is imported, so it must be set before.

    By default they spin for milliseconds, in which no other process gets their core: on a busy machine, training by two
    threads then takes many times as long. To sleep at once costs a fifth on an idle machine (docs/performance.md).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ.update(GOMP_SPINCOUNT="1000", KMP_BLOCKTIME="1")  # of GNU's library (turns), and LLVM's (ms)


def _parse_command(verb: str, options: Sequence[str]) -> Callable[[], None]:
    """Import a verb's function, and read its options."""
    arguments, _, target = VERBS[verb]
    module, _, name = target.partition(":")
    function = getattr(import_module(f"vidstill.cli.{module}"), name)
    if arguments.startswith("RECIPE"):
        from vidstill.cli.recipes import parse_recipe_command

        return parse_recipe_command(function, verb, options)
    from vidstill.cli.options import parse_options

    return parse_options(function, options, f"vidstill {verb}")


def _print_without_verb(arguments: Sequence[str]) -> int:
    """Print the usage, the version, the verbs of a group, or those with similar names; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(f"vidstill {_get_version()}")
        return 0
    group = [verb for verb in VERBS if verb.startswith(f"{arguments[0]} ")]
    if group and arguments[1:2] in ([], ["-h"], ["--help"]):
        print("\n".join(f"vidstill {verb} --help" for verb in group))
        return 0
    typed = " ".join(arguments[:2]) if group else arguments[0]
    similar = get_close_matches(typed, VERBS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"the verbs are {', '.join(VERBS)}"
    return _print_error(f"there is no verb {typed!r}; {hint}", 2)


def _describe_error(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code of an error that is no bug of ours; an empty message: it is one."""
    from vidstill.utils.types import InputError

    if isinstance(error, InputError):
        return str(error), 2
    from vidstill.engine.distributed import is_lost_process
    from vidstill.engine.interruption import RunStopped

    if is_lost_process(error):
        return "another process of this run has ended, and its own message says why; the saved state remains", 1
    return (str(error), error.exit_code) if isinstance(error, RunStopped) else ("", 1)


def _print_error(message: str, exit_code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"vidstill{'' if rank == '0' else f' (rank {rank})'}: {message}", file=sys.stderr)
    return exit_code


def _get_version() -> str:
    try:
        return version("vidstill")
    except PackageNotFoundError:
        return "(not installed)"


def run_and_exit() -> None:
    """Run this process's command line and end the process.

    One of several processes ends without clean-up: with it, some were aborted after their work was done ("terminate
    called without an active exception", seen with Gloo on CPUs; leaving the process group first did not help).
    """
    try:
        code = main()
    except Exception:  # a bug: Python would print the message as it is
        with escape_output():
            traceback.print_exc()
        code = 1
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
