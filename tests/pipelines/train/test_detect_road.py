"""From made clips with boxes to a detector and its score, as it is typed; by one process, by two, and after a kill."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh_programs import run_ranks
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_detections import TRAIN, make_data, trained
from tiny_runs import kill_run, log, typed

from vidstill.cli.main import main
from vidstill.data.ava.box_table import read_box_csv
from vidstill.data.ava.dataset import open_box_dataset
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.ava.samples import KeyframeViewDataset
from vidstill.pipelines.trained_models import load_detector

FILES = ("test.json", "detections.csv", "actions.csv", "curves.png")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with `data` and a detector's run, `one`."""
    folder = tmp_path_factory.mktemp("detection")
    trained(make_data(folder / "data"), folder / "one", device_batch=2)
    return folder


def read_result(folder: Path) -> dict:
    return json.loads((folder / "test.json").read_text())


def load_keyframes(data: Path) -> Keyframes:
    return open_box_dataset(data).load_split("val").load_test_keyframes(0.5)


def test_a_training_leaves_a_detector_and_the_results_of_its_test(road):
    assert {"model.safetensors", "recipe.json", "log.jsonl", *FILES} <= {path.name for path in (road / "one").iterdir()}
    result = read_result(road / "one")
    frames = load_keyframes(road / "data")
    assert result["scored_boxes"] == len(frames.boxes)
    assert (result["broken_keyframes"], result["matching"]) == ([], "score_order_top50")
    with safe_open(road / "one/model.safetensors", "pt") as file:
        message = json.loads(file.metadata()["vidstill"])
    assert message["kind"] == "detector"
    assert [name for _, name in message["actions"]] == list(frames.label_map.names.values())


def test_what_is_written_of_a_test_is_what_the_detector_scores_by_itself(road):
    """Its rows, against the model run on each key frame alone."""
    loaded, frames = load_detector(str(road / "one")), load_keyframes(road / "data")
    views = KeyframeViewDataset(frames, loaded.recipe.views)
    rows = read_box_csv(road / "one/detections.csv", has_scores=True)
    result = rows.score.reshape(len(frames.boxes), len(frames.label_map))
    np.testing.assert_array_equal(rows.action_id.reshape(result.shape)[0], frames.label_map.action_ids)
    np.testing.assert_allclose(rows.box.reshape(*result.shape, 4)[:, 0], frames.boxes, atol=1e-9)
    for index in range(len(frames)):
        clip, boxes, _ = views.load_arrays(index)
        with torch.inference_mode():
            logits = loaded.model.eval()(torch.from_numpy(clip).float() / 255, torch.from_numpy(boxes))[0]
        own = slice(frames.box_offsets[index], frames.box_offsets[index + 1])
        expected = logits.sigmoid().numpy() * frames.scores[own, None]
        np.testing.assert_allclose(result[own], expected, rtol=1e-4, atol=1e-6)


def test_the_detections_score_by_themselves_what_the_test_said(road, capsys):
    assert main(f"detect evaluate {road}/one/detections.csv --data {road}/data --json".split()) == 0
    again, result = json.loads(capsys.readouterr().out), read_result(road / "one")
    assert again["mean_average_precision"] == pytest.approx(result["mean_average_precision"], abs=1e-9)
    assert again["actions"] == result["actions"]


def test_a_detector_is_tested_again_by_other_rules(road, tmp_path, capsys):
    command = f"detect evaluate {road}/one --data {road}/data --workers 0 --precision fp32 --json"
    assert main(f"{command} --out {tmp_path}/again".split()) == 0
    same = json.loads(capsys.readouterr().out)
    assert same == read_result(road / "one") == read_result(tmp_path / "again")
    assert (tmp_path / "again/detections.csv").read_bytes() == (road / "one/detections.csv").read_bytes()
    assert main(f"{command} --person-boxes annotated --matching file_order --crop center".split()) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["matching"] == "file_order"
    assert other["scored_boxes"] == len(
        open_box_dataset(road / "data").load_split("val").load_test_keyframes(0.5, use_annotations=True).boxes
    )


def test_two_processes_train_and_test_as_one_that_accumulates_does(road):
    command = typed(TRAIN, data=road / "data", out=road / "two")
    assert run_ranks(main, command) == [0, 0]
    losses = [torch.tensor([line["loss"] for line in log(road / name)]) for name in ("one", "two")]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    one, two = (list(csv.reader((road / name / "detections.csv").open())) for name in ("one", "two"))
    assert [line[:7] for line in one] == [line[:7] for line in two]
    np.testing.assert_allclose([float(line[7]) for line in two], [float(line[7]) for line in one], rtol=1e-3)


def test_two_processes_test_a_detector_to_the_byte_as_one_does(road, tmp_path):
    """One of them meets a video that does not decode: nothing is lost and nothing counted twice."""
    data = shutil.copytree(road / "data", tmp_path / "data")
    (data / "videos/val_000001.mp4").write_bytes(b"no video")
    command = f"detect evaluate {road}/one --data {data} --workers 1 --precision fp32 --out"
    assert main([*command.split(), str(tmp_path / "one")]) == 0
    assert run_ranks(main, [*command.split(), str(tmp_path / "two")]) == [0, 0]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in FILES)
    result = read_result(tmp_path / "one")
    assert len(result["broken_keyframes"]) == sum(
        load_keyframes(data)[index].video.name == "val_000001" for index in range(len(load_keyframes(data)))
    )
    whole = read_box_csv(data / "annotations/val.csv", has_scores=False)
    lost = (np.array(whole.video_names)[whole.video_index] == "val_000001").sum()
    assert result["ground_truth"] <= len(whole) - lost


@pytest.mark.nightly  # trains another detector
def test_averaged_weights_are_tested_beside_the_trained_ones(road, tmp_path, capsys):
    trained(road / "data", tmp_path / "averaged", device_batch=2, ema_decay=0.9)
    result = read_result(tmp_path / "averaged")
    averaged = result.pop("ema")
    assert result == read_result(road / "one")
    capsys.readouterr()
    source = tmp_path / "averaged" / "model_ema.safetensors"
    assert main(f"detect evaluate {source} --data {road}/data --workers 0 --precision fp32 --json".split()) == 0
    assert json.loads(capsys.readouterr().out) == averaged


@pytest.mark.survival("SIGKILL of a detector's training", "1→1", "same bits")
def test_the_same_command_goes_on_after_a_kill(road, tmp_path):
    command = typed(TRAIN, data=road / "data", out=tmp_path / "run", device_batch=2, save_seconds=0)
    kill_run(command, tmp_path / "run", count=3)
    assert main(command) == 0
    whole, result = (load_file(folder / "model.safetensors") for folder in (road / "one", tmp_path / "run"))
    assert all(torch.equal(whole[name], result[name]) for name in whole)
    assert read_result(tmp_path / "run") == read_result(road / "one")


def test_an_encoder_with_a_layer_decay_of_0_is_frozen_and_its_head_learns(road, tmp_path):
    out = trained(road / "data", tmp_path / "run", optim__layer_decay=0, init=road / "one")
    before, after = (load_file(folder / "model.safetensors") for folder in (road / "one", out))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder.blocks."))
    assert not torch.equal(before["head.weight"], after["head.weight"])


# ---- Mistakes -------------------------------------------------------------------------------------------------------


def write_nan(table: Path) -> None:
    rows = table.read_text().splitlines()
    rows[4] = rows[4].replace(",0.", ",nan", 1)
    table.write_text("\n".join(rows))


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("annotations/actions.pbtxt", Path.unlink, "actions"),
        ("annotations/train.csv", write_nan, "line 5 of"),
        ("videos/train_000002.mp4", Path.unlink, "train_000002"),
        ("annotations/val_persons.csv", Path.unlink, "vidstill detect boxes"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_anything_is_written(road, tmp_path, capsys, file, edit, message):
    data = shutil.copytree(road / "data", tmp_path / "data")
    edit(data / file)
    assert main(typed(TRAIN, data=data, out=tmp_path / "run")) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("vidstill: ")
    assert message in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed_words", "message"),
    [
        ("{road}/data/annotations/val_persons.csv --crop center", "--crop"),
        ("{road}/none", "there is no file or run"),
        ("{road}/one --person-boxes {road}/none.csv", "none.csv"),
        ("{road}/one --actions {road}/other.csv", "does not know|calls"),
        ("{road}/one --out {road}/one", "holds something else"),
    ],
)
def test_a_test_that_cannot_be_made_is_refused(road, capsys, typed_words, message):
    (road / "other.csv").write_text("1,sings\n2,move left\n")
    assert main(f"detect evaluate {typed_words} --data {road}/data --workers 0".format(road=road).split()) == 2
    sentence = capsys.readouterr().err
    assert any(text in sentence for text in message.split("|"))


def test_no_detections_at_all_are_a_score_of_zero(road, tmp_path, capsys):
    (tmp_path / "none.csv").write_text("")
    assert main(f"detect evaluate {tmp_path}/none.csv --data {road}/data --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["mean_average_precision"] == 0
