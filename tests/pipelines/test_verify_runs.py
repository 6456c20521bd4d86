"""A flipped bit in any file of a run is noticed by `vidstill runs verify`, and by whatever reads the file."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tiny_detections import make_data as make_boxes
from tiny_detections import trained
from tiny_runs import FINETUNE, TEACHER, make_data, run, typed, weights

from vidstill.cli.main import main
from vidstill.engine.trainer import Trainer
from vidstill.pipelines.verify import verify_runs
from vidstill.utils.output_dir import forget_results

RUNS = ("pretrained", "finetuned", "interrupted", "detector")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished pre-training, fine-tuning and detector, and a pre-training that was interrupted, below `runs`."""
    folder = tmp_path_factory.mktemp("verify")
    make_data(folder / "data")
    run(TEACHER, data=folder / "data/unlabelled.txt", out=folder / "runs/pretrained")
    run(FINETUNE, data=folder / "data", out=folder / "runs/finetuned", schedule__epochs=2)
    trained(make_boxes(folder / "boxes"), folder / "runs/detector", schedule__epochs=1, schedule__warmup_epochs=0)
    with pytest.MonkeyPatch.context() as patch:
        train_step = Trainer.train_step

        def interrupt(trainer, batches):
            if trainer.completed_steps == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(trainer, batches)

        patch.setattr(Trainer, "train_step", interrupt)
        assert main(resume(folder, folder / "runs/interrupted")) == 75
    return folder


def resume(folder: Path, out: Path) -> list[str]:
    return typed(TEACHER, data=folder / "data/unlabelled.txt", out=out, keep_every=5)


def list_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def flip_bit(path: Path, bit: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    bit = 4 * len(content) if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_all_files_of_good_runs_have_checksums(folder, capsys):
    report = verify_runs(folder / "runs")
    assert report.problems == report.unverified == ()
    assert report.num_files == len(list_files(folder / "runs"))
    assert main(["runs", "verify", str(folder / "runs")]) == 0
    assert f"{report.num_files} files" in capsys.readouterr().out


@pytest.mark.survival("SIGKILL before the checksums of a finished run are written", "1→1", "same bits")
def test_a_finished_run_without_its_checksums_is_listed_by_the_same_command(folder, tmp_path):
    out = shutil.copytree(folder / "runs/pretrained", tmp_path / "pretrained")
    whole = (out / "SHA256SUMS").read_bytes()
    forget_results(out, "recipe.json")
    (out / "SHA256SUMS.part").write_bytes(whole[:100])
    run(TEACHER, data=folder / "data/unlabelled.txt", out=out)
    assert (out / "SHA256SUMS").read_bytes() == whole
    assert verify_runs(out).unverified == ()


@pytest.mark.survival("flipped bit in any file of a run, verified", "1→1", "refused with a sentence")
def test_a_hundred_flipped_bits_in_any_files_of_runs_are_noticed(folder):
    draw, noticed = random.Random(0), 0
    for number in range(100):
        directory = folder / "runs" / RUNS[number % len(RUNS)]
        path = draw.choice(list_files(directory))
        bit = draw.randrange(8 * path.stat().st_size)
        flip_bit(path, bit)
        problems = verify_runs(directory).problems  # of a list with another digest, that of the listed file
        noticed += any(path.name.removesuffix(".sha256") in each or path.name == "SHA256SUMS" for each in problems)
        flip_bit(path, bit)
    assert noticed == 100
    assert verify_runs(folder / "runs").problems == ()


def test_a_missing_file_is_a_problem_and_the_exit_code_says_so(folder, tmp_path, capsys):
    shutil.copytree(folder / "runs/finetuned", tmp_path / "run")
    (tmp_path / "run/scores.csv").unlink()
    flip_bit(tmp_path / "run/model.safetensors")
    assert main(["runs", "verify", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert ["model.safetensors is damaged" in each for each in report["problems"]] == [True, False]
    assert "scores.csv is missing" in report["problems"][1]
    assert main(["runs", "verify", str(folder / "data")]) == 2
    assert main(["runs", "verify", str(tmp_path / "none")]) == 2


def test_a_run_of_an_older_version_has_files_without_checksums(folder, tmp_path):
    shutil.copytree(folder / "runs/finetuned", tmp_path / "run")
    (tmp_path / "run/SHA256SUMS").unlink()
    report = verify_runs(tmp_path / "run")
    assert report.problems == ()
    names = {Path(path).name for path in report.unverified}
    assert {"recipe.json", "test.json"} < names
    assert not {"model.safetensors", "log.jsonl"} & names


@pytest.mark.survival("flipped bit in the newest state", "1→1", "same bits")
def test_a_damaged_state_is_left_and_the_run_ends_with_the_same_bits(folder, tmp_path, capsys):
    shutil.copytree(folder / "runs/interrupted", tmp_path / "run")
    flip_bit(max((tmp_path / "run/state").glob("*.pt")))
    assert main(resume(folder, tmp_path / "run")) == 0
    assert "is damaged" in capsys.readouterr().err
    expected = weights(folder / "runs/pretrained")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "run").items())
    assert verify_runs(tmp_path / "run").problems == ()


@pytest.mark.survival("flipped bit in recipe.json or SHA256SUMS", "1→1", "refused with a sentence")
@pytest.mark.parametrize("name", ["recipe.json", "SHA256SUMS"])
def test_a_damaged_recipe_or_list_is_refused_and_nothing_is_changed(folder, tmp_path, name, capsys):
    shutil.copytree(folder / "runs/interrupted", tmp_path / "run")
    flip_bit(tmp_path / "run" / name)
    before = {path: path.read_bytes() for path in list_files(tmp_path / "run")}
    assert main(resume(folder, tmp_path / "run")) == 2
    assert "is damaged" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in list_files(tmp_path / "run")} == before


@pytest.mark.survival("flipped bit in a run's weights, recipe or result", "1→1", "refused with a sentence")
def test_verbs_that_read_a_damaged_file_refuse_it(folder, tmp_path, capsys):
    finetune = typed(FINETUNE, data=folder / "data", out=tmp_path / "run", schedule__epochs=2)
    video = next((folder / "data/val").rglob("*.mp4"))
    commands = {
        "model.safetensors": [
            ["embed", str(tmp_path / "run"), str(video), "--out", str(tmp_path / "a.npz")],
            ["evaluate", str(tmp_path / "run"), "--data", str(folder / "data")],
            finetune,
        ],
        "recipe.json": [["evaluate", str(tmp_path / "run"), "--data", str(folder / "data")], finetune],
        "test.json": [finetune],
    }
    shutil.copytree(folder / "runs/finetuned", tmp_path / "run")
    for name, each in commands.items():
        flip_bit(tmp_path / "run" / name)
        for command in each:
            assert main(command) == 2, command
            assert f"{name} is damaged" in capsys.readouterr().err
        flip_bit(tmp_path / "run" / name)
    assert not (tmp_path / "a.npz").exists()
