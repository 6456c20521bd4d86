"""The loop: what a step is, what is skipped, what is told of it."""

import json
import subprocess
import sys

import pytest
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from torch import nn
from toy_runs import PROGRAM, STEPS, PowerCut, cut_at, log, power_cut, train, weights

from vidstill.engine import checkpoint as resume
from vidstill.engine.distributed import Runtime
from vidstill.engine.early_stopping import Validation
from vidstill.engine.trainer import RunStopped, train_task
from vidstill.utils.types import Output


def test_the_loss_falls(tmp_path):
    train(tmp_path, plan=toy_plan(epochs=20), task=Toy(drop=0.0))
    losses = [loss for (loss,) in log(tmp_path, "loss")]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


def test_two_processes_are_one_process_that_accumulates_twice(tmp_path):
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *PROGRAM[1:]]
    asked = ["--epochs", "2", "--poison", "6"]  # not finite in one of the two only: skipped in both
    told = subprocess.run([*two, tmp_path / "two", *asked], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    plan = toy_plan(epochs=2, at_once=4)
    one, fitted = train(tmp_path / "one", plan=plan, batches=toy_batches(plan, Runtime("fp32"), poison=(6,)))
    both = [log(tmp_path / n, "loss", "grad_norm") for n in ("two", "one")]
    assert fitted.skipped_steps == 1
    assert len(both[0]) == 10
    assert both[0][6] == both[1][6] == [None, None]
    losses, expected = (torch.tensor(numbers[:6] + numbers[7:]) for numbers in both)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    reached = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(reached[name], tensor, rtol=0, atol=1e-5)


def test_accumulation_changes_no_loss(tmp_path):
    for at_once in (2, 8):
        train(tmp_path / str(at_once), task=Toy(drop=0.0), plan=toy_plan(at_once=at_once))
    whole, parts = (torch.tensor(log(tmp_path / n, "loss", "grad_norm")) for n in ("8", "2"))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [8, 4])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, at_once):
    plan = toy_plan(at_once=at_once)
    seen = []

    class Watched(Toy):
        def forward(self, clip, label):
            seen.append(weights(self))
            return super().forward(clip, label)

    batches = toy_batches(plan, Runtime("fp32"), poison=(3, 9))
    task, fitted = train(tmp_path, task=Watched(), plan=plan, batches=batches)
    assert fitted.skipped_steps == 2
    assert [step for step, skipped in log(tmp_path, "step", "is_skipped") if skipped] == [4, 10]
    assert [loss for loss, skipped in log(tmp_path, "loss", "is_skipped") if skipped] == [None, None]
    first = seen[:: plan.accumulation_steps]
    assert [n for n in range(1, len(first)) if first[n] == first[n - 1]] == [1, 4, 10]  # 1: a warm-up starts at rate 0
    assert all(tensor.isfinite().all() for tensor in task.state_dict().values())


def test_steps_in_a_row_that_are_not_finite_stop_the_run(tmp_path):
    batches = toy_batches(toy_plan(), Runtime("fp32"), poison=(2, 5, 6, 7))
    with pytest.raises(RunStopped, match=r"3 consecutive steps, up to step 8 .* the state of step 7 remains"):
        train(tmp_path, batches=batches, max_nonfinite_steps=3)
    assert len(log(tmp_path, "step")) == 8


def test_the_count_in_a_row_survives_a_resume(tmp_path):
    poisoned = {"max_nonfinite_steps": 3, "batches": toy_batches(toy_plan(), Runtime("fp32"), poison=(5, 6, 7))}
    with pytest.raises(RunStopped, match="up to step 8"):
        train(tmp_path, **poisoned)
    with pytest.raises(RunStopped, match="up to step 8"):
        train(tmp_path, **poisoned)


class HalfRange(Runtime):
    """Scales losses as fp16 needs it, on any device."""

    def set_precision(self, precision):
        super().set_precision(precision)
        self.scaler = torch.amp.GradScaler(self.device.type)


def test_the_search_for_a_loss_scale_skips_steps_but_stops_no_run(tmp_path):
    task, runtime, plan = Toy(), HalfRange("fp32"), toy_plan()
    for parameter in task.parameters():  # overflows where fp16 does
        parameter.register_hook(lambda grad: torch.where(grad.abs() > 65504 / 4, torch.inf, grad))
    batches = toy_batches(plan, runtime)
    asked = {"plan": plan, "optim": OPTIM, "runtime": runtime, "seed": 0}
    fitted = train_task(task, batches, run_dir=tmp_path, max_nonfinite_steps=1, **asked)
    assert 1 <= fitted.skipped_steps < STEPS / 2
    assert runtime.scaler.get_scale() == 2.0 ** (16 - fitted.skipped_steps)
    reached = weights(task)
    state = resume.load_state(tmp_path / "state")
    assert state["scaler"]["scale"] == runtime.scaler.get_scale()
    again = train_task(task, batches, run_dir=tmp_path, **asked)
    assert again.skipped_steps == fitted.skipped_steps
    assert runtime.scaler.get_scale() == state["scaler"]["scale"]
    assert weights(task) == reached
    with pytest.raises(RunStopped, match="2 consecutive steps"):
        train_task(
            Toy(), toy_batches(plan, runtime, poison=(3, 4)), run_dir=tmp_path / "nan", max_nonfinite_steps=2, **asked
        )


def test_each_epoch_is_tested_once_whatever_happens(tmp_path):
    tested = []

    def validate(epoch: int) -> dict[str, float]:
        tested.append(epoch)
        return {"top1": epoch / 10}

    with pytest.raises(PowerCut):
        train(tmp_path, batches=cut_at(7, power_cut, toy_plan()), validation=Validation(score_epoch=validate))
    train(tmp_path, validation=Validation(score_epoch=validate))
    assert tested == [1, 2, 3, 4]
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [(line["step"], line["validation"]["top1"]) for line in told if "validation" in line]
    assert found == [(5, 0.1), (10, 0.2), (15, 0.3), (20, 0.4)]


class Distilled(Toy):
    """Keeps its teacher out of its state, as methods do."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(6, 1).requires_grad_(False)
        self.register_state_dict_post_hook(Distilled._without_teacher)

    @staticmethod
    def _without_teacher(module, state, prefix, _):
        for name in [name for name in state if name.startswith(prefix + "teacher.")]:
            del state[name]

    def forward(self, clip, label):
        return super().forward(clip, self.teacher(clip)[:, 0])


def test_a_task_hears_before_each_step_how_far_the_run_has_come_and_again_after_a_resume(tmp_path):
    heard = []

    class Listening(Toy):
        def begin_step(self, progress):
            super().begin_step(progress)
            heard.append(progress)

    with pytest.raises(PowerCut):
        train(tmp_path, task=Listening(), plan=(plan := toy_plan(at_once=4)), batches=cut_at(7, power_cut, plan))
    train(tmp_path, task=Listening(), plan=plan)
    assert plan.accumulation_steps == 2
    assert heard == [step / STEPS for step in (*range(8), *range(7, STEPS))]


def test_a_task_need_not_hear_how_far_the_run_has_come(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6))

        def forward(self, clip, label):
            return Output((clip @ self.weight - label).square().mean())

    assert train(tmp_path, task=Plain())[1].steps == STEPS


def test_a_frozen_teacher_is_neither_trained_nor_saved(tmp_path):
    task = Distilled()
    before = task.teacher.weight.clone()
    with pytest.raises(PowerCut):
        train(tmp_path, task=task, batches=cut_at(9, power_cut, toy_plan()))
    assert not [name for name in resume.load_state(tmp_path / "state")["task"] if "teacher" in name]
    resumed, _ = train(tmp_path, task=Distilled())
    assert torch.equal(resumed.teacher.weight, before)


def test_the_log_tells_what_waiting_for_data_took(tmp_path):
    plan = toy_plan(epochs=2, batch=43)
    train(tmp_path, plan=plan, batches=toy_batches(plan, Runtime("fp32"), slow=0.05))
    for data, step, speed in log(tmp_path, "data_seconds", "step_seconds", "clips_per_second"):
        assert 0.05 <= data <= step
        assert speed == pytest.approx(43 / step)


def test_batches_that_end_too_early_are_said(tmp_path):
    with pytest.raises(RuntimeError, match="the batches ended at step 0 of 20"):
        train(tmp_path, batches=lambda start: iter(()))


def test_parts_are_logged_as_the_mean_over_the_chunks(tmp_path):
    class Told(Toy):
        def forward(self, clip, label):
            loss = super().forward(clip, label).loss
            return Output(loss, {"mean": clip.mean(), "same": loss.detach()})

    plan = toy_plan(at_once=2)
    train(tmp_path, task=Told(), plan=plan)
    for step, loss, parts in log(tmp_path, "step", "loss", "parts"):
        clips = torch.randn(8, 6, generator=torch.Generator().manual_seed(step - 1))
        assert parts["same"] == pytest.approx(loss)
        assert parts["mean"] == pytest.approx(clips.mean().item(), abs=1e-6)
