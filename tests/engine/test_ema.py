"""The average of the weights: as a plain loop computes it, resumed to the bit, scored and written beside them."""

import json
import math
import re

import pytest
import torch
from engine_toy import Toy, toy_plan
from safetensors.torch import load_file
from tiny_runs import AMD, FINETUNE, TEACHER, make_data, read_validation, run, weights
from toy_runs import STEPS, PowerCut, act_at, train

from vidstill.cli.main import main
from vidstill.engine.ema import WeightAverage
from vidstill.engine.validation import Validation


def test_average_is_that_of_a_plain_loop_in_float64():
    task = Toy()
    task.layers[0].bias.requires_grad_(False)  # a frozen parameter is not averaged
    average = WeightAverage(task, 0.9)
    expected = {name: p.detach().double() for name, p in task.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1)
    for step in range(50):
        clip = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        task(clip, clip.sum(1)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(accepted=torch.tensor(step != 7))
        if step != 7:
            expected = {
                name: 0.9 * tensor + (1 - 0.9) * task.get_parameter(name).detach().double()
                for name, tensor in expected.items()
            }
    assert average.tensors.keys() == expected.keys() != dict(task.named_parameters()).keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(average.tensors[name].double(), tensor, rtol=1e-5, atol=1e-6)


def train_with_average(folder, task, **changes):
    def score(epoch):
        return {"bias": task.layers[0].bias[0].item()}

    validation = Validation(score_epoch=score, metric="bias", keep_best=True)
    return train(folder, task=task, ema_decay=0.8, validation=validation, **changes)


def get_average(trainer):
    return {name: tensor.tolist() for name, tensor in trainer.ema.tensors.items()}


@pytest.mark.survival("SIGKILL, simulated, of a run with an average of the weights", "1→1", "same bits")
def test_killed_run_ends_with_the_same_average_and_the_same_scores(tmp_path):
    whole = train_with_average(tmp_path / "whole", Toy())
    with pytest.raises(PowerCut):
        train_with_average(tmp_path / "cut", Toy(), batches=act_at(STEPS // 2 + 2))
    resumed = train_with_average(tmp_path / "cut", Toy())
    assert resumed.start_step == STEPS // 2 + 2
    assert get_average(resumed) == get_average(whole)
    assert resumed.ema.history.scores == whole.ema.history.scores
    assert resumed.validation_history.scores == whole.validation_history.scores
    assert read_validation(tmp_path / "cut") == read_validation(tmp_path / "whole")


def test_each_has_its_own_best_epoch_and_training_is_that_without_an_average(tmp_path):
    averaged = train_with_average(tmp_path / "averaged", Toy())
    plain_task = Toy()
    validation = Validation(
        score_epoch=lambda epoch: {"bias": plain_task.layers[0].bias[0].item()}, metric="bias", keep_best=True
    )
    plain = train(tmp_path / "plain", task=plain_task, validation=validation)
    assert plain.validation_history.scores == averaged.validation_history.scores != averaged.ema.history.scores
    assert all(
        torch.equal(tensor, averaged.task.state_dict()[name]) for name, tensor in plain_task.state_dict().items()
    )
    best, score = averaged.ema.history.best
    assert averaged.ema.tensors["layers.0.bias"][0].item() == pytest.approx(score)
    lines = read_validation(tmp_path / "averaged")
    assert [line["ema_bias"] for line in lines] == averaged.ema.history.scores
    assert lines[best - 1]["ema_bias"] == max(line["ema_bias"] for line in lines)


def test_average_of_a_discarded_step_remains(tmp_path):
    plan = toy_plan(epochs=2)
    poisoned = train(tmp_path, plan=plan, ema_decay=0.9, batches=poison_all(plan), max_nonfinite_steps=99)
    initial = dict(Toy().named_parameters())
    assert all(torch.equal(tensor, initial[name]) for name, tensor in poisoned.ema.tensors.items())


def poison_all(plan):
    def batches(start):
        for _ in range(start, plan.total_steps):
            yield torch.full((8, 6), math.nan), torch.zeros(8)

    return batches


@pytest.mark.nightly  # two pre-trainings
def test_pretraining_writes_the_average_without_its_teachers_and_it_starts_others(tmp_path):
    data = make_data(tmp_path / "data")
    options = {"data": data / "unlabelled.txt", "schedule__epochs": 2, "ema_decay": 0.9}
    run(TEACHER, out=tmp_path / "teacher", **options)
    teacher = tmp_path / "teacher" / "model_ema.safetensors"
    run(AMD, out=tmp_path / "student", method__teacher__checkpoint=teacher, **options)
    for name in ("teacher", "student"):
        averaged, trained = load_file(tmp_path / name / "model_ema.safetensors"), weights(tmp_path / name)
        assert averaged.keys() == trained.keys()  # without the frozen teacher
        assert any(not torch.equal(tensor, trained[key]) for key, tensor in averaged.items())
    student = tmp_path / "student" / "model_ema.safetensors"
    run(FINETUNE, data=data, out=tmp_path / "classifier", init=student, schedule__epochs=2)


def test_a_fine_tuning_scores_and_writes_both_and_the_averaged_file_is_a_classifier(tmp_path, capsys):
    data, out = make_data(tmp_path / "data"), tmp_path / "classifier"
    run(FINETUNE, data=data, out=out, schedule__epochs=2, ema_decay=0.9, select="best")
    assert re.search(r"averaged weights +top-1 \d", capsys.readouterr().out)
    assert all({"top1", "ema_top1"} <= line.keys() for line in read_validation(out))
    result = json.loads((out / "test.json").read_text())
    assert result["ema"]["model_selection"]["metric"] == "ema_top1"
    assert result["model_selection"]["metric"] == "top1"
    for source, expected in ((out, result), (out / "model_ema.safetensors", result["ema"])):
        command = ["evaluate", str(source), "--data", str(data), "--workers", "0", "--precision", "fp32", "--json"]
        assert main(command) == 0
        name = "negative_log_likelihood"
        assert json.loads(capsys.readouterr().out)[name] == pytest.approx(expected[name], rel=1e-5)
    assert result["negative_log_likelihood"] != result["ema"]["negative_log_likelihood"]
