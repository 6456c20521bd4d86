"""Settings that are typed: epochs without a warm-up that fits them, and those that a run's start decides instead."""

import json

import pytest
from refused_runs import refuses
from tiny_detections import TRAIN
from tiny_detections import make_data as make_box_data
from tiny_runs import AMD, FINETUNE, TEACHER, log, make_data, run, typed

from vidstill.cli.main import main
from vidstill.recipes.change import check_changes
from vidstill.recipes.quickstart import finetune

_NO_WARMUP = " --schedule.warmup-epochs 1"
_SHORT = "--schedule.epochs 1 --workers 0 --precision fp32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    make_data(folder / "data")
    make_box_data(folder / "boxes")
    run(TEACHER, data=folder / "data" / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    return folder


# ---- Epochs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "data", "warmup"),
    [
        (TEACHER.replace(_NO_WARMUP, ""), "data/unlabelled.txt", 0.05),  # 3 of 60
        (FINETUNE.replace(_NO_WARMUP, ""), "data", 0.2),  # 12 of 60
        ("finetune auto", "data", 0.05),  # 20 of 400
    ],
)
def test_one_epoch_is_enough_to_type(folder, tmp_path, capsys, command, data, warmup):
    options = typed(f"{command} {_SHORT}", data=folder / data, out=tmp_path / "run")
    assert main(options) == 0
    line = f"the warm-up takes {warmup:g} of 1 epoch; --schedule.warmup-epochs changes it"
    assert capsys.readouterr().err.count(line) == 1
    assert {line["epoch"] <= 1 for line in log(tmp_path / "run")} == {True}
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]["schedule"]["warmup_epochs"] == warmup
    assert main(options) == 0  # the same command again is the same run
    assert "holds the finished run" in capsys.readouterr().err


def test_one_epoch_is_enough_to_type_for_a_detector(folder, tmp_path, capsys):
    command = TRAIN.replace(" --schedule.warmup-epochs 1", "")
    assert "warmup" not in command
    assert main(typed(f"{command} --schedule.epochs 1", data=folder / "boxes", out=tmp_path / "run")) == 0
    assert "the warm-up takes 0.033 of 1 epoch" in capsys.readouterr().err


def test_epochs_and_a_warm_up_that_do_not_fit_are_refused_with_both_options(folder, tmp_path, capsys):
    options = typed(FINETUNE, data=folder / "data", out=tmp_path / "run", schedule__epochs=1, schedule__warmup_epochs=2)
    refuses(capsys, options, "raise --schedule.epochs, or lower --schedule.warmup-epochs")
    assert not (tmp_path / "run").exists()


# ---- What the start decides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--encoder.dim 48", "--encoder.dim is 48, but {start} has 24"),
        ("--encoder.depth 2", "--encoder.depth is 2, but {start} has 3"),
        ("--encoder.heads 4", "--encoder.heads is 4, but {start} has 2"),
        ("--encoder.class-token", "--encoder.class-token is True, but {start} has False"),
        ("--encoder.attention-bias none", "--encoder.attention-bias is none, but {start} has qv"),
        ("--encoder.norm-eps 1e-3", "--encoder.norm-eps is 0.001, but {start} has 1e-06"),
        ("--encoder.positions sincos3d", "--encoder.positions is sincos3d, but {start} has sinusoid"),
        ("--encoder.mean 0 0 0", "--encoder.mean is 0.0 0.0 0.0, but {start} has 0.485 0.456 0.406"),
        ("--encoder.tubelet 4 8 8", "--encoder.tubelet is 4 8 8, but {start} has 2 4 4"),
    ],
)
def test_a_setting_that_the_start_of_a_fine_tuning_overrides_is_refused(folder, tmp_path, capsys, options, message):
    shape = " --encoder.dim 24 --encoder.depth 2 --encoder.heads 2 --encoder.tubelet 2 4 4 --encoder.positions sinusoid"
    assert shape in FINETUNE
    command = typed(f"{FINETUNE.replace(shape, '')} {options}", data=folder / "data", init=folder / "teacher")
    refuses(
        capsys, [*command, "--out", str(tmp_path / "run")], message.format(start=folder / "teacher/model.safetensors")
    )
    assert not (tmp_path / "run").exists()


def test_a_setting_that_the_start_of_auto_overrides_is_refused(folder, tmp_path, capsys):
    command = typed(f"finetune auto {_SHORT}", data=folder / "data", init=folder / "teacher", out=tmp_path / "run")
    refuses(capsys, [*command, "--encoder.dim", "48"], "--encoder.dim is 48, but")


def test_a_setting_that_a_teachers_file_overrides_is_refused(folder, tmp_path, capsys):
    options = {"data": folder / "data" / "unlabelled.txt", "out": tmp_path / "run"}
    command = typed(AMD, method__teacher__checkpoint=folder / "teacher", method__teacher__model__dim=99, **options)
    refuses(capsys, command, f"--method.teacher.model.dim is 99, but {folder / 'teacher'} has 24")


def test_a_setting_that_the_start_of_a_detector_overrides_is_refused(folder, tmp_path, capsys):
    options = {"data": folder / "boxes", "out": tmp_path / "run", "init": folder / "teacher"}
    refuses(capsys, typed(TRAIN, **options, encoder__norm_eps=0.5), "--encoder.")


def test_what_can_be_changed_and_what_agrees_stays_allowed(folder, tmp_path):
    command = FINETUNE.replace("--encoder.depth 2", "--encoder.depth 3")
    run(f"{command} --encoder.drop-path 0.1", data=folder / "data", init=folder / "teacher", out=tmp_path / "run")
    command = command.replace("positions sinusoid", "positions learned --encoder.learned-grid 2 4 4")
    run(command, data=folder / "data", init=folder / "teacher", out=tmp_path / "learned", schedule__epochs=2)


def test_only_given_settings_are_compared():
    other = finetune.encoder
    check_changes({"encoder": "vit"}, "encoder.model", finetune, other, "file")
    check_changes({"optim": {"base_lr": 1}}, "encoder", finetune.encoder, None, "file")
