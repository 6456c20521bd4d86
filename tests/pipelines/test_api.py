"""vidstill's functions: the command line's verbs with plain arguments, the same defaults, and the same runs."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from tiny_runs import make_data

import vidstill
from vidstill.cli.data import data_make_command
from vidstill.cli.detect import detect_evaluate_command, detect_predict_command, detect_train_command
from vidstill.cli.infer import embed_command, predict_command
from vidstill.cli.probe import probe_all_command
from vidstill.cli.train import evaluate_command, finetune_command, pretrain_command, quickstart_command

FUNCTIONS = [name for name in dir(vidstill) if name != "InputError"]
VERB_OF: dict[str, Callable[..., None]] = {
    "make_clips": data_make_command,
    "pretrain": pretrain_command,
    "finetune": finetune_command,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "embed": embed_command,
    "probe": probe_all_command,
    "train_detector": detect_train_command,
    "evaluate_detector": detect_evaluate_command,
    "detect": detect_predict_command,
    "quickstart": quickstart_command,
}
TERMINAL = {"json", "csv", "out", "plot", "annotate", "topk", "min_action_score"}
"""What is printed or drawn: from Python, what the function returns takes its place."""
RENAMED = {"source": "model", "sources": "model"}


def list_options(command: Callable[..., None]) -> dict[str, Any]:
    """The options of a verb with their defaults, those of its configs included."""
    options: dict[str, Any] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        config_type = get_args(hints[name])[0] if get_origin(hints[name]) is Annotated else hints[name]
        if name in ("recipe", "changes", "notes"):
            continue
        if is_dataclass(config_type):
            for field in fields(config_type):
                options[field.name] = field.default
        else:
            options[name] = None if name == "init" else parameter.default
    return options


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_docstring_and_typed_arguments_that_it_explains(name: str) -> None:
    function = getattr(vidstill, name)
    signature, text = inspect.signature(function), inspect.getdoc(function) or ""
    assert text.partition("\n")[0].endswith(".")
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        assert len(signature.parameters) == 1 or re.search(rf"^    {parameter.name}: \S", text, re.MULTILINE), parameter
    assert signature.return_annotation is not inspect.Signature.empty
    explained = re.findall(r"^    (\w+): ", text.partition("Args:")[2].partition("\n\n")[0], re.MULTILINE)
    assert set(explained) <= set(signature.parameters)


@pytest.mark.parametrize("name", VERB_OF)
def test_a_function_has_the_options_of_its_verb_and_their_defaults(name: str) -> None:
    parameters = inspect.signature(getattr(vidstill, name)).parameters
    options = {RENAMED.get(option, option): default for option, default in list_options(VERB_OF[name]).items()}
    assert set(options) - set(parameters) <= TERMINAL
    assert set(parameters) - set(options) <= {"recipe", "changes"}
    for option in set(options) & set(parameters) - {"out"}:  # from Python, a run directory has the recipe's name too
        default = options[option]
        expected = inspect.Parameter.empty if default is MISSING else default
        given = parameters[option].default
        assert (str(given) if isinstance(expected, Path) else given) == (
            str(expected) if isinstance(expected, Path) else expected
        ), option


def test_dir_lists_the_functions_and_nothing_else() -> None:
    assert set(VERB_OF) | {"load_classifier", "load_encoder", "load_detector"} <= set(FUNCTIONS)
    assert not [name for name in dir(vidstill) if name.startswith("_") or inspect.ismodule(getattr(vidstill, name))]


# ---- Runs -----------------------------------------------------------------------------------------------------------

MACHINE: Mapping[str, Any] = {"workers": 0, "precision": "fp32"}
CLIPS = {"clips.size": (16, 16), "clips.sampling.num_frames": 4, "batch": 8, "schedule.epochs": 2}
ENCODER = {"dim": 24, "depth": 2, "heads": 2, "tubelet": (2, 4, 4), "positions": "sinusoid"}
DECODER = {"dim": 16, "depth": 1, "heads": 2, "positions": "sinusoid"}
PRETRAIN = {
    **CLIPS,
    **{f"method.encoder.{name}": value for name, value in ENCODER.items()},
    **{f"method.decoder.{name}": value for name, value in DECODER.items()},
    "schedule.warmup_epochs": 1,
}
FINETUNE = {
    **CLIPS,
    **{f"encoder.{name}": value for name, value in ENCODER.items()},
    "views.size": (16, 16),
    "views.short_side": 16,
    "views.sampling.num_frames": 4,
    "schedule.warmup_epochs": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    make_data(folder / "clips")
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Path:
    out = folder / "encoder"
    data = folder / "clips" / "unlabelled.txt"
    return vidstill.pretrain("quickstart.teacher", data=data, out=out, changes=PRETRAIN, **MACHINE)


@pytest.fixture(scope="module")
def classifier(folder: Path, encoder: Path) -> Any:
    out = folder / "classifier"
    recipe = vidstill.open_recipe("quickstart.finetune")
    return vidstill.finetune(recipe, data=folder / "clips", init=encoder, out=out, changes=FINETUNE, **MACHINE)


def read_steps(out: Path) -> list[str]:
    return (out / "log.jsonl").read_text().splitlines()


def test_the_same_call_again_returns_the_finished_run(folder: Path, encoder: Path) -> None:
    before = read_steps(encoder)
    data = str(folder / "clips" / "unlabelled.txt")
    again = vidstill.pretrain("quickstart.teacher", data=data, out=str(encoder), changes=PRETRAIN, **MACHINE)
    assert again == encoder == folder / "encoder"
    assert read_steps(encoder) == before
