"""The automatic recipe: what it chooses for which data, machine and checkpoint; its reasons; a run that is resumed."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refused_runs import contents, refuses
from tiny_runs import FINETUNE, TEACHER, about, make_data, run, typed

from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.cli.main import main
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.choose import AutoRecipe, choose_recipe
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware, compute_dataset_stats
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.types import Grid, InputError

CPU, GPU = Hardware(device_kind="cpu", count=2), Hardware(device_kind="gpu", count=1)
AUTO = "finetune auto --workers 0 --precision fp32"
SHORT = "--schedule.epochs 2 --schedule.warmup-epochs 0 --batch 4"
STATS = DatasetStats(
    num_clips=400,
    class_counts=(100, 100, 100, 100),
    is_images=False,
    median_frames=100,
    median_seconds=4.0,
    frame_rate=25.0,
    median_short_side=240,
    aspect_ratio=1.33,
    has_left_right_classes=False,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_data(folder / "data")
    run(TEACHER, data=folder / "data" / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    return folder


def choose(
    checkpoint: Checkpoint | None = None,
    hardware: Hardware = CPU,
    *,
    validation_clips: int = 100,
    is_tested: bool = True,
    **stats,
) -> AutoRecipe:
    options = {"num_validation_clips": validation_clips, "is_tested_on_validation": is_tested}
    return choose_recipe(replace(STATS, **stats), checkpoint, hardware, **options)


def choose_clips(**stats):
    return choose(**stats).recipe.clips


def explain(auto: AutoRecipe) -> str:
    return "\n".join(auto.explain(auto.recipe))


def load_recipe(run_dir) -> FinetuneRecipe:
    return from_dict(FinetuneRecipe, json.loads((run_dir / "recipe.json").read_text())["recipe"])


any_stats = st.builds(
    DatasetStats,
    num_clips=st.integers(2, 10**6),
    class_counts=st.lists(st.integers(1, 10**5), min_size=2, max_size=400).map(tuple),
    is_images=st.booleans(),
    median_frames=st.integers(1, 10**5),
    median_seconds=st.none() | st.floats(0.04, 10**4),
    frame_rate=st.none() | st.floats(1, 240),
    median_short_side=st.integers(8, 4000),
    aspect_ratio=st.floats(1, 4),
    has_left_right_classes=st.booleans(),
)
any_hardware = st.builds(
    Hardware, device_kind=st.sampled_from(["cpu", "gpu"]), count=st.integers(1, 64), processes=st.integers(1, 2)
)


@settings(max_examples=5, deadline=None)
@given(any_stats, any_hardware, st.integers(1, 10**5), st.booleans())
def test_every_recipe_can_be_trained_in_the_target_time_and_has_reasons(stats, hardware, validation_clips, is_tested):
    options = {"num_validation_clips": validation_clips, "is_tested_on_validation": is_tested}
    auto = choose_recipe(stats, None, hardware, **options)
    assert auto == choose_recipe(stats, None, hardware, **options)
    recipe, sampling, size = auto.recipe, auto.recipe.clips.sampling, auto.recipe.clips.size
    Grid.from_clip(torch.empty(1, 3, sampling.num_frames, *size, device="meta"), recipe.encoder.tubelet)
    assert (sampling, size) == (recipe.views.sampling, recipe.views.size)
    assert sampling.num_frames in ((1,) if stats.is_images else (4, 8, 16))
    assert recipe.batch <= max(stats.num_clips, hardware.processes)
    assert recipe.batch % hardware.processes == 0
    assert recipe.mixup is None or recipe.batch % (2 * hardware.processes) == 0
    assert recipe.schedule.warmup_epochs < recipe.schedule.epochs <= defaults.EPOCH_RANGE[1]
    assert (recipe.patience is None) == (is_tested or validation_clips < 100)
    assert recipe.select == "best"
    gflops = compute_model_cost(recipe.encoder, num_frames=sampling.num_frames, size=size).gflops
    per_second, kind = defaults.GMACS_PER_SECOND[hardware.device_kind] * hardware.count, hardware.device_kind
    minutes = recipe.schedule.epochs * gflops * (3 * stats.num_clips + validation_clips) / per_second / 60
    assert minutes <= defaults.TRAINING_MINUTES[kind] or recipe.schedule.epochs == defaults.MIN_EPOCHS
    lines = auto.explain(recipe)
    assert len(lines) == 13
    assert all(": " in line and "\n" not in line for line in lines)


def test_of_images_no_reason_speaks_of_clips_or_videos():
    auto = choose(is_images=True, num_clips=60, median_frames=1, class_counts=(30, 30))
    lines = auto.explain(auto.recipe)
    assert "single frames: the data are images" in lines
    assert "horizontal flip of half of the images: no class is called left or right" in lines
    assert "every image once per epoch: every class has 30 images" in lines
    assert not [line for line in lines if "clip" in line or "video" in line]


@pytest.mark.parametrize(("short_side", "size"), [(16, 32), (50, 48), (64, 48), (160, 48)])
def test_a_clip_has_about_the_size_of_its_video_or_less(short_side, size):
    assert choose_clips(median_short_side=short_side, num_clips=60).size == (size, size)


def test_a_gpu_gets_larger_clips_and_models():
    on_cpu, on_gpu = choose(num_clips=60).recipe, choose(hardware=GPU, num_clips=60).recipe
    assert on_gpu.clips.size == (224, 224)
    assert on_gpu.encoder.dim > on_cpu.encoder.dim


def test_a_clip_spans_a_short_video_and_two_seconds_of_a_long_one():
    assert isinstance(choose_clips(median_frames=60, median_seconds=2.4).sampling, SegmentSampling)
    assert isinstance(choose_clips(median_frames=20, median_seconds=None).sampling, SegmentSampling)
    assert choose_clips(median_frames=5).sampling.num_frames == 4
    long = choose_clips(median_frames=600, median_seconds=20.0, frame_rate=30.0)
    assert long.sampling == DenseSampling(num_frames=16, stride=4)
    slow = choose_clips(median_frames=40, median_seconds=8.0, frame_rate=5.0)
    assert slow.sampling == DenseSampling(num_frames=16, stride=1)


def test_images_are_clips_of_one_frame_without_colour_jitter():
    recipe = choose(is_images=True, median_frames=1, median_short_side=100).recipe
    assert recipe.clips.sampling.num_frames == recipe.encoder.tubelet[0] == recipe.views.temporal_clips == 1
    assert recipe.encoder.positions == "sincos2d"
    assert (recipe.color_jitter, choose().recipe.color_jitter) == (None, ColorJitter())


def test_classes_are_balanced_if_one_has_more_than_three_times_the_clips_of_another():
    assert choose_clips(class_counts=(30, 10, 0)).class_balance == 0
    auto = choose(class_counts=(31, 10, 0))
    assert auto.recipe.clips.class_balance == defaults.CLASS_BALANCE
    assert "the largest class has 31 clips, the smallest 10" in explain(auto)


@pytest.mark.parametrize(("left_right", "probability"), [(True, 0), (False, 0.5)])
def test_clips_are_not_flipped_if_a_class_is_called_left(left_right, probability):
    assert choose_clips(has_left_right_classes=left_right).flip_probability == probability


def test_a_typed_option_has_no_reason():
    auto = choose()
    lines = auto.explain(replace(auto.recipe, batch=2 * auto.recipe.batch, patience=3))
    assert len(lines) == len(auto.explain(auto.recipe)) - 2
    assert not [line for line in lines if line.startswith("batch")]


# ---- Checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_decides_the_encoder_and_the_clips(runs):
    checkpoint = read_checkpoint(runs / "teacher")
    auto = choose(checkpoint, median_frames=300, median_seconds=10.0)
    assert to_dict(replace(auto.recipe.encoder, drop_path=0.0)) == about(runs / "teacher")["encoder"]
    clips = about(runs / "teacher")["recipe"]["clips"]
    assert list(auto.recipe.clips.size) == clips["size"]
    assert auto.recipe.clips.sampling.num_frames == clips["sampling"]["num_frames"]
    assert str(checkpoint.source) in explain(auto)


@pytest.mark.parametrize(("frames", "stride"), [(13, 3), (400, 10)])
def test_the_stride_is_smaller_if_the_videos_are_shorter_than_the_checkpoints_clips(runs, frames, stride):
    checkpoint = read_checkpoint(runs / "teacher")
    checkpoint.metadata["recipe"]["clips"]["sampling"] = to_dict(DenseSampling(num_frames=4, stride=10))
    auto = choose(checkpoint, median_frames=frames)
    assert auto.recipe.clips.sampling == DenseSampling(num_frames=4, stride=stride)


def test_an_encoder_of_clips_cannot_start_a_training_on_images(runs):
    with pytest.raises(InputError, match="is an encoder of clips, and the data are images"):
        choose(read_checkpoint(runs / "teacher"), is_images=True, median_frames=1)


# ---- Stats ----------------------------------------------------------------------------------------------------------


def test_the_stats_are_those_of_the_files(runs):
    stats = compute_dataset_stats(open_manifest(runs / "data", split="train"))
    assert (stats.num_clips, stats.class_counts, stats.median_frames, stats.median_short_side) == (8, (4, 4), 8, 16)
    assert (stats.aspect_ratio, stats.is_images) == (1.5, False)
    assert stats.has_left_right_classes  # its classes are called left and right


def test_a_broken_file_is_skipped_and_a_data_set_of_broken_files_refused(runs, tmp_path):
    data = shutil.copytree(runs / "data", tmp_path / "data")
    videos = sorted((data / "train").iterdir())
    videos[0].write_bytes(b"no frame in here")
    assert compute_dataset_stats(open_manifest(data, split="train")).median_frames == 8
    for video in videos:
        video.write_bytes(b"no frame in here")
    with pytest.raises(InputError, match=r"none of the probed videos of .* decodes"):
        compute_dataset_stats(open_manifest(data, split="train"))


def test_images_are_recognised_by_their_file_names(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    stats = compute_dataset_stats(open_manifest(tmp_path))
    assert (stats.is_images, stats.median_frames, stats.median_short_side, stats.class_counts) == (True, 1, 30, (2, 1))


# ---- The command ----------------------------------------------------------------------------------------------------


def test_the_command_trains_gives_reasons_and_resumes_on_any_machine(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    command = typed(f"{AUTO} {SHORT}", data=runs / "data", out=out)
    assert main(command) == 0
    printed = capsys.readouterr().err
    assert "finetune: 32 x 32 pixels: median short side 16 px" in printed
    assert "finetune: no horizontal flip: a class is called left or right" in printed
    assert "finetune: batch" not in printed  # it was typed
    assert "finetune: the best epoch's weights are kept: 6 validation clips are scored after each epoch" in printed
    assert "finetune: no early stopping: the validation set is the test set" in printed
    recipe = load_recipe(out)
    assert recipe.batch == 4
    for name in ("model.safetensors", "test.json"):
        (out / name).unlink()  # as if the run had been killed before its end
    monkeypatch.setattr("vidstill.pipelines.train.auto.detect_hardware", lambda: GPU)
    assert main(command) == 0
    assert f"finetune: resumes the recipe of {out}" in capsys.readouterr().err
    assert load_recipe(out) == recipe
    refuses(capsys, [*command, "--label-smoothing", "0.3"], "recipe.label_smoothing is 0.1, here it is 0.3")


@pytest.mark.parametrize("is_large", [True, False])
def test_a_validation_set_is_scored_and_may_end_the_run_where_chance_would_not(
    runs, tmp_path, capsys, monkeypatch, is_large
):
    if is_large:
        monkeypatch.setattr(defaults, "MIN_STOPPING_CLIPS", 8)
    run(f"{AUTO} {SHORT}", data=runs / "data", out=tmp_path / "run", val_data=runs / "data" / "train.csv")
    epochs = round(defaults.PATIENCE_RATIO * defaults.EPOCH_RANGE[1])
    few = "no early stopping: 8 validation clips are too few to tell epochs apart"
    reason = f"early stopping after {epochs} epochs without improvement" if is_large else few
    assert f"finetune: {reason}" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "test.json").read_text())["model_selection"]["epoch"] in (1, 2)


def test_the_help_lists_the_options(capsys):
    assert main(["finetune", "auto", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--clips.class-balance FLOAT" in printed
    assert "--clips.sampling.stride INT" in printed
    assert "(chosen for the data)" in printed
    assert main(["recipes", "--show", "auto"]) == 0
    assert "vidstill finetune auto --data DATA" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (AUTO, {"data": "unlabelled.txt"}, "has no labels"),
        (AUTO, {"data": "nowhere"}, "nowhere does not exist"),
        (AUTO, {"data": "", "init": "nowhere"}, "there is no file or run"),
        (AUTO.replace("finetune", "pretrain"), {"data": ""}, "auto makes recipes for fine-tuning"),
    ],
)
def test_unusable_data_or_checkpoints_are_refused(runs, tmp_path, capsys, command, options, message):
    paths = {name: runs / "data" / value for name, value in options.items()}
    refuses(capsys, typed(command, out=tmp_path / "run", **paths), message)
    assert contents(tmp_path) == {}


def test_the_run_of_another_recipe_is_left_alone(runs, tmp_path, capsys):
    out = tmp_path / "run"
    run(FINETUNE, data=runs / "data", out=out, schedule__epochs=2)
    before = (out / "recipe.json").read_bytes()
    command = typed(f"{AUTO} {SHORT}", data=runs / "data" / "train.csv", test_data=runs / "data", out=out)
    refuses(capsys, command, "holds a run with other settings")
    assert (out / "recipe.json").read_bytes() == before
