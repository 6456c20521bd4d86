"""The papers' settings: every recipe that is found builds, can be written, found and planned."""

import json
import re
from dataclasses import fields, is_dataclass, replace
from functools import cache
from operator import attrgetter

import pytest
import torch
from recipe_plans import ablations_slowly, change, plan

from vidstill.data.transforms.frame_sampling import TimedSampling
from vidstill.recipes.recipe import (
    DetectionRecipe,
    FinetuneRecipe,
    PretrainRecipe,
    find_recipe,
    list_recipe_names,
    load_recipes,
)
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

RECIPES = load_recipes()
PRETRAIN = [name for name, recipe in RECIPES.items() if isinstance(recipe, PretrainRecipe)]
FINETUNE = [name for name, recipe in RECIPES.items() if isinstance(recipe, FinetuneRecipe)]
PAPERS = [name for name in RECIPES if not name.startswith(("quickstart.", "laptop."))]  # these are ours
CLASSES = 400  # of Kinetics-400


def numbers(value):
    """Every number in a configuration."""
    if is_dataclass(value):
        return [each for field in fields(value) for each in numbers(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [each for item in value for each in numbers(item)]
    return [value] if isinstance(value, int | float) else []


@cache
def run_without_memory(config, num_frames, size):
    """The loss and the parameters of a method; many recipes differ only in data and schedule."""
    with torch.device("meta"):
        method = config.build()
        clip = torch.empty(2, 3, num_frames, *size)
        return method(clip, seed=torch.zeros(2, dtype=torch.long)).loss, tuple(method.parameters())


@pytest.mark.parametrize("name", ablations_slowly(PRETRAIN))
def test_a_method_is_built_and_run_without_any_memory(name):
    recipe = find_recipe(name)
    loss, parameters = run_without_memory(recipe.method, recipe.clips.sampling.num_frames, recipe.clips.size)
    assert loss.shape == ()
    assert all(tensor.is_meta for tensor in (loss, *parameters))
    assert any(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize("name", FINETUNE)
def test_a_classifier_is_built_without_any_memory_and_tested_on_clips_like_its_training_clips(name):
    recipe = find_recipe(name)
    with torch.device("meta"):
        model = recipe.build_classifier_config(CLASSES).build()
    assert (model.head.out_features, model.head.weight.is_meta) == (CLASSES, True)
    sampling = recipe.clips.sampling
    if isinstance(sampling, TimedSampling):  # tests have no start to draw
        sampling = replace(sampling, start_mode=recipe.views.sampling.start_mode)
    assert (recipe.views.sampling, recipe.views.size) == (sampling, recipe.clips.size)
    if "ssv2" in name:  # its classes tell left from right
        assert recipe.clips.flip_probability == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_written_and_read_and_planned(name):
    recipe, run = RECIPES[name], plan(name)
    assert from_dict(type(recipe), json.loads(json.dumps(to_dict(recipe)))) == recipe
    assert min(numbers(recipe)) >= 0
    assert run.total_steps == recipe.schedule.epochs * run.steps_per_epoch
    copies = 1 if isinstance(recipe, DetectionRecipe) else recipe.clips.repeats
    assert run.videos_per_step * copies == recipe.batch
    assert 0 <= run.min_lr < run.peak_lr
    assert run.warmup_steps < run.total_steps


@pytest.mark.parametrize("name", [name for name in PAPERS if not isinstance(RECIPES[name], DetectionRecipe)])
def test_a_paper_s_recipe_states_the_published_result_and_its_views_or_that_there_is_none(name):
    expects = find_recipe(name).published_result
    assert expects.startswith("no result is ") or re.search(r"top-1 \d\d\.\d.* \((\d+ × \d views|1 view)\)", expects)


def test_no_two_recipes_of_a_family_are_the_same_but_for_their_results():
    names = {}
    for name in PAPERS:
        settings = name.split(".")[0], json.dumps(to_dict(replace(RECIPES[name], published_result="")))
        assert names.setdefault(settings, name) == name


@pytest.mark.parametrize("name", [name for name in PRETRAIN if re.match("amd.(base|small)", name)])
def test_amd_learns_from_its_teacher_in_the_middle_and_at_the_end(name):
    method = find_recipe(name).method
    assert method.layer_pairs == tuple(
        (method.encoder.depth * part // 2, method.teacher.model.depth * part // 2) for part in (1, 2)
    )


@pytest.mark.parametrize("name", [n for n in FINETUNE if n in PAPERS and ".ablation_" not in n])
def test_a_fine_tuning_recipe_has_the_encoder_of_its_familys_pre_trainings(name):
    """But for its drop path, and for position embeddings of images, which are computed before they are learned."""
    size, of_images = name.partition("_")[0], "in1k" in name
    others = [
        find_recipe(n).method.encoder for n in PRETRAIN if n.startswith(f"{size}_") and ("in1k" in n) == of_images
    ]
    assert others
    settings = attrgetter("dim", "depth", "heads", "tubelet", "class_token", "attention_bias", "mean", "std")
    encoder = find_recipe(name).encoder
    assert {settings(other) for other in others} == {settings(encoder)}
    assert {"learned" if of_images else other.positions for other in others} == {encoder.positions}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "videomae.base_k400",
            {"clips.sampling.num_frames": 15},
            "15 frames does not divide into tubelets of 2; take 14",
        ),
        ("videomae.base_k400", {"clips.size": (224, 200)}, "200 columns does not divide"),
        ("videomae.base_k400_finetune", {"clips.sampling.num_frames": 15}, "15 frames does not divide"),
        ("videomae.base_k400_finetune", {"clips.size": (224, 200)}, "200 columns does not divide"),
        ("videomae.base_k400_finetune", {"views.size": (200, 200)}, "200 rows does not divide"),
        (
            "videomae.base_ava",
            {"clips.sampling.num_frames": 15},
            "15 frames does not divide into tubelets of 2; take 14",
        ),
        (
            "videomae.base_ava",
            {"views.sampling.num_frames": 15},
            "15 frames does not divide into tubelets of 2; take 14",
        ),
        # pixels that fill no tubelet are dropped in fine-tuning alone
        ("stmae.large_k400_40x312_finetune", {"encoder.drop_remainder": False}, "tubelets of 16; take 304 rows"),
        ("stmae.large_k400", {"method.encoder.drop_remainder": True, "clips.size": (312, 312)}, "312 rows does not"),
        ("videomae.base_ava", {"encoder.tubelet": (2, 16, 8)}, "needs square tubelets"),
        ("videomae.base_ava", {"dropout": 2.0}, "dropout is 2.0; take 0 to 1"),
        ("videomae.base_ava", {"seed": -1}, "seed is -1"),
    ],
)
def test_an_invalid_recipe_cannot_be_made(name, changes, message):
    *valid, invalid = changes.items()
    recipe = find_recipe(name)
    for path, value in valid:
        recipe = change(recipe, path, value)
    with pytest.raises(InputError, match=message):
        change(recipe, *invalid)


def test_hyphens_in_a_name_count_as_underscores():
    assert find_recipe("amd.small-k400") is find_recipe("amd.small_k400")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("videomea.base_k400", "near are .*videomae.base_k400"),
        ("amd.smal_k400", "near are .*amd.small_k400"),
        ("base_k400", "near are .*amd.base_k400"),
        ("xyz", "`vidstill recipes` lists them"),
    ],
)
def test_the_error_of_a_misspelt_name_suggests_similar_names_or_the_list(name, hint):
    with pytest.raises(InputError, match=f"no recipe '{name}'; {hint}"):
        find_recipe(name)


def test_names_are_chosen_by_a_part_or_by_a_pattern():
    assert list_recipe_names() == list(RECIPES)
    assert list_recipe_names("ssv2") == [name for name in RECIPES if "ssv2" in name]
    assert list_recipe_names("amd.*") == [name for name in RECIPES if name.startswith("amd.")]
    assert list_recipe_names("*_k400") == [name for name in RECIPES if name.endswith("_k400")]
    with pytest.raises(InputError, match=r"no recipe matches 'amd\.tiny'"):
        list_recipe_names("amd.tiny")
