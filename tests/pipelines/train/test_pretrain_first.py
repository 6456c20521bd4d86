"""`finetune auto --pretrain-first`: on the user's clips without labels, from the chosen start, resumed after a kill."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from fresh_programs import FreshProgram
from PIL import Image
from refused_runs import contents, refuses
from shipped_encoders import AUTO, CLIPS, DATA, ship, write_blind_encoder
from tiny_runs import about, log, make_data, run, typed, wait_for_log, weights

from vidstill.checkpoints import shipped
from vidstill.cli.main import main
from vidstill.pipelines.train import starts
from vidstill.recipes.auto import defaults

UNLABELLED = f"made:unlabelled=8,{CLIPS},seed=5"  # a step of 32 clips in each epoch
SHORT = "--schedule.epochs 2"
COMMAND = f"{AUTO} {SHORT} --init scratch --pretrain-first {UNLABELLED}"


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch) -> None:
    monkeypatch.setattr(defaults, "PRETRAINING_EPOCHS", (2, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "data")


def read_sources(run_dir: Path) -> dict:
    sources = json.loads((run_dir / "recipe.json").read_text())["sources"]
    return {role: each["source"] for role, each in sources.items()}


def test_the_encoder_is_pretrained_in_a_subdirectory_and_the_fine_tuning_starts_from_it(tmp_path, capsys):
    out = tmp_path / "run"
    run(COMMAND, out=out)
    printed = capsys.readouterr().err
    assert "here are 8 without and 48 with labels" in printed
    assert read_sources(out) == {"init": str(out / "pretraining")}
    assert read_sources(out / "pretraining") == {}
    pretraining = about(out / "pretraining")
    assert pretraining["encoder"] == about(out)["encoder"]
    assert pretraining["recipe"]["clips"]["size"] == [32, 32]
    assert pretraining["recipe"]["clips"]["flip_probability"] == 0  # a class is called left
    before = weights(out)
    (out / "model.safetensors").unlink()
    (out / "test.json").unlink()
    run(COMMAND, out=out)
    assert "pretrain:" not in capsys.readouterr().err
    assert all(tensor.equal(before[name]) for name, tensor in weights(out).items())
    run(COMMAND, out=out)
    refuses(capsys, typed(f"{AUTO} {SHORT} --init scratch", out=out), "init is ")


def test_a_pretraining_that_is_killed_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "PRETRAINING_EPOCHS", (5, 100))  # as in the killed process
    command, killed = f"{COMMAND} --save-seconds 0", tmp_path / "killed"
    program = FreshProgram(typed(command, out=killed), tmp_path / "printed.txt")
    wait_for_log(killed / "pretraining", "\n", 10, alive=program.is_alive)
    assert program.kill() == -signal.SIGKILL
    assert not (killed / "recipe.json").exists()
    assert not (killed / "pretraining" / "model.safetensors").exists()
    run(command, out=killed)
    run(command, out=tmp_path / "whole")
    for name in ("pretraining", ""):
        expected = weights(tmp_path / "whole" / name)
        assert all(tensor.equal(expected[key]) for key, tensor in weights(killed / name).items())
    assert log(killed / "pretraining") == log(tmp_path / "whole" / "pretraining")


def test_it_goes_on_from_the_start_that_was_decided(tmp_path, monkeypatch, capsys):
    ship(tmp_path / "assets", monkeypatch, student=None)
    monkeypatch.setattr(starts, "_compare_starts", lambda *_: (shipped.STUDENT, "for a reason", []))
    out = tmp_path / "run"
    run(f"{AUTO} {SHORT} --pretrain-first {UNLABELLED}", out=out)
    assert "finetune: for a reason" in capsys.readouterr().err
    assert read_sources(out / "pretraining") == {"init": shipped.STUDENT}
    assert about(out)["encoder"]["dim"] == about(out / "pretraining")["encoder"]["dim"] == 48
    assert read_sources(out) == {"init": str(out / "pretraining")}


def test_a_given_start_is_pretrained_too(tmp_path):
    write_blind_encoder(tmp_path / "blind.safetensors")
    command = COMMAND.replace("scratch", str(tmp_path / "blind.safetensors"))
    run(command, out=tmp_path / "run")
    assert read_sources(tmp_path / "run" / "pretraining") == {"init": str(tmp_path / "blind.safetensors")}


def test_a_message_says_that_test_videos_are_among_those_without_labels(data, tmp_path, capsys):
    folder = shutil.copytree(data, tmp_path / "data")
    lines = [line.split()[0] for name in ("train.csv", "val.csv") for line in (folder / name).read_text().splitlines()]
    (folder / "all.txt").write_text("\n".join(lines))
    command = f"{AUTO.replace(DATA, str(folder))} {SHORT} --batch 4 --init scratch --pretrain-first {folder}/all.txt"
    run(command, out=tmp_path / "run")
    assert f"6 videos of {folder}/all.txt are test videos" in capsys.readouterr().err


def test_what_cannot_work_is_refused_and_nothing_is_written(data, tmp_path, capsys):
    for name in ("train/cat/1", "train/dog/2", "val/cat/3", "val/dog/4"):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(path)
    before = contents(tmp_path)
    images, auto = tmp_path / "images", "finetune auto --workers 0 --precision fp32"
    for options, message in [
        ({"data": images, "pretrain_first": data / "unlabelled.txt"}, "--pretrain-first is for videos, and "),
        ({"data": data, "pretrain_first": images}, "--pretrain-first needs videos, and "),
        ({"data": data, "pretrain_first": tmp_path / "nowhere"}, "nowhere does not exist"),
        ({"data": data, "pretrain_first": data, "fold": "all"}, "--pretrain-first is for one run"),
    ]:
        refuses(capsys, typed(auto, out=tmp_path / "run", **options), message)
        assert contents(tmp_path) == before


def test_a_run_without_a_pretraining_gets_none_later(tmp_path, capsys):
    out = tmp_path / "run"
    run(f"{AUTO} {SHORT} --init scratch", out=out)
    refuses(capsys, typed(COMMAND, out=out), "holds a run without pre-training")


def test_other_recipes_do_not_have_the_option(tmp_path, capsys):
    options = {"data": DATA, "out": tmp_path / "run", "pretrain_first": UNLABELLED}
    assert main(typed("finetune quickstart.finetune", **options)) == 2
    assert "pretrain-first" in capsys.readouterr().err
