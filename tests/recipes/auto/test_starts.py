"""Which start is taken by which answers, how long starts are compared, and the public checkpoint that is proposed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_auto import CPU, GPU, STATS, choose

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.model_zoo import list_published_checkpoints
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, TimedSampling
from vidstill.models.vit import ViTConfig
from vidstill.recipes import quickstart
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.dataset_stats import Hardware
from vidstill.recipes.auto.public import propose_public_checkpoint
from vidstill.recipes.auto.starts import can_compare, plan_comparison, rank_starts, shorten_recipe
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.config_io import to_dict
from vidstill.utils.flops import compute_model_cost


def make_checkpoint(encoder: ViTConfig) -> Checkpoint:
    recipe = {"clips": to_dict(quickstart.teacher.clips)}
    return Checkpoint({}, {"kind": "pretraining", "encoder": to_dict(encoder), "recipe": recipe}, "a file")


STARTS = {
    "student": make_checkpoint(quickstart.videomae.method.encoder),
    "teacher": make_checkpoint(quickstart.teacher.method.encoder),
}


def rank(answers: dict[str, list[float]], groups: list[int] | None = None) -> str:
    arrays = {name: np.array(each, float) for name, each in answers.items()}
    alone = np.arange(len(next(iter(answers.values()))))
    return rank_starts(arrays, alone if groups is None else np.array(groups))[0]


# ---- The decision ---------------------------------------------------------------------------------------------------


def test_a_start_is_taken_only_where_it_is_better_by_a_margin():
    scratch = [1, 0] * 20
    assert rank({"scratch": scratch, "student": scratch}) == "scratch"
    assert rank({"scratch": scratch, "student": [0] * 40}) == "scratch"
    assert rank({"scratch": scratch, "student": [*scratch[:-2], 1, 1]}) == "scratch"  # one video of 40
    assert rank({"scratch": scratch, "student": [1] * 40}) == "student"


def test_the_cheaper_start_stays_where_the_next_one_is_not_better_than_it():
    scratch, student = [0] * 40, [1] * 20 + [0] * 20
    assert rank({"scratch": scratch, "student": student, "teacher": [1] * 21 + [0] * 19}) == "student"
    assert rank({"scratch": scratch, "student": student, "teacher": [1] * 40}) == "teacher"
    assert rank({"scratch": scratch, "student": scratch, "teacher": student}) == "teacher"


def test_the_videos_of_one_group_count_as_one_observation():
    scratch, student = [0] * 40, [1] * 10 + [0] * 30
    assert rank({"scratch": scratch, "student": student}) == "student"
    assert rank({"scratch": scratch, "student": student}, groups=[i // 10 for i in range(40)]) == "scratch"
    assert rank({"scratch": scratch[:9], "student": [0] * 8 + [1]}, groups=[0] * 9) == "scratch"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60), st.integers(0, 10))
def test_the_gain_and_its_error_are_those_of_the_paired_difference(answers, seed):
    other = np.random.default_rng(seed).permutation(answers)
    arrays = {"scratch": np.array(answers), "student": other}
    _, (_, score) = rank_starts(arrays, np.arange(len(answers)))
    difference = other - np.array(answers)
    assert score.gain == pytest.approx(100 * difference.mean())
    assert score.standard_error == pytest.approx(100 * difference.std(ddof=1) / len(answers) ** 0.5)


# ---- The comparison -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_clips", "hardware"), [(74, CPU), (300, CPU), (2_000, CPU), (50_000, CPU), (300, GPU)])
def test_the_comparison_costs_a_share_of_the_training(num_clips, hardware):
    recipe = choose(num_clips=num_clips, median_short_side=64, hardware=hardware).recipe
    short = shorten_recipe(recipe, STARTS, num_clips=num_clips * 2 // 3, processes=1)
    counts = {"num_clips": num_clips, "num_validation_clips": 100}
    plan = plan_comparison(recipe, list(short.values()), **counts, num_trained=2 * num_clips, num_scored=num_clips)
    fewest, most = defaults.COMPARED_EPOCHS
    assert fewest <= plan.epochs <= most
    assert 0 < plan.share <= 1

    def count(recipe: FinetuneRecipe) -> float:
        size, frames = recipe.clips.size, recipe.clips.sampling.num_frames
        return compute_model_cost(recipe.encoder, num_frames=frames, size=size).gflops

    training = count(recipe) * recipe.schedule.epochs * (3 * num_clips + 100)
    videos = plan.share * num_clips
    comparison = sum(map(count, short.values())) * (plan.epochs * 3 * 2 * videos + videos)
    assert comparison <= 1.05 * defaults.COMPARISON_SHARE * training


def test_the_starts_are_compared_by_one_recipe_with_the_clips_of_the_first():
    recipe = choose(num_clips=74, median_short_side=64).recipe
    short = shorten_recipe(recipe, STARTS, num_clips=49, processes=1)
    assert list(short) == ["scratch", "student", "teacher"]
    assert [each.encoder.dim for each in short.values()] == [96, 96, 192]
    assert len({each.clips for each in short.values()}) == 1
    assert short["scratch"].clips.size == (32, 32)
    assert short["scratch"].views.sampling.num_frames == 8
    assert {(each.select, each.patience) for each in short.values()} == {("last", None)}
    peaks = {each.optim.base_lr * each.batch for each in (recipe, *short.values())}
    assert len(peaks) == 1


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SegmentSampling(num_frames=16, rule="amd"), SegmentSampling(num_frames=8, rule="amd")),
        (DenseSampling(num_frames=16, stride=3), DenseSampling(num_frames=8, stride=6)),
        (TimedSampling(num_frames=16, stride=1.5), TimedSampling(num_frames=8, stride=3.0)),
    ],
)
def test_clips_of_fewer_frames_have_the_same_span(sampling, expected):
    recipe = choose(num_clips=74).recipe
    recipe = replace(recipe, clips=replace(recipe.clips, sampling=sampling))
    assert shorten_recipe(recipe, STARTS, num_clips=49, processes=1)["scratch"].clips.sampling == expected


def test_a_start_of_other_tubelets_or_learned_positions_is_not_compared():
    recipe = choose(num_clips=74, median_short_side=64).recipe
    assert all(can_compare(recipe, start) for start in STARTS.values())
    encoder = quickstart.videomae.method.encoder
    learned = replace(encoder, positions="learned", learned_grid=(2, 4, 4))
    assert not can_compare(recipe, make_checkpoint(learned))
    assert not can_compare(recipe, make_checkpoint(replace(encoder, tubelet=(2, 8, 8))))
    on_gpu = choose(num_clips=300, hardware=GPU).recipe  # of 224 x 224 pixels
    assert not can_compare(on_gpu, STARTS["teacher"])


# ---- A public checkpoint --------------------------------------------------------------------------------------------


def test_a_public_checkpoint_is_proposed_by_name_licence_size_and_option():
    message = propose_public_checkpoint(STATS, GPU)
    each = next(each for each in list_published_checkpoints() if each.name == "videomaev2-small-k710-distilled")
    assert f"{each.name} ({each.licence}, 22 M parameters, about 89 MB to download)" in message
    assert f"--init hf://{each.hub_repo}/{each.hub_file}" in message
    assert "Nothing is downloaded without this option" in message
    assert "\n" not in message


def test_it_is_proposed_where_the_machine_can_train_it_or_the_clips_are_many():
    many_cores = Hardware(device_kind="cpu", count=64)
    assert not propose_public_checkpoint(STATS, CPU)
    assert propose_public_checkpoint(replace(STATS, num_clips=300), many_cores)
    assert "h for 10 epochs with 2 cores" in propose_public_checkpoint(replace(STATS, num_clips=20_000), CPU)
    assert not propose_public_checkpoint(replace(STATS, is_images=True), GPU)
