"""Evaluating: the files it leaves, the same however it is done, and what becomes of videos it cannot score."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_layout import in_their_words
from tiny_models import VIDEOMAE, built
from tiny_runs import CLASSES, FINETUNE, make_data, run

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.videomae import build_classifier_rules, build_videomae_rules
from vidstill.cli.main import main
from vidstill.data.datasets import train_clips as datasets
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.distributed import Runtime
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.classifier_checkpoint import load_classifier
from vidstill.pipelines.evaluate import classifier as testing
from vidstill.pipelines.evaluate.classifier import (
    evaluate_classifier,
    score_classifier,
    write_classification_result,
)
from vidstill.pipelines.workers import Workers
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils import files as folder
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

FILES = {"test.json", "scores.csv", "classes.csv", "confusion.csv", "confusion.png"}
VIEWS = ViewsConfig(
    sampling=SegmentSampling(num_frames=4), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with `data` and a fine-tuned model, `finetune_command`."""
    folder = tmp_path_factory.mktemp("testing")
    data = make_data(folder / "data")
    run(FINETUNE, data=data, out=folder / "finetune", schedule__epochs=2)
    return folder


def left_by(road: Path, out: Path, *, data: Path | None = None, **options: object) -> Path:
    run(
        f"evaluate {road}/finetune",
        **{"data": data or road / "data", "out": out, "workers": 0, "precision": "fp32", **options},
    )
    return out


def scores(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- What is left ---------------------------------------------------------------------------------------------------


def test_an_evaluation_leaves_what_the_fine_tuning_s_own_test_left(road, tmp_path):
    found = contents(left_by(road, tmp_path / "out"))
    assert found.keys() == FILES
    assert {name: (road / "finetune" / name).read_bytes() for name in FILES} == found


def test_an_evaluation_prints_what_test_json_holds(road, tmp_path, capsys):
    capsys.readouterr()
    left_by(road, tmp_path / "out", json=())
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads((tmp_path / "out/test.json").read_text())
    left_by(road, tmp_path / "out")
    assert "mean class accuracy" in capsys.readouterr().out


def test_scores_are_the_same_to_the_byte_whoever_decodes(road, tmp_path):
    alone = contents(left_by(road, tmp_path / "alone"))
    assert contents(left_by(road, tmp_path / "workers", workers=2)) == alone


@pytest.mark.parametrize("device_batch", [1, 4])
def test_scores_do_not_depend_on_the_devices_batch(road, tmp_path, device_batch):
    whole, parts = (
        scores(left_by(road, tmp_path / name, **more))
        for name, more in (("whole", {}), ("parts", {"device_batch": device_batch}))
    )
    assert [line["video"] for line in parts] == [line["video"] for line in whole]
    for line, other in zip(parts, whole, strict=True):
        for name in CLASSES:
            assert float(line[f"p({name})"]) == pytest.approx(float(other[f"p({name})"]), abs=1e-5)


def test_an_earlier_test_is_written_over_and_other_folders_are_left_alone(road, tmp_path, capsys):
    before = contents(left_by(road, tmp_path / "out"))
    (tmp_path / "out/test.json").write_text("{}")
    (tmp_path / "out/scores.csv.part").write_text("vid")  # as a kill leaves it
    left_by(road, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    for out in (road / "finetune", road / "data", road / "data/val.csv", road / "data/val.csv/out"):
        assert main(f"evaluate {road}/finetune --data {road}/data --out {out} --workers 0".split()) == 2
        assert f"{out}" in capsys.readouterr().err


def test_a_disk_that_is_full_is_met_with_a_sentence(road, tmp_path, capsys, monkeypatch):
    def full(file: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    assert main(f"evaluate {road}/finetune --data {road}/data --out {tmp_path}/out --workers 0".split()) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_the_findings_of_two_tests_are_never_mixed(road, tmp_path, monkeypatch):
    """test.json says by being there that the other files are of the same test."""
    tested = evaluate_classifier(str(road / "finetune"), road / "data", workers=Workers(workers=0))
    write_classification_result(tmp_path, tested)
    monkeypatch.setattr(testing, "draw_confusion_matrix", lambda *given: [][0])  # as where it is killed
    with pytest.raises(IndexError):
        write_classification_result(tmp_path, tested)
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "classes.csv", "confusion.csv"}
    folder.check_output_dir(tmp_path, "an evaluation", "test.json", FILES)


# ---- What cannot be scored ------------------------------------------------------------------------------------------


@pytest.fixture
def broken(road, tmp_path):
    """A list of seven videos, the second and the fifth of which do not decode."""
    shutil.copytree(road / "data/val", tmp_path / "videos")
    files = sorted((tmp_path / "videos").iterdir())
    files[1].write_bytes(b"no video")
    lines = [f"videos/{path.name} {number % 2}" for number, path in enumerate(files)]
    (tmp_path / "videos/cut.mp4").write_bytes(files[0].read_bytes()[:300])
    lines.insert(4, "videos/cut.mp4 1")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_does_not_decode_is_reported_and_never_replaced_or_counted(road, broken, tmp_path, workers):
    out = left_by(road, tmp_path / "out", data=broken, workers=workers)
    lines, found = scores(out), json.loads((out / "test.json").read_text())
    assert [line["video"] for line in lines] == [line.split()[0] for line in broken.read_text().splitlines()]
    assert [bool(line["error"]) for line in lines] == [False, True, False, False, True, False, False]
    assert all(line["rank"] == line["prediction"] == line["p(left)"] == "" for line in lines if line["error"])
    assert [line["error"] for line in lines if line["error"]] == found["broken_videos"]
    assert (found["videos"], len(found["broken_videos"])) == (5, 2)
    assert sum(each["videos"] for each in found["classes"]) == 5
    alone = scores(left_by(road, tmp_path / "alone"))
    whole = {Path(line["video"]).name: line["p(left)"] for line in alone}
    assert all(whole[Path(line["video"]).name] == line["p(left)"] for line in lines if not line["error"])


def test_a_video_that_a_list_names_twice_has_two_lines(road, tmp_path):
    video = next((road / "data/val").iterdir())
    (tmp_path / "twice.txt").write_text(f"{video} 0\n{video} 1\n")
    first, second = scores(left_by(road, tmp_path / "out", data=tmp_path / "twice.txt"))
    assert first["video"] == second["video"]
    assert first["p(left)"] == second["p(left)"]
    assert {first["correct"], second["correct"]} == {"0", "1"}


class Diverging(Classifier):
    """Its scores of the second video are no numbers."""

    met = 0

    def forward(self, clip, visible=None):
        self.met += 1
        return super().forward(clip, visible) * (float("nan") if self.met == 2 else 1)


def test_scores_that_are_no_numbers_count_as_none(road):
    config = load_classifier(str(road / "finetune"))[0].config
    listing = open_manifest(road / "data", split="val")
    found = score_classifier(Diverging(config), listing, CLASSES, VIEWS, Workers(workers=0), Runtime("fp32"))
    assert found.indices == (0, 2, 3, 4, 5)
    assert "has scores that are no finite numbers" in found.broken_videos[1]
    assert found.to_dict()["videos"] == 5


def test_a_model_that_has_diverged_is_not_right_by_chance(road, tmp_path):
    """Of scores that are no numbers none is above another, so that every label would have the first rank."""
    model = read_checkpoint(road / "finetune")
    wild = {name: tensor * float("nan") for name, tensor in model.tensors.items()}
    write_checkpoint(tmp_path / "wild.safetensors", wild, model.metadata)
    with pytest.raises(InputError, match=r"none of the 6 videos .* could be scored; .* no finite numbers"):
        evaluate_classifier(str(tmp_path / "wild.safetensors"), road / "data", workers=Workers(workers=0))


# ---- Views ----------------------------------------------------------------------------------------------------------


def test_all_views_of_a_video_are_decoded_in_one_go(road, monkeypatch):
    asked = []

    def noting(source, frames):
        asked.append((str(source), list(frames)))
        return read_frames(source, frames)

    read_frames = datasets.read_frames
    monkeypatch.setattr(datasets, "read_frames", noting)
    listing = open_manifest(road / "data", split="val")
    clips = ViewClips(listing, VIEWS)
    assert len({clips[place].clip.shape for place in range(6)}) == 1
    assert clips[0].clip.shape == (6, 3, 4, 16, 16)
    assert [source for source, _ in asked[:6]] == [str(row.source) for row in listing.rows]
    wanted = VIEWS.sampling.list_view_indices(8, 2)  # of 8 frames
    assert asked[0][1] == sorted({frame for view in wanted for frame in view})


def test_fewer_classes_than_the_model_s_may_be_tested(road, tmp_path):
    """A list of numbers is taken at its word; the tables have all of the model's classes by their names."""
    video = next((road / "data/val").iterdir())
    (tmp_path / "one.txt").write_text(f"{video} 0\n")
    out = left_by(road, tmp_path / "out", data=tmp_path / "one.txt")
    assert [each["name"] for each in json.loads((out / "test.json").read_text())["classes"]] == list(CLASSES)
    (line,) = scores(out)
    assert line["class"] == "left"
    assert sum(float(line[f"p({name})"]) for name in CLASSES) == pytest.approx(1)


# ---- Of the authors' files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "views"), [(400, 5), (174, 2)], ids=["Kinetics", "SSv2"])
def test_an_authors_classifier_scores_as_ours_and_is_looked_at_as_its_paper_does(tmp_path, classes, views):
    encoder = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 16, 16))
    module = built(ClassifierConfig(encoder=encoder, num_classes=classes)).eval()
    theirs = in_their_words(module.state_dict(), build_classifier_rules(encoder))
    torch.save({"module": theirs}, tmp_path / "theirs.pth")
    model, weights = load_classifier(str(tmp_path / "theirs.pth"))
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(model.eval()(clip), module(clip))
    assert weights.metadata["classes"] == [str(number) for number in range(classes)]
    found = from_dict(ViewsConfig, weights.metadata["views"])
    assert (found.temporal_clips, found.spatial_crops, found.sampling.num_frames) == (views, 3, 16)


def test_an_authors_pre_training_is_no_classifier(tmp_path):
    encoder = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 4, 4))
    method = built(replace(VIDEOMAE, encoder=encoder))
    torch.save({"model": in_their_words(method.state_dict(), build_videomae_rules(encoder))}, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match="is no fine-tuned model but pretraining; fine-tune it first"):
        load_classifier(str(tmp_path / "theirs.pth"))
