"""A run goes on from one of its states with other settings: recorded, so that its own command goes on with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_detections
import torch
from tiny_runs import FINETUNE, TEACHER, about, interrupt, log, make_data, run, typed, weights

import vidstill
from vidstill.cli.main import main
from vidstill.pipelines import forks, run_dir
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.recipes.run_file import Fork, find_run
from vidstill.recipes.sources import open_recipe
from vidstill.utils.types import InputError

SHORT = {"schedule__epochs": 3, "save_seconds": 0}  # 6 steps of pre-training, 3 of fine-tuning
SLOWER = "--resume-with optim.base_lr=0.01"


class PowerCut(BaseException):
    """Ends the process without any chance to write."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `data` and the finished run `teacher`, all of whose states remain."""
    folder = tmp_path_factory.mktemp("forks")
    make_data(folder / "data")
    run(" ".join(teacher(folder, folder / "teacher", keep_every=1)))
    return folder


@pytest.fixture(scope="module")
def forked(folder, tmp_path_factory):
    """That run, which went on from its step 2 with a lower learning rate."""
    out = copy(folder / "teacher", tmp_path_factory.mktemp("forked") / "teacher")
    run(f"{' '.join(teacher(folder, out))} --resume-from 2 {SLOWER}")
    return out


def teacher(folder: Path, out: Path, **options: Any) -> list[str]:
    return typed(TEACHER, data=folder / "data/unlabelled.txt", out=out, **SHORT, **options)


def copy(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def list_forks(out: Path) -> list[tuple[int, dict[str, Any]]]:
    file = find_run(out)
    assert file is not None
    assert not any(fork.is_pending for fork in file.forks)
    return [(fork.step, dict(fork.changes)) for fork in file.forks]


def list_contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def same_ends(one: Path, other: Path) -> None:
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())
    assert log(one) == log(other)


# ---- A fork ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_step_with_another_learning_rate(folder, forked):
    before, after = log(folder / "teacher"), log(forked)
    assert after[:2] == before[:2]
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5, 6]
    assert (before[2]["lr"], after[2]["lr"]) == pytest.approx((0.1 * 8 / 256, 0.01 * 8 / 256))
    assert after[2]["loss"] == before[2]["loss"]  # of the same weights and the same samples
    assert after[3]["loss"] != before[3]["loss"]


def test_the_run_tells_its_forks(folder, forked, capsys):
    changes = [{"step": 2, "changes": {"optim.base_lr": 0.01}}]
    assert list_forks(forked) == [(2, {"optim.base_lr": 0.01})]
    assert about(forked)["forks"] == changes
    assert about(forked)["recipe"]["optim"]["base_lr"] == 0.01
    recipe = open_recipe(str(forked))
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.optim.base_lr == 0.01
    assert main(["recipes", "--show", str(forked)]) == 0
    assert "the run went on from step 2 with optim.base_lr=0.01" in capsys.readouterr().out
    assert main(["recipes", "--show", str(forked), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forks"] == changes


def test_what_the_run_had_been_is_a_run_of_its_own(folder, forked, capsys):
    same_ends(forked / "forks/1", folder / "teacher")
    before, after = (json.loads((out / "recipe.json").read_text()) for out in (folder / "teacher", forked / "forks/1"))
    assert before == after
    assert main(teacher(folder, forked / "forks/1")) == 0
    assert "holds the finished run" in capsys.readouterr().err


@pytest.mark.parametrize("again", ["", SLOWER, f"--resume-from 2 {SLOWER}", "--optim.base-lr 0.01"])
def test_the_same_command_with_or_without_the_change_leaves_the_finished_fork(folder, forked, again, capsys):
    before = list_contents(forked)
    run(f"{' '.join(teacher(folder, forked))} {again}")
    assert "holds the finished run; nothing is trained" in capsys.readouterr().err
    assert list_contents(forked) == before


def test_the_runs_own_command_goes_on_with_the_fork(folder, forked, tmp_path, monkeypatch, capsys):
    out = tmp_path / "teacher"
    interrupt(teacher(folder, out), monkeypatch)
    interrupt([*teacher(folder, out), *SLOWER.split()], monkeypatch, step=4)
    assert "goes on from step 2 with optim.base_lr=0.01" in capsys.readouterr().err
    run(" ".join(teacher(folder, out)))
    assert "fork: from step 2 with optim.base_lr=0.01" in capsys.readouterr().err
    same_ends(out, forked)


@pytest.mark.survival("SIGKILL while a fork is made", "1→1", "same bits")
@pytest.mark.parametrize(
    ("name", "call", "is_before", "again"),
    [
        ("write_run", 1, False, ""),
        ("set_aside", 1, True, SLOWER),
        ("set_aside", 1, False, ""),
        ("write_run", 2, False, SLOWER),
    ],
)
def test_a_kill_while_a_fork_is_made_loses_nothing(folder, forked, tmp_path, monkeypatch, name, call, is_before, again):
    out = copy(folder / "teacher", tmp_path / "teacher")
    function, calls = getattr(run_dir, name), []

    def write(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call and is_before:
            raise PowerCut
        result = function(*args)
        if len(calls) == call:
            raise PowerCut
        return result

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, name, write)
        with pytest.raises(PowerCut):
            main([*teacher(folder, out), "--resume-from", "2", *SLOWER.split()])
    run(f"{' '.join(teacher(folder, out))} {again}")
    assert list_forks(out) == [(2, {"optim.base_lr": 0.01})]
    same_ends(out, forked)


def test_a_run_goes_back_to_a_step_with_the_same_settings(folder, tmp_path):
    out = copy(folder / "teacher", tmp_path / "teacher")
    (out / "model.safetensors").unlink()
    for _ in range(2):  # the second time there is nothing to do
        run(f"{' '.join(teacher(folder, out))} --resume-from 4")
    assert list_forks(out) == [(4, {})]
    same_ends(out, folder / "teacher")


def test_a_second_fork_adds_to_the_first(folder, forked, tmp_path):
    out = copy(forked, tmp_path / "teacher")
    run(f"{' '.join(teacher(folder, out))} --resume-with precision=bf16 optim.weight_decay=0.5 --resume-from 5")
    assert list_forks(out)[1] == (5, {"precision": "bf16", "optim.weight_decay": 0.5})
    recipe = open_recipe(str(out))
    assert isinstance(recipe, PretrainRecipe)
    assert (recipe.optim.base_lr, recipe.optim.weight_decay) == (0.01, 0.5)
    assert log(out)[:5] == log(forked)[:5]
    state = torch.load(sorted((out / "state").glob("*.pt"))[-1], weights_only=True)
    assert state["precision"] == "bf16"
    run(" ".join(teacher(folder, out)))  # typed with --precision fp32, it leaves the finished fork


def test_the_advice_of_a_run_that_has_failed_can_be_followed_in_its_directory(folder, tmp_path, capsys):
    out, wild = tmp_path / "teacher", {"schedule__epochs": 12, "save_seconds": 0, "optim__base_lr": 1e30}
    command = typed(TEACHER, data=folder / "data/unlabelled.txt", out=out, **wild)
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert "run the same command with --resume-with optim.base_lr=1e+29" in printed
    run(f"{' '.join(command)} --resume-from 1 --resume-with optim.base_lr=0.1")
    assert len(log(out)) == 24


# ---- A finished run --------------------------------------------------------------------------------------------------


def test_a_finished_run_is_trained_longer(folder, tmp_path, capsys):
    out = copy(folder / "teacher", tmp_path / "teacher")
    run(f"{' '.join(teacher(folder, out))} --resume-with schedule.epochs=4")
    assert log(out)[:6] == log(folder / "teacher")
    assert [line["step"] for line in log(out)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert about(out)["forks"] == [{"step": 6, "changes": {"schedule.epochs": 4}}]
    assert (out / "forks/1/model.safetensors").is_file()


def test_a_finished_classifier_is_trained_longer_from_python_and_tested_again(folder, tmp_path):
    command, out = typed(FINETUNE, data=folder / "data", **SHORT, patience=2), tmp_path / "finetune"
    run(" ".join(command), out=out)
    first = vidstill.finetune(str(out), data=folder / "data", out=out, workers=0, precision="fp32", save_seconds=0.0)
    changes = {"schedule.epochs": 5, "patience": 10}
    for _ in range(2):
        longer = vidstill.finetune(
            str(out), data=folder / "data", out=out, workers=0, precision="fp32", save_seconds=0.0, resume_with=changes
        )
    assert len(log(out)) == 5
    assert list_forks(out) == [(3, changes)]
    assert json.loads((out / "forks/1/test.json").read_text()) == first.metrics
    assert json.loads((out / "test.json").read_text()) == longer.metrics
    run(" ".join(command), out=out)
    assert len(log(out)) == 5


def test_a_finished_detector_is_trained_longer(tmp_path):
    data = tiny_detections.make_data(tmp_path / "data")
    out = tiny_detections.trained(data, tmp_path / "out", schedule__epochs=2)
    steps = len(log(out))
    tiny_detections.trained(data, out, schedule__epochs=2, resume_with="schedule.epochs=3")
    assert len(log(out)) == steps * 3 // 2
    assert (out / "forks/1/test.json").is_file()


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--resume-with batch=4", "batch cannot change in the middle of a run; optim.* can"),
        ("--resume-with method.mask.ratio=0.5", "method.mask.ratio cannot change in the middle of a run"),
        ("--resume-with optim=sgd", "optim cannot change in the middle of a run"),
        ("--resume-with optim.layer_decay=0.5", "optim.layer_decay cannot change in the middle of a run"),
        ("--resume-with optim.base-lrr=1", "--optim.base-lrr is not an option of AdamWConfig"),
        ("--resume-with optim.base_lr", "--resume-with optim.base_lr changes nothing; give KEY=VALUE"),
        ("--resume-with optim.base_lr=fast", "--optim.base-lr is 'fast'; it must be of type float"),
        ("--resume-with precision=fp8", "precision=fp8 is none of bf16, fp16, fp32"),
        ("--resume-with patience=3", "--patience is not an option of PretrainRecipe"),
        ("--resume-with schedule.epochs=1", "before the state of step 6 that it goes on from; give more epochs"),
        ("--resume-from 7", "holds no state of step 7, but of 1, 2, 3, 4, 5, 6"),
        ("--batch 4", "other settings (recipe.batch is 8, here it is 4)"),
        ("--optim.base-lr 0.01", "choose another directory, or change it with --resume-with optim.base_lr=…"),
    ],
)
def test_what_cannot_change_is_refused_in_one_sentence_and_nothing_is_written(folder, words, sentence, capsys):
    before = list_contents(folder / "teacher")
    assert main([*teacher(folder, folder / "teacher"), *words.split()]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vidstill: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert list_contents(folder / "teacher") == before


def test_there_must_be_a_run_with_a_state(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "teacher"
    assert main([*teacher(folder, out), *SLOWER.split()]) == 2
    assert "holds no run that could go on with other settings" in capsys.readouterr().err
    assert not out.exists()


def test_patience_needs_the_weights_of_the_best_epoch(tmp_path):
    recipe = open_recipe("quickstart.finetune")
    run_dir.write_run(tmp_path, {"recipe": {}})
    with pytest.raises(InputError, match="needs the best epoch's weights"):
        forks.plan_forks(tmp_path, recipe, forks.ForkRequest(None, {"patience": 3}))


def test_folds_are_resumed_one_by_one(tmp_path):
    with pytest.raises(InputError, match="are for one run; give --fold 1 --out"):
        vidstill.finetune("quickstart.finetune", data=tmp_path, out=tmp_path, fold="all", resume_from=3)


def test_a_fork_is_told_in_words():
    assert (
        str(Fork(3, {"optim.base_lr": 0.1, "precision": "fp32"}))
        == "from step 3 with optim.base_lr=0.1, precision=fp32"
    )
    assert str(Fork(3, {})) == "from step 3 with the same settings"
