"""The rate of every step is the one that the authors' schedules give."""

import pytest
from reference_cases import cases

from vidstill.engine.lr_schedule import CosineConfig, LRSchedule, plan_training
from vidstill.engine.optimizer import AdamWConfig

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("case", cases(kind="table", name="schedules"))
def test_rates_are_the_table_s(case):
    tolerance = case.json["tolerance"]
    for row in case.json["rows"]:
        asked, epoch = row["settings"], row["settings"]["niter_per_ep"]
        schedule = LRSchedule(
            peak_lr=asked["base_value"],
            min_lr=asked["final_value"],
            cosine_steps=asked["epochs"] * epoch,
            warmup_steps=max(asked.get("warmup_steps", 0), 0) or asked.get("warmup_epochs", 0) * epoch,
            start_lr=asked.get("start_warmup_value", 0.0),
        )
        ours = [schedule.compute_lr(step) for step in range(row["length"])]
        assert ours == pytest.approx(row["values"], rel=tolerance["rtol"], abs=tolerance["atol"])


STEPS = 2520 * 10**6  # of an epoch: every epoch in the tables is a whole number of these


@pytest.mark.parametrize("case", cases(kind="lr_schedule"))
def test_rates_at_parts_of_epochs_are_mae_s(case):
    tolerance = case.json["tolerance"]
    for asked in case.json["schedules"]:
        final = asked["lr"] if asked.get("fixed_lr") else asked["min_lr"]
        plan = plan_training(
            num_videos=STEPS,
            batch=1,
            optim=AdamWConfig(base_lr=256 * asked["lr"], min_lr=256 * final),
            schedule=CosineConfig(epochs=asked["epochs"], warmup_epochs=asked["warmup_epochs"], warmup_rule="mae"),
        )
        points = asked.get("points") or [row[0] for row in asked["values"]]
        ours = [plan.compute_lr(round(epoch * STEPS)) for epoch in points]
        assert [round(epoch * STEPS) / STEPS for epoch in points] == pytest.approx(points, rel=0, abs=1e-12)
        for scale, theirs in columns(asked):
            scaled = [rate * scale for rate in ours]
            assert scaled == pytest.approx(theirs, rel=tolerance["rtol"], abs=tolerance["atol"])


def columns(asked):
    """The rates of a schedule's groups, each with the share of the rate that the group learns at."""
    if "lr_values" in asked:
        return [(1.0, asked["lr_values"])]
    assert asked["columns"][3] == "lr of a group with lr_scale 0.75**3"
    return [(scale, [row[place] for row in asked["values"]]) for place, scale in ((1, 1.0), (2, 1.0), (3, 0.75**3))]
