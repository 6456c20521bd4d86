"""A run that is killed, whenever it is, ends as if it had not been: the same command again, the same weights."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import (
    AMD,
    IMAGE_TEACHER,
    METHODS,
    TEACHER,
    kill_run,
    log,
    make_data,
    run,
    teachers_of,
    typed,
    weights,
)

LONG = {"schedule__epochs": 30, "save_seconds": 0.05}  # 60 steps, a state every few of them


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder with `data`, two teachers and a student's whole run, `amd`."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = make_data(folder / "data") / "unlabelled.txt"
    run(TEACHER, data=data, out=folder / "teacher")
    run(IMAGE_TEACHER, data=data, out=folder / "image_teacher")
    run(AMD, data=data, out=folder / "amd", method__teacher__checkpoint=folder / "teacher", **LONG)
    return folder


def same_ends(one: Path, other: Path) -> None:
    whole, resumed = weights(one), weights(other)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert log(one) == log(other)


@pytest.mark.survival("SIGKILL of a distillation, twice", "1→1", "same bits")
def test_a_killed_run_ends_with_the_same_weights_to_the_bit(uninterrupted, tmp_path):
    data, out = uninterrupted / "data/unlabelled.txt", tmp_path / "amd"
    command = typed(AMD, data=data, out=out, method__teacher__checkpoint=uninterrupted / "teacher", **LONG)
    for lines in (4, 31):
        kill_run(command, out, count=lines)
        assert not (out / "model.safetensors").exists()
    run(" ".join(command))
    same_ends(uninterrupted / "amd", out)
    assert len(log(out)) == 60


@pytest.mark.survival("SIGKILL of a pre-training by every method", "1→1", "same bits")
@pytest.mark.parametrize("method", [name for name in METHODS if name != "amd"])
def test_a_killed_run_of_every_method_does(uninterrupted, tmp_path, method):
    command, data = METHODS[method], uninterrupted / "data/unlabelled.txt"
    options = {**teachers_of(method, uninterrupted), "schedule__epochs": 5}
    run(command, data=data, out=tmp_path / "whole", **options)
    out = tmp_path / "killed"
    kill_run(typed(command, data=data, out=out, **options, save_seconds=0), out)
    assert not (out / "model.safetensors").exists()
    run(command, data=data, out=out, **options)
    same_ends(tmp_path / "whole", out)


@pytest.mark.survival("moved directory of a killed run, of its data and of its teacher", "1→1", "same bits")
def test_a_killed_run_goes_on_where_all_was_moved_to(uninterrupted, tmp_path):
    def type_command(folder: Path) -> list[str]:
        teacher = folder / "teacher"
        return typed(AMD, data=folder / "data/unlabelled.txt", out=folder / "run", method__teacher__checkpoint=teacher)

    for name in ("data", "teacher"):
        shutil.copytree(uninterrupted / name, tmp_path / "before" / name)
    run(" ".join([*type_command(tmp_path / "before"), "--out", str(tmp_path / "whole")]))
    kill_run([*type_command(tmp_path / "before"), "--save-seconds", "0"], tmp_path / "before/run", count=8)
    (tmp_path / "before").rename(tmp_path / "after")
    run(" ".join(type_command(tmp_path / "after")))
    same_ends(tmp_path / "whole", tmp_path / "after/run")


@pytest.mark.survival("SIGKILL while recipe.json is written", "1→1", "same bits")
def test_a_kill_in_the_first_moment_leaves_a_folder_that_the_same_command_takes(uninterrupted, tmp_path):
    out = tmp_path / "teacher"
    out.mkdir()
    (out / "recipe.json.part").write_text('{"recipe": ')
    run(TEACHER, data=uninterrupted / "data/unlabelled.txt", out=out)
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in weights(uninterrupted / "teacher").items())
