"""Validation: which epoch's weights a run leaves, when it ends, and that a kill at any moment changes neither."""

import json
import math
import os
import signal
import tempfile
from pathlib import Path

import engine_toy
import pytest
import torch
from engine_toy import Toy, first_bias, toy_plan
from fresh_programs import run_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import STEPS, PowerCut, act_at, cut_power, get_weights, load_weights, read_log, train

from vidstill.engine.checkpoint import load_state
from vidstill.engine.interruption import RunInterrupted
from vidstill.engine.validation import Validation, ValidationHistory

EPOCH = STEPS // 4  # steps
SCORES = [0.1, 0.3, 0.2, 0.2]
scores = st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan]), min_size=4, max_size=4)


class Scorer:
    """Gives a run these scores, and records epochs and weights; `act` is called with each epoch."""

    def __init__(self, scores: list[float], act=lambda epoch: None):
        self.scores, self.act, self.task = scores, act, Toy()
        self.weights: dict[int, list] = {}

    def __call__(self, epoch: int) -> dict[str, float]:
        self.weights[epoch] = get_weights(self.task)
        self.task.eval()  # as an evaluation leaves it
        self.act(epoch)
        return {"top1": self.scores[epoch - 1], "other": -epoch}


def run(folder: Path, scorer: Scorer, patience: int | None, *, keep_best: bool = True, **settings):
    validation = Validation(score_epoch=scorer, metric="top1", keep_best=keep_best, patience=patience)
    return train(folder, task=scorer.task, validation=validation, **settings)


def read_scores(folder: Path) -> list:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line.get("loss"), line.get("validation")) for line in lines]


def assert_same_run(trainer, expected) -> None:
    assert trainer.completed_steps == expected.completed_steps
    assert trainer.validation_history.best == expected.validation_history.best
    assert get_weights(trainer.task) == get_weights(expected.task)
    assert str(read_scores(trainer.run_dir)) == str(read_scores(expected.run_dir))  # NaN is not equal to itself


def select_epoch(scores: list[float], patience: float) -> tuple[int, int]:
    """Return the best epoch, the last of equal ones, and how many there are, by the documented rule."""
    best, improvement, highest = 0, 0, -math.inf
    for epoch, score in enumerate(scores, 1):
        if score > highest:
            improvement, highest = epoch, score
        if score == highest:
            best = epoch
        if epoch - improvement >= patience:
            return best, epoch
    return best, len(scores)


@settings(deadline=None, max_examples=6)
@given(scores, st.integers(1, 4) | st.none())
def test_run_ends_after_its_patience_with_the_weights_of_the_best_epoch(scores, patience):
    best, last = select_epoch(scores, patience or math.inf)
    scorer = Scorer(scores)
    with tempfile.TemporaryDirectory() as folder:
        trainer = run(Path(folder), scorer, patience)
    assert list(scorer.weights) == list(range(1, last + 1))
    assert trainer.completed_steps == last * EPOCH
    assert trainer.validation_history.best == ((best, scores[best - 1]) if best else None)
    assert get_weights(trainer.task) == scorer.weights[best or last]


@settings(deadline=None, max_examples=5)
@given(scores, st.integers(1, 3) | st.none(), st.integers(0, STEPS - 1), st.integers(1, 7))
@pytest.mark.survival("SIGKILL, simulated, at any step of a run with validation and early stopping", "1→1", "same bits")
def test_power_cut_at_any_step_changes_nothing(scores, patience, step, save_steps):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cut:
        whole = run(Path(folder), Scorer(scores), patience)
        if step < whole.completed_steps:
            with pytest.raises(PowerCut):
                run(Path(cut), Scorer(scores), patience, batches=act_at(step), save_steps=save_steps)
        assert_same_run(run(Path(cut), Scorer(scores), patience, save_steps=save_steps), whole)


@pytest.mark.parametrize(("epoch", "has_signal"), [(1, False), (3, False), (4, False), (2, True), (4, True)])
@pytest.mark.survival("SIGKILL, simulated, during validation", "1→1", "same bits")
@pytest.mark.survival("SIGTERM during validation", "1→1", "same bits")
def test_power_cut_or_signal_during_validation_changes_nothing(tmp_path, epoch, has_signal):
    """The scores of an interrupted validation are discarded: a worker's death may have changed them."""
    whole, scorer = run(tmp_path / "whole", Scorer(SCORES), 3), Scorer(SCORES)

    def act(now: int) -> None:
        if now == epoch and has_signal:
            os.kill(os.getpid(), signal.SIGTERM)
            scorer.scores = [9.0] * 4
        elif now == epoch:
            cut_power()

    scorer.act = act
    error, message = (RunInterrupted, f"after step {epoch * EPOCH}") if has_signal else (PowerCut, "")
    with pytest.raises(error, match=message):
        run(tmp_path / "cut", scorer, 3, save_steps=None if has_signal else 1)
    assert_same_run(run(tmp_path / "cut", rest := Scorer(SCORES), 3), whole)
    assert next(iter(rest.weights)) == epoch


def test_validation_that_fails_loses_no_step(tmp_path):
    def act(epoch: int) -> None:
        raise ValueError("no server answers")

    with pytest.raises(ValueError, match="no server answers"):
        run(tmp_path, Scorer(SCORES, act), 2, save_steps=None)
    assert load_state(tmp_path / "state")["progress"]["completed_steps"] == EPOCH


def test_finished_run_keeps_its_best_epoch_and_scores_nothing_again(tmp_path):
    first = run(tmp_path, Scorer(SCORES), 2)
    assert first.validation_history.best == (2, 0.3)
    assert_same_run(run(tmp_path, scorer := Scorer([0.0] * 4), 2), first)
    assert not scorer.weights
    state = load_state(tmp_path / "state")
    entries = {"run", "precision", "threads", "progress", "task", "optimizer", "ema", "scaler", "validation"}
    assert set(state) == entries | {"losses", "log"}


def test_scores_are_logged_and_the_last_weights_remain_if_the_best_are_not_kept(tmp_path, capsys):
    plain = train(tmp_path / "plain")
    trainer = run(tmp_path / "scored", scorer := Scorer([30.0, 10.0, 10.0, 10.0]), None, keep_best=False)
    assert list(scorer.weights) == [1, 2, 3, 4]
    assert not trainer.validation_history.best_weights
    assert get_weights(trainer.task) == get_weights(plain.task)
    lines = read_scores(tmp_path / "scored")
    assert [line[2]["top1"] for line in lines if line[2]] == [30, 10, 10, 10]
    assert [list(line[:2]) for line in lines if not line[2]] == read_log(tmp_path / "plain", "step", "loss")
    assert "validation top1: epoch 1 30.0, 2 10.0, 3 10.0, 4 10.0; best 30.0 at epoch 1\n" in capsys.readouterr().err


def test_curve_of_many_epochs_is_one_line_from_the_first_to_the_last():
    history = ValidationHistory(scores=[float(epoch) for epoch in range(1, 100)] + [math.nan])
    line = history.summarize("mean_average_precision")
    assert line.startswith("validation mAP: epoch 1 1.0, ")
    assert line.endswith(", 100 nan; best 99.0 at epoch 99")
    assert len(line) < 120
    assert ValidationHistory(scores=[math.nan]).summarize("top1").endswith("epoch 1 nan; no epoch has a score")


def test_a_run_in_which_no_epoch_has_a_score_keeps_the_last_weights(tmp_path):
    trainer = run(tmp_path / "scored", Scorer([math.nan] * 4), None)
    assert get_weights(trainer.task) == get_weights(train(tmp_path / "plain").task)


def test_two_processes_select_the_epoch_that_one_selects(tmp_path):
    task = Toy()
    validation = Validation(score_epoch=lambda epoch: first_bias(task), metric="bias", keep_best=True, patience=1)
    one = train(tmp_path / "one", task=task, plan=toy_plan(at_once=4), validation=validation)
    printed = tmp_path / "printed.txt"
    assert run_ranks(engine_toy.main, [str(tmp_path / "two"), "--patience", "1"], printed=printed) == [0, 0]
    epoch, score = one.validation_history.best
    assert f"best {score:.1f} at epoch {epoch}, whose weights are kept" in printed.read_text()
    weights = load_weights(tmp_path / "two")
    for name, tensor in one.task.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)
