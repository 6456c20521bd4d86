"""vidstill's functions: the command line's verbs with plain arguments, the same defaults, and the same runs."""

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
from fresh_programs import start_fresh
from paths import PROJECT
from tiny_runs import CLASSES, make_data

import vidstill
from vidstill.cli.data import data_make_command
from vidstill.cli.detect import detect_evaluate_command, detect_predict_command, detect_train_command
from vidstill.cli.infer import embed_command, predict_command
from vidstill.cli.main import main
from vidstill.cli.probe import probe_all_command
from vidstill.cli.train import evaluate_command, finetune_command, pretrain_command, quickstart_command
from vidstill.methods.common.masking import RandomMask
from vidstill.recipes.recipe import find_recipe

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
    assert set(parameters) - set(options) <= {
        "recipe",
        "changes",
        "pretrain_first",
    }  # the last one is an option of auto
    # from Python, a run directory has the recipe's name too, and settings are a mapping
    for option in set(options) & set(parameters) - {"out", "resume_with"}:
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


def test_a_users_script_of_twenty_lines_runs_as_the_page_has_it(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 20
    (tmp_path / "script.py").write_text(script)
    process = start_fresh(run_script, tmp_path / "script.py", printed=tmp_path / "printed.txt")
    process.join()
    printed = (tmp_path / "printed.txt").read_text()
    assert process.exitcode == 0, printed
    assert "holds the finished run" in printed  # the second pre-training
    test = json.loads((tmp_path / "runs" / "model" / "test.json").read_text())
    assert f"runs/model: top-1 {test['top1']:.1f} %" in printed
    assert printed.count(".mp4 [('") == 16


def run_script(path: Path) -> None:
    """As `python script.py` does in the script's directory."""
    os.chdir(path.parent)
    runpy.run_path(str(path), run_name="__main__")


def test_the_page_names_every_function() -> None:
    page = (PROJECT / "docs" / "python.md").read_text()
    assert [name for name in dir(vidstill) if f"`{name}(" not in page and f"vidstill.{name}" not in page] == []


def test_types_of_a_users_script_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install 'vidstill[dev]'")
    lines = [
        "import vidstill",
        "run = vidstill.finetune(data='clips')",
        "print(run.metrics, run.outt)",
        "vidstill.tran",
    ]
    (tmp_path / "script.py").write_text("\n".join([*lines, "vidstill.predict(run, 'clips', windw=2)", ""]))
    others = [
        f"[mypy-{name}.*]\nfollow_imports = skip" for name in ("torch", "torchvision", "numpy", "PIL")
    ]  # not ours
    (tmp_path / "mypy.ini").write_text("\n".join(["[mypy]", "follow_imports = silent", *others]))
    command = [sys.executable, "-m", "mypy", "script.py"]
    environment = {**os.environ, "MYPYPATH": str(PROJECT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    wrong = [
        line.split(":")[1] for line in done.stdout.splitlines() if line.startswith("script.py") and "error:" in line
    ]
    assert wrong == ["3", "4", "5"], done.stdout


def test_a_part_of_the_mask_is_changed_by_name_kind_or_object(folder: Path) -> None:
    """A run stores its recipe, so what was changed can be read there."""
    data, masks = folder / "clips" / "unlabelled.txt", []
    for number, changes in enumerate(
        [
            {"method.mask": "random", "method.mask.ratio": 0.5},
            {"method.mask": RandomMask(ratio=0.5)},
            {"method.mask.ratio": 0.25, "method.mask": RandomMask(ratio=0.5)},
        ]
    ):
        out = folder / f"mask{number}"
        vidstill.pretrain("quickstart.teacher", data=data, out=out, changes=PRETRAIN | changes, **MACHINE)
        masks.append(vidstill.open_recipe(str(out)).method.mask)
    assert masks == [RandomMask(ratio=0.5), RandomMask(ratio=0.5), RandomMask(ratio=0.25)]


def test_the_command_line_resumes_what_python_began(folder: Path, classifier: Any, capsys: Any) -> None:
    typed = [word for name, value in FINETUNE.items() for word in _type_option(name, value)]
    command = ["finetune", "quickstart.finetune", "--data", str(folder / "clips"), "--init", str(folder / "encoder")]
    assert main([*command, "--out", str(classifier.out), "--workers", "0", "--precision", "fp32", *typed]) == 0
    assert "holds the finished run; nothing is trained" in capsys.readouterr().err


def _type_option(name: str, value: Any) -> list[str]:
    words = value if isinstance(value, list | tuple) else [value]
    return ["--" + name.replace("_", "-"), *map(str, words)]


def test_a_fine_tuned_model_is_tested_and_asked(folder: Path, classifier: Any) -> None:
    clips = folder / "clips"
    result = vidstill.evaluate(classifier, data=clips, **MACHINE)
    assert result.metrics["top1"] == classifier.metrics["top1"]
    predictions = vidstill.predict(classifier, clips / "val", window=0.5, **MACHINE)
    best = predictions.top(1)
    for row, scores in zip(result.indices, result.scores, strict=True):
        ((name, probability),) = best[Path(result.manifest.rows.get_name(row)).name]
        assert name == CLASSES[int(scores.argmax())]
        assert probability == pytest.approx(scores.max().item(), abs=1e-5)
    assert all(video.timeline is not None for video in predictions.videos)
    embedded = vidstill.embed(classifier, [clips / "val"], out=folder / "features.npz", layers=[1], **MACHINE)
    assert (embedded.rows, embedded.shapes) == (6, {"block_1": (24,)})
    model, _ = vidstill.load_classifier(classifier)
    assert isinstance(model, torch.nn.Module)
    report = vidstill.probe(classifier, data=clips, probes=["knn"], k=[1], **MACHINE)
    assert [each.probe for each in report.results] == ["knn"]


TYPE = "; it must be"
VIDEOMAE = find_recipe("laptop.videomae")
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("pretrain", {"recipe": "laptop.videoma"}, "near are laptop.videomae"),
    ("pretrain", {"recipe": "laptop.finetune"}, "call vidstill.finetune"),
    ("pretrain", {"recipe": 3}, f"recipe is 3{TYPE} a path or PretrainRecipe"),
    ("pretrain", {"recipe": VIDEOMAE}, "give a run directory: out="),
    (
        "pretrain",
        {"changes": {"schedule.epoch": 1}},
        "is not an option of CosineConfig, which this recipe has; near are",
    ),
    ("pretrain", {"changes": {"shedule.epochs": 1}}, "near are schedule"),
    ("pretrain", {"changes": {"schedule.epochs": "many"}}, f"schedule.epochs is 'many'{TYPE} of type int"),
    ("pretrain", {"changes": {"schedule.epochs.x": 1}}, f"{TYPE} of type int"),
    ("pretrain", {"changes": {"schedule": 1}}, "it must hold the fields of a CosineConfig"),
    ("pretrain", {"changes": {"clips.size": 16}}, f"clips.size is 16{TYPE} a list"),
    ("pretrain", {"changes": {"method.mask": "randm"}}, "it takes random, tube"),
    ("pretrain", {"changes": {"method.mask": VIDEOMAE}}, "is a PretrainRecipe, which is not allowed"),
    ("pretrain", {"changes": {"optim.base_lr": torch.zeros(1)}}, "give a number"),
    ("pretrain", {"changes": None}, f"changes is None{TYPE} a mapping"),
    ("pretrain", {"precision": "fp8"}, f"precision is 'fp8'{TYPE} one of 'auto', 'bf16', 'fp16', 'fp32'"),
    ("pretrain", {"workers": "two"}, f"workers is 'two'{TYPE} int"),
    ("predict", {"videos": "x", "split": "test"}, f"split is 'test'{TYPE} one of 'all', 'train', 'val'"),
    ("predict", {"videos": "x", "window": "2"}, f"window is '2'{TYPE} float or None"),
    ("embed", {"videos": "x", "out": "x", "layers": 2}, f"layers is 2{TYPE} a sequence of int"),
    ("probe", {"probes": ["kn"]}, f"{TYPE} a sequence of one of 'linear', 'knn', 'attentive'"),
    ("finetune", {"fold": 4}, "fold is 4"),
    ("quickstart", {"method": "x"}, "method is 'x'"),
    ("load_encoder", {"source": None}, f"source is None{TYPE} a path"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_an_argument_that_cannot_be_used_is_an_input_error(
    name: str, arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = {"recipe": "laptop.videomae", "model": "x", "data": "x"}
    parameters = inspect.signature(getattr(vidstill, name)).parameters
    arguments = {each: value for each, value in usual.items() if each in parameters} | arguments
    with pytest.raises(vidstill.InputError, match=re.escape(message)):
        getattr(vidstill, name)(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "recipe", "run"),
    [
        (vidstill.pretrain, "quickstart.videomae", "run_pretraining"),
        (vidstill.finetune, "quickstart.finetune", "run_finetuning"),
    ],
)
def test_what_is_compiled_and_recomputed_reaches_the_run(function, recipe, run, tmp_path, monkeypatch):
    def stop(_recipe, run_config, **_options):
        assert (run_config.compile, run_config.activation_checkpointing) == ("blocks", True)
        raise vidstill.InputError("it was reached")

    monkeypatch.setattr(f"vidstill.pipelines.api.train.{run}", stop)
    with pytest.raises(vidstill.InputError, match="it was reached"):
        function(recipe, data="clips", out=tmp_path / "run", compile="blocks", activation_checkpointing=True)
