"""The published checkpoints: facts that agree with our recipes and models, and how they are listed."""

import hashlib
import json
import re
from dataclasses import fields
from typing import Any

import pytest
import torch

from vidstill.checkpoints import model_zoo
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.licences import UNKNOWN_LICENCE, allows_commercial, find_licence
from vidstill.checkpoints.model_zoo import (
    PublishedCheckpoint,
    find_published_checkpoints,
    identify_published_checkpoint,
    list_published_checkpoints,
)
from vidstill.cli.main import main
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.models.vit import BASE, HUGE, IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE, LARGE, SMALL
from vidstill.recipes.recipe import NUM_CLASSES, FinetuneRecipe, PretrainRecipe, load_recipes

CHECKPOINTS = [pytest.param(each, id=each.name) for each in list_published_checkpoints()]
SIZES = {"S": SMALL, "B": BASE, "L": LARGE, "H": HUGE}
IMAGES = {"B": IMAGE_BASE, "L": IMAGE_LARGE, "H": IMAGE_HUGE}
DATASETS = {"K400": "kinetics400", "K600": "kinetics600", "K700": "kinetics700", "SSv2": "ssv2", "UCF101": "ucf101"}
DATASETS |= {"IN-1K": "imagenet"}
COUNTED = {("VideoMAE", "pre-training"), ("VideoMAE", "fine-tuned"), ("AMD", "fine-tuned"), ("MVD", "pre-training")}


def count_parameters(config: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build().parameters())


# ---- What is stated -------------------------------------------------------------------------------------------------


def test_every_name_is_unique():
    names = [each.name for each in list_published_checkpoints()]
    assert len(names) == len(set(names)) > 60


@pytest.mark.parametrize("checkpoint", [param for param in CHECKPOINTS if param.values[0].recipe])
def test_the_facts_of_a_checkpoint_are_those_of_its_recipe(checkpoint):
    recipe = load_recipes()[checkpoint.recipe]
    is_pretraining = isinstance(recipe, PretrainRecipe)
    encoder, size = recipe.method.encoder if is_pretraining else recipe.encoder, SIZES[checkpoint.size]
    assert (encoder.dim, encoder.depth) == (size.dim, size.depth)
    assert recipe.clips.dataset == DATASETS[checkpoint.dataset]
    assert isinstance(recipe, PretrainRecipe if checkpoint.kind == "pre-training" else FinetuneRecipe)
    for result in checkpoint.results:
        if checkpoint.kind == "pre-training" or result.dataset == checkpoint.dataset:
            assert {f"{result.top1:.1f}", f"{result.top1:.2f}"} & set(re.findall(r"[\d.]+\d", recipe.published_result))
    if checkpoint.num_parameters and (checkpoint.family, checkpoint.kind) in COUNTED:
        num_classes = NUM_CLASSES[recipe.clips.dataset]
        config = recipe.method if is_pretraining else recipe.build_classifier_config(num_classes)
        assert count_parameters(config) == checkpoint.num_parameters


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_recipe_that_uses_a_checkpoint_has_an_encoder_of_its_size(checkpoint):
    for name in checkpoint.downstream_recipes:
        recipe = load_recipes()[name]
        if isinstance(recipe, PretrainRecipe):
            parts = [getattr(recipe.method, field.name) for field in fields(recipe.method)]
            encoders = [part.model for part in parts if isinstance(part, TeacherConfig)]
        else:
            encoders = [recipe.encoder]
        assert SIZES[checkpoint.size].dim in {encoder.dim for encoder in encoders}, name


def test_the_encoders_of_mae_have_as_many_parameters_as_ours_without_positions():
    for each in find_published_checkpoints("mae-*-in1k-1600e"):
        assert count_parameters(IMAGES[each.size]) == each.num_parameters


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_checkpoint_has_a_page_and_a_licence_of_one_name_or_none(checkpoint):
    assert re.match(r"https://(github\.com|huggingface\.co)/[\w.-]+/[\w.-]+", checkpoint.url)
    assert checkpoint.hub_repo is None or re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint.hub_repo)
    assert checkpoint.licence is None or allows_commercial(checkpoint.licence) is not None
    assert checkpoint.md5_prefix is None or re.fullmatch(r"[0-9a-f]{6}", checkpoint.md5_prefix)


def test_weights_without_a_stated_licence_are_not_free():
    assert {each.licence for each in find_published_checkpoints("amd-*")} == {None}
    assert not any(allows_commercial(each.licence) for each in find_published_checkpoints("amd-*"))


# ---- A file is identified --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "MCG-NJU/videomae-base",
        "hf://MCG-NJU/videomae-base",
        "hf://MCG-NJU/videomae-base@main/model.safetensors",
        "https://huggingface.co/MCG-NJU/videomae-base/resolve/main/model.safetensors",
        "/home/x/.cache/huggingface/hub/models--MCG-NJU--videomae-base/snapshots/f00/model.safetensors",
    ],
)
def test_a_checkpoint_is_identified_by_its_repository_on_the_hub(source):
    assert identify_published_checkpoint(source).name == "videomae-base-k400-1600e"
    assert find_licence(Checkpoint({}, source=source)) == "CC-BY-NC-4.0"


@pytest.mark.parametrize(
    "source", ["MCG-NJU/videomae-base-mine", "my-MCG-NJU/videomae-base", "runs/videomae-base/model.safetensors"]
)
def test_a_similar_name_is_not_a_published_checkpoint(source):
    assert identify_published_checkpoint(source) is None
    assert find_licence(Checkpoint({}, source=source)) == UNKNOWN_LICENCE


def test_of_a_repository_of_several_files_the_file_decides():
    assert identify_published_checkpoint("hf://OpenGVLab/VideoMAE2/distill/vit_s_k710_dl_from_giant.pth").size == "S"
    assert identify_published_checkpoint("hf://OpenGVLab/VideoMAE2/distill/vit_b_k710_dl_from_giant.pth").size == "B"
    assert identify_published_checkpoint("hf://OpenGVLab/VideoMAE2/another.pth") is None


def test_a_checkpoint_is_identified_by_its_content_whatever_its_name(monkeypatch, tmp_path):
    (tmp_path / "renamed.pth").write_bytes(b"not that one")
    md5 = hashlib.md5(b"not that one").hexdigest()[:6]
    only = PublishedCheckpoint(
        name="mae", family="MAE", kind="pre-training", size="B", dataset="IN-1K", paper="", url="", md5_prefix=md5,
        licence="CC-BY-NC-4.0",
    )  # fmt: skip
    monkeypatch.setattr(model_zoo, "list_published_checkpoints", lambda: (only,))
    assert find_licence(Checkpoint({}, source=str(tmp_path / "renamed.pth"))) == "CC-BY-NC-4.0"
    (tmp_path / "renamed.pth").write_bytes(b"not that one, but another")
    assert find_licence(Checkpoint({}, source=str(tmp_path / "renamed.pth"))) == UNKNOWN_LICENCE


# ---- The verb -------------------------------------------------------------------------------------------------------


def list_weights(capsys, *options):
    assert main(["weights", "list", *options]) == 0
    return capsys.readouterr().out


def test_a_line_has_size_accuracy_licence_and_url_and_the_next_one_the_recipes(capsys):
    lines = list_weights(capsys, "videomae-base-k400-1600e").splitlines()
    row = next(n for n, line in enumerate(lines) if line.split()[:1] == ["videomae-base-k400-1600e"])
    for fact in ("B", "94.2 M", "K400 81.5 / 95.1 (5 × 3)", "CC-BY-NC-4.0", "huggingface.co/MCG-NJU/videomae-base"):
        assert fact in lines[row]
    assert "trained by videomae.base_k400; used by videomae.base_k400_finetune" in lines[row + 1]
    assert "mvd.base_k400" in lines[row + 1]


def test_every_checkpoint_is_listed_once(capsys):
    first = [line.split()[0] for line in list_weights(capsys).splitlines() if line.startswith("  ") and line[2] != " "]
    assert sorted(first) == sorted(each.name for each in list_published_checkpoints())


def test_what_is_not_for_commercial_use_or_under_no_known_licence_can_be_left_out_and_is_counted(capsys):
    out = list_weights(capsys, "--commercial")
    assert "Apache-2.0" in out
    assert "videomae-base-k400-1600e" not in out
    assert "amd-base" not in out
    verdicts = [allows_commercial(each.licence) for each in list_published_checkpoints()]
    closed, unknown = verdicts.count(False), verdicts.count(None)
    assert f"Left out: {closed} not for commercial use, {unknown} under no known licence." in out


def test_where_all_is_left_out_that_is_said_in_a_line(capsys):
    assert list_weights(capsys, "mvd", "--commercial") == "Left out: 5 not for commercial use.\n"


def test_as_json_every_fact_can_be_read(capsys):
    rows = json.loads(list_weights(capsys, "st-mae", "--json"))
    assert {each["family"] for each in rows} == {"ST-MAE"}
    assert [each["md5_prefix"] for each in rows] == ["edf3a5", "3d7f64", "9a9645", "27495e", "cdbada", "4c4e3c"]
    assert rows[0]["results"][0] == {"dataset": "K400", "top1": 84.8, "top5": 96.2, "views": "7 × 3"}
    assert json.loads(list_weights(capsys, "mvd", "--commercial", "--json")) == []


def test_a_pattern_that_nothing_matches_is_met_with_a_sentence(capsys):
    assert main(["weights", "list", "videomae-bass-k400"]) == 2
    err = capsys.readouterr().err
    assert "no published checkpoint matches 'videomae-bass-k400'; near are videomae-base-k400-" in err
    assert len(err.splitlines()) == 1
