"""What `finetune auto` starts from: decided once, on videos that are not tested; the encoders may be absent."""

import json
from pathlib import Path

import pytest
from PIL import Image
from refused_runs import contents, refuses
from shipped_encoders import AUTO, CLIPS, DATA, ship, train_encoder
from tiny_runs import interrupt, read_validation, run, typed, weights

from vidstill.checkpoints import shipped
from vidstill.cli.main import main
from vidstill.data.datasets.base import ManifestDataset
from vidstill.data.decode.reader import VideoReader
from vidstill.pipelines.api.train import finetune
from vidstill.pipelines.run_config import AutoRunConfig
from vidstill.pipelines.train import starts
from vidstill.pipelines.train.auto import AutoRun, prepare_auto_run

STUDENT, TEACHER = shipped.STUDENT, shipped.TEACHER
SHORT = "--schedule.epochs 12"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """The file of an encoder that knows the two motions."""
    return train_encoder(tmp_path_factory.mktemp("encoder") / "run")


@pytest.fixture
def helpful(encoder, tmp_path, monkeypatch) -> None:
    ship(tmp_path / "assets", monkeypatch, student=encoder)


@pytest.fixture
def blind(tmp_path, monkeypatch) -> None:
    ship(tmp_path / "assets", monkeypatch, student=None, teacher=None)


@pytest.fixture
def absent(tmp_path, monkeypatch) -> None:
    ship(tmp_path / "assets", monkeypatch)


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(40):
        path = tmp_path / "images" / ("train", "val")[number % 5 == 0] / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number, 0, 0)).save(path)
    return tmp_path / "images"


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def prepare(out: Path, init: str | None = None, **options) -> AutoRun:
    config = {"data": DATA, "out": out, "workers": 0, "precision": "fp32", **options}
    return prepare_auto_run(AutoRunConfig(**config), init, {"schedule": {"epochs": 12}})


def forbid_comparing(monkeypatch) -> None:
    def compare(*_: object) -> None:
        raise AssertionError("the starts are compared again")

    monkeypatch.setattr(starts, "_compare_starts", compare)


def test_a_start_that_helps_is_taken_and_the_run_is_resumed_without_deciding_again(
    helpful, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "run"
    command = typed(f"{AUTO} {SHORT}", out=out)
    assert main(command) == 0
    printed = capsys.readouterr().err
    assert f"finetune: compares the starts scratch, {STUDENT} by 6 short fine-tunings of 10 epochs" in printed
    assert f"finetune: starts from {STUDENT}: scratch " in printed
    assert "in 3 folds, none on the test set" in printed
    decision, recipe = read_json(out / "start.json"), read_json(out / "recipe.json")
    scores = {each["start"]: each["accuracy"] for each in decision["scores"]}
    assert decision["start"] == STUDENT
    assert scores[STUDENT] > scores["scratch"] + 10
    assert recipe["sources"]["init"]["source"] == STUDENT
    assert recipe["recipe"]["encoder"]["dim"] == 48
    assert len(read_validation(out)) == 12
    best = max(each["top1"] for each in read_validation(out))
    assert read_json(out / "test.json")["model_selection"]["score"] == best
    before = weights(out)
    for name in ("model.safetensors", "test.json"):
        (out / name).unlink()  # as if the run had been killed before its end
    forbid_comparing(monkeypatch)
    assert main(command) == 0
    assert f"starts from {STUDENT}" in capsys.readouterr().err
    assert all(tensor.equal(before[name]) for name, tensor in weights(out).items())
    refuses(capsys, [*command, "--init", "scratch"], f"init is {STUDENT}, here it is nothing")


def test_a_start_that_does_not_help_leaves_the_training_as_it_is_without_one(blind, tmp_path, capsys, monkeypatch):
    run(f"{AUTO} {SHORT}", out=tmp_path / "blind")
    printed = capsys.readouterr().err
    assert f"compares the starts scratch, {STUDENT}, {TEACHER} by 9 short fine-tunings" in printed
    assert "finetune: starts from scratch: scratch " in printed
    ship(tmp_path / "nothing", monkeypatch)
    run(f"{AUTO} {SHORT}", out=tmp_path / "absent")
    assert "starts" not in capsys.readouterr().err
    assert not (tmp_path / "absent" / "start.json").exists()
    one, other = (read_json(tmp_path / name / "recipe.json") for name in ("blind", "absent"))
    assert one["recipe"] == other["recipe"]
    assert one["sources"] == other["sources"] == {}
    expected = weights(tmp_path / "absent")
    assert all(tensor.equal(expected[name]) for name, tensor in weights(tmp_path / "blind").items())


def test_the_same_command_decides_the_same_also_after_an_interruption(helpful, tmp_path, monkeypatch):
    prepare(tmp_path / "one")
    interrupt(typed(f"{AUTO} {SHORT}", out=tmp_path / "other"), monkeypatch, step=15)
    assert not (tmp_path / "other" / "start.json").exists()
    prepare(tmp_path / "other")
    one, other = ((tmp_path / name / "start.json").read_bytes() for name in ("one", "other"))
    assert one == other


def test_the_decision_is_taken_again_for_other_weights_but_not_for_the_same(helpful, tmp_path, monkeypatch):
    decisions = ["scratch", STUDENT]
    monkeypatch.setattr(starts, "_compare_starts", lambda *_: (decisions.pop(), "for a reason", []))
    assert [prepare(tmp_path / "run").init for _ in range(2)] == [STUDENT, STUDENT]
    ship(tmp_path / "others", monkeypatch, student=None)
    assert prepare(tmp_path / "run").init is None
    assert decisions == []


@pytest.mark.parametrize("has_validation_set", [False, True])
def test_the_decision_reads_no_test_video(helpful, tmp_path, monkeypatch, has_validation_set):
    sources = list[str]()
    read, open_video = VideoReader.__init__, ManifestDataset._open_video

    def record_read(self, source, **options):
        sources.append(str(source))
        read(self, source, **options)

    def record_open(self, index, row):  # drawn clips come from the cache
        sources.append(str(row.source))
        return open_video(self, index, row)

    monkeypatch.setattr(VideoReader, "__init__", record_read)
    monkeypatch.setattr(ManifestDataset, "_open_video", record_open)
    validation = f"made:val=48,{CLIPS},seed=4"
    prepare(tmp_path / "run", **({"val_data": validation} if has_validation_set else {}))
    assert len([source for source in sources if "/train/" in source]) >= 48
    assert not [source for source in sources if "/val/" in source and "seed=3" in source]
    assert has_validation_set == bool([source for source in sources if "/val/" in source])
    assert ("48 validation videos" in read_json(tmp_path / "run" / "start.json")["reason"]) == has_validation_set


@pytest.mark.parametrize(
    ("data", "init", "changes"),
    [
        (DATA, "scratch", {}),
        (DATA, None, {"encoder": {"dim": 48, "heads": 3}}),
        (f"made:train=20,val=8,{CLIPS}", None, {}),  # too few to show a difference
    ],
)
def test_nothing_is_compared_where_there_is_no_choice(helpful, tmp_path, monkeypatch, data, init, changes):
    forbid_comparing(monkeypatch)
    config = AutoRunConfig(data=data, out=tmp_path / "run", workers=0, precision="fp32")
    assert prepare_auto_run(config, init, changes).init is None
    assert not (tmp_path / "run").exists()


def test_a_given_start_of_the_package_keeps_size_and_length_of_the_clips(helpful, tmp_path):
    data = f"made:train=48,val=8,{CLIPS.replace('32x32', '64x64').replace('frames=8', 'frames=24')}"
    scratch, student = (prepare(tmp_path / "run", init, data=data) for init in ("scratch", STUDENT))
    assert student.recipe.clips == scratch.recipe.clips
    assert student.recipe.clips.size == (48, 48)
    assert student.recipe.clips.sampling.num_frames == 16
    assert student.recipe.encoder.dim == 48


def test_images_are_trained_from_scratch(helpful, tmp_path, images):
    assert prepare(tmp_path / "run", data=images).init is None
    assert not (tmp_path / "run").exists()


def test_scratch_is_a_word_for_every_recipe(absent, tmp_path):
    options = {"workers": 0, "precision": "fp32", "changes": {"schedule.epochs": 1, "batch": 16}}
    finetune(data=DATA, init="scratch", out=tmp_path / "auto", **options)
    finetune("quickstart.finetune", data=DATA, init="scratch", out=tmp_path / "quickstart", **options)
    command = f"finetune quickstart.finetune --data {DATA} --workers 0 --precision fp32"
    run(f"{command} --schedule.epochs 1 --batch 16 --init scratch", out=tmp_path / "typed")
    expected = weights(tmp_path / "quickstart")
    assert all(tensor.equal(expected[name]) for name, tensor in weights(tmp_path / "typed").items())
    assert read_json(tmp_path / "auto" / "recipe.json")["sources"] == {}


def test_a_damaged_decision_is_refused(helpful, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(starts, "_compare_starts", lambda *_: (STUDENT, "for a reason", []))
    out = tmp_path / "run"
    prepare(out)
    (out / "start.json").write_text("{")
    before = contents(out)
    refuses(capsys, typed(f"{AUTO} {SHORT}", out=out), "start.json is damaged")
    assert contents(out) == before
