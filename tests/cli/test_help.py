"""Every option of every verb says what it is for, in a text of its own; a message names options that the verb has."""

import ast
import io
import itertools
import re
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
from paths import PROJECT

from vidstill.cli.main import VERBS, main

RECIPES = {
    "pretrain": (
        *("amd.small_k400", "dmae.base_in1k", "imagemae.base_in1k", "maskagain.small_k400", "mvd.small_k400"),
        *("stmae.large_k400", "videomae.base_k400"),
    ),
    "finetune": ("auto", "videomae.base_ssv2_finetune", "imagemae.base_in1k_finetune"),
    "detect train": ("laptop.detect", "amd.base_ava"),
    "bench step": ("amd.small_k400", "videomae.base_ssv2_finetune"),
}
COMMANDS = [f"{verb} {recipe}".strip() for verb in VERBS for recipe in RECIPES.get(verb, ("",))]


def read_help_texts(lines: list[str]) -> dict[str, str]:
    """Return the text of each option, without its default and its kinds."""
    texts: dict[str, list[str]] = {}
    for line in lines:
        cells = line[1:-1]  # within the box
        if re.match(r" --\S+, *$", cells):
            continue  # the next line has the same option with no-, and the text
        if option := re.match(r" (?:-h, )?(--[a-z][a-z0-9.-]+)\S*(?:.*?  +(\S.*))?", cells):
            texts[option[1]] = [option[2] or ""]
        elif texts and cells.startswith("       "):
            next(reversed(texts.values())).append(cells.strip())
    return {
        option: re.sub(r"\((default:|required|absent|chosen for|not in|repeatable).*", "", " ".join(text)).strip()
        for option, text in texts.items()
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_of_its_own(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "79")  # one column of boxes
    assert main([*command.split(), "--help"]) == 0
    texts = read_help_texts(capsys.readouterr().out.splitlines())
    assert len(texts) >= 2
    assert [option for option, text in texts.items() if not text] == []
    options = list(texts)
    neighbours = [pair for pair in itertools.pairwise(options) if texts[pair[0]] == texts[pair[1]]]
    assert neighbours == []


_LIST_SLOW_IMPORTS = """
import sys
from contextlib import redirect_stdout
from io import StringIO
from vidstill.cli.main import main
for command in sys.argv[2:]:
    with redirect_stdout(StringIO()):
        main([*command.split(), "--help"])
    print(command, *(name for name in sys.argv[1].split() if name in sys.modules), sep=",")
"""


def test_help_imports_nothing_that_takes_long_but_torch():
    names = (
        "torchvision torch._dynamo torch._inductor transformers timm tensorboard matplotlib scipy pandas onnx sklearn"
        " accelerate boto3 botocore yaml triton"
    )
    program = [sys.executable, "-c", _LIST_SLOW_IMPORTS, names, *COMMANDS]
    lines = subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines == COMMANDS


# ---- Options in messages ---------------------------------------------------------------------------------------------

_TRAINING = ("pretrain", "finetune", "detect train")
_PROBES = ("probe linear", "probe knn", "probe attentive", "probe all")
# The verbs that reach a message; each has all the options that are named there, "any": for each option, one of them.
REACHED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "bench": ("any", ("bench data", "bench step", "bench infer")),
    "checkpoints/convert.py": ("all", ("weights convert", "weights inspect")),
    # train again with another setting, or export in another format
    "checkpoints/layouts/transformers_export.py": ("any", ("pretrain", "finetune", "weights convert")),
    "checkpoints/layouts": ("all", ("weights convert",)),  # a whole command, or the option of one that is named
    "checkpoints/load.py": ("all", ("finetune",)),
    "data/manifest": ("any", ("data split", "finetune")),  # hold_out's; --fold of finetune and others
    "data/ava": ("all", ("detect train",)),
    "data/tools/inspect.py": ("all", ("data inspect",)),
    "data/tools/probe.py": ("all", ("data inspect",)),
    "data/tools/scan_report.py": ("any", ("pretrain",)),  # the next command
    "data/tools/scan.py": ("all", ("data scan",)),
    "data/tools/split.py": ("all", ("data split",)),
    "data/transforms": ("all", ("finetune",)),
    "engine/compile.py": ("any", ("finetune",)),  # --mask-ratio is a fine-tuning's
    "engine/lr_schedule.py": ("all", ("pretrain", "finetune")),
    "engine/state.py": ("all", (*_TRAINING, "probe linear")),
    "engine/trainer.py": ("all", (*_TRAINING, "probe linear")),
    "methods": ("any", ("pretrain",)),
    "models": ("any", ("pretrain",)),
    "pipelines/evaluate/detector.py": ("all", ("detect evaluate",)),
    "pipelines/export": ("all", ("weights convert",)),
    "pipelines/infer/embed": ("all", ("embed",)),
    "pipelines/infer/writers/feature": ("all", ("embed",)),
    "pipelines/infer": ("any", ("embed", "predict", "finetune", "detect boxes", "detect predict")),
    "pipelines/labeled_data.py": ("any", ("finetune", "data split")),  # data split: a whole command
    "pipelines/run_config.py": ("any", ("finetune",)),
    "pipelines/probe": ("any", _PROBES),
    "pipelines/quickstart/layout.py": ("all", ("data split",)),  # a whole command
    "pipelines/quickstart": ("all", ("quickstart",)),
    "pipelines/forks.py": ("all", _TRAINING),
    "pipelines/run_dir.py": ("all", _TRAINING),
    "pipelines/session.py": ("all", _TRAINING),
    "pipelines/train/detector.py": ("all", ("detect train",)),
    "pipelines/train/pretrain.py": ("any", ("pretrain",)),
    "pipelines/train": ("all", ("finetune",)),
    "synthetic": ("all", ("data make",)),
    "utils/files.py": ("all", ("embed", "predict", "evaluate", "weights convert")),
    "utils/journal.py": ("all", ("embed", "data scan", "data pack", "detect boxes")),
}


@pytest.fixture(scope="module")
def options_of_verbs():
    """The options of each verb, over its recipes."""
    options: dict[str, set[str]] = {verb: set() for verb in VERBS}
    for command in COMMANDS:
        with redirect_stdout(io.StringIO()) as output, pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "79")
            main([*command.split(), "--help"])
        verb = next(verb for verb in VERBS if f"{command} ".startswith(f"{verb} "))
        options[verb] |= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", output.getvalue()))
    return options


def list_named_options(path) -> set[str]:
    """Return the options in the strings of a file, docstrings left out."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    return {
        option.rstrip(".-")
        for text in texts
        if isinstance(text, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", text)
    }


def test_messages_below_the_command_line_name_options_that_the_verb_has(options_of_verbs):
    source, wrong = PROJECT / "src" / "vidstill", []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name.startswith(("cli/", "recipes/", "bench/report.py")) or not (named := list_named_options(path)):
            continue
        rule = next((rule for prefix, rule in REACHED_BY.items() if name.startswith(prefix)), None)
        quantifier, verbs = rule or ("all", ())
        combine = any if quantifier == "any" else all
        wrong += [
            (name, each)  # or the beginning of options: f"--method.{name}"
            for each in named
            if not verbs or not combine(any(f"{o}.".startswith(f"{each}.") for o in options_of_verbs[v]) for v in verbs)
        ]
    assert not wrong, "\n".join(map(str, wrong))
