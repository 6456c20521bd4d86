"""The host never waits for a device in a step: what a step decides is decided there, and read one step later."""

from dataclasses import replace
from itertools import repeat

import pytest
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from tiny_models import CLASSES, ENCODER, METHODS, STMAE, built, clips
from torch import nn
from toy_runs import PowerCut, get_weights, read_log, train

from vidstill.bench.counts import count_step
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import AdamWConfig, LARSConfig, SGDConfig
from vidstill.engine.trainer import Trainer
from vidstill.methods.common.masking import FrameMask, SlotMask, SpaceMask
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.tasks.detection import BoxJitter, DetectionTask, DetectorConfig

BATCH = (clips(2), torch.tensor([0, 1]), torch.tensor([1, 2]))
OPTIMIZERS = [
    AdamWConfig(base_lr=0.1, max_grad_norm=1.0, layer_decay=0.5),
    SGDConfig(base_lr=0.1, weight_decay=0.1),
    LARSConfig(base_lr=0.1),
]


def count_reads(folder, task: nn.Module, batch, *, optim=OPTIM, precision="fp32") -> int:
    """How often the host reads a tensor in three steps, of which two are logged."""
    runtime = Runtime(precision)
    settings = {"plan": toy_plan(), "optim": optim, "runtime": runtime, "seed": 0, "ema_decay": 0.9}
    trainer, batches = Trainer(task, lambda start: iter(()), run_dir=folder, **settings), repeat(batch)
    for _ in range(2):  # host memory is allocated
        trainer.train_step(batches)
    with count_step() as counts:
        records = [trainer.train_step(batches) for _ in range(3)]
    assert [record.step for record in records] == [2, 3, 4]
    assert trainer.steps.read().step == 5
    return counts.synchronizations


@pytest.mark.parametrize("config", METHODS.values(), ids=METHODS)
def test_no_method_makes_the_host_wait(tmp_path, config):
    assert count_reads(tmp_path, built(config), BATCH) == 0


@pytest.mark.parametrize("mask", [SpaceMask(ratio=0.5), FrameMask(ratio=0.5), SlotMask(ratio=0.5)])
def test_no_mask_makes_the_host_wait(tmp_path, mask):
    assert count_reads(tmp_path, built(replace(STMAE, mask=mask)), BATCH) == 0


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fine_tuning_does_not_make_the_host_wait(tmp_path, optim, precision):
    model = ClassifierConfig(encoder=replace(ENCODER, drop_path=0.1), num_classes=CLASSES).build()
    task = ClassificationTask(
        model,
        mixup=MixupCutmix(group_clips=2),
        random_erasing=RandomErasing(),
        label_smoothing=0.1,
        mask_ratio=0.5,
        color_jitter=ColorJitter(),
    )
    assert count_reads(tmp_path, task, BATCH, optim=optim, precision=precision) == 0


def test_detection_does_not_make_the_host_wait(tmp_path):
    task = DetectionTask(
        DetectorConfig(encoder=ENCODER, num_actions=3).build(), jitter=BoxJitter(), loss_per="box", boxes_per_clip=2.0
    )
    boxes, labels = torch.tensor([[[1.0, 2.0, 9.0, 14.0], [3.0, 0.0, 6.0, 7.0]]] * 2), torch.zeros(2, 2, 3)
    batch = BATCH[0], boxes, labels, torch.ones(2, 2, dtype=torch.bool), BATCH[2]
    assert count_reads(tmp_path, task, batch) == 0


def test_a_task_that_reads_a_number_is_noticed(tmp_path):
    class CuriousToy(Toy):
        def forward(self, clip, label):
            output = super().forward(clip, label)
            output.loss.item()
            return output

    clip = torch.ones(8, 6)
    assert count_reads(tmp_path, CuriousToy(), (clip, clip.sum(1))) == 3


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("poison", [(0, 1, 9), (4,)])
def test_a_discarded_step_is_no_step_for_any_optimizer(tmp_path, optim, poison):
    """Weights, averages and the optimizer's state are those of a run that has not seen the step."""
    states, task = [], Toy(drop=0.0)
    runtime, plan = Runtime("fp32"), toy_plan()
    trainer = Trainer(
        task, lambda start: iter(()), plan=plan, optim=optim, runtime=runtime, run_dir=tmp_path, seed=0, ema_decay=0.9
    )
    batches = toy_batches(plan, runtime, poison=poison)(0)
    for _ in range(plan.total_steps):
        trainer.train_step(batches)
        numbers = [t.clone() for t in (*task.state_dict().values(), *trainer.ema.tensors.values())]
        state = trainer.optimizer.state_dict()["state"]
        numbers += [t.clone() for each in state.values() for t in each.values()]
        states.append(numbers)
    trainer.steps.read()
    assert trainer.steps.skipped_steps == len(poison)
    assert all(tensor.isfinite().all() for numbers in states for tensor in numbers)
    for step in range(1, plan.total_steps):
        is_equal = all(torch.equal(one, other) for one, other in zip(states[step - 1], states[step], strict=True))
        assert is_equal == (step in poison)


def test_a_step_is_logged_when_the_next_has_been_taken_and_the_last_one_at_the_end(tmp_path):
    lines = []

    def batches(start):
        for step, batch in enumerate(toy_batches(toy_plan(), Runtime("fp32"))(start), start):
            lines.append(len(read_log(tmp_path, "step")) if step else 0)
            yield batch

    train(tmp_path, batches=batches, save_steps=None)
    assert lines == [0, 0, *range(1, 19)]
    assert [step for (step,) in read_log(tmp_path, "step")] == list(range(1, 21))


@pytest.mark.parametrize("cut", [3, 11])
def test_a_run_that_is_cut_off_between_two_states_ends_with_the_same_weights_and_log(tmp_path, cut):
    whole = train(tmp_path / "whole", ema_decay=0.9, save_steps=None)
    batches = toy_batches(toy_plan(), Runtime("fp32"))

    def cut_off(start):
        for step, batch in enumerate(batches(start), start):
            if step == cut and not start:
                raise PowerCut
            yield batch

    with pytest.raises(PowerCut):
        train(tmp_path / "cut", batches=cut_off, ema_decay=0.9, save_steps=2)
    resumed = train(tmp_path / "cut", ema_decay=0.9, save_steps=2)
    assert resumed.start_step == cut - cut % 2
    assert get_weights(resumed.task) == get_weights(whole.task)
    names = ("step", "loss", "grad_norm", "lr")
    assert read_log(tmp_path / "cut", *names) == read_log(tmp_path / "whole", *names)
