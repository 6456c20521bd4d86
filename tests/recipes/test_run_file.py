"""recipe.json of a run: verified, upgraded from the formats of older versions, and compared by meaning."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe, find_recipe
from vidstill.recipes.run_file import FORMAT, UPGRADES, Fork, find_config_difference, find_run, write_run
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

STORED = Path(__file__).parents[1] / "stored_runs"
RECIPE = find_recipe("quickstart.amd")


def write(folder: Path, content: object) -> Path:
    (folder / "recipe.json").write_text(json.dumps(content))
    return folder


def test_what_is_written_is_read(tmp_path):
    write_run(tmp_path, {"recipe": to_dict(RECIPE), "forks": [{"step": 3, "changes": {"optim.base_lr": 0.1}}]})
    run = find_run(tmp_path)
    assert run is not None
    assert run.parse_recipe(PretrainRecipe) == RECIPE
    assert (run.content["format"], run.forks) == (FORMAT, (Fork(3, {"optim.base_lr": 0.1}),))
    assert run.is_of(PretrainRecipe)
    assert not run.is_of(FinetuneRecipe)
    assert find_run(tmp_path / "absent") is None


def test_a_flipped_bit_is_refused_in_one_sentence(tmp_path):
    write_run(tmp_path, {"recipe": to_dict(RECIPE)})
    path = tmp_path / "recipe.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match=r"recipe.json is damaged: .*restore it from a copy"):
        find_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"format": FORMAT + 1, "recipe": {}}, rf"is of format {FORMAT + 1}, and this version reads .*; upgrade vidst"),
        ({"format": 99, "recipe": {}, "versions": {"vidstill": "9.1"}}, r"is of format 99 \(vidstill 9.1 wrote it\)"),
        ({"format": "two", "recipe": {}}, "is of format two"),
        ([], "holds no recipe of a run"),
        ({"data": 1}, "holds no recipe of a run"),
    ],
)
def test_another_file_is_refused_in_one_sentence(content, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        find_run(write(tmp_path, content))


def test_every_older_format_has_an_upgrade_and_a_stored_run():
    assert set(UPGRADES) == set(range(1, FORMAT))
    formats = {json.loads(path.read_text()).get("format", 1) for path in STORED.glob("*/*/recipe.json")}
    assert formats >= set(UPGRADES)


def test_format_1_had_paths_alone(tmp_path):
    teacher = {"checkpoint": "runs/teacher"}
    method = {"class": "…", "image": teacher, "teacher": teacher, "extra_teachers": [teacher, teacher], "depth": 2}
    run = find_run(write(tmp_path, {"recipe": {"method": method}, "init": "runs/start", "data": {}}))
    assert run is not None
    assert run.content["sources"] == {
        "init": {"source": "runs/start"},
        "image_teacher": {"source": "runs/teacher"},
        "teacher": {"source": "runs/teacher"},
        "extra_teachers_1_teacher": {"source": "runs/teacher"},
        "extra_teachers_2_teacher": {"source": "runs/teacher"},
    }
    probe = find_run(write(tmp_path, {"recipe": {"encoder": "0123456789ab"}, "init": "model.pth"}))
    assert probe is not None
    assert probe.content["sources"] == {"encoder": {"source": "model.pth"}}
    plain = find_run(write(tmp_path, {"recipe": {"method": {"class": "…"}}, "init": ""}))
    assert plain is not None
    assert plain.content["sources"] == {}


def test_words_are_not_compared_and_numbers_are():
    clips = replace(RECIPE.clips, dataset="another name")
    reworded = replace(RECIPE, published_result="another sentence", clips=clips)
    assert find_config_difference(RECIPE, reworded, "recipe") == ""
    moved = replace(RECIPE.method.teacher, checkpoint="elsewhere")
    assert find_config_difference(RECIPE.method, replace(RECIPE.method, teacher=moved), "method") == ""
    other = replace(RECIPE, optim=replace(RECIPE.optim, base_lr=0.5))
    difference = find_config_difference(RECIPE, other, "recipe")
    assert difference == f"recipe.optim.base_lr is {RECIPE.optim.base_lr}, here it is 0.5"
    masks = find_config_difference(RECIPE.method, find_recipe("quickstart.mvd").method, "recipe.method")
    assert masks == "recipe.method is AMDConfig, here it is MVDConfig"
