"""A run that fails replaces no good state, and no ordinary training is taken for one that fails."""

import json
import math
import os
import random
import signal

import pytest
import torch
from engine_toy import Toy, toy_batches, toy_plan
from toy_runs import STEPS, PowerCut, act_at, get_weights, train

from vidstill.engine.checkpoint import get_step, list_states
from vidstill.engine.distributed import Runtime
from vidstill.engine.health import LossHistory, are_finite
from vidstill.engine.interruption import RunInterrupted, RunStopped


def count_explosions(losses) -> int:
    history, explosions = LossHistory(), 0
    for loss in losses:
        explosions += history.is_exploding(loss)
        if not history.is_exploding(loss):
            history.add(loss)
    return explosions


def list_steps(folder) -> list[int]:
    return [get_step(path) for path in list_states(folder / "state")]


def fall(steps: int, start: float = 1.0, end: float = 0.01) -> list[float]:
    return [start * (end / start) ** (step / steps) for step in range(steps)]


@pytest.mark.parametrize(
    "losses",
    [
        fall(300),
        [*fall(300, 7, 1e-4), *fall(300, 7, 1e-4)],  # a warm restart back to where it began
        [*fall(300, 7, 1e-6), *([1e-6] * 9 + [10.0]) * 30],  # a hard batch now and then
        [math.exp(random.Random(n).gauss(0, 0.6)) for n in range(2000)],  # noise: a factor of 7
        [-0.9 + 0.2 * math.sin(n) for n in range(300)],  # a cosine similarity
        [math.sin(n) for n in range(300)],
        [0.0] * 300,
        [1000.0 - n for n in range(19)] + [1e5],  # too few to judge
    ],
)
def test_ordinary_training_never_explodes(losses):
    assert count_explosions(losses) == 0


@pytest.mark.parametrize("start", [fall(300), [0.5] * 50, [*fall(300), *fall(300)], [-0.9] * 50])
def test_explosion_lasts_until_the_loss_comes_back(start):
    assert count_explosions([*start, *([1e3] * 500)]) == 500
    assert count_explosions([*start, 1e3, 1e9, *start[-9:]]) == 2


def test_weights_of_all_types_must_be_finite():
    weights = [torch.ones(3), torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1e18)]
    assert are_finite(weights)
    for value in (math.nan, math.inf, -math.inf):
        assert not are_finite([*weights, torch.tensor([1.0, value])])


def spoil(plan, *steps: int, factor: float):
    """The toy's batches; the labels of these steps (from 0) are `factor` times as large."""

    def batches(start: int):
        for step, (clip, label) in enumerate(toy_batches(plan, Runtime("fp32"))(start), start):
            yield clip, label * factor if step in steps else label

    return batches


@pytest.mark.survival("NaN in the loss of some steps", "1→1", "same bits")
@pytest.mark.parametrize(("factor", "problem"), [(math.nan, "not finite in step 26"), (1e6, "far above its median")])
def test_no_state_is_saved_or_deleted_while_the_loss_explodes(tmp_path, capsys, factor, problem):
    plan = toy_plan(epochs=6)
    expected = train(tmp_path / "whole", plan=plan, batches=spoil(plan, 25, 26, 27, factor=factor))
    assert f"{problem}" in (text := capsys.readouterr().err)
    assert text.count("no state is saved, the state of step 25 remains") == 1
    steps = []

    def batches(start: int):
        for step, batch in enumerate(spoil(plan, 25, 26, 27, factor=factor)(start), start):
            if step == 28 and not start:
                steps.extend(list_steps(tmp_path / "run"))
                raise PowerCut
            yield batch

    with pytest.raises(PowerCut):
        train(tmp_path / "run", plan=plan, batches=batches)
    assert steps == [24, 25]
    trainer = train(tmp_path / "run", plan=plan, batches=batches)
    assert trainer.start_step == 25
    assert get_weights(trainer.task) == get_weights(expected.task)


@pytest.mark.survival("SIGTERM while the loss explodes", "1→1", "same bits")
def test_interruption_while_the_loss_explodes_leaves_the_last_good_state(tmp_path, capsys):
    plan = toy_plan(epochs=6)

    def batches(start: int):
        for step, batch in enumerate(spoil(plan, 25, 26, factor=1e6)(start), start):
            if step == 26 and not start:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(RunInterrupted):
        train(tmp_path, plan=plan, batches=batches)
    assert list_steps(tmp_path) == [24, 25]
    assert "is far above its median" in (text := capsys.readouterr().err)
    assert "no state is saved, the state of step 25 remains; if it stays so, lower the learning rate" in text
    trainer = train(tmp_path, plan=plan, batches=batches)
    assert (trainer.start_step, trainer.completed_steps) == (25, 30)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 30
    assert trainer.saver.losses.highest_median < 100


def test_weight_that_is_not_finite_is_never_saved_and_ends_the_run(tmp_path):
    task = Toy()

    def damage() -> None:
        task.layers[3].bias.data.fill_(math.inf)

    with pytest.raises(RunStopped, match=r"a weight is not finite after the last step; .* step 19 remains"):
        train(tmp_path, task=task, batches=act_at(STEPS - 1, damage))
    assert list_steps(tmp_path) == [18, 19]
