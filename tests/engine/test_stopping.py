"""Early stopping: which epoch's weights a run leaves, when it ends, and that a kill at any moment changes neither."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from engine_toy import Toy, first_bias, toy_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import PROGRAM, STEPS, PowerCut, cut_at, log, power_cut, train, weights

from vidstill.engine import checkpoint as resume
from vidstill.engine.early_stopping import Validation
from vidstill.engine.trainer import RunInterrupted, SaveConfig

EPOCH = STEPS // 4  # steps
scores = st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan]), min_size=4, max_size=4)


class Told:
    """The scores that a run is told, epoch by epoch; and the weights that it had then."""

    def __init__(self, scores: list[float], task: Toy | None = None, act=None):
        self.scores, self.task, self.act, self.asked = scores, task or Toy(), act, []
        self.had: dict[int, list] = {}

    def __call__(self, epoch: int) -> dict[str, float]:
        self.asked.append(epoch)
        self.had[epoch] = weights(self.task)
        self.task.eval()  # as a test leaves it
        if self.act:
            self.act(epoch)
        return {"top1": self.scores[epoch - 1], "other": -epoch}


def run(folder: Path, told: Told, patience: int | None, **asked):
    return train(
        folder, task=told.task, validation=Validation(score_epoch=told, metric="top1", patience=patience), **asked
    )


def expected(scores: list[float], patience: int) -> tuple[int, int]:
    """The best epoch, the last of equal ones, and how many there are, by the rule as it is said."""
    best, better, highest = 0, 0, -math.inf
    for epoch, score in enumerate(scores, 1):
        if score > highest:
            better, highest = epoch, score
        if score == highest:
            best = epoch
        if epoch - better >= patience:
            return best, epoch
    return best, len(scores)


@settings(deadline=None, max_examples=6)
@given(scores, st.integers(1, 4))
def test_a_run_ends_when_it_has_waited_and_leaves_its_best_epoch(scores, patience):
    best, last = expected(scores, patience)
    told = Told(scores)
    with tempfile.TemporaryDirectory() as folder:
        task, fitted = run(Path(folder), told, patience)
    assert told.asked == list(range(1, last + 1))
    assert fitted.steps == last * EPOCH
    assert fitted.best_epoch == (best or None)
    assert weights(task) == told.had[best or last]


@settings(deadline=None, max_examples=5)
@given(scores, st.integers(1, 3), st.integers(0, STEPS - 1), st.integers(1, 7))
def test_a_power_cut_at_any_step_changes_nothing(scores, patience, step, save_steps):
    whole, cut = Told(scores), Told(scores)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        task, fitted = run(Path(folder), whole, patience)
        save = SaveConfig(steps=save_steps)
        if step < fitted.steps:
            with pytest.raises(PowerCut):
                run(Path(other), cut, patience, batches=cut_at(step, power_cut, toy_plan()), save_config=save)
        again, other_fitted = run(Path(other), Told(scores), patience, save_config=save)
        assert (other_fitted.best_epoch, other_fitted.steps) == (fitted.best_epoch, fitted.steps)
        assert weights(again) == weights(task)
        steps = [log_lines(Path(place)) for place in (folder, other)]
        assert steps[0] == steps[1]


def log_lines(folder: Path) -> list:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line.get("loss"), line.get("validation")) for line in lines]


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_power_cut_while_an_epoch_is_scored_changes_nothing(tmp_path, epoch):
    scores = [0.1, 0.3, 0.2, 0.2]
    task, fitted = run(tmp_path / "whole", Told(scores), 3)

    def act(now: int) -> None:
        if now == epoch:
            raise PowerCut

    with pytest.raises(PowerCut):
        run(tmp_path / "cut", Told(scores, act=act), 3)
    again, other = run(tmp_path / "cut", Told(scores), 3)
    assert (other.best_epoch, other.steps) == (fitted.best_epoch, fitted.steps)
    assert weights(again) == weights(task)
    assert log_lines(tmp_path / "cut") == log_lines(tmp_path / "whole")


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_score_that_was_interrupted_is_found_again(tmp_path, epoch):
    whole, told = Told([0.1, 0.3, 0.2, 0.2]), Told([0.1, 0.3, 0.2, 0.2])
    task, fitted = run(tmp_path / "whole", whole, 3)

    def act(now: int) -> None:
        if now == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            told.scores = [9.0] * 4  # as a worker's death may change it

    told.act = act
    with pytest.raises(RunInterrupted, match=f"after step {epoch * EPOCH}"):
        run(tmp_path / "cut", told, 3, save_config=SaveConfig())
    rest = Told([0.1, 0.3, 0.2, 0.2])
    again, other = run(tmp_path / "cut", rest, 3)
    assert rest.asked[0] == epoch
    assert (other.best_epoch, other.best_score) == (fitted.best_epoch, fitted.best_score) == (2, 0.3)
    assert weights(again) == weights(task)


def test_a_test_that_fails_loses_no_step(tmp_path):
    def act(now: int) -> None:
        raise ValueError("no place answers")

    with pytest.raises(ValueError, match="no place answers"):
        run(tmp_path, Told([0.1] * 4, act=act), 2, save_config=SaveConfig())
    assert resume.load_state(tmp_path / "state")["progress"]["completed_steps"] == EPOCH


def test_a_finished_run_keeps_its_best_epoch_and_scores_nothing_again(tmp_path):
    first = Told([0.1, 0.3, 0.2, 0.2])
    task, fitted = run(tmp_path, first, 2)
    again, told = run(tmp_path, rest := Told([0.0] * 4), 2)
    assert rest.asked == []
    assert told.best_epoch == fitted.best_epoch == 2
    assert weights(again) == weights(task)


def test_without_patience_scores_are_logged_and_the_last_weights_are_left(tmp_path):
    plain, _ = train(tmp_path / "plain")
    watched, fitted = run(tmp_path / "watched", told := Told([0.3, 0.1, 0.1, 0.1]), None)
    assert told.asked == [1, 2, 3, 4]
    assert (fitted.best_epoch, fitted.best_score) == (None, None)
    assert weights(watched) == weights(plain)
    lines = log_lines(tmp_path / "watched")
    assert [line[2]["top1"] for line in lines if line[2]] == [0.3, 0.1, 0.1, 0.1]
    assert [line[:2] for line in lines if not line[2]] == [
        tuple(line) for line in log(tmp_path / "plain", "step", "loss")
    ]


def test_a_state_holds_all_that_training_changes(tmp_path):
    train(tmp_path)
    state = resume.load_state(tmp_path / "state")
    assert set(state) == {"run", "precision", "progress", "task", "optimizer", "scaler", "early_stopping"}


def test_two_processes_take_the_epoch_that_one_takes(tmp_path):
    task = Toy()
    watch = Validation(score_epoch=lambda epoch: first_bias(task), metric="bias", patience=1)
    one, fitted = train(tmp_path / "one", task=task, plan=toy_plan(at_once=4), validation=watch)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *PROGRAM[1:]]
    told = subprocess.run([*command, tmp_path / "two", "--patience", "1"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert f"selected epoch {fitted.best_epoch}" in told.stderr
    reached = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(reached[name], tensor, rtol=0, atol=1e-5)
