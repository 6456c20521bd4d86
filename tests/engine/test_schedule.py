import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.engine.lr_schedule import CosineConfig, compute_cosine_lr, plan_training
from vidstill.engine.optimizer import AdamWConfig
from vidstill.utils.types import InputError

OPTIM = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5)
GROUPS = {"group_clips": 16, "group_option": "--option"}
steps = st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))).filter(lambda s: s[1] < s[0])


@given(steps)
def test_videomae_s_warm_up_starts_at_zero_and_gives_the_peak_twice(steps):
    total, warmup = steps
    rates = [
        compute_cosine_lr(i, peak_lr=0.3, min_lr=0.01, cosine_steps=total, warmup_steps=warmup) for i in range(total)
    ]
    assert rates[0] == 0
    assert rates[warmup - 1] == rates[warmup] == 0.3
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0.01 < rate <= 0.3 for rate in rates[warmup:])


@given(steps)
def test_mae_s_warm_up_starts_at_zero_and_gives_the_peak_once(steps):
    total, warmup = steps
    rates = [
        compute_cosine_lr(i, peak_lr=0.3, min_lr=0.01, cosine_steps=total, warmup_steps=warmup, warmup_rule="mae")
        for i in range(total)
    ]
    assert rates[0] == 0
    assert [step for step, rate in enumerate(rates) if rate == max(rates)] == [warmup]
    assert rates[warmup] == 0.3
    assert rates[:warmup] == pytest.approx([0.3 * step / warmup for step in range(warmup)])


@given(steps, st.floats(0, 1), st.sampled_from(["videomae", "mae"]))
def test_a_warm_up_rises_straight_from_where_it_starts_to_the_peak(steps, start, rule):
    total, warmup = steps
    last = warmup - 1 if rule == "videomae" else warmup
    asked = {
        "peak_lr": 0.3,
        "min_lr": 0.01,
        "cosine_steps": total,
        "warmup_steps": warmup,
        "start_lr": start,
        "warmup_rule": rule,
    }
    rates = [compute_cosine_lr(i, **asked) for i in range(last + 1)]
    assert rates[0] == start
    assert rates[-1] == 0.3
    assert [b - a for a, b in itertools.pairwise(rates)] == pytest.approx([(0.3 - start) / last] * last)


@given(steps)
def test_after_the_warm_up_both_rules_have_the_same_rates(steps):
    total, warmup = steps
    asked = {"peak_lr": 0.3, "min_lr": 0.01, "cosine_steps": total, "warmup_steps": warmup}
    for step in range(warmup, total):
        assert compute_cosine_lr(step, **asked, warmup_rule="mae") == compute_cosine_lr(
            step, **asked, warmup_rule="videomae"
        )


def test_a_warm_up_of_one_step_starts_where_it_is_told_to():
    for rule in ("videomae", "mae"):
        assert (
            compute_cosine_lr(
                0, peak_lr=0.3, min_lr=0.0, cosine_steps=9, warmup_steps=1, start_lr=0.1, warmup_rule=rule
            )
            == 0.1
        )


def test_a_run_with_another_warm_up_is_another_run():
    asked = {"num_videos": 64, "batch": 16}
    cosine = CosineConfig(epochs=4, warmup_epochs=2)
    ours = plan_training(optim=OPTIM, schedule=cosine, **asked).get_identity()
    for optim, schedule in [
        (OPTIM, dataclasses.replace(cosine, warmup_rule="mae")),
        (dataclasses.replace(OPTIM, start_lr=1e-6), cosine),
    ]:
        assert plan_training(optim=optim, schedule=schedule, **asked).get_identity() != ours


@given(st.integers(1, 50))
def test_a_constant_schedule_stays_constant(total):
    rates = [compute_cosine_lr(i, peak_lr=0.05, min_lr=0.05, cosine_steps=total, warmup_steps=0) for i in range(total)]
    assert rates == pytest.approx([0.05] * total)


def test_a_span_longer_than_the_training_gives_the_first_part_of_the_longer_schedule():
    asked = {"num_videos": 64, "batch": 16, "optim": OPTIM}
    short = plan_training(schedule=CosineConfig(epochs=8, warmup_epochs=2, cosine_epochs=9), **asked)
    long = plan_training(schedule=CosineConfig(epochs=9, warmup_epochs=2), **asked)
    assert [short.compute_lr(i) for i in range(short.total_steps)] == [
        long.compute_lr(i) for i in range(short.total_steps)
    ]
    assert short.total_steps == 8 * 4


def test_a_plan_s_rates_go_from_the_first_over_the_peak_towards_the_last():
    optim = dataclasses.replace(OPTIM, start_lr=1e-6)
    plan = plan_training(
        num_videos=64, batch=16, optim=optim, schedule=CosineConfig(epochs=3, warmup_epochs=1, warmup_rule="mae")
    )
    assert (
        (plan.compute_lr(0), plan.compute_lr(4))
        == (plan.start_lr, plan.peak_lr)
        == pytest.approx((1e-6 / 16, 1.5e-4 / 16))
    )
    assert plan.peak_lr > plan.compute_lr(8) > plan.compute_lr(11) > plan.min_lr == pytest.approx(1e-5 / 16)


def test_warm_up_steps_take_the_place_of_warm_up_epochs():
    schedule = CosineConfig(epochs=4, warmup_epochs=2, warmup_steps=5)
    assert plan_training(num_videos=64, batch=16, optim=OPTIM, schedule=schedule).warmup_steps == 5


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 8))
def test_processes_and_accumulation_change_neither_steps_nor_rates(world, per_process, repeats, at_once):
    batch = world * per_process * repeats
    asked = {"num_videos": 1000, "batch": batch, "repeats": repeats, "optim": OPTIM, "schedule": CosineConfig(epochs=3)}
    alone = plan_training(**asked)
    plan = plan_training(**asked, world_size=world, device_batch=at_once * repeats)
    assert plan.get_identity() == alone.get_identity()
    assert (
        plan.world_size * plan.accumulation_steps * plan.videos_per_microbatch
        == plan.videos_per_step
        == batch // repeats
    )
    assert plan.videos_per_microbatch <= at_once


def test_copies_of_a_video_count_for_the_rate_only_where_clips_are_counted():
    asked = {"num_videos": 1000, "batch": 512, "repeats": 4, "schedule": CosineConfig(epochs=1)}
    assert plan_training(**asked, optim=OPTIM).peak_lr == pytest.approx(1.5e-4 * 128 / 256)
    by_clip = plan_training(**asked, optim=dataclasses.replace(OPTIM, lr_scaling="clips"))
    assert by_clip.peak_lr == pytest.approx(1.5e-4 * 2)
    assert by_clip.min_lr == pytest.approx(1e-5 * 2)


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ({"batch": 6, "repeats": 4}, "multiple of 4, such as 4"),
        ({"batch": 9, "world_size": 2}, "multiple of 2, such as 8"),
        ({"batch": 0}, "multiple of 1"),
        ({"batch": 200, "repeats": 2, "num_videos": 99}, "at most 198 clips"),
        ({"batch": 2, "num_videos": 1, "world_size": 2}, "add videos"),
        ({"batch": 8, "repeats": 4, "device_batch": 2}, "cannot hold the 4 copies"),
        (
            {"batch": 64, "device_batch": 8, **GROUPS},
            "8 clips at once .* groups of 16; give a divisor of them as --option",
        ),
        ({"batch": 24, **GROUPS}, "24 clips at once on a device do not divide into groups of 16"),
        ({"batch": 8, "world_size": 2, **GROUPS}, "4 clips at once on a device do not divide into groups of 8"),
        ({"batch": 8, "schedule": CosineConfig(epochs=2, warmup_epochs=2)}, "warm up for less"),
        ({"batch": 8, "schedule": CosineConfig(epochs=0)}, "train longer"),
        ({"batch": 8, "schedule": CosineConfig(epochs=5, cosine_epochs=4)}, "train longer"),
    ],
)
def test_a_plan_that_cannot_be_made_says_how_to_mend_it(asked, mend):
    with pytest.raises(InputError, match=mend):
        plan_training(**{"num_videos": 1000, "optim": OPTIM, "schedule": CosineConfig(epochs=2)} | asked)


@pytest.mark.parametrize(
    ("batch", "world_size", "device_batch", "microbatch"),
    [(96, 1, 40, 32), (96, 2, None, 48), (64, 4, 100, 16), (8, 1, None, 8)],
)
def test_a_microbatch_holds_whole_groups(batch, world_size, device_batch, microbatch):
    plan = plan_training(
        num_videos=1000, batch=batch, optim=OPTIM, schedule=CosineConfig(epochs=2), world_size=world_size,
        device_batch=device_batch, **GROUPS,
    )  # fmt: skip
    assert plan.videos_per_microbatch == microbatch


def test_a_plan_is_printed_in_plain_terms():
    plan = plan_training(
        num_videos=1000,
        batch=96,
        optim=OPTIM,
        schedule=CosineConfig(epochs=2, warmup_epochs=1),
        world_size=3,
        device_batch=16,
    )
    assert "3 processes × 2 accumulation steps × 16 clips" in str(plan)
    assert "peak learning rate 5.62e-05 after 10 warm-up steps, then cosine to 3.75e-06" in str(plan)
