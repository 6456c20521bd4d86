"""Three folds in one command: a run for each, their mean, and what is refused before the first is trained."""

import json
import shutil
from pathlib import Path
from statistics import mean

import pytest
from refused_runs import contents, refuses
from tiny_runs import FINETUNE, about, make_data, run, typed, weights

from vidstill.cli.main import main

SHORT = {"fold": "all", "schedule__epochs": 2}
FOLDS = ("fold1", "fold2", "fold3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """UCF101's files for 14 videos of two classes: each fold trains on eight and is tested on other six, or fewer."""
    folder = tmp_path_factory.mktemp("folds")
    clips, videos, lists = make_data(folder / "clips"), folder / "UCF101/UCF-101", folder / "UCF101/ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 left\n2 right\n")
    names: dict[str, list[str]] = {"left": [], "right": []}
    for split in ("train", "val"):
        for line in (clips / f"{split}.csv").read_text().splitlines():
            path, label = line.split()
            name = ("left", "right")[int(label)]
            (videos / name).mkdir(parents=True, exist_ok=True)
            file = f"v_{name}_g{len(names[name]):02d}_c01"
            shutil.copy(clips / path, videos / name / f"{file}.mp4")
            names[name].append(f"{name}/{file}.avi")
    for fold in (1, 2, 3):
        of = {name: files[fold:] + files[:fold] for name, files in names.items()}
        (lists / f"trainlist0{fold}.txt").write_text(
            "".join(f"{file} {number}\n" for number, files in enumerate(of.values(), 1) for file in files[:4])
        )
        (lists / f"testlist0{fold}.txt").write_text(
            "".join(f"{file}\n" for files in of.values() for file in files[4 : 8 - fold])
        )
    return folder / "UCF101"


@pytest.fixture(scope="module")
def out(data):
    run(FINETUNE, data=data, out=data.parent / "run", **SHORT)
    return data.parent / "run"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_each_fold_is_a_run_on_its_own_lists_and_the_mean_is_that_of_their_numbers(out):
    recipes, tests = ([read(out / fold / f"{name}.json") for fold in FOLDS] for name in ("recipe", "test"))
    for part in ("train", "test"):
        assert len({each["data"][part]["fingerprint"] for each in recipes}) == 3
    assert recipes[0]["recipe"] == recipes[1]["recipe"] == recipes[2]["recipe"]
    assert [each["videos"] for each in tests] == [6, 4, 2]
    assert {path.name for path in out.iterdir()} == {*FOLDS, "folds.json", "SHA256SUMS"}
    assert all(about(out / fold)["classes"] == ["left", "right"] for fold in FOLDS)
    summary = read(out / "folds.json")
    for key in ("top1", "top5", "majority_baseline"):
        assert [fold[key] for fold in summary["folds"]] == [test[key] for test in tests]
        assert summary["mean"][key] == pytest.approx(mean(test[key] for test in tests))
    assert [fold["fold"] for fold in summary["folds"]] == [1, 2, 3]


def test_a_flipped_bit_of_the_summary_is_noticed(out, tmp_path, capsys):
    shutil.copytree(out, tmp_path / "copy")
    assert main(["runs", "verify", str(tmp_path / "copy")]) == 0
    path = tmp_path / "copy/folds.json"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert main(["runs", "verify", str(tmp_path / "copy")]) == 1
    assert "folds.json is damaged" in "".join(capsys.readouterr())


def test_the_same_command_again_leaves_all_as_it_is_and_tells_it(data, out, capsys):
    before = contents(out)
    capsys.readouterr()
    run(FINETUNE, data=data, out=out, **SHORT)
    assert contents(out) == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["fold", "1", "2", "3", "mean"]
    assert lines[-1].split()[1] == f"{read(out / 'folds.json')['mean']['top1']:.2f}"


def test_what_was_stopped_goes_on_where_it_was(data, out):
    whole, names = contents(out), weights(out / "fold2").keys()
    shutil.rmtree(out / "fold3")
    for name in ("fold2/test.json", "folds.json"):
        (out / name).unlink()
    run(FINETUNE, data=data, out=out, **SHORT)
    assert weights(out / "fold2").keys() == names
    for name in ("folds.json", "fold2/test.json", "fold3/test.json", "fold3/model.safetensors"):
        assert (out / name).read_bytes() == whole[out / name]


def test_each_folds_model_is_tested_on_its_own_list(data, out, tmp_path, capsys):
    capsys.readouterr()
    command = f"evaluate {out} --data {data} --fold all --workers 0 --precision fp32"
    assert main(command.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("mean")
    assert main(f"{command} --json --out {tmp_path}/tested".split()) == 0
    assert json.loads(capsys.readouterr().out) == read(out / "folds.json")
    for name in ("folds.json", *(f"{fold}/{file}" for fold in FOLDS for file in ("test.json", "scores.csv"))):
        assert (tmp_path / "tested" / name).read_bytes() == (out / name).read_bytes()


def test_one_fold_of_them_is_a_fine_tuned_model(data, out, capsys):
    capsys.readouterr()
    assert main(f"evaluate {out}/fold2 --data {data} --fold 2 --workers 0 --precision fp32 --json".split()) == 0
    assert json.loads(capsys.readouterr().out) == read(out / "fold2/test.json")


def test_a_model_that_is_tested_on_the_list_of_another_fold_has_trained_on_it(data, out, capsys):
    run(f"evaluate {out}/fold3", data=data, fold=1, json=(), workers=0)
    assert json.loads(capsys.readouterr().out)["training_videos"] == 4  # its list moves on by two videos of each class


# ---- What is refused ------------------------------------------------------------------------------------------------


def test_data_without_folds_are_refused(data, out, tmp_path, capsys):
    clips = data.parent / "clips"
    message = "has no fold 2, as UCF101 and HMDB51 have"
    refuses(capsys, typed(FINETUNE, data=clips, out=tmp_path / "out", **SHORT), message)
    refuses(capsys, f"evaluate {out} --data {clips} --fold all".split(), message)
    refuses(capsys, typed(FINETUNE, data=data, test_data=clips, out=tmp_path / "out", **SHORT), message)
    assert not (tmp_path / "out").exists()


def test_a_list_that_is_missing_is_met_before_the_first_fold_is_trained(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "UCF101")
    (tmp_path / "UCF101/ucfTrainTestlist/testlist03.txt").unlink()
    command = typed(FINETUNE, data=tmp_path / "UCF101", out=tmp_path / "out", **SHORT)
    refuses(capsys, command, "testlist03.txt does not exist, the list of UCF101's fold 3")
    assert not (tmp_path / "out").exists()


def test_folds_do_not_come_among_other_files(data, out, capsys):
    before = contents(data.parent)
    for folder in (out / "fold1", data):
        refuses(capsys, typed(FINETUNE, data=data, out=folder, **SHORT), f"{folder} exists and holds something else")
    file = data.parent / "clips/val.csv"
    refuses(capsys, typed(FINETUNE, data=data, out=file, **SHORT), f"{file} is a file")
    command = f"evaluate {out} --data {data} --fold all --out {out}"
    refuses(capsys, command.split(), f"{out / 'fold1'} exists and holds something else than an evaluation")
    assert contents(data.parent) == before


def test_a_fold_without_a_model_is_named(data, out, tmp_path, capsys):
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/fold2/model.safetensors").unlink()
    refuses(capsys, f"evaluate {tmp_path}/run --data {data} --fold all".split(), "holds no model of fold 2")
    refuses(capsys, f"evaluate {out}/fold1 --data {data} --fold all".split(), "holds no model of fold 1")


def test_a_pre_training_has_one_fold(data, tmp_path, capsys):
    command = f"pretrain quickstart.teacher --data {data} --out {tmp_path}/out --fold all"
    assert main(command.split()) == 2
    assert "all" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
