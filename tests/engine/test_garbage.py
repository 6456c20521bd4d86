"""The garbage collector rests during steps, and is as it was when training ends, however it ends."""

import gc
from itertools import count

import pytest
from engine_toy import Toy, toy_batches, toy_plan
from toy_runs import PowerCut, train

from vidstill.engine.distributed import Runtime
from vidstill.engine.garbage import _INTERVAL, _WARMUP_STEPS, GarbageCollector
from vidstill.engine.validation import Validation


@pytest.fixture
def collections():
    """The generations that are collected from now on."""
    generations = []

    def record(phase, info):
        if phase == "start":
            generations.append(info["generation"])

    gc.callbacks.append(record)
    yield generations
    gc.callbacks.remove(record)


def make_cycles(number: int) -> None:
    for _ in range(number):
        cycle = []
        cycle.append(cycle)


def test_cycles_are_collected_every_hundredth_step_and_never_in_between(collections):
    with GarbageCollector() as garbage:
        for step in range(1, 2 * _INTERVAL + 2):
            make_cycles(100)
            if step == _WARMUP_STEPS + 1:
                collections.clear()
            before = len(collections)
            garbage.end_step()
            if step > _WARMUP_STEPS:
                assert len(collections) - before == (step % _INTERVAL == 0)
        assert collections == [2, 2]
    make_cycles(5000)
    assert len(collections) > 2
    assert gc.get_freeze_count() == 0


def test_validation_collects_as_always():
    with GarbageCollector() as garbage:
        for _ in range(_WARMUP_STEPS):
            garbage.end_step()
        with garbage.allow():
            assert gc.isenabled()
        assert not gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with GarbageCollector() as garbage:
            for _ in range(_INTERVAL):
                garbage.end_step()
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [PowerCut, ValueError, None])
def test_training_turns_it_off_and_leaves_it_as_it_was(tmp_path, error):
    states, numbers = [], count()

    def batches(start):
        for batch in toy_batches(toy_plan(), Runtime("fp32"))(start):
            states.append((gc.isenabled(), gc.get_freeze_count() > 0))
            if error and next(numbers) == 10:
                raise error
            yield batch

    def score(epoch):
        states.append("validated" if gc.isenabled() else "off")
        return {"top1": 1.0}

    validation = Validation(score_epoch=score, metric="top1")
    if error:
        with pytest.raises(error):
            train(tmp_path, task=Toy(), batches=batches, validation=validation)
    else:
        train(tmp_path, task=Toy(), batches=batches, validation=validation)
    assert states[:_WARMUP_STEPS] == [(True, False)] * _WARMUP_STEPS
    steps = [state for state in states[_WARMUP_STEPS:] if state != "validated"]
    assert len(steps) > 5
    assert set(steps) == {(False, True)}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
