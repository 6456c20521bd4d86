"""The automatic recipe: what it picks for which videos, machine and start; that it says why, and stays as it was."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_runs import FINETUNE, TEACHER, about, make_data, run, typed

from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.cli.main import main
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.recipes.auto.choose import choose_recipe, load_run_recipe
from vidstill.recipes.auto.dataset_stats import EXAMPLE_STATS, DatasetStats, Hardware, compute_dataset_stats
from vidstill.recipes.auto.defaults import AUTO_RULES
from vidstill.utils.config_io import to_dict
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.types import Grid, InputError

CPU, GPU = Hardware(device_kind="cpu", count=2), Hardware(device_kind="gpu", count=1)
AUTO = "finetune auto --workers 0 --precision fp32"
SHORT = "--schedule.epochs 2 --schedule.warmup-epochs 0 --batch 4"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    make_data(folder / "data")
    run(TEACHER, data=folder / "data" / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    return folder


def chosen(start: Checkpoint | None = None, machine: Hardware = CPU, *, third: bool = False, **facts):
    return choose_recipe(replace(EXAMPLE_STATS, **facts), start, machine, has_validation=third)


def said(found) -> str:
    return "\n".join(found.reasons(found.recipe))


many = st.builds(
    DatasetStats,
    clips=st.integers(2, 10**6),
    cls_embedding=st.lists(st.integers(1, 10**5), min_size=2, max_size=400).map(tuple),
    pictures=st.booleans(),
    frames=st.integers(1, 10**5),
    seconds=st.none() | st.floats(0.04, 10**4),
    rate=st.none() | st.floats(1, 240),
    short_side=st.integers(8, 4000),
    wide=st.floats(1, 4),
    handed=st.booleans(),
    looked_at=st.just(32),
)
machines = st.builds(
    Hardware, kind=st.sampled_from(["cpu", "gpu"]), count=st.integers(1, 64), processes=st.integers(1, 2)
)


@settings(max_examples=5, deadline=None)
@given(many, machines, st.booleans())
def test_every_recipe_can_be_trained_in_the_time_that_there_is_and_says_why_it_is_so(facts, machine, third):
    found = choose_recipe(facts, None, machine, has_validation=third)
    recipe, sampling, size = found.recipe, found.recipe.clips.sampling, found.recipe.clips.size
    Grid.from_clip(torch.empty(1, 3, sampling.num_frames, *size, device="meta"), recipe.encoder.tubelet)
    assert (sampling, size) == (recipe.views.sampling, recipe.views.size)
    assert sampling.num_frames == 1 if facts.pictures else sampling.num_frames in (4, 8, 16)
    assert recipe.batch <= max(facts.clips, machine.processes)
    assert recipe.batch % machine.processes == 0
    assert recipe.mixup is None or recipe.batch % (2 * machine.processes) == 0
    assert recipe.schedule.warmup_epochs < recipe.schedule.epochs <= AUTO_RULES.epoch_range[1]
    assert (recipe.patience is not None) == third
    work = 3 * compute_model_cost(recipe.encoder, num_frames=sampling.num_frames, size=size).gflops * facts.clips
    minutes = recipe.schedule.epochs * work / (AUTO_RULES.gmacs_per_second[machine.kind] * machine.count) / 60
    assert minutes <= AUTO_RULES.training_minutes[machine.kind] or recipe.schedule.epochs == AUTO_RULES.min_epochs
    lines = found.explain(recipe)
    assert len(lines) == 12
    assert all(": " in line and "\n" not in line for line in lines)


def test_the_same_facts_give_the_same_recipe():
    assert chosen(third=True) == chosen(third=True)


@pytest.mark.parametrize(
    ("facts", "size"),
    [({"short_side": 16}, 32), ({"short_side": 50}, 48), ({"short_side": 64}, 48), ({"short_side": 160}, 48)],
)
def test_a_clip_is_about_as_large_as_its_video_or_smaller(facts, size):
    assert chosen(**facts, clips=60).recipe.clips.size == (size, size)


def test_a_gpu_takes_larger_clips_and_models():
    ours, theirs = chosen(clips=60).recipe, chosen(clips=60, machine=GPU).recipe
    assert theirs.clips.size == (224, 224)
    assert theirs.encoder.dim > ours.encoder.dim


def test_a_short_video_is_seen_whole_and_of_a_long_one_two_seconds():
    assert isinstance(chosen(frames=60, seconds=2.4).recipe.clips.sampling, SegmentSampling)
    assert isinstance(chosen(frames=20, seconds=None).recipe.clips.sampling, SegmentSampling)
    assert chosen(frames=600, seconds=20.0, rate=30.0).recipe.clips.sampling == DenseSampling(num_frames=16, stride=4)
    assert chosen(frames=40, seconds=8.0, rate=5.0).recipe.clips.sampling == DenseSampling(num_frames=16, stride=1)
    assert chosen(frames=5).recipe.clips.sampling.num - frames == 4


def test_pictures_are_clips_of_one_frame():
    recipe = chosen(pictures=True, frames=1, short_side=100).recipe
    assert recipe.clips.sampling.num - frames == recipe.encoder.tubelet[0] == recipe.views.views == 1
    assert recipe.encoder.positions == "sincos2d"


def test_colours_are_changed_in_videos_whose_light_would_tell_the_class():
    assert chosen().recipe.color_jitter == ColorJitter()
    assert chosen(pictures=True, frames=1).recipe.color_jitter is None


def test_classes_are_balanced_where_one_has_more_than_three_times_another():
    assert chosen(cls_embedding=(30, 10, 0)).recipe.clips.balance == 0
    found = chosen(cls_embedding=(31, 10, 0))
    assert found.recipe.clips.balance == AUTO_RULES.class_balance
    assert "the largest class has 31 clips, the smallest 10" in said(found)


def test_clips_are_not_mirrored_where_a_class_is_called_left():
    assert chosen(handed=True).recipe.clips.flip == 0
    assert chosen(handed=False).recipe.clips.flip == 0.5


def test_a_line_is_left_out_where_an_option_chose_something_else():
    found = chosen()
    lines = found.reasons(replace(found.recipe, batch=2 * found.recipe.batch, patience=3))
    assert len(lines) == len(found.reasons(found.recipe)) - 2
    assert not [line for line in lines if line.startswith("batch")]


# ---- What it starts from --------------------------------------------------------------------------------------------


def test_a_start_decides_the_encoder_and_the_clips(house):
    start = read_checkpoint(house / "teacher")
    found = chosen(start, frames=300, seconds=10.0)
    recipe = found.recipe
    assert to_dict(replace(recipe.encoder, drop_path=0.0)) == about(house / "teacher")["encoder"]
    theirs = about(house / "teacher")["recipe"]["clips"]
    assert list(recipe.clips.size) == theirs["size"]
    assert recipe.clips.sampling.num - frames == theirs["sampling"]["frames"]
    assert str(start.source) in said(found)


def test_a_start_from_longer_clips_than_the_videos_goes_on_at_a_smaller_stride(house):
    start = read_checkpoint(house / "teacher")
    clips = start.metadata["recipe"]["clips"]
    clips["sampling"] = to_dict(DenseSampling(num_frames=4, stride=10))
    assert chosen(start, frames=13).recipe.clips.sampling == DenseSampling(num_frames=4, stride=3)
    assert chosen(start, frames=400).recipe.clips.sampling == DenseSampling(num_frames=4, stride=10)


def test_an_encoder_of_clips_is_no_start_for_pictures(house):
    with pytest.raises(InputError, match="is an encoder of clips, and the data are pictures"):
        chosen(read_checkpoint(house / "teacher"), pictures=True, frames=1)


# ---- What it knows of the data --------------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_files(house):
    facts = compute_dataset_stats(open_manifest(house / "data", split="train"))
    assert (facts.num_clips, facts.class_counts, facts.median_frames, facts.median_short_side) == (8, (4, 4), 8, 16)
    assert facts.aspect_ratio == 1.5
    assert facts.has_left_right_classes  # its classes are called left and right
    assert not facts.is_images


def test_a_broken_file_is_passed_by_and_nothing_but_such_is_refused(house, tmp_path):
    data = shutil.copytree(house / "data", tmp_path / "data")
    videos = sorted((data / "train").iterdir())
    videos[0].write_bytes(b"no frame in here")
    assert compute_dataset_stats(open_manifest(data, split="train")).num_probed_files == 7
    for video in videos:
        video.write_bytes(b"no frame in here")
    with pytest.raises(InputError, match=r"none of the videos of .* decodes"):
        compute_dataset_stats(open_manifest(data, split="train"))


def test_pictures_are_known_by_their_names(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    facts = compute_dataset_stats(open_manifest(tmp_path))
    assert (facts.is_images, facts.median_frames, facts.median_short_side, facts.class_counts) == (True, 1, 30, (2, 1))


# ---- The command ----------------------------------------------------------------------------------------------------


def test_the_command_trains_by_it_says_why_and_goes_on_whatever_the_machine_is(house, tmp_path, capsys, monkeypatch):
    command = typed(f"{AUTO} {SHORT}", data=house / "data", out=tmp_path / "run")
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "finetune: 32 x 32 pixels: the short side is 16 in the middle" in told
    assert "finetune: no clip mirrored: a class is called left or right" in told
    assert "finetune: batch" not in told  # which was typed
    recipe = load_run_recipe(tmp_path / "run")
    assert recipe.batch == 4
    assert about(tmp_path / "run")["recipe"] == to_dict(recipe)
    for name in ("model.safetensors", "test.json"):
        (tmp_path / "run" / name).unlink()  # as if it had been killed before its end
    monkeypatch.setattr("vidstill.cli.train.machine", lambda: GPU)
    assert main(command) == 0
    assert f"goes on with the recipe that {tmp_path / 'run'} holds" in capsys.readouterr().err
    assert load_run_recipe(tmp_path / "run") == recipe
    assert main([*command, "--label-smoothing", "0.3"]) == 2
    assert "recipe.label_smoothing is 0.1, here it is 0.3" in capsys.readouterr().err


def test_a_third_list_is_watched(house, tmp_path, capsys):
    command = typed(f"{AUTO} {SHORT}", data=house / "data", out=tmp_path / "run", val_data=house / "data" / "val.csv")
    assert main(command) == 0
    epochs = round(AUTO_RULES.patience_ratio * AUTO_RULES.epoch_range[1])
    assert f"finetune: ends after {epochs} epochs without a better score" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "test.json").read_text())["model_selection"]["epoch"] in (1, 2)


def test_its_help_lists_the_options_with_what_it_would_pick(house, capsys):
    assert main(typed(f"{AUTO} --help", data=house / "data")) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--clips.class-balance" in told
    assert "32 32" in told
    assert main(["recipes", "--show", "auto"]) == 0
    assert "vidstill finetune auto --data DATA" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (AUTO, {"data": "unlabelled.txt"}, "has no labels"),
        (AUTO, {"data": "nowhere"}, "nowhere does not exist"),
        (AUTO, {"data": "", "init": "nowhere"}, "there is no file or run"),
        (AUTO.replace("finetune", "pretrain"), {"data": ""}, "auto makes recipes for fine-tuning"),
    ],
)
def test_what_cannot_be_used_is_met_with_a_sentence(house, tmp_path, capsys, command, options, said):
    paths = {name: house / "data" / value for name, value in options.items()}
    before = sorted(tmp_path.rglob("*"))
    assert main(typed(command, out=tmp_path / "run", **paths)) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_another_runs_folder_is_left_alone(house, tmp_path, capsys):
    run(FINETUNE, data=house / "data", out=tmp_path / "run", schedule__epochs=2)
    before = (tmp_path / "run" / "recipe.json").read_bytes()
    assert (
        main(
            typed(f"{AUTO} {SHORT}", data=house / "data" / "train.csv", test_data=house / "data", out=tmp_path / "run")
        )
        == 2
    )
    assert "holds another recipe's run" in capsys.readouterr().err
    assert (tmp_path / "run" / "recipe.json").read_bytes() == before
