"""The loop: what a step is, what is skipped, what is logged."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import engine_toy
import pytest
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from fresh_programs import run_ranks
from tiny_runs import AMD, TEACHER, make_data, run
from torch import nn
from toy_runs import STEPS, PowerCut, act_at, get_weights, load_weights, read_log, train

import vidstill
from vidstill.engine import step_reader
from vidstill.engine.checkpoint import load_state
from vidstill.engine.distributed import Runtime
from vidstill.engine.interruption import RunStopped
from vidstill.engine.trainer import Trainer
from vidstill.engine.validation import Validation
from vidstill.utils.types import Output

PACKAGE = str(Path(vidstill.__file__).parent)


def poisoned_batches(*steps: int, plan=None, runtime=None):
    return toy_batches(plan or toy_plan(), runtime or Runtime("fp32"), poison=steps)


def test_the_loss_falls(tmp_path):
    train(tmp_path, plan=toy_plan(epochs=20), task=Toy(drop=0.0))
    losses = [loss for (loss,) in read_log(tmp_path, "loss")]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


@pytest.mark.survival("NaN in the loss of one of two ranks", "2→2", "same samples, loss within 1e-5")
def test_two_processes_are_one_process_that_accumulates_twice(tmp_path):
    options = ["--epochs", "2", "--poison", "6"]  # not finite in one of the two only: skipped in both
    assert run_ranks(engine_toy.main, [str(tmp_path / "two"), *options]) == [0, 0]
    plan = toy_plan(epochs=2, at_once=4)
    one = train(tmp_path / "one", plan=plan, batches=poisoned_batches(6, plan=plan))
    logs = [read_log(tmp_path / n, "loss", "grad_norm") for n in ("two", "one")]
    assert one.steps.skipped_steps == 1
    assert len(logs[0]) == 10
    assert logs[0][6] == logs[1][6] == [None, None]
    losses, expected = (torch.tensor(numbers[:6] + numbers[7:]) for numbers in logs)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    weights = load_weights(tmp_path / "two")
    for name, tensor in one.task.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)


def test_parameters_are_listed_once_a_run_and_not_in_each_step(tmp_path):
    counts = []
    for epochs in (2, 4):
        task = Toy()
        task.named_modules = Mock(wraps=task.named_modules)
        train(tmp_path / str(epochs), plan=toy_plan(epochs=epochs), task=task, save_steps=None)
        counts.append(task.named_modules.call_count)
    assert counts[0] == counts[1] > 0


def test_accumulation_changes_no_loss(tmp_path):
    for at_once in (2, 8):
        train(tmp_path / str(at_once), task=Toy(drop=0.0), plan=toy_plan(at_once=at_once))
    whole, accumulated = (torch.tensor(read_log(tmp_path / n, "loss", "grad_norm")) for n in ("8", "2"))
    torch.testing.assert_close(accumulated, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [8, 4])
def test_nonfinite_step_changes_nothing_and_is_counted(tmp_path, at_once):
    plan = toy_plan(at_once=at_once)
    weights = []

    class RecordingToy(Toy):
        def forward(self, clip, label):
            weights.append(get_weights(self))
            return super().forward(clip, label)

    trainer = train(tmp_path, task=RecordingToy(), plan=plan, batches=poisoned_batches(3, 9, plan=plan))
    assert trainer.steps.skipped_steps == 2
    skipped = [line for line in read_log(tmp_path, "step", "loss", "is_skipped") if line[2]]
    assert skipped == [[4, None, True], [10, None, True]]
    first = weights[:: plan.accumulation_steps]
    assert [n for n in range(1, len(first)) if first[n] == first[n - 1]] == [1, 4, 10]  # 1: a warm-up starts at 0
    assert all(tensor.isfinite().all() for tensor in trainer.task.state_dict().values())


@pytest.mark.parametrize("steps", [(2, 5, 6, 7), (5, 6, 7)])
@pytest.mark.survival("NaN in the losses of consecutive steps", "1→1", "refused with a sentence")
def test_consecutive_nonfinite_steps_stop_the_run_and_are_counted_across_a_resume(tmp_path, steps):
    for _ in range(2):
        with pytest.raises(RunStopped, match=r"3 consecutive steps, up to step 8 .* the state of step 5 remains"):
            train(tmp_path, batches=poisoned_batches(*steps), max_nonfinite_steps=3)
        assert len(read_log(tmp_path, "step")) == 8


class ScalingRuntime(Runtime):
    """Scales losses as fp16 needs it, on any device."""

    def set_precision(self, precision):
        super().set_precision(precision)
        self.scaler = torch.amp.GradScaler(self.device.type)


def test_search_for_a_loss_scale_skips_steps_but_stops_no_run(tmp_path):
    task, runtime, plan = Toy(), ScalingRuntime("fp32"), toy_plan()
    for parameter in task.parameters():  # overflows where fp16 does
        parameter.register_hook(lambda grad: torch.where(grad.abs() > 65504 / 4, torch.inf, grad))
    settings = {"plan": plan, "optim": OPTIM, "runtime": runtime, "seed": 0}
    trainer = Trainer(task, toy_batches(plan, runtime), run_dir=tmp_path, max_nonfinite_steps=1, **settings)
    trainer.train()
    assert 1 <= trainer.steps.skipped_steps < STEPS / 2
    assert runtime.scaler.get_scale() == 2.0 ** (16 - trainer.steps.skipped_steps)
    weights, state = get_weights(task), load_state(tmp_path / "state")
    assert state["scaler"]["scale"] == runtime.scaler.get_scale()
    resumed = Trainer(task, toy_batches(plan, runtime), run_dir=tmp_path, **settings)
    resumed.train()
    assert resumed.steps.skipped_steps == trainer.steps.skipped_steps
    assert runtime.scaler.get_scale() == state["scaler"]["scale"]
    assert get_weights(task) == weights
    batches = poisoned_batches(3, 4, runtime=runtime)
    with pytest.raises(RunStopped, match="2 consecutive steps"):
        Trainer(Toy(), batches, run_dir=tmp_path / "nan", max_nonfinite_steps=2, **settings).train()


def test_each_epoch_is_validated_once_even_if_the_run_is_resumed(tmp_path):
    epochs = []

    def validate(epoch: int) -> dict[str, float]:
        epochs.append(epoch)
        return {"top1": epoch / 10}

    with pytest.raises(PowerCut):
        train(tmp_path, batches=act_at(7), validation=Validation(score_epoch=validate, metric="top1"))
    train(tmp_path, validation=Validation(score_epoch=validate, metric="top1"))
    assert epochs == [1, 2, 3, 4]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [(line["step"], line["validation"]["top1"]) for line in lines if "validation" in line]
    assert scores == [(5, 0.1), (10, 0.2), (15, 0.3), (20, 0.4)]


def test_task_is_given_the_progress_before_each_step_and_again_after_a_resume(tmp_path):
    progress = []

    class RecordingToy(Toy):
        def begin_step(self, share):
            super().begin_step(share)
            progress.append(share)

    plan = toy_plan(at_once=4)
    with pytest.raises(PowerCut):
        train(tmp_path, task=RecordingToy(), plan=plan, batches=act_at(7, plan=plan))
    train(tmp_path, task=RecordingToy(), plan=plan)
    assert plan.accumulation_steps == 2
    assert progress == [step / STEPS for step in (*range(8), *range(7, STEPS))]


def test_task_need_not_have_begin_step(tmp_path):
    class PlainTask(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6))

        def forward(self, clip, label):
            return Output((clip @ self.weight - label).square().mean())

    assert train(tmp_path, task=PlainTask()).completed_steps == STEPS


class DistilledToy(Toy):
    """Keeps its teacher out of its state, as methods do."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(6, 1).requires_grad_(False)
        self.register_state_dict_post_hook(DistilledToy._remove_teacher)

    @staticmethod
    def _remove_teacher(module, state, prefix, _):
        for name in [name for name in state if name.startswith(prefix + "teacher.")]:
            del state[name]

    def forward(self, clip, label):
        return super().forward(clip, self.teacher(clip)[:, 0])


def test_frozen_teacher_is_neither_trained_nor_saved(tmp_path):
    task = DistilledToy()
    before = task.teacher.weight.clone()
    with pytest.raises(PowerCut):
        train(tmp_path, task=task, batches=act_at(9))
    assert not [name for name in load_state(tmp_path / "state")["task"] if "teacher" in name]
    assert torch.equal(train(tmp_path, task=DistilledToy()).task.teacher.weight, before)


def test_log_states_the_time_of_waiting_for_data(tmp_path):
    plan = toy_plan(epochs=2, batch=43)
    train(tmp_path, plan=plan, batches=toy_batches(plan, Runtime("fp32"), slow=0.05))
    for data, step, speed in read_log(tmp_path, "data_seconds", "step_seconds", "clips_per_second"):
        assert 0.05 <= data <= step
        assert speed == pytest.approx(43 / step)


def test_log_states_the_share_of_the_matrix_products_that_were_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(step_reader, "_get_matmul_limit", lambda device, dtype: 5000.0)
    train(tmp_path, plan=toy_plan(epochs=2), flops_per_clip=7)
    for mfu, speed in read_log(tmp_path, "mfu", "clips_per_second"):
        assert mfu == pytest.approx(7 * speed / 5000)


def test_batches_that_end_too_early_are_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="the batches ended at step 0 of 20"):
        train(tmp_path, batches=lambda start: iter(()))


def test_parts_are_logged_as_the_mean_over_the_microbatches(tmp_path):
    class TwoPartToy(Toy):
        def forward(self, clip, label):
            loss = super().forward(clip, label).loss
            return Output(loss, {"mean": clip.mean(), "same": loss.detach()})

    train(tmp_path, task=TwoPartToy(), plan=toy_plan(at_once=2))
    for step, loss, parts in read_log(tmp_path, "step", "loss", "parts"):
        clips = torch.randn(8, 6, generator=torch.Generator().manual_seed(step - 1))
        assert parts["same"] == pytest.approx(loss)
        assert parts["mean"] == pytest.approx(clips.mean().item(), abs=1e-6)


def test_pretraining_reaches_its_optimizer_step_through_at_most_7_frames_and_logs_its_share_of_the_limit(
    tmp_path, monkeypatch
):
    data, stacks = make_data(tmp_path / "data") / "unlabelled.txt", []
    run(TEACHER, data=data, out=tmp_path / "teacher", schedule__epochs=2)
    step = torch.optim.AdamW.step

    def record(self, *args, **kwargs):
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                names.append(frame.f_code.co_qualname)
            frame = frame.f_back
        stacks.append(names[::-1])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    run(AMD, data=data, out=tmp_path / "amd", method__teacher__checkpoint=tmp_path / "teacher", schedule__epochs=2)
    assert stacks
    assert stacks[0][0] == "main"
    assert all(len(names) <= 7 for names in stacks), stacks[0]
    for mfu, data_wait in read_log(tmp_path / "amd", "mfu", "data_wait"):
        assert 0 < mfu < 1
        assert 0 < data_wait < 1
