"""Both synthetic datasets: the same files every time, made once, complete or without lists."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from vidstill.cli.main import main
from vidstill.synthetic import boxes, dataset
from vidstill.synthetic.boxes import SyntheticBoxesConfig
from vidstill.synthetic.dataset import DRAWING_VERSION, SyntheticClipsConfig, SyntheticConfig, make_dataset
from vidstill.utils.types import InputError

CLIPS = SyntheticClipsConfig(train=5, val=3, unlabelled=4, frames=4, size=(16, 24), fps=10)
BOXES = SyntheticBoxesConfig(train=4, val=3, unlabelled=2, seconds=3, size=(32, 48), fps=4)
NUM_CLIPS = {CLIPS: 12, BOXES: 9}
CONFIGS = pytest.mark.parametrize("config", [CLIPS, BOXES], ids=["clips", "boxes"])


make = partial(make_dataset, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


STATED = ("synthetic.json", "SHA256SUMS")  # the settings and their checksum


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[SyntheticConfig, Path]:
    return {config: make(tmp_path_factory.mktemp("dataset"), config) for config in (CLIPS, BOXES)}


@CONFIGS
def test_the_same_config_makes_the_same_bytes_with_any_number_of_workers(datasets, config, tmp_path):
    assert contents(make(tmp_path / "two", config, workers=2)) == contents(datasets[config])


@CONFIGS
def test_every_clip_is_different_and_depends_on_the_seed(datasets, config, tmp_path):
    folders = datasets[config], make(tmp_path / "other", replace(config, seed=1))
    videos = [data for folder in folders for name, data in contents(folder).items() if name.endswith(".mp4")]
    assert len(set(videos)) == len(videos) == 2 * NUM_CLIPS[config]


@CONFIGS
def test_a_larger_dataset_contains_the_smaller_one(datasets, config, tmp_path):
    larger = replace(config, train=config.train + 1, unlabelled=config.unlabelled + 1)
    files = contents(make(tmp_path / "larger", larger))
    for name, data in contents(datasets[config]).items():
        assert name in STATED or files[name].startswith(data), name
    assert len(files) == len(contents(datasets[config])) + 2


@CONFIGS
def test_a_second_call_draws_nothing(datasets, config, monkeypatch):
    monkeypatch.setattr(dataset, "draw_clip", None)
    monkeypatch.setattr(boxes, "generate_scene", None)
    assert make(datasets[config], config) == datasets[config]


@CONFIGS
def test_an_interrupted_call_leaves_no_list_and_the_next_one_completes_it(datasets, config, tmp_path, monkeypatch):
    draws = []

    def interrupt_after(count: int, draw):
        def draw_or_interrupt(*args):
            if len(draws) == count:
                raise KeyboardInterrupt
            draws.append(args)
            return draw(*args)

        return draw_or_interrupt

    monkeypatch.setattr(dataset, "draw_clip", interrupt_after(6, dataset.draw_clip))
    monkeypatch.setattr(boxes, "draw_scene", interrupt_after(6, boxes.draw_scene))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, config)
    assert all(name in STATED or name.endswith(".mp4") for name in contents(tmp_path))
    draws.clear()
    monkeypatch.undo()
    progress = []
    make(tmp_path, config, progress=lambda *numbers: progress.append(numbers))
    assert progress == [(n, NUM_CLIPS[config]) for n in range(1, NUM_CLIPS[config] + 1)]
    assert contents(tmp_path) == contents(datasets[config])


def test_lost_lists_are_written_again(datasets, tmp_path):
    make(tmp_path, BOXES)
    for name in ("train.csv", "actions.pbtxt"):
        (tmp_path / "annotations" / name).unlink()
        assert contents(make(tmp_path, BOXES)) == contents(datasets[BOXES])


@pytest.mark.parametrize(
    ("config", "lists"), [(CLIPS, {"classes.txt", "unlabelled.txt"}), (BOXES, set())], ids=["clips", "boxes"]
)
def test_a_split_without_clips_has_no_list(config, lists, tmp_path):
    files = contents(make(tmp_path, replace(config, train=0, val=0)))
    assert {name for name in files if not name.endswith(".mp4")} == {*STATED, *lists}


@CONFIGS
def test_a_directory_with_other_clips_or_other_files_is_left_alone(datasets, config, tmp_path):
    before = contents(datasets[config])
    for other in (replace(config, seed=4), BOXES if config is CLIPS else CLIPS):
        with pytest.raises(
            InputError, match=r"holds synthetic clips with other settings .*; choose another directory$"
        ):
            make(datasets[config], other)
    assert contents(datasets[config]) == before
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="holds something else"):
        make(tmp_path, config)
    with pytest.raises(InputError, match="is a file"):
        make(tmp_path / "thesis.tex", config)
    assert list(contents(tmp_path)) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        *(
            (config, change, message)
            for config in (CLIPS, BOXES)
            for change, message in (
                ({"size": (33, 48)}, "sides are even.*such as 34x48"),
                ({"train": -1}, "at least one clip in all"),
                ({"train": 0, "val": 0, "unlabelled": 0}, "at least one clip in all"),
                ({"seed": -1}, "seed is -1"),
            )
        ),
        (CLIPS, {"size": (32, 8)}, "such as 32x16"),
        (CLIPS, {"frames": 1}, "take at least 2 frames"),
        (CLIPS, {"fps": 0}, "frames per second"),
        (CLIPS, {"classes": ("left", "rigth")}, "did you mean right"),
        (CLIPS, {"classes": ("left", "left")}, "none twice"),
        (CLIPS, {"classes": ()}, "at least one class"),
        (BOXES, {"size": (32, 16)}, "at least 32 pixels, such as 32x32"),
        (BOXES, {"seconds": 1}, "seconds is 1; take 2 to 60"),
        (BOXES, {"fps": 3}, "fps is 3; take 4 to 60"),
    ],
)
def test_a_config_that_cannot_be_drawn_is_refused(config, change, message):
    with pytest.raises(InputError, match=message):
        replace(config, **change)


def test_the_directory_states_its_config(datasets):
    stored = json.loads((datasets[CLIPS] / "synthetic.json").read_text())
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    assert fields.pop("kind") == "SyntheticClipsConfig"
    assert fields.pop("drawing") == DRAWING_VERSION
    assert SyntheticClipsConfig(**fields) == CLIPS


# ---- The command ----------------------------------------------------------------------------------------------------


def test_the_command_makes_either_dataset(datasets, tmp_path, capsys):
    sizes = "--train 4 --val 3 --unlabelled 2 --size 32 48 --fps 4"
    assert main(["data", "make", str(tmp_path / "boxes"), "--boxes", *sizes.split(), "--seconds", "3"]) == 0
    assert capsys.readouterr().out.endswith(f"next: vidstill detect train RECIPE --data {tmp_path / 'boxes'}\n")
    assert contents(tmp_path / "boxes") == contents(datasets[BOXES])
    assert main(["data", "make", str(tmp_path / "clips"), *sizes.split(), "--frames", "2", "--classes", "left"]) == 0
    assert capsys.readouterr().out.endswith(f"next: vidstill data inspect {tmp_path / 'clips'}\n")
    assert (tmp_path / "clips" / "classes.txt").read_text() == "left\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--boxes --frames 8", "--frames cannot be given with --boxes; --seconds sets the length of a clip"),
        ("--boxes --classes left --frames 8", "--frames and --classes cannot be given with --boxes"),
        ("--seconds 3", "--seconds cannot be given without --boxes; --frames sets the length of a clip"),
    ],
)
def test_options_of_the_other_dataset_are_refused(options, message, tmp_path, capsys):
    assert main(["data", "make", str(tmp_path / "new"), *options.split()]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()
