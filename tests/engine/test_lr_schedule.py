"""Learning rates of warm-up and cosine, and the steps and micro-batches of a training plan."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.engine.lr_schedule import CosineConfig, LRSchedule, TrainingPlan, plan_training
from vidstill.engine.optimizer import AdamWConfig
from vidstill.utils.types import InputError

OPTIM = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5)
GROUPS = {"group_clips": 16, "group_option": "--option"}
steps = st.integers(3, 60).flatmap(lambda total: st.tuples(st.just(total), st.integers(2, total - 1)))


def compute_lrs(num_steps: int, **settings) -> list[float]:
    schedule = LRSchedule(**{"peak_lr": 0.3, "min_lr": 0.01, "cosine_steps": num_steps} | settings)
    return [schedule.compute_lr(step) for step in range(num_steps)]


def build_plan(**settings) -> TrainingPlan:
    return plan_training(
        **{"num_videos": 64, "batch": 16, "optim": OPTIM, "schedule": CosineConfig(epochs=3)} | settings
    )


def test_plan_of_one_step_is_described_in_the_singular():
    plan = build_plan(num_videos=1, batch=1, schedule=CosineConfig(epochs=1))
    assert plan.describe("video").startswith("1 step (1 per epoch) of 1 clip; peak learning rate ")


@given(steps, st.sampled_from([0.0, 0.1, 1.0]))
def test_warm_up_is_linear_and_a_cosine_follows_which_is_the_same_for_both_rules(steps, start_lr):
    total, warmup = steps
    after_warmup = []
    for rule, peak in (("videomae", warmup - 1), ("mae", warmup)):
        lrs = compute_lrs(total, warmup_steps=warmup, start_lr=start_lr, warmup_rule=rule)
        assert lrs[0] == start_lr
        assert lrs[peak] == lrs[warmup] == 0.3
        rises = [b - a for a, b in itertools.pairwise(lrs[: peak + 1])]
        assert rises == pytest.approx([(0.3 - start_lr) / peak] * peak)
        after_warmup.append(lrs[warmup:])
    assert after_warmup[0] == after_warmup[1]
    cosine = [(1 + math.cos(math.pi * step / (total - warmup))) / 2 for step in range(total - warmup)]
    assert after_warmup[0] == pytest.approx([0.01 + 0.29 * share for share in cosine])


@pytest.mark.parametrize("rule", ["videomae", "mae"])
def test_warm_up_of_one_step_has_the_start_learning_rate(rule):
    assert compute_lrs(9, warmup_steps=1, start_lr=0.1, warmup_rule=rule)[0] == 0.1


@given(st.integers(1, 50))
def test_constant_schedule_stays_constant(total):
    assert compute_lrs(total, min_lr=0.3, warmup_steps=0) == pytest.approx([0.3] * total)


@pytest.mark.parametrize(
    ("before", "epochs", "after"),
    [
        ({"epochs": 100, "warmup_epochs": 5}, 1, {"warmup_epochs": 0.05}),
        ({"epochs": 100, "warmup_epochs": 5}, 50, {"warmup_epochs": 2.5}),
        ({"epochs": 100, "warmup_epochs": 5}, 200, {"warmup_epochs": 5}),
        ({"epochs": 100, "warmup_steps": 40}, 10, {"warmup_steps": 4}),
        ({"epochs": 800, "warmup_epochs": 40, "cosine_epochs": 801}, 1, {"warmup_epochs": 0.05, "cosine_epochs": 2}),
        (
            {"epochs": 800, "warmup_epochs": 40, "cosine_epochs": 801},
            1600,
            {"warmup_epochs": 40, "cosine_epochs": 1601},
        ),
    ],
)
def test_fewer_epochs_have_a_warm_up_in_proportion(before, epochs, after):
    schedule = CosineConfig(**before).with_epochs(epochs)
    assert schedule == CosineConfig(epochs=epochs, **after)
    assert build_plan(schedule=schedule).total_steps == 4 * epochs


def test_a_warm_up_may_end_within_an_epoch():
    assert build_plan(schedule=CosineConfig(epochs=3, warmup_epochs=0.5)).warmup_steps == 2
    assert build_plan(schedule=CosineConfig(epochs=3, warmup_epochs=0.05)).warmup_steps == 0


def test_a_warm_up_that_does_not_fit_is_refused_with_both_options():
    with pytest.raises(InputError, match=r"raise --schedule\.epochs, or lower --schedule\.warmup-epochs"):
        build_plan(schedule=CosineConfig(epochs=2, warmup_epochs=2))


def test_run_with_another_warm_up_is_another_run():
    cosine = CosineConfig(epochs=4, warmup_epochs=2)
    identity = build_plan(schedule=cosine).get_identity()
    assert build_plan(schedule=replace(cosine, warmup_rule="mae")).get_identity() != identity
    assert build_plan(schedule=cosine, optim=replace(OPTIM, start_lr=1e-6)).get_identity() != identity


def test_cosine_longer_than_the_training_has_the_first_part_of_the_longer_schedule():
    short = build_plan(schedule=CosineConfig(epochs=8, warmup_epochs=2, cosine_epochs=9))
    long = build_plan(schedule=CosineConfig(epochs=9, warmup_epochs=2))
    assert short.total_steps == 8 * 4
    assert [short.compute_lr(i) for i in range(32)] == [long.compute_lr(i) for i in range(32)]


def test_learning_rates_of_a_plan_go_from_the_start_over_the_peak_towards_the_minimum():
    schedule = CosineConfig(epochs=3, warmup_epochs=1, warmup_rule="mae")
    plan = build_plan(optim=replace(OPTIM, start_lr=1e-6), schedule=schedule)
    lrs = [plan.compute_lr(step) for step in range(12)]
    assert (lrs[0], lrs[4]) == (plan.start_lr, plan.peak_lr) == pytest.approx((1e-6 / 16, 1.5e-4 / 16))
    assert plan.peak_lr > lrs[8] > lrs[11] > plan.min_lr == pytest.approx(1e-5 / 16)


def test_warm_up_steps_replace_warm_up_epochs():
    assert build_plan(schedule=CosineConfig(epochs=4, warmup_epochs=2, warmup_steps=5)).warmup_steps == 5


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 8))
def test_processes_and_accumulation_change_neither_steps_nor_learning_rates(world, per_process, repeats, at_once):
    batch = world * per_process * repeats
    settings = {"num_videos": 1000, "batch": batch, "repeats": repeats}
    plan = build_plan(**settings, world_size=world, device_batch=at_once * repeats)
    assert plan.get_identity() == build_plan(**settings).get_identity()
    assert plan.videos_per_step == batch // repeats
    assert plan.world_size * plan.accumulation_steps * plan.videos_per_microbatch == plan.videos_per_step
    assert plan.videos_per_microbatch <= at_once


def test_copies_of_a_video_count_for_the_learning_rate_only_if_clips_are_counted():
    settings = {"num_videos": 1000, "batch": 512, "repeats": 4}
    assert build_plan(**settings).peak_lr == pytest.approx(1.5e-4 * 128 / 256)
    by_clip = build_plan(**settings, optim=replace(OPTIM, lr_scaling="clips"))
    assert (by_clip.peak_lr, by_clip.min_lr) == pytest.approx((1.5e-4 * 2, 1e-5 * 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 6, "repeats": 4}, "multiple of 4, such as 4"),
        ({"batch": 9, "world_size": 2}, "multiple of 2, such as 8"),
        ({"batch": 0}, "multiple of 1"),
        ({"batch": 200, "repeats": 2, "num_videos": 99}, "lower --batch to 198 clips"),
        ({"batch": 2, "num_videos": 1, "world_size": 2}, "add videos"),
        ({"batch": 8, "repeats": 4, "device_batch": 2}, "cannot hold the 4 copies"),
        (
            {"batch": 64, "device_batch": 8} | GROUPS,
            "8 clips at once .* groups of 16; give a divisor of them as --option",
        ),
        ({"batch": 24} | GROUPS, "24 clips at once on a device do not divide into groups of 16"),
        ({"batch": 8, "world_size": 2} | GROUPS, "4 clips at once on a device do not divide into groups of 8"),
        ({"batch": 8, "schedule": CosineConfig(epochs=2, warmup_epochs=2)}, "lower --schedule.warmup-epochs"),
        ({"batch": 8, "schedule": CosineConfig(epochs=0)}, "raise --schedule.epochs"),
        ({"batch": 8, "schedule": CosineConfig(epochs=5, cosine_epochs=4)}, "raise --schedule.cosine-epochs"),
    ],
)
def test_impossible_plan_is_an_error_that_says_how_to_mend_it(settings, message):
    with pytest.raises(InputError, match=message):
        build_plan(**{"num_videos": 1000} | settings)


@pytest.mark.parametrize(
    ("batch", "world_size", "device_batch", "microbatch"),
    [(96, 1, 40, 32), (96, 2, None, 48), (64, 4, 100, 16), (8, 1, None, 8)],
)
def test_microbatch_holds_whole_groups(batch, world_size, device_batch, microbatch):
    plan = build_plan(num_videos=1000, batch=batch, world_size=world_size, device_batch=device_batch, **GROUPS)
    assert plan.videos_per_microbatch == microbatch


def test_plan_is_printed_in_plain_terms():
    schedule = CosineConfig(epochs=2, warmup_epochs=1)
    plan = build_plan(num_videos=1000, batch=96, schedule=schedule, world_size=3, device_batch=16)
    assert "3 processes × 2 accumulation steps × 16 clips" in plan.describe("video")
    assert "peak learning rate 5.62e-05 after 10 warm-up steps, then cosine to 3.75e-06" in plan.describe("video")
    short = build_plan(schedule=CosineConfig(epochs=2, warmup_epochs=0.1))
    assert "8 steps (4 per epoch) of 16 clips; peak learning rate 9.37e-06 without warm-up" in short.describe("video")
    repeated = build_plan(repeats=2, device_batch=16)
    assert "(8 per epoch) of 8 videos: 16 clips; " in repeated.describe("video")
