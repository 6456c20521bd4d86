import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.engine.optim import AdamWConfig
from vidstill.engine.schedule import CosineConfig, cosine_rate, make_plan
from vidstill.types import InputError

OPTIM = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5)
steps = st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))).filter(lambda s: s[1] < s[0])


@given(steps)
def test_a_warm_up_starts_at_zero_and_gives_the_peak_twice(steps):
    total, warmup = steps
    rates = [cosine_rate(i, peak=0.3, final=0.01, steps=total, warmup=warmup) for i in range(total)]
    assert rates[0] == 0
    assert rates[warmup - 1] == rates[warmup] == 0.3
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0.01 < rate <= 0.3 for rate in rates[warmup:])


@given(st.integers(1, 50))
def test_a_constant_schedule_stays_constant(total):
    rates = [cosine_rate(i, peak=0.05, final=0.05, steps=total, warmup=0) for i in range(total)]
    assert rates == pytest.approx([0.05] * total)


def test_a_span_longer_than_the_training_gives_the_first_part_of_the_longer_schedule():
    asked = {"videos": 64, "batch": 16, "optim": OPTIM}
    short = make_plan(schedule=CosineConfig(epochs=8, warmup_epochs=2, span_epochs=9), **asked)
    long = make_plan(schedule=CosineConfig(epochs=9, warmup_epochs=2), **asked)
    assert [short.rate(i) for i in range(short.total_steps)] == [long.rate(i) for i in range(short.total_steps)]
    assert short.total_steps == 8 * 4


def test_warm_up_steps_take_the_place_of_warm_up_epochs():
    schedule = CosineConfig(epochs=4, warmup_epochs=2, warmup_steps=5)
    assert make_plan(videos=64, batch=16, optim=OPTIM, schedule=schedule).warmup_steps == 5


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 8))
def test_processes_and_accumulation_change_neither_steps_nor_rates(world, per_process, repeats, at_once):
    batch = world * per_process * repeats
    asked = {"videos": 1000, "batch": batch, "repeats": repeats, "optim": OPTIM, "schedule": CosineConfig(epochs=3)}
    alone = make_plan(**asked)
    plan = make_plan(**asked, world=world, at_once=at_once * repeats)
    assert plan.identity() == alone.identity()
    assert plan.world * plan.accumulation * plan.videos_per_chunk == plan.videos_per_step == batch // repeats
    assert plan.videos_per_chunk <= at_once


def test_copies_of_a_video_count_for_the_rate_only_where_clips_are_counted():
    asked = {"videos": 1000, "batch": 512, "repeats": 4, "schedule": CosineConfig(epochs=1)}
    assert make_plan(**asked, optim=OPTIM).peak == pytest.approx(1.5e-4 * 128 / 256)
    by_clip = make_plan(**asked, optim=dataclasses.replace(OPTIM, rate_per="clips"))
    assert by_clip.peak == pytest.approx(1.5e-4 * 2)
    assert by_clip.final == pytest.approx(1e-5 * 2)


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ({"batch": 6, "repeats": 4}, "multiple of 4, such as 4"),
        ({"batch": 9, "world": 2}, "multiple of 2, such as 8"),
        ({"batch": 0}, "multiple of 1"),
        ({"batch": 200, "repeats": 2, "videos": 99}, "at most 198 clips"),
        ({"batch": 2, "videos": 1, "world": 2}, "add videos"),
        ({"batch": 8, "repeats": 4, "at_once": 2}, "cannot hold the 4 copies"),
        ({"batch": 8, "schedule": CosineConfig(epochs=2, warmup_epochs=2)}, "warm up for less"),
        ({"batch": 8, "schedule": CosineConfig(epochs=0)}, "train longer"),
        ({"batch": 8, "schedule": CosineConfig(epochs=5, span_epochs=4)}, "train longer"),
    ],
)
def test_a_plan_that_cannot_be_made_says_how_to_mend_it(asked, mend):
    with pytest.raises(InputError, match=mend):
        make_plan(**{"videos": 1000, "optim": OPTIM, "schedule": CosineConfig(epochs=2)} | asked)
