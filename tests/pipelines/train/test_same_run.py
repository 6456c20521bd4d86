"""What makes a run the same run: what its weights and data hold and its settings' numbers, not paths and words."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import AMD, FINETUNE, IMAGE_TEACHER, TEACHER, interrupt, log, make_data, run, typed, weights

from vidstill.cli.main import main
from vidstill.pipelines import run_dir

SHORT = {"schedule__epochs": 3, "save_seconds": 0}  # 6 steps of pre-training, 3 of fine-tuning


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `data`, two teachers, and the runs `amd` and `finetune` to their ends."""
    folder = tmp_path_factory.mktemp("same_run")
    data = make_data(folder / "data")
    for name, seed in (("teacher", 0), ("other", 1)):
        run(TEACHER, data=data / "unlabelled.txt", out=folder / name, seed=seed, schedule__epochs=2)
    run(" ".join(amd(folder)), out=folder / "amd")
    run(" ".join(finetune(folder)), out=folder / "finetune")
    return folder


def amd(folder: Path, teacher: Path | None = None, data: Path | None = None, **options: Any) -> list[str]:
    data, teacher = data or folder / "data/unlabelled.txt", teacher or folder / "teacher"
    return typed(AMD, data=data, method__teacher__checkpoint=teacher, **SHORT, **options)


def finetune(folder: Path, init: Path | None = None, **options: Any) -> list[str]:
    return typed(FINETUNE, data=folder / "data", init=init or folder / "teacher", encoder__depth=3, **SHORT, **options)


def edit_recipe(out: Path, edit: Any) -> None:
    """Change the recipe.json of a run as if another version had written it."""
    content = json.loads((out / "recipe.json").read_text())
    edit(content)
    (out / "recipe.json").write_text(json.dumps(content))
    (out / "SHA256SUMS").unlink()


def copy(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def same_ends(one: Path, other: Path) -> None:
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())
    assert log(one) == log(other)


def list_contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


# ---- Weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.survival("moved directory of a teacher", "1→1", "same bits")
def test_a_run_whose_teacher_has_moved_is_resumed(folder, tmp_path, monkeypatch):
    teacher, out = copy(folder / "teacher", tmp_path / "teacher"), tmp_path / "amd"
    interrupt(amd(folder, teacher, out=out), monkeypatch)
    teacher.rename(tmp_path / "moved")
    assert main(amd(folder, tmp_path / "moved", out=out)) == 0
    same_ends(out, folder / "amd")


@pytest.mark.survival("moved directory of a run, its teacher and its data", "1→1", "same bits")
def test_a_run_that_has_moved_with_all_that_it_reads_is_resumed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "teacher"):
        copy(folder / name, tmp_path / "old" / name)
    interrupt(amd(tmp_path / "old", out=tmp_path / "old/amd"), monkeypatch)
    (tmp_path / "old").rename(tmp_path / "new")
    assert main(amd(tmp_path / "new", out=tmp_path / "new/amd")) == 0
    same_ends(tmp_path / "new/amd", folder / "amd")


def test_a_teacher_that_was_exchanged_under_its_path_is_refused(folder, tmp_path, monkeypatch, capsys):
    teacher, out = copy(folder / "teacher", tmp_path / "teacher"), tmp_path / "amd"
    interrupt(amd(folder, teacher, out=out), monkeypatch)
    shutil.rmtree(teacher)
    copy(folder / "other", teacher)
    before = list_contents(out)
    assert main(amd(folder, teacher, out=out)) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert f"teacher was {teacher} (SHA-256 " in sentence
    assert f"and is {teacher} (SHA-256 " in sentence
    assert "its weights are others" in sentence
    assert list_contents(out) == before


def test_an_initial_checkpoint_may_move_but_not_change(folder, tmp_path, monkeypatch, capsys):
    out, start = tmp_path / "finetune", copy(folder / "teacher", tmp_path / "start")
    interrupt(finetune(folder, start, out=out), monkeypatch)
    assert main(finetune(folder, folder / "other", out=out)) == 2
    assert f"init was {start} (SHA-256 " in capsys.readouterr().err
    assert main(typed(FINETUNE, data=folder / "data", out=out, encoder__depth=3, **SHORT)) == 2
    assert f"init is {start}, here it is nothing" in capsys.readouterr().err
    assert main(finetune(folder, start.rename(tmp_path / "moved"), out=out)) == 0
    same_ends(out, folder / "finetune")


def test_weights_are_hashed_once_at_a_start(folder, tmp_path, monkeypatch):
    calls, hash_checkpoint = [], run_dir.fingerprint_checkpoint
    monkeypatch.setattr(
        run_dir, "fingerprint_checkpoint", lambda each: calls.append(each.source) or hash_checkpoint(each)
    )
    interrupt(amd(folder, out=tmp_path / "amd"), monkeypatch)
    assert calls == [str(folder / "teacher/model.safetensors")]


def test_a_run_of_the_first_format_compares_paths_and_then_contents(folder, tmp_path, monkeypatch, capsys):
    teacher, out = copy(folder / "teacher", tmp_path / "teacher"), tmp_path / "amd"
    interrupt(amd(folder, teacher, out=out), monkeypatch)

    def downgrade(content: dict[str, Any]) -> None:
        del content["format"], content["sources"]
        content["init"] = ""

    edit_recipe(out, downgrade)
    assert main(amd(folder, out=out)) == 2
    assert f"teacher is {teacher}, here it is {folder / 'teacher'}" in capsys.readouterr().err
    interrupt(amd(folder, teacher, out=out), monkeypatch)
    assert main(amd(folder, folder / "other", out=out)) == 2
    assert main(amd(folder, out=out)) == 0
    same_ends(out, folder / "amd")


# ---- Data ------------------------------------------------------------------------------------------------------------


def test_a_resumed_run_names_the_first_video_that_was_changed_in_place(folder, tmp_path, monkeypatch, capsys):
    data, out = copy(folder / "data", tmp_path / "data"), tmp_path / "amd"
    command = amd(folder, out=out, data=data / "unlabelled.txt")
    interrupt(command, monkeypatch)
    interrupt(command, monkeypatch)
    assert "modified since" not in capsys.readouterr().err
    lines = [data / name for name in (data / "unlabelled.txt").read_text().splitlines()]
    later = max(path.stat().st_mtime_ns for path in lines) + 1
    for path in lines[3:5]:
        os.utime(path, ns=(later, later))
    for _ in range(2):  # a finished run too
        assert main(command) == 0
        assert (
            f"warning: train: 2 of 16 videos of {data / 'unlabelled.txt'} were modified since the run began, "
            f"first {lines[3]}; the run goes on" in capsys.readouterr().err
        )
    same_ends(out, folder / "amd")


def test_a_resumed_run_notices_a_video_that_an_older_file_has_replaced(folder, tmp_path, monkeypatch, capsys):
    data, out = copy(folder / "data", tmp_path / "data"), tmp_path / "amd"
    command = amd(folder, out=out, data=data / "unlabelled.txt")
    interrupt(command, monkeypatch)
    os.utime(data / (data / "unlabelled.txt").read_text().splitlines()[0], ns=(0, 12345))
    assert main(command) == 0
    assert f"some videos of {data / 'unlabelled.txt'} were modified since the run began" in capsys.readouterr().err


def test_a_run_of_a_version_that_recorded_no_times_records_them_when_it_is_resumed(
    folder, tmp_path, monkeypatch, capsys
):
    data, out = copy(folder / "data", tmp_path / "data"), tmp_path / "amd"
    command = amd(folder, out=out, data=data / "unlabelled.txt")
    interrupt(command, monkeypatch)
    edit_recipe(out, lambda content: content.pop("file_times"))
    interrupt(command, monkeypatch)
    assert "modified since" not in capsys.readouterr().err
    (data / (data / "unlabelled.txt").read_text().splitlines()[0]).touch()
    assert main(command) == 0
    assert "1 of 16 videos" in capsys.readouterr().err


# ---- Settings --------------------------------------------------------------------------------------------------------


def test_a_field_that_a_newer_version_added_with_a_default_does_not_block_a_run(folder, tmp_path, monkeypatch):
    out = tmp_path / "amd"
    interrupt(amd(folder, out=out), monkeypatch)

    def forget(content: dict[str, Any]) -> None:
        recipe = content["recipe"]
        del recipe["seed"], recipe["clips"]["class_balance"], recipe["optim"]["layer_decay"]
        del recipe["method"]["teacher"]["input_resolution"], recipe["method"]["encoder"]["drop_path"]

    edit_recipe(out, forget)
    assert main(amd(folder, out=out)) == 0
    same_ends(out, folder / "amd")


def test_a_field_that_is_not_at_the_new_default_does(folder, tmp_path, monkeypatch, capsys):
    interrupt(amd(folder, out=tmp_path / "amd", clips__flip_probability=0.25), monkeypatch)
    edit_recipe(tmp_path / "amd", lambda content: content["recipe"]["clips"].pop("flip_probability"))
    assert main(amd(folder, out=tmp_path / "amd", clips__flip_probability=0.25)) == 2
    assert "recipe.clips.flip_probability is 0.0, here it is 0.25" in capsys.readouterr().err


def test_other_words_do_not_block_a_run(folder, tmp_path, monkeypatch):
    interrupt(amd(folder, out=tmp_path / "amd"), monkeypatch)
    assert main(amd(folder, out=tmp_path / "amd", published_result="others", clips__dataset="another")) == 0
    same_ends(tmp_path / "amd", folder / "amd")


def test_another_kind_of_run_is_named(folder, tmp_path, capsys):
    image = typed(IMAGE_TEACHER, data=folder / "data/unlabelled.txt", out=folder / "finetune")
    assert main(image) == 2
    assert "recipe is a FinetuneRecipe, here a PretrainRecipe" in capsys.readouterr().err
