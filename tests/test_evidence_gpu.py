"""scripts/evidence_gpu.py at toy size: killed and run again it gives the same; its plan fits 12 minutes and 4 GiB."""

import importlib
import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from fresh_programs import start_fresh
from paths import SCRIPTS

from vidstill.engine.checkpoint import list_states
from vidstill.engine.distributed import Runtime
from vidstill.utils.types import InputError

TRAININGS = ["teacher", "videomae", "dmae", "amd"]
FINETUNINGS = [f"{name}_{labels}" for name in ("scratch", *TRAININGS) for labels in ("few", "many")]


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("evidence_gpu")


def compare(out: Path, deadly: str = "", number: int = 0, training: str = "") -> None:
    """Run the comparison in a process that saves each step, and kills itself in the n-th call of a function.

    Args:
        training: A state of it is awaited before.
    """
    sys.path.insert(0, str(SCRIPTS))
    script = importlib.import_module("evidence_gpu")
    script.SAVE_SECONDS = 0.0
    if deadly:
        function, calls = getattr(script, deadly), []

        def call(*args):
            calls.append(args)
            if len(calls) == number:
                while not list_states(out / training / "state"):
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        setattr(script, deadly, call)
    script.run(out, toy=True)


def end(out: Path, *deadly: object) -> int:
    process = start_fresh(compare, out, *deadly, printed=out.parent / "printed.txt")
    process.join()
    return process.exitcode


def read_losses(out: Path) -> dict[str, list]:
    logs = {path.parent.name: path.read_text().splitlines() for path in out.glob("*/log.jsonl")}
    records = {name: [json.loads(line) for line in lines] for name, lines in logs.items()}
    return {name: [(each["step"], each["loss"], each["grad_norm"]) for each in log] for name, log in records.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "whole"
    assert end(out) == 0
    return out


def test_a_comparison_that_is_killed_and_run_again_is_the_uninterrupted_one(script, uninterrupted, tmp_path):
    out = tmp_path / "killed"
    assert end(out, "draw_clips", 5, "teacher") == -signal.SIGKILL
    killed = {path.name for path in out.iterdir()}
    assert "teacher" in killed
    assert "videomae" not in killed
    crops = script.TOY.finetune_steps
    assert end(out, "crop_clips", 3 * crops + 3, "videomae_many") == -signal.SIGKILL
    assert list_states(out / "videomae_many" / "state")
    assert not (out / "table.md").exists()
    assert end(out) == 0
    assert read_losses(out) == read_losses(uninterrupted)
    assert "resuming after step" in (tmp_path / "printed.txt").read_text()
    for name in ("predictions.json", "table.md"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_every_model_is_trained_and_tested_on_all_test_clips(script, uninterrupted):
    steps = {name: len(log) for name, log in read_losses(uninterrupted).items()}
    assert sorted(steps) == sorted([*TRAININGS, *FINETUNINGS])
    assert {steps[name] for name in ("videomae", "dmae", "amd")} == {script.TOY.student_steps}
    predictions = json.loads((uninterrupted / "predictions.json").read_text())
    assert len(predictions) == 15
    assert {len(each) for each in predictions.values()} == {script.TOY.test}
    rows = (uninterrupted / "table.md").read_text().splitlines()[2:]
    assert [row.split()[1] for row in rows] == list(script.MODELS)


def test_students_learn_from_the_teacher_and_each_encoder_is_fine_tuned(script, tmp_path, monkeypatch):
    tasks, starts = {}, {}

    def train(self, task, *settings):
        tasks[settings[-1]] = task
        starts[settings[-1]] = {name: tensor.clone() for name, tensor in task.state_dict().items()}
        with torch.no_grad():
            for parameter in task.parameters():
                parameter += len(tasks)

    monkeypatch.setattr(script.Comparison, "train", train)
    script.Comparison(script.TOY, tmp_path, 0, Runtime("fp32")).run()
    for name in TRAININGS:
        weights = tasks[name].encoder.state_dict()
        for labels in ("few", "many"):
            start = starts[f"{name}_{labels}"]
            assert start["model.encoder.patch_embed.weight"].equal(weights["patch_embed.weight"])
            assert start["model.encoder.blocks.1.mlp.fc2.weight"].equal(weights["blocks.1.mlp.fc2.weight"])
    assert tasks["dmae"].teacher.model is tasks["amd"].teacher.model is tasks["teacher"].encoder


def test_another_run_is_refused_and_nothing_is_changed(script, uninterrupted):
    before = (uninterrupted / "comparison.json").read_bytes()
    with pytest.raises(InputError, match="seed is 0, here it is 1"):
        script.run(uninterrupted, seed=1, toy=True)
    assert (uninterrupted / "comparison.json").read_bytes() == before


def test_a_table_has_the_binomial_interval(script):
    right = [number % 8 for number in range(400)]
    half = [label if number % 2 else (label + 1) % 8 for number, label in enumerate(right)]
    predictions = {f"{model} {measure}": half for model in script.MODELS for measure in script.MEASURES}
    table = script.format_table(predictions | {"amd probe": right})
    assert "50.0 ± 4.9" in table  # 1.96 · sqrt(0.5 · 0.5 / 400)
    assert re.search(r"\| amd +\| 100.0 ± 0.0 \|", table)


def test_no_two_splits_or_runs_share_a_clip(script):
    setup = script.Setup()
    counts = {"labelled": setup.many, "test": setup.test, "unlabelled": setup.teacher_steps * setup.batch}
    seeds = [script.list_seeds(split, 0, count) for split, count in counts.items()]
    seeds.append(script.list_seeds("unlabelled", 0, counts["unlabelled"], 1))
    assert len(torch.cat(seeds).unique()) == sum(map(len, seeds))
    later = script.list_seeds("unlabelled", 100 * setup.batch, setup.batch)
    assert later.equal(seeds[2][100 * setup.batch :][: setup.batch])


def test_a_crop_is_a_part_of_the_clip_and_the_same_of_all_frames(script):
    ramp = (torch.arange(32) + 0.5) / 32
    clips = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])
    crops = script.crop_clips(clips[None, :, None].repeat(6, 1, 4, 1, 1), torch.arange(6))
    assert crops.equal(crops[:, :, :1].expand_as(crops))
    steps = crops[:, 0, 0, :, 2:-2].diff(dim=-1) * 32  # the share of the side; at the border pixels are repeated
    assert steps.amax() <= 1 + 1e-3
    assert steps.amin() >= 0.8**0.5 - 1e-3
    assert torch.allclose(crops[:, 1, 0, 2:-2].diff(dim=-2) * 32, steps[:, :1, :1], atol=1e-3)
    assert crops[:, 0].mean(dim=(1, 2, 3)).std() > 0


def test_the_plan_takes_no_more_than_twelve_minutes(script, capsys):
    script.plan()
    minutes = re.search(r"([\d.]+) minutes", capsys.readouterr().out)
    assert 8 < float(minutes[1]) < 12


def draw_and_measure(number: int, path: Path) -> None:
    sys.path.insert(0, str(SCRIPTS))
    script = importlib.import_module("evidence_gpu")
    setup, seeds = script.Setup(), script.list_seeds("test", 0, number)
    script.draw_clips(["left"], seeds[:1], 2, (16, 16))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    script.draw_clips(["left"] * number, seeds, setup.frames, setup.size)
    path.write_text(str(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))


def test_a_batch_is_drawn_in_less_than_four_gigabytes(script, tmp_path):
    process = start_fresh(draw_and_measure, 8, tmp_path / "bytes")
    process.join()
    measured = int((tmp_path / "bytes").read_text())
    assert 8 * 3 * 16 * 112**2 < measured < 4 * 2**30 * 8 / script.Setup().batch
