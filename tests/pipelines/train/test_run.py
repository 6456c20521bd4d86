"""Pre-training, distillation and fine-tuning on tiny clips and images: a run's files, and a finished run again."""

import json
import shutil
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import AMD, CLASSES, FINETUNE, STEPS, TEACHER, about, log, make_data, run, typed, weights

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.cli.main import main
from vidstill.pipelines import run_config as run_config_module
from vidstill.pipelines import session as training
from vidstill.pipelines.evaluate.classifier import evaluate_classifier
from vidstill.pipelines.run_config import Workers
from vidstill.utils.checksums import read_checksums
from vidstill.utils.types import InputError

STAGES = list(STEPS)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with `data` and three runs: `teacher`, `amd`, `finetune`."""
    folder = tmp_path_factory.mktemp("road")
    make_data(folder / "data")
    for stage in STAGES:
        train(folder, stage)
    return folder


def train(road: Path, stage: str) -> None:
    unlabelled = road / "data/unlabelled.txt"
    match stage:
        case "teacher":
            run(TEACHER, data=unlabelled, out=road / "teacher")
        case "amd":
            run(AMD, data=unlabelled, out=road / "amd", method__teacher__checkpoint=road / "teacher")
        case "finetune":
            run(FINETUNE, data=road / "data", out=road / "finetune", init=road / "amd")


def recipe(out: Path):
    return json.loads((out / "recipe.json").read_text())


# ---- What a run leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls_and_the_run_directory_has_its_files(road, stage):
    losses, finetuned = [line["loss"] for line in log(road / stage)], stage == "finetune"
    assert len(losses) == STEPS[stage]
    assert mean(losses[-3:]) < 0.95 * mean(losses[:3])
    names = {path.name.partition(".")[0] for path in (road / stage).iterdir()}
    test = {"test", "scores", "classes", "confusion", "validation"} if finetuned else set()
    assert names == {"recipe", "log", "events", "state", "model", "SHA256SUMS"} | test
    state = f"step-{STEPS[stage]:09d}.pt"
    assert {path.name for path in (road / stage / "state").iterdir()} == {state, f"{state}.sha256"}
    assert read_checksums(road / stage).keys() == {path.name for path in (road / stage).iterdir()} - {
        "SHA256SUMS",
        "state",
    }
    stored = recipe(road / stage)
    assert stored["recipe"]["batch"] == 8
    assert (stored["plan"]["total_steps"], stored["plan"]["peak_lr"]) == (STEPS[stage], 0.1 * 8 / 256)
    assert stored["precision"] == "fp32"
    assert stored["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {split: len(data["fingerprint"]) for split, data in stored["data"].items()} == (
        {"train": 64} | ({"validation": 64, "test": 64} if finetuned else {})
    )


def test_a_teacher_has_the_size_that_its_file_states_and_is_not_in_the_students_file(road):
    teacher = recipe(road / "amd")["recipe"]["method"]["teacher"]["model"]
    assert (teacher["depth"], teacher["tubelet"]) == (3, [2, 4, 4])
    assert not [name for name in weights(road / "amd") if "teacher" in name]


def test_a_student_is_taught_by_its_teachers_weights(road, tmp_path):
    silent = read_checkpoint(road / "teacher")
    write_checkpoint(tmp_path / "silent.safetensors", {n: 0 * t for n, t in silent.tensors.items()}, silent.metadata)
    data, out = road / "data/unlabelled.txt", tmp_path / "out"
    run(AMD, data=data, out=out, method__teacher__checkpoint=tmp_path / "silent.safetensors")
    taught, untaught = log(road / "amd")[0]["parts"], log(out)[0]["parts"]
    assert taught["reconstruction"] == untaught["reconstruction"]
    assert taught["direct"] != untaught["direct"]
    assert taught["generation"] != untaught["generation"]


def test_a_classifier_starts_from_the_encoder_it_is_given(road, tmp_path):
    still = {"optim__base_lr": 0, "optim__min_lr": 0, "optim__layer_decay": "None"}
    run(FINETUNE, data=road / "data", out=tmp_path / "out", init=road / "amd", **still)
    before, after = weights(road / "amd"), weights(tmp_path / "out")
    blocks = [name for name in after if name.startswith("encoder.")]
    assert len(blocks) > 20
    assert all(torch.equal(after[name], before[name]) for name in blocks)


@pytest.fixture(scope="module")
def initialized(road):
    """A distillation whose student starts from another's, and is not trained."""
    still = {"optim__base_lr": 0, "optim__min_lr": 0, "seed": 1}
    teacher = road / "teacher"
    data = road / "data/unlabelled.txt"
    run(AMD, data=data, out=road / "initialized", init=road / "amd", method__teacher__checkpoint=teacher, **still)
    return road / "initialized"


def test_a_pre_training_starts_from_the_encoder_it_is_given(road, initialized):
    before, after = weights(road / "amd"), weights(initialized)
    assert before.keys() == after.keys()
    same = {name.partition(".")[0]: torch.equal(after[name], before[name]) for name in after if "weight" in name}
    assert same == {"encoder": True, "decoder": False, "projections": False, "generators": False}


def test_a_run_names_its_start_and_is_not_resumed_from_another(road, initialized, capsys):
    started, taught = about(initialized)["provenance"]
    assert (started["role"], started["source"]) == ("init", str(road / "amd/model.safetensors"))
    assert (taught["role"], taught["source"]) == ("teacher", str(road / "teacher/model.safetensors"))
    assert recipe(initialized)["sources"]["init"]["source"] == str(road / "amd")
    assert recipe(road / "amd")["sources"].keys() == {"teacher"}
    data, teacher = road / "data/unlabelled.txt", road / "teacher"
    assert main(typed(AMD, data=data, out=road / "amd", init=initialized, method__teacher__checkpoint=teacher)) == 2
    assert f"{road / 'amd'}" in capsys.readouterr().err


def test_the_recipe_decides_the_position_embeddings_of_an_initialized_encoder(road, tmp_path):
    still = {"optim__base_lr": 0, "optim__min_lr": 0}
    data, init, kind = road / "data/unlabelled.txt", road / "teacher", "sincos2d"
    run(TEACHER, data=data, out=tmp_path / "out", init=init, method__encoder__positions=kind, **still)
    assert about(init)["encoder"]["positions"] == "sinusoid"
    assert about(tmp_path / "out")["encoder"]["positions"] == kind
    before, after = weights(init), weights(tmp_path / "out")
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("encoder."))


def test_a_checkpoint_of_another_encoder_is_refused(road, tmp_path, capsys):
    data, out = road / "data/unlabelled.txt", tmp_path / "out"
    assert main(typed(TEACHER, data=data, out=out, init=road / "amd")) == 2
    assert "an encoder whose depth is 2, and the recipe's is 3; set --method.encoder.depth" in capsys.readouterr().err
    assert not out.exists()


def test_weights_name_their_kind_and_their_provenance(road):
    assert about(road / "teacher")["kind"] == about(road / "amd")["kind"] == "pretraining"
    assert about(road / "finetune")["kind"] == "classifier"
    assert about(road / "finetune")["classes"] == list(CLASSES)
    (start,) = about(road / "finetune")["provenance"]
    assert (start["role"], start["source"]) == ("init", str(road / "amd/model.safetensors"))
    (teacher,) = start["provenance"]
    assert (teacher["role"], teacher["source"]) == ("teacher", str(road / "teacher/model.safetensors"))
    assert teacher["provenance"] == []


def test_a_licence_is_handed_on(road, tmp_path):
    free = read_checkpoint(road / "amd")
    write_checkpoint(tmp_path / "their.safetensors", free.tensors, {**free.metadata, "licence": "CC-BY-NC-4.0"})
    run(FINETUNE, data=road / "data", out=tmp_path / "out", init=tmp_path / "their.safetensors")
    assert about(tmp_path / "out")["licence"] == "CC-BY-NC-4.0"
    assert about(road / "finetune")["licence"] is None


def test_class_token_pooling_continues_the_encoders_own_norm(road, tmp_path):
    still = {"optim__base_lr": 0, "optim__min_lr": 0, "norm": "pretrained", "pooling": "first"}
    run(FINETUNE, data=road / "data", out=tmp_path / "out", init=road / "amd", **still)
    assert torch.equal(weights(tmp_path / "out")["encoder.norm.weight"], weights(road / "amd")["encoder.norm.weight"])


# ---- Tests ----------------------------------------------------------------------------------------------------------


def test_evaluating_a_run_gives_the_numbers_of_its_own_test(road, capsys):
    command = f"evaluate {road}/finetune --data {road}/data --workers 0 --precision fp32 --json"
    assert main(command.split()) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((road / "finetune/test.json").read_text())


@pytest.mark.parametrize(("device_batch", "workers"), [(1, 0), (4, 0), (None, 1)])
def test_scores_depend_on_neither_the_devices_batch_nor_the_workers(road, device_batch, workers):
    whole = evaluate_classifier(str(road / "finetune"), road / "data", workers=Workers(workers=0, precision="fp32"))
    options = Workers(workers=workers, precision="fp32", device_batch=device_batch)
    parts = evaluate_classifier(str(road / "finetune"), road / "data", workers=options)
    assert len(whole.indices) == 6
    torch.testing.assert_close(parts.scores, whole.scores, rtol=0, atol=1e-6)


def test_a_broken_test_video_is_reported(road, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    lines = (road / "data/val.csv").read_text().splitlines()
    listed = [f"{road}/data/{line}" for line in lines] + [f"{broken} 0"]
    (tmp_path / "val.txt").write_text("\n".join(listed))
    tested = evaluate_classifier(str(road / "finetune"), tmp_path / "val.txt", workers=Workers(workers=0))
    assert tested.accuracy.videos == 6
    assert list(tested.broken_videos) == [6]
    assert str(broken) in tested.broken_videos[6]


def test_class_folders_without_splits_are_tested_on_as_a_whole(road, tmp_path):
    for line in (road / "data/val.csv").read_text().splitlines():
        name, label = line.split()
        folder = tmp_path / CLASSES[int(label)]
        folder.mkdir(exist_ok=True)
        shutil.copy(road / "data" / name, folder)
    lists, folders = (
        evaluate_classifier(str(road / "finetune"), data, workers=Workers(workers=0, precision="fp32"))
        for data in (road / "data", tmp_path)
    )
    assert folders.accuracy == lists.accuracy


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(run_config_module, "count_cores", lambda: 16)
    for processes, decoders in ((1, 15), (4, 3), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert Workers().num_workers == decoders


# ---- Images -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, level in (("dark", 60), ("light", 190)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                colours = level + rng.integers(-40, 40, (20, 24, 3))
                Image.fromarray(colours.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def test_images_are_clips_of_one_frame_and_called_images(images, tmp_path, capsys):
    frame = {"clips__sampling__num_frames": 1}
    image = {**frame, "method__encoder__tubelet": (1, 4, 4)}
    run(TEACHER, data=images / "train", out=tmp_path / "teacher", **image)
    run(AMD, data=images / "train", out=tmp_path / "amd", method__teacher__checkpoint=tmp_path / "teacher", **image)
    whole = {**frame, "encoder__tubelet": (1, 4, 4), "views__sampling__num_frames": 1, "views__temporal_clips": 1}
    capsys.readouterr()
    run(FINETUNE, data=images, out=tmp_path / "finetune", init=tmp_path / "amd", **whole)
    printed = capsys.readouterr().err
    for text in ("train: 16 images of", "test: 8 images of", "steps (2 per epoch) of 8 images;", "images/s"):
        assert text in printed
    run(f"{FINETUNE} --select best", data=images / "train", val_share=0.5, out=tmp_path / "share", **whole)
    printed += capsys.readouterr().err
    assert "test on other images: --test-data" in printed
    assert "video" not in printed.replace("videomae", "")
    assert "clip" not in printed
    for stage in STAGES:
        losses = [line["loss"] for line in log(tmp_path / stage)]
        assert mean(losses[-3:]) < mean(losses[:3])
    assert json.loads((tmp_path / "finetune/test.json").read_text())["videos"] == 8
    run(f"evaluate {tmp_path}/finetune --workers 0 --precision fp32", data=images, out=tmp_path / "tested")
    scores = (tmp_path / "tested/scores.csv").read_text()
    assert scores == (tmp_path / "finetune/scores.csv").read_text()
    assert [line.partition(",")[0] for line in scores.splitlines()[1:]] == [
        f"{name}/{i}.png" for name in ("dark", "light") for i in range(4)
    ]


# ---- A finished run -------------------------------------------------------------------------------------------------


def contents(out: Path):
    return {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_is_left_unchanged_and_needs_no_training_checkpoint(road, stage, capsys):
    saved = {path: path.read_bytes() for path in (road / stage / "state").iterdir()}
    for path in saved:
        path.unlink()
    before = contents(road / stage)
    train(road, stage)
    assert contents(road / stage) == before
    assert f"{road / stage} holds the finished run" in capsys.readouterr().err
    for path, content in saved.items():
        path.write_bytes(content)


@pytest.mark.parametrize("file", [*(f"{stage}/model.safetensors" for stage in STAGES), "finetune/test.json"])
def test_a_missing_result_is_written_without_training(road, file):
    stage = file.partition("/")[0]
    written, steps = (road / file).read_bytes(), log(road / stage)
    (road / file).unlink()
    train(road, stage)
    assert (road / file).read_bytes() == written
    assert log(road / stage) == steps


def test_weights_that_could_not_be_written_are_written_by_the_same_command(road, monkeypatch, capsys):
    written, steps = (road / "teacher/model.safetensors").read_bytes(), log(road / "teacher")
    (road / "teacher/model.safetensors").unlink()
    with monkeypatch.context() as full:
        full.setattr(training, "write_checkpoint", no_room)
        assert main(typed(TEACHER, data=road / "data/unlabelled.txt", out=road / "teacher")) == 1
    assert "(No space left on device); training is done" in capsys.readouterr().err
    train(road, "teacher")
    assert (road / "teacher/model.safetensors").read_bytes() == written
    assert log(road / "teacher") == steps


def no_room(*args: object) -> None:
    raise InputError("model.safetensors cannot be written (No space left on device)")
