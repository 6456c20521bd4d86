"""Probes, end to end on tiny runs: features are computed once, every probe reads them, and a killed command resumes."""

import csv
import json
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from paths import PROJECT
from PIL import Image
from safetensors.torch import load_file
from samples import view_sample
from tiny_runs import FINETUNE, IMAGE_TEACHER, TEACHER, about, make_data, run

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict
from vidstill.checkpoints.load import load_checkpoint
from vidstill.cli.main import main
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.manifest.open import open_manifest
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe import feature_cache
from vidstill.pipelines.probe import lars as lars_probe
from vidstill.pipelines.probe import run as frozen
from vidstill.pipelines.probe.config import ProbeConfig, ProbeRunConfig
from vidstill.pipelines.probe.fit import fit_probes
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.pipelines.probe.run import run_probes
from vidstill.tasks.metrics.accuracy import Accuracy
from vidstill.tasks.probes import attentive
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.config_io import to_dict
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


@pytest.mark.parametrize(
    ("commands", "counts"),  # 8 training videos and 6 to test on, one view each; all tokens are different features
    [
        (["linear", "knn --shots 2", "all --probes linear knn", "attentive", "all"], [14, 14, 14, 28, 28]),
        (["knn", "knn --temporal-clips 2"], [14, 42]),
        (["knn", "knn --layers 1", "knn --pool max"], [14, 28, 42]),
        (["knn", "knn --data data/train.csv --test-data data/val.csv"], [14, 14]),
    ],
)
def test_features_are_computed_once_for_the_same_videos_and_settings(house, num_clips, capsys, commands, counts):
    for command, count in zip(commands, counts, strict=True):
        verb, *options = command.split()
        run_cli(" ".join(["probe", verb, "teacher", "--data", "data", *options]), capsys)
        assert num_clips == [count]


def test_other_weights_in_the_same_directory_have_other_features(house, num_clips, capsys):
    run_cli("probe knn teacher --data data --cache cache", capsys)
    shutil.copy("image/model.safetensors", "teacher/model.safetensors")
    run_cli("probe knn teacher --data data --cache cache", capsys)
    assert num_clips == [28]


def test_features_of_a_video_that_was_changed_in_place_are_computed_again(house, num_clips, capsys):
    command = "probe knn teacher --data data --cache changed"
    run_cli(command, capsys)
    os.utime(Path("data") / first_line("val").split()[0], ns=(0, 12345))  # the size is the same
    run_cli(command, capsys)
    assert num_clips == [14 + 6]  # the test videos
    run_cli(command, capsys)
    assert num_clips == [14 + 6]


def test_features_without_the_times_of_their_files_are_those_of_an_older_version_and_used(house, num_clips, capsys):
    command = "probe knn teacher --data data --cache older"
    run_cli(command, capsys)
    for path in Path("older").glob("*.json"):
        content = json.loads(path.read_text())
        del content["files"]
        path.write_text(json.dumps(content))
        path.with_name(f"{path.name}.sha256").unlink()
    run_cli(command, capsys)
    assert num_clips == [14]


@pytest.mark.survival("SIGKILL between the features and their description", "1→1", "same bits")
def test_features_whose_process_was_killed_while_it_named_them_are_kept(house, num_clips, capsys, monkeypatch):
    def kill(*arguments):
        raise KeyboardInterrupt

    command = "probe knn teacher --data data --cache"
    run_cli(f"{command} whole", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "write_json", kill)
        run_cli(f"{command} named", capsys, code=130)
    run_cli(f"{command} named", capsys)
    assert num_clips == [28]
    for path in Path("whole").iterdir():
        assert (Path("named") / path.name).read_bytes() == path.read_bytes()


def test_features_are_cached_in_the_run_or_for_a_file_in_the_current_directory(house, capsys):
    run_cli("probe knn teacher --data data", capsys)
    shutil.copy("teacher/model.safetensors", "mine.safetensors")
    run_cli("probe knn mine.safetensors --data data", capsys)
    for folder in (Path("teacher/features"), Path(".vidstill-features")):
        suffixes = sorted(path.suffix for path in folder.iterdir() if path.suffix != ".sha256")
        assert suffixes == [".json", ".json", ".npy", ".npy"]


def test_damaged_features_are_refused_and_computed_again_once_they_are_deleted(house, capsys):
    run_cli("probe knn teacher --data data --cache damaged", capsys)
    (path, _) = Path("damaged").glob("*.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["probe", "knn", "teacher", "--data", "data", "--cache", "damaged", *MACHINE.split()]) == 2
    error = capsys.readouterr().err
    assert f"{path.name} is damaged" in error
    Path(error.partition("; delete ")[2].partition(" to compute")[0]).unlink()
    run_cli("probe knn teacher --data data --cache damaged", capsys)


def test_the_accuracy_is_that_of_features_computed_by_hand(house):
    encoder = load_encoder("teacher", precision="fp32")
    splits = []
    for split in ("train", "val"):
        manifest = open_manifest("data", split=split)
        clips = [view_sample(ViewClips(manifest, encoder.views), row).clip for row in range(len(manifest.rows))]
        vectors = torch.cat([encoder.model(clip.float() / 255).tokens.mean(dim=1).detach() for clip in clips])
        splits.append((vectors, torch.from_numpy(manifest.rows.labels).long()))
    config = ProbeConfig(probes=("linear",), penalty=3.0)
    (result,) = run_probes(["teacher"], ProbeRunConfig(data=("data",), **QUICK), config).results
    cached = {len(table := np.load(path)): table for path in Path("teacher/features").glob("*.final.npy")}
    for vectors, _ in splits:
        torch.testing.assert_close(torch.from_numpy(cached[len(vectors)]), vectors, rtol=1e-4, atol=1e-5)
    expected = evaluate_linear_probe(*splits[0], *splits[1], 2, penalty=3.0)
    assert (result.score.top1, result.score.videos) == (expected.top1, 6)


def test_a_video_that_does_not_decode_is_named_and_not_used(house, capsys):
    train, val = (Path("data") / line.split()[0] for line in (first_line("train"), first_line("val")))
    for path in (train, val):
        path.write_bytes(b"no video")
    kinds = ("knn", "knn", "attentive", "attentive")
    printed = [run_cli(f"probe {kind} teacher --data data", capsys) for kind in kinds]
    assert printed[0] == printed[1]  # computed and cached
    assert printed[2] == printed[3]
    for text in printed:
        assert " 5\n" in text.replace("  ", " ")  # scored videos
        assert f"{train.name} " in next(line for line in text.splitlines() if line.endswith("not trained on"))
        assert f"{val.name} " in next(line for line in text.splitlines() if line.endswith("not scored"))


def first_line(part):
    return Path(f"data/{part}.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_a_stopped_probe_resumes(house, capsys, num_clips, monkeypatch, kind):
    features = VideoEncoder.extract_features

    def stop(self, *arguments, **options):
        if num_clips[0] == 3:
            raise KeyboardInterrupt
        return features(self, *arguments, **options)

    command = f"probe {kind} teacher --data data"
    with monkeypatch.context() as patch:
        patch.setattr(VideoEncoder, "extract_features", stop)
        run_cli(command, capsys, code=130)
    assert [path.suffix for path in Path("teacher/features").iterdir()] == [".journal"]
    resumed = run_cli(command, capsys)
    assert num_clips == [14]  # none of the first three again
    assert resumed == run_cli(f"{command} --cache other", capsys)
    assert all(path.suffix != ".journal" for path in Path("teacher/features").iterdir())


# ---- Tables ---------------------------------------------------------------------------------------------------------


def test_a_comparison_has_every_encoder_on_every_dataset_and_is_reproducible(house, capsys):
    command = "probe all image teacher --data data data/val.csv --test-data data data/train.csv --penalty 1"
    command += " --shots 1 2 --trials 2 --csv {0}.csv --cache {0}"
    one = run_cli(command.format("one"), capsys)
    assert run_cli(command.format("two"), capsys) == one
    lines = one.splitlines()
    probes = "linear  linear 1 shot  linear 2 shots  knn  knn 1 shot  knn 2 shots  attentive"
    assert re.sub("  +", "  ", lines[0]) == f"encoder  data  features  tested  majority  {probes}"
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


def test_every_layer_has_its_own_row(house, capsys):
    results = json.loads(run_cli("probe all teacher --data data --layers 1 -1 3 --json", capsys))["results"]
    assert [each["features"] for each in results if each["probe"] == "knn"] == ["block_1", "block_3"]
    assert [each["features"] for each in results if each["probe"] == "attentive"] == ["block_1", "block_3"]


def test_with_fewer_clips_than_neighbours_all_clips_vote(house, capsys):
    assert main(["probe", "knn", "teacher", "--data", "data", "--k", "3", "20", "--json", *MACHINE.split()]) == 0
    printed = capsys.readouterr()
    assert "data has only 8 training samples that decode" in printed.err
    assert [each["setting"] for each in json.loads(printed.out)["results"]] == ["k 3", "k 8"]


def test_pictures_are_probed_by_an_encoder_of_images(house, capsys):
    results = json.loads(run_cli("probe all image --data pictures --json", capsys))["results"]
    assert {each["probe"]: each["top1"] for each in results}["linear"] == 100  # light and dark
    assert all(each["videos"] == 4 for each in results)


def test_the_penalty_does_not_depend_on_the_test():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 2

    def build(features, labels):
        return attentive.FeatureDataset(features.numpy(), np.arange(len(labels)), labels)

    train = build(torch.randn(20, 3, generator=generator) + labels[:, None], labels)
    tests = [build(torch.randn(9, 3, generator=generator) * scale, torch.arange(9) % 2) for scale in (0.1, 100)]
    config, cpu = ProbeConfig(probes=("linear",)), torch.device("cpu")
    assert len({next(fit_probes(train, test, 2, config, cpu, "data")).setting for test in tests}) == 1


def test_few_shots_are_the_mean_and_deviation_of_their_trials(house):
    run_config = ProbeRunConfig(data=("data",), **QUICK)
    top1s = []
    for trials in (1, 2, 3):
        config = ProbeConfig(probes=("knn",), shots=(1,), trials=trials)
        result = run_probes(["teacher"], run_config, config).results[1]
        top1s.append(result.score.top1 * trials - sum(top1s))  # of the last trial
    assert result.std == pytest.approx(np.std(top1s, ddof=1))
    assert result.setting == "k 2, 3 trials"


# ---- LARS ------------------------------------------------------------------------------------------------------------

LARS = "probe linear teacher --data data --solver lars --out probe --epochs 4 --warmup-epochs 1 --base-lr 9 --flip 0"


def test_a_head_trained_by_lars_scores_as_its_weights_do(house, capsys):
    assert main([*LARS.split(), "--json", *MACHINE.split()]) == 0
    printed = capsys.readouterr()
    assert "data has 8 videos: the batch size is 8 instead of 16384" in printed.err
    assert len(Path("probe/log.jsonl").read_text().splitlines()) == 4
    report = json.loads(printed.out)
    (result,) = report["results"]
    head = load_file("probe/model.safetensors")
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert set(head) == {"head.weight", "head.bias"} | statistics
    encoder, manifest = load_encoder("teacher", precision="fp32"), open_manifest("data", split="val")
    clips = torch.cat([view_sample(ViewClips(manifest, encoder.views), row).clip for row in range(len(manifest.rows))])
    features = encoder.extract_features(clips)["final"]
    normed = (features - head["norm.running_mean"]) / (head["norm.running_var"] + 1e-6).sqrt()
    predictions = (normed @ head["head.weight"].T + head["head.bias"]).argmax(dim=1)
    hits = (predictions == torch.from_numpy(manifest.rows.labels)).double().mean().item()
    assert result["top1"] == pytest.approx(100 * hits)
    assert json.loads(Path("probe/test.json").read_text()) == report


@pytest.fixture
def image_sources(house):
    """A pre-trained, a fine-tuned and a published probing encoder of images, with the norms of their means."""
    options = {"method__encoder__positions": "sincos2d", "method__decoder__positions": "sincos2d"}
    options |= {"method__encoder__class_token": (), "method__encoder__attention_bias": "qkv"}
    options |= {"method__decoder__class_token": "encoder", "method__decoder__embed_bias": ()}
    run(IMAGE_TEACHER, data="data/unlabelled.txt", out="mae", schedule__epochs=2, **options)
    tubelet = {"encoder__tubelet": (1, 4, 4), "encoder__positions": "sincos2d", "encoder__class_token": ()}
    sizes = {"views__sampling__num_frames": 1, "clips__sampling__num_frames": 1, "views__temporal_clips": 1}
    run(FINETUNE, data="pictures", init="mae", out="tuned", schedule__epochs=2, **tubelet, **sizes)
    foreign = export_state_dict(load_checkpoint("mae"), "mae")
    foreign = {name: tensor for name, tensor in foreign.items() if not name.startswith(("decoder", "mask", "norm."))}
    norm = {f"fc_norm.{name}": torch.rand(24) for name in ("weight", "bias")}
    head = {"head.1.weight": torch.zeros(2, 24), "head.1.bias": torch.zeros(2)}
    head |= {"head.0.running_mean": torch.zeros(24), "head.0.running_var": torch.ones(24)}
    head |= {"head.0.num_batches_tracked": torch.tensor(3)}
    encoder = load_encoder("mae", precision="fp32")
    native, _ = import_checkpoint(Checkpoint(foreign | norm | head), encoder.model.config)
    write_checkpoint(Path("probe.safetensors"), native.tensors, native.metadata | {"views": to_dict(encoder.views)})
    tuned = load_file("tuned/model.safetensors")
    return {
        "mae": (torch.ones(24), torch.zeros(24)),
        "tuned": (tuned["norm.weight"], tuned["norm.bias"]),
        "probe.safetensors": tuple(norm.values()),
    }


def test_global_pooling_gives_the_head_the_norm_of_the_mean_of_the_tokens(image_sources, capsys, monkeypatch):
    """MAE's fc_norm: a new one, a fine-tuned model's own, or the file's; it is not trained."""
    models, score = [], lars_probe.score_classifier
    monkeypatch.setattr(
        lars_probe, "score_classifier", lambda model, *rest: models.append(model) or score(model, *rest)
    )
    clip = torch.rand(4, 3, 1, 16, 16)
    for number, (source, norm) in enumerate(image_sources.items()):
        command = LARS.replace("teacher --data data", f"{source} --data pictures").replace(
            "probe --ep", f"{number} --ep"
        )
        (result,) = json.loads(run_cli(f"{command} --pool mean --json", capsys))["results"]
        assert "global pooling" in result["setting"]
        assert about(Path(str(number)))["global_pool"] is True
        head = load_file(f"{number}/model.safetensors")
        assert not [name for name in head if not name.startswith(("norm.running", "norm.num", "head."))]
        (mean,) = load_encoder(source, precision="fp32").extract_features(clip, layers=[-1]).values()
        features = F.layer_norm(mean, (24,), *norm, eps=1e-6)
        standard = (features - head["norm.running_mean"]) / (head["norm.running_var"] + 1e-6).sqrt()
        expected = standard @ head["head.weight"].T + head["head.bias"]
        with torch.inference_mode():
            torch.testing.assert_close(models[-1](clip), expected, rtol=1e-4, atol=1e-4)


def test_another_pooling_is_another_run_and_a_fine_tuned_models_is_its_own(image_sources, capsys):
    command = LARS.replace("teacher --data data", "mae --data pictures")
    assert "global pooling" not in run_cli(command, capsys)  # the class token
    assert about(Path("probe"))["global_pool"] is False
    assert main([*f"{command} --pool mean".split(), *MACHINE.split()]) == 2
    assert "recipe.global_pool is False, here it is True" in capsys.readouterr().err
    run_cli(f"{command} --pool class", capsys)  # the same run
    command = LARS.replace(
        "teacher --data data --solver lars --out probe", "tuned --data pictures --solver lars --out own"
    )
    assert "global pooling" in run_cli(command, capsys)


def test_a_stopped_lars_run_resumes_and_its_checkpoints_lack_the_encoder(house, capsys, monkeypatch):
    run_cli(LARS, capsys)
    load_arrays = TrainClips.load_arrays

    def stop(self, epoch, *arguments):
        if epoch == 2:
            raise InputError("stopped")
        return load_arrays(self, epoch, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainClips, "load_arrays", stop)
        run_cli(LARS.replace("--out probe", "--out other"), capsys, code=2)
    assert 0 < len(Path("other/log.jsonl").read_text().splitlines()) < 4
    encoder = Path("teacher/model.safetensors").stat().st_size
    assert all(path.stat().st_size < encoder / 4 for path in Path("other/state").iterdir())
    run_cli(LARS.replace("--out probe", "--out other"), capsys)
    whole, again = (load_file(f"{out}/model.safetensors") for out in ("probe", "other"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# ---- Help and mistakes ---------------------------------------------------------------------------------------------


def build_accuracy(num_classes: int) -> Accuracy:
    shares = {"top1": 50.0, "top5": 90.0, "mean_class_accuracy": 40.0, "majority_baseline": 33.3}
    return Accuracy(**shares, num_classes=num_classes, videos=6, standard_error=20.0)


@pytest.mark.parametrize(("num_classes", "top5"), [(5, []), (6, ["90.0"])])
def test_tables_show_the_majority_baseline_and_top5_from_six_classes_on(num_classes, top5):
    result = ProbeResult("run", "data", "final", "linear", "none", build_accuracy(num_classes))
    report = ProbeReport((result,), {}, {})
    assert report.format_table().splitlines()[1].split()[5:] == ["50.0", "±", "20.0", *top5, "33.3", "40.0", "6"]
    assert report.format_comparison().splitlines()[0].split()[3:] == ["tested", "majority", "linear"]
    assert report.format_comparison().splitlines()[1].split()[3:5] == ["6", "33.3"]


def test_every_command_of_the_page_parses(house, monkeypatch):
    score = build_accuracy(num_classes=5)
    report = ProbeReport((ProbeResult("run", "data", "final", "linear", "penalty 1", score),), {}, {})
    calls = []
    monkeypatch.setattr(frozen, "run_probes", lambda *arguments: calls.append(arguments) or report)
    page = (PROJECT / "docs" / "probing.md").read_text()
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("vidstill probe ")]
    assert [main(command) for command in commands] == [0] * len(calls)
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("linear teacher --data data/unlabelled.txt", "has no labels"),
        ("linear teacher --data data/train.csv", "would be tested on its training videos"),
        ("linear teacher --data nowhere", "nowhere does not exist"),
        ("linear nowhere --data data", "there is no file or run nowhere"),
        ("linear data/train.csv --data data", "no file of plain tensors"),
        ("linear data --data data", "holds no model.safetensors"),
        ("knn teacher --data data --layers 4", "block 4 does not exist in an encoder of 3 blocks"),
        ("knn teacher --data data --pool class", "has no class token"),
        ("knn teacher --data data --k 0", "0 neighbours"),
        ("knn teacher --data data --shots 5", "only 4 training videos of the class 'left'"),
        ("linear teacher --data data --shots 0", "--shots is 0"),
        ("linear teacher --data data --penalty -1", "penalty is -1"),
        ("attentive teacher --data pictures", "is an image, a clip of one frame"),
        ("all --data data", "no encoder is given"),
        ("all teacher --data data data", "the same dataset twice"),
        ("all teacher teacher --data data", "the same encoder is given twice"),
        ("all teacher --data data --test-data data pictures", "has 1 datasets and --test-data 2"),
        ("all teacher --data data --csv data", "choose the path of a file with --csv"),
        ("all teacher --data data --cache data/train.csv", "cannot be written"),
        ("linear teacher --data data --solver lars --shots 1", "takes neither --shots nor --penalty"),
        ("linear teacher --data data pictures --solver lars", "trains on one dataset"),
        ("linear teacher --data data --solver lars --device-batch 1", "two clips at once"),
        ("linear teacher --data data --solver lars --pool max", "leave out --layers and --pool max"),
        ("linear teacher --data data --solver lars --pool class", "has no class token; choose mean with --pool"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(house, capsys, command, message):
    check_error(f"probe {command}", message, capsys)


def test_a_single_class_and_an_untrained_class_are_errors(house, capsys):
    lines = Path("data/train.csv").read_text().splitlines()
    Path("data/one.csv").write_text("\n".join(line for line in lines if line.endswith(" 0")) + "\n")
    check_error("probe linear teacher --data data/one.csv --test-data data/val.csv", "give two or more classes", capsys)
    Path("data/empty.csv").write_text("")
    check_error("probe linear teacher --data data --test-data data/empty.csv", "data/empty.csv", capsys)
    for part, labels in (("few", "0 1"), ("more", "0 1 2")):
        rows = [f"{line.split()[0]} {label}" for line, label in zip(lines, labels.split(), strict=False)]
        Path(f"{part}.csv").write_text("\n".join(f"data/{row}" for row in rows) + "\n")
    check_error("probe linear teacher --data few.csv --test-data more.csv", "the class '2'", capsys)


def test_a_disk_without_room_for_all_tokens_is_an_error_before_they_are_computed(house, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: usage)
    check_error("probe attentive teacher --data data", "has 1 kB left", capsys)
