"""Probes, end to end on tiny runs: features are computed once, every probe reads them, and a killed command resumes."""

import csv
import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import PROJECT
from PIL import Image
from safetensors.torch import load_file
from samples import view_sample
from tiny_runs import IMAGE_TEACHER, TEACHER, make_data, run

from vidstill.cli.main import main
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.manifest.open import open_manifest
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe import run as frozen
from vidstill.pipelines.probe.config import ProbeConfig, ProbeRunConfig
from vidstill.pipelines.probe.fit import FeatureSplit, fit_vector_probes
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.pipelines.probe.run import run_probes
from vidstill.tasks.metrics.accuracy import Accuracy
from vidstill.tasks.probes import attentive
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.types import InputError

QUICK = {"workers": 0, "precision": "fp32"}
MACHINE = "--workers 0 --precision fp32"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    data = make_data(folder / "data")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    run(IMAGE_TEACHER, data=data / "unlabelled.txt", out=folder / "image", schedule__epochs=2)
    for number in range(12):
        part, name = ("train", "val")[number // 8], ("dark", "light")[number % 2]
        (folder / "pictures" / part / name).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 128, (20, 24, 3)) + 127 * (number % 2)
        Image.fromarray(noise.astype(np.uint8)).save(folder / "pictures" / part / name / f"{number}.png")
    return folder


@pytest.fixture
def house(built, tmp_path, monkeypatch):
    """A copy of it, which is the current folder; the attentive probe takes 20 steps."""
    shutil.copytree(built, tmp_path / "house")
    monkeypatch.chdir(tmp_path / "house")
    monkeypatch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 20)
    return tmp_path / "house"


@pytest.fixture
def num_clips(monkeypatch):
    """The number of clips that encoders have embedded."""
    clips = [0]
    features = VideoEncoder.extract_features

    def count(self, batch, **options):
        clips[0] += len(batch)
        return features(self, batch, **options)

    monkeypatch.setattr(VideoEncoder, "extract_features", count)
    return clips


def run_cli(command, capsys, code=0):
    """Return what a command prints."""
    capsys.readouterr()
    assert main([*command.split(), *MACHINE.split()]) == code
    return capsys.readouterr().out


def check_error(command, message, capsys):
    """The command ends with exit code 2 and one sentence, and changes no file."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*command.split(), *MACHINE.split()]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("vidstill: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


# ---- Features -------------------------------------------------------------------------------------------------------


def test_a_second_probe_of_another_kind_does_not_run_the_encoder(house, num_clips, capsys):
    run_cli("probe linear teacher --data data", capsys)
    assert num_clips == [14]  # 8 training videos and 6 to test on, one view each
    run_cli("probe knn teacher --data data --shots 2", capsys)
    run_cli("probe all teacher --data data --probes linear knn", capsys)
    assert num_clips == [14]
    run_cli("probe attentive teacher --data data", capsys)
    assert num_clips == [28]  # all tokens are other features
    run_cli("probe all teacher --data data", capsys)
    assert num_clips == [28]


@pytest.mark.parametrize(
    "other", ["--temporal-clips 2", "--layers 1", "--pool max", "--data data/train.csv --test-data data/val.csv"]
)
def test_other_features_are_computed_anew_and_the_same_data_elsewhere_are_not(house, num_clips, capsys, other):
    run_cli("probe knn teacher --data data", capsys)
    run_cli(f"probe knn teacher {other}" + ("" if "--data" in other else " --data data"), capsys)
    assert num_clips == [
        {"--temporal-clips 2": 42, "--data data/train.csv --test-data data/val.csv": 14}.get(other, 28)
    ]


def test_other_weights_in_the_same_folder_have_other_features(house, num_clips, capsys):
    run_cli("probe knn teacher --data data --cache kept", capsys)
    shutil.copy("image/model.safetensors", "teacher/model.safetensors")
    run_cli("probe knn teacher --data data --cache kept", capsys)
    assert num_clips == [28]


def test_features_are_kept_in_the_run_or_for_a_file_in_the_current_folder(house, capsys):
    run_cli("probe knn teacher --data data", capsys)
    assert len(list(Path("teacher/features").iterdir())) == 2
    shutil.copy("teacher/model.safetensors", "mine.safetensors")
    run_cli("probe knn mine.safetensors --data data", capsys)
    assert len(list(Path(".vidstill-features").iterdir())) == 2


def test_the_probe_s_accuracy_is_that_of_features_that_are_read_by_hand(house):
    encoder = load_encoder("teacher", precision="fp32")
    of = {}
    for part in ("train", "val"):
        listing = open_manifest("data", split=part)
        clips = [view_sample(ViewClips(listing, encoder.views), place).clip for place in range(len(listing.rows))]
        vectors = torch.cat([encoder.model(clip.float() / 255).tokens.mean(dim=1).detach() for clip in clips])
        of[part] = vectors, torch.from_numpy(listing.rows.labels).long()
    (found,) = run_probes(
        ["teacher"], ProbeRunConfig(data=("data",), **QUICK), ProbeConfig(probes=("linear",), penalty=3.0)
    ).results
    for vectors, _ in of.values():
        (kept,) = (
            features
            for path in Path("teacher/features").iterdir()
            if len(features := load_file(path)["final"]) == len(vectors)
        )
        torch.testing.assert_close(kept, vectors, rtol=1e-4, atol=1e-5)
    expected = evaluate_linear_probe(*of["train"], *of["val"], 2, penalty=3.0)
    assert (found.score.top1, found.score.videos) == (expected.top1, 6)


def test_a_video_that_does_not_decode_is_left_out_and_named(house, capsys):
    train, val = (Path("data") / line.split()[0] for line in (first_line("train"), first_line("val")))
    for path in (train, val):
        path.write_bytes(b"no video")
    printed = [
        run_cli(f"probe {kind} teacher --data data", capsys) for kind in ("knn", "knn", "attentive", "attentive")
    ]
    assert printed[0] == printed[1]  # computed, and read
    assert printed[2] == printed[3]
    for text in printed:
        assert " 5\n" in text.replace("  ", " ")  # videos that were scored
        assert f"{train.name} " in next(line for line in text.splitlines() if line.endswith("left out of the training"))
        assert f"{val.name} " in next(line for line in text.splitlines() if line.endswith("not scored"))


def first_line(part):
    return Path(f"data/{part}.csv").read_text().splitlines()[0]


def test_what_is_stopped_half_way_leaves_no_features(house, capsys, monkeypatch):
    features, calls = VideoEncoder.extract_features, []

    def stopped(self, *given, **asked):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return features(self, *given, **asked)

    monkeypatch.setattr(VideoEncoder, "features", stopped)
    for kind in ("linear", "attentive"):
        calls.clear()
        run_cli(f"probe {kind} teacher --data data", capsys, code=130)
        assert list(Path("teacher/features").iterdir()) == []


# ---- Tables ---------------------------------------------------------------------------------------------------------


def test_one_table_has_every_encoder_on_every_data_set_and_is_the_same_again(house, capsys):
    command = (
        "probe all image teacher --data data data/val.csv --test-data data data/train.csv --shots 1 2 --csv {0}.csv"
    )
    command += " --penalty 1 --trials 2"
    one = run_cli(command.format("one") + " --cache one", capsys)
    assert run_cli(command.format("two") + " --cache two", capsys) == one
    lines = one.splitlines()
    probes = "linear  linear 1 shot  linear 2 shots  knn  knn 1 shot  knn 2 shots  attentive"
    assert re.sub("  +", "  ", lines[0]) == f"encoder  data  features  videos  {probes}"
    assert [line.split()[:4] for line in lines[1:]] == [
        [encoder, *data, ]
        for encoder in ("image", "teacher")
        for data in (["data", "final", "6"], ["data/val.csv", "final", "8"])
    ]  # fmt: skip
    rows = list(csv.DictReader(Path("one.csv").read_text().splitlines()))
    assert Path("one.csv").read_text() == Path("two.csv").read_text()
    assert len(rows) == 2 * 2 * 7
    for row in rows:
        assert f"{float(row['top1']):.1f} ± " in one
        assert (row["std"] != "") == ("shot" in row["probe"])


def test_every_layer_has_a_row_of_its_own(house, capsys):
    found = json.loads(run_cli("probe all teacher --data data --layers 1 -1 3 --json", capsys))["results"]
    assert [each["features"] for each in found if each["probe"] == "knn"] == ["block_1", "block_3"]
    assert [each["features"] for each in found if each["probe"] == "attentive"] == ["block_1", "block_3"]


def test_more_neighbours_than_clips_are_all_clips_and_that_is_said(house, capsys):
    assert main(["probe", "knn", "teacher", "--data", "data", "--k", "3", "20", "--json", *MACHINE.split()]) == 0
    printed = capsys.readouterr()
    assert "20 neighbours are asked for and data has 8 training videos" in printed.err
    assert [each["setting"] for each in json.loads(printed.out)["results"]] == ["k 3", "k 8"]


def test_pictures_are_probed_by_an_encoder_of_images(house, capsys):
    found = json.loads(run_cli("probe all image --data pictures --json", capsys))["results"]
    assert {each["probe"]: each["top1"] for each in found}["linear"] == 100  # light and dark
    assert all(each["videos"] == 4 for each in found)


def test_the_penalty_is_chosen_without_a_look_at_the_test():
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 2
    train = FeatureSplit(torch.randn(20, 3, generator=chance) + labels[:, None], labels)
    tests = [FeatureSplit(torch.randn(9, 3, generator=chance) * scale, torch.arange(9) % 2) for scale in (0.1, 100)]
    chosen = {
        next(fit_vector_probes(train, test, 2, ProbeConfig(probes=("linear",)), "data")).setting for test in tests
    }
    assert len(chosen) == 1


def test_few_shots_are_the_mean_and_deviation_of_their_draws(house):
    asked = ProbeRunConfig(data=("data",), **QUICK)
    tops = []
    for draws in (1, 2, 3):
        probes = ProbeConfig(probes=("knn",), shots=(1,), trials=draws)
        found = run_probes(["teacher"], asked, probes).results[1]
        tops.append(found.score.top1 * draws - sum(tops))  # what the last draw has added to the sum
    assert found.std == pytest.approx(np.std(tops, ddof=1))
    assert found.setting == "k 2, 3 draws"


# ---- MAE's way ------------------------------------------------------------------------------------------------------

LARS = "probe linear teacher --data data --solver lars --out probe --epochs 4 --warmup-epochs 1 --base-lr 9 --flip 0"


def test_a_head_is_trained_by_lars_and_scores_what_its_file_says(house, capsys):
    assert main([*LARS.split(), "--json", *MACHINE.split()]) == 0
    printed = capsys.readouterr()
    assert "a batch of 16384 clips is asked for and there are 8 videos: a step takes 8" in printed.err
    assert len(Path("probe/log.jsonl").read_text().splitlines()) == 4
    said = json.loads(printed.out)
    (found,) = said["results"]
    head = load_file("probe/model.safetensors")
    assert set(head) == {
        "head.weight",
        "head.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    encoder, listing = load_encoder("teacher", precision="fp32"), open_manifest("data", split="val")
    clips = torch.cat(
        [view_sample(ViewClips(listing, encoder.views), place).clip for place in range(len(listing.rows))]
    )
    seen = encoder.extract_features(clips)["final"]
    normed = (seen - head["norm.running_mean"]) / (head["norm.running_var"] + 1e-6).sqrt()
    guessed = (normed @ head["head.weight"].T + head["head.bias"]).argmax(dim=1)
    hits = (guessed == torch.from_numpy(listing.rows.labels)).double().mean().item()
    assert found["top1"] == pytest.approx(100 * hits)
    assert json.loads(Path("probe/test.json").read_text()) == said


def test_a_stopped_run_by_lars_is_resumed_and_its_state_is_without_the_encoder(house, capsys, monkeypatch):
    run_cli(LARS, capsys)
    sample = TrainClips.load_sample

    def stopped(self, epoch, index, **more):
        if epoch == 2:
            raise InputError("stopped")
        return sample(self, epoch, index, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TrainClips, "sample", stopped)
        run_cli(LARS.replace("--out probe", "--out other"), capsys, code=2)
    assert 0 < len(Path("other/log.jsonl").read_text().splitlines()) < 4
    encoder = Path("teacher/model.safetensors").stat().st_size
    assert all(path.stat().st_size < encoder / 4 for path in Path("other/state").iterdir())
    run_cli(LARS.replace("--out probe", "--out other"), capsys)
    whole, again = (load_file(f"{out}/model.safetensors") for out in ("probe", "other"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# ---- Help and mistakes ---------------------------------------------------------------------------------------------


def test_every_command_of_the_page_can_be_read(house, monkeypatch):
    score = Accuracy(top1=50.0, top5=100.0, mean_class_accuracy=50.0, videos=6, standard_error=20.0)
    found = ProbeReport((ProbeResult("run", "data", "final", "linear", "penalty 1", score),), {}, {})
    asked = []
    monkeypatch.setattr(frozen, "run_probes", lambda *given: asked.append(given) or found)
    page = (PROJECT / "docs" / "probing.md").read_text()
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("vidstill probe ")]
    assert [main(command) for command in commands] == [0] * len(asked)
    assert len(asked) == 4


@pytest.mark.parametrize("verb", ["probe linear", "probe knn", "probe attentive", "probe all"])
def test_every_verb_explains_itself(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    assert f"usage: vidstill {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("linear teacher --data data/unlabelled.txt", "has no labels"),
        ("linear teacher --data data/train.csv", "tested on the videos that it is fitted on"),
        ("linear teacher --data nowhere", "nowhere does not exist"),
        ("linear nowhere --data data", "there is no file or run nowhere"),
        ("linear data/train.csv --data data", "no file of plain tensors"),
        ("linear data --data data", "holds no model.safetensors"),
        ("knn teacher --data data --layers 4", "block 4 is asked of an encoder of 3 blocks"),
        ("knn teacher --data data --pool class", "has no class token"),
        ("knn teacher --data data --k 0", "0 neighbours"),
        ("knn teacher --data data --shots 5", "4 training videos of the class 'left', and 5 shots"),
        ("linear teacher --data data --shots 0", "0 shots"),
        ("linear teacher --data data --penalty -1", "penalty is -1"),
        ("attentive teacher --data pictures", "is a picture, a clip of one frame"),
        ("all --data data", "no encoder is given"),
        ("all teacher --data data data", "the same data set twice"),
        ("all teacher teacher --data data", "the same encoder is named twice"),
        ("all teacher --data data --test-data data pictures", "names 1 data sets and --test-data 2"),
        ("all teacher --data data --csv nowhere/table.csv", "give --csv a file in a folder"),
        ("all teacher --data data --cache data/train.csv", "cannot be written"),
        ("linear teacher --data data --solver lars --shots 1", "neither shots nor a penalty"),
        ("linear teacher --data data pictures --solver lars", "on one data set"),
        ("linear teacher --data data --solver lars --device-batch 1", "two clips at once"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(house, capsys, command, message):
    check_error(f"probe {command}", message, capsys)


def test_a_single_class_and_one_that_is_not_taught_are_check_error(house, capsys):
    lines = Path("data/train.csv").read_text().splitlines()
    Path("data/one.csv").write_text("\n".join(line for line in lines if line.endswith(" 0")) + "\n")
    check_error("probe linear teacher --data data/one.csv --test-data data/val.csv", "one class only", capsys)
    Path("data/empty.csv").write_text("")
    check_error("probe linear teacher --data data --test-data data/empty.csv", "data/empty.csv", capsys)
    for part, labels in (("few", "0 1"), ("more", "0 1 2")):
        rows = [f"{line.split()[0]} {label}" for line, label in zip(lines, labels.split(), strict=False)]
        Path(f"{part}.csv").write_text("\n".join(f"data/{row}" for row in rows) + "\n")
    check_error("probe linear teacher --data few.csv --test-data more.csv", "the class '2'", capsys)


def test_a_disk_without_room_for_all_tokens_is_met_before_they_are_computed(house, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(tokens.shutil, "disk_usage", lambda path: usage)
    check_error("probe attentive teacher --data data", "has 1 kB left", capsys)
