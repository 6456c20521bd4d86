"""Evaluating a classifier: its files, the same for any number of workers, and videos that cannot be scored."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_layout import to_foreign
from tiny_models import VIDEOMAE, built
from tiny_runs import CLASSES, FINETUNE, make_data, run

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.cli.main import main
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.evaluate import classifier as testing
from vidstill.pipelines.evaluate.classifier import evaluate_classifier, write_classification_result
from vidstill.pipelines.run_config import Workers
from vidstill.pipelines.trained_models import load_classifier
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.output_dir import check_output_dir
from vidstill.utils.types import InputError

FILES = {"test.json", "scores.csv", "classes.csv", "confusion.csv", "confusion.png"}
VIEWS = ViewsConfig(
    sampling=SegmentSampling(num_frames=4), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with `data` and a fine-tuned model, `finetune`."""
    path = tmp_path_factory.mktemp("testing")
    data = make_data(path / "data")
    run(FINETUNE, data=data, out=path / "finetune", schedule__epochs=2)
    return path


def evaluate(folder: Path, out: Path, *, data: Path | None = None, **options: object) -> Path:
    run(
        f"evaluate {folder}/finetune",
        **{"data": data or folder / "data", "out": out, "workers": 0, "precision": "fp32", **options},
    )
    return out


def read_scores(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "SHA256SUMS"}


# ---- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_writes_and_prints_what_the_fine_tunings_own_test_does(folder, tmp_path, capsys, workers):
    out = evaluate(folder, tmp_path / "out", workers=workers)
    assert "mean class accuracy" in capsys.readouterr().out
    assert read_files(out) == {name: (folder / "finetune" / name).read_bytes() for name in FILES}
    evaluate(folder, out, json=(), workers=workers)
    assert json.loads(capsys.readouterr().out) == json.loads((out / "test.json").read_text())


def test_an_earlier_evaluation_is_overwritten_and_other_directories_are_not(folder, tmp_path, capsys):
    before = read_files(evaluate(folder, tmp_path / "out"))
    (tmp_path / "out/test.json").write_text("{}")
    (tmp_path / "out/scores.csv.part").write_text("vid")  # as a kill leaves it
    evaluate(folder, tmp_path / "out")
    assert read_files(tmp_path / "out") == before
    for out in (folder / "finetune", folder / "data", folder / "data/val.csv", folder / "data/val.csv/out"):
        assert main(f"evaluate {folder}/finetune --data {folder}/data --out {out} --workers 0".split()) == 2
        assert f"{out}" in capsys.readouterr().err


def test_results_of_two_tests_are_never_mixed(folder, tmp_path, monkeypatch):
    """test.json exists only if all other files are of the same test."""
    result = evaluate_classifier(str(folder / "finetune"), folder / "data", workers=Workers(workers=0))
    write_classification_result(tmp_path, result)
    monkeypatch.setattr(testing, "draw_confusion_matrix", lambda *arguments: [][0])  # as if it were killed
    with pytest.raises(IndexError):
        write_classification_result(tmp_path, result)
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "classes.csv", "confusion.csv"}
    check_output_dir(tmp_path, "an evaluation", "test.json", FILES)


# ---- Training videos ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holding_out(folder):
    """A list of six videos without a val split, and a run that has held out a third of them."""
    files = sorted((folder / "data/val").iterdir())
    (folder / "six.txt").write_text("".join(f"{path} {number % 2}\n" for number, path in enumerate(files)))
    run(FINETUNE, data=folder / "six.txt", out=folder / "holding_out", schedule__epochs=2, val_share=0.4, batch=4)
    return folder / "six.txt"


def test_a_run_that_held_videos_out_is_tested_on_these(folder, holding_out, tmp_path, capsys):
    run(f"evaluate {folder}/holding_out", data=holding_out, out=tmp_path / "out", workers=0, precision="fp32")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evaluate: ")]
    assert told == [f"evaluate: tests the 2 of 6 videos of {holding_out} that the run held out (a share of 0.4)"]
    alone, own = (json.loads((path / "test.json").read_text()) for path in (tmp_path / "out", folder / "holding_out"))
    assert alone == {name: value for name, value in own.items() if name != "model_selection"}
    file, workers = folder / "holding_out/model.safetensors", Workers(workers=0, precision="fp32")
    assert evaluate_classifier(str(file), holding_out, workers=workers).to_dict() == alone


def test_a_run_that_held_out_of_a_dataset_with_a_train_split_alone_is_tested_on_these(folder, holding_out, capsys):
    (data := folder / "train_alone").mkdir()
    (data / "train.csv").write_text(holding_out.read_text())
    run(FINETUNE, data=data, out=folder / "alone", schedule__epochs=2, val_share=0.4, batch=4)
    run(f"evaluate {folder}/alone", data=data, workers=0, precision="fp32")
    assert f"tests the 2 of 6 videos of {data} that the run held out" in capsys.readouterr().err
    assert main(["evaluate", f"{folder}/finetune", "--data", str(data)]) == 2
    assert "no val split" in capsys.readouterr().err


@pytest.mark.parametrize(("lines", "count"), [(slice(0, 6), 4), (slice(5, None, -1), 4)], ids=["all", "reversed"])
def test_a_test_on_training_videos_says_so(folder, holding_out, tmp_path, capsys, lines, count):
    """In another order the fingerprint is another one, but the files are the same."""
    text = holding_out.read_text().splitlines()
    (tmp_path / "others.txt").write_text("\n".join([*text[lines], f"{next((folder / 'data/train').iterdir())} 0"]))
    run(f"evaluate {folder}/holding_out", data=tmp_path / "others.txt", workers=0, precision="fp32")
    assert f"the model was trained on {count} of these videos" in capsys.readouterr().out
    run(f"evaluate {folder}/holding_out", data=tmp_path / "others.txt", json=(), workers=0, precision="fp32")
    assert json.loads(capsys.readouterr().out)["training_videos"] == count


def test_a_test_on_the_training_split_itself_says_so(folder, capsys):
    run(f"evaluate {folder}/finetune", data=folder / "data/train.csv", workers=0, precision="fp32")
    assert "the model was trained on 8 of these videos" in capsys.readouterr().out


# ---- Broken videos --------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(folder, tmp_path):
    """A list of seven videos, the second and the fifth of which do not decode."""
    shutil.copytree(folder / "data/val", tmp_path / "videos")
    files = sorted((tmp_path / "videos").iterdir())
    files[1].write_bytes(b"no video")
    lines = [f"videos/{path.name} {number % 2}" for number, path in enumerate(files)]
    (tmp_path / "videos/cut.mp4").write_bytes(files[0].read_bytes()[:300])
    lines.insert(4, "videos/cut.mp4 1")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_does_not_decode_is_reported_and_never_replaced_or_counted(folder, broken, tmp_path, workers):
    out = evaluate(folder, tmp_path / "out", data=broken, workers=workers)
    lines, metrics = read_scores(out), json.loads((out / "test.json").read_text())
    assert [line["video"] for line in lines] == [line.split()[0] for line in broken.read_text().splitlines()]
    assert [bool(line["error"]) for line in lines] == [False, True, False, False, True, False, False]
    assert all(line["rank"] == line["prediction"] == line["p(left)"] == "" for line in lines if line["error"])
    assert [line["error"] for line in lines if line["error"]] == metrics["broken_videos"]
    assert (metrics["videos"], len(metrics["broken_videos"])) == (5, 2)
    assert sum(each["videos"] for each in metrics["classes"]) == 5
    alone = read_scores(evaluate(folder, tmp_path / "alone"))
    whole = {Path(line["video"]).name: line["p(left)"] for line in alone}
    assert all(whole[Path(line["video"]).name] == line["p(left)"] for line in lines if not line["error"])


def test_a_video_that_a_list_names_twice_has_two_lines(folder, tmp_path):
    video = next((folder / "data/val").iterdir())
    (tmp_path / "twice.txt").write_text(f"{video} 0\n{video} 1\n")
    first, second = read_scores(evaluate(folder, tmp_path / "out", data=tmp_path / "twice.txt"))
    assert first["video"] == second["video"]
    assert first["p(left)"] == second["p(left)"]
    assert {first["correct"], second["correct"]} == {"0", "1"}


def test_a_diverged_model_is_an_error(folder, tmp_path):
    """No NaN is above another, so every label would have rank 1."""
    model = read_checkpoint(folder / "finetune")
    diverged = {name: tensor * float("nan") for name, tensor in model.tensors.items()}
    write_checkpoint(tmp_path / "wild.safetensors", diverged, model.metadata)
    with pytest.raises(InputError, match=r"none of the 6 videos .* could be scored; .* not finite"):
        evaluate_classifier(str(tmp_path / "wild.safetensors"), folder / "data", workers=Workers(workers=0))


# ---- Views ----------------------------------------------------------------------------------------------------------


def test_all_views_of_a_video_are_decoded_at_once(folder, monkeypatch):
    reads, read_frames = [], VideoReader.read_frames

    def record(reader, indices):
        reads.append(sorted(set(indices)))
        return read_frames(reader, indices)

    monkeypatch.setattr(VideoReader, "read_frames", record)
    clips = ViewClips(open_manifest(folder / "data", split="val"), VIEWS)
    assert {clips.load_arrays(row)[0].shape for row in range(6)} == {(1, 6, 3, 4, 16, 16)}
    views = VIEWS.sampling.list_view_indices(8, 2)  # of 8 frames
    assert reads == [sorted({frame for view in views for frame in view})] * 6


def test_numbered_labels_may_be_fewer_than_the_models_classes(folder, tmp_path):
    """The tables have all of the model's classes by their names."""
    video = next((folder / "data/val").iterdir())
    (tmp_path / "one.txt").write_text(f"{video} 0\n")
    out = evaluate(folder, tmp_path / "out", data=tmp_path / "one.txt")
    assert [each["name"] for each in json.loads((out / "test.json").read_text())["classes"]] == list(CLASSES)
    (line,) = read_scores(out)
    assert line["class"] == "left"
    assert sum(float(line[f"p({name})"]) for name in CLASSES) == pytest.approx(1)


# ---- The authors' files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "views"), [(400, 5), (174, 2)], ids=["Kinetics", "SSv2"])
def test_an_authors_classifier_has_the_views_of_its_paper(tmp_path, classes, views):
    encoder = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 16, 16))
    module = built(ClassifierConfig(encoder=encoder, num_classes=classes)).eval()
    tensors = to_foreign(module.state_dict(), build_classifier_rules(encoder))
    torch.save({"module": tensors}, tmp_path / "theirs.pth")
    model, weights = load_classifier(str(tmp_path / "theirs.pth"))
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(model.eval()(clip), module(clip))
    assert weights.metadata["classes"] == [str(number) for number in range(classes)]
    config = from_dict(ViewsConfig, weights.metadata["views"])
    assert (config.temporal_clips, config.spatial_crops, config.sampling.num_frames) == (views, 3, 16)


def test_an_authors_pre_training_is_not_a_classifier(tmp_path):
    encoder = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 4, 4))
    method = built(replace(VIDEOMAE, encoder=encoder))
    torch.save({"model": to_foreign(method.state_dict(), build_videomae_rules(encoder))}, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match="is no fine-tuned model but pretraining; fine-tune it first"):
        load_classifier(str(tmp_path / "theirs.pth"))
