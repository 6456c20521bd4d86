"""What a user may get wrong: one clear sentence, exit code 2, and nothing written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_runs import (
    AMD,
    DMAE,
    FINETUNE,
    IMAGE_TEACHER,
    MASKAGAIN,
    METHODS,
    MVD,
    STMAE,
    TEACHER,
    make_data,
    run,
    teachers_of,
    typed,
)

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.cli.main import main

ZEROS = {"some.weight": torch.zeros(2, 3)}
MIXED = FINETUNE.replace("quickstart.finetune", "amd.small_k400_finetune")  # a recipe with mixing and two copies


@dataclass(frozen=True)
class House:
    """A folder with `data`, a `teacher`, an `image_teacher` and a `finetune_command`, and a place for what is wrong."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def refuses(self, command: str, said: str, **options: object) -> None:
        """The command ends with exit code 2 and a sentence that holds what is `said`; all files are as before."""
        out = {} if command.startswith("evaluate") else {"out": self.folder / "out"}
        arguments = typed(command, **{**out, **options})
        before = self.contents()
        self.capsys.readouterr()
        assert main(arguments) == 2
        printed = self.capsys.readouterr()
        assert said in printed.err
        assert printed.err.startswith("vidstill: ")
        assert printed.err.count("\n") == 1
        assert printed.out == ""
        assert self.contents() == before

    def boxes(self, command: str, said: str, **options: object) -> None:
        """The same of an option that is refused as it is read: tyro draws a box around the sentence."""
        before = self.contents()
        self.capsys.readouterr()
        assert main(typed(command, out=self.folder / "out", **options)) == 2
        assert said in " ".join(self.capsys.readouterr().err.replace("│", " ").split())
        assert self.contents() == before

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() if path.is_file() else b"" for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    data = make_data(folder / "data")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    run(IMAGE_TEACHER, data=data / "unlabelled.txt", out=folder / "image_teacher", schedule__epochs=2)
    run(FINETUNE, data=data, out=folder / "finetune", schedule__epochs=2)
    return folder


@pytest.fixture
def house(built, tmp_path, capsys):
    return House(shutil.copytree(built, tmp_path / "house"), capsys)


# ---- Data -----------------------------------------------------------------------------------------------------------


def test_no_videos_are_found(house):
    (house.folder / "empty").mkdir()
    house.refuses(TEACHER, "no videos found", data=house.folder / "empty")
    house.refuses(TEACHER, "nowhere does not exist", data="nowhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"train/0.mp4 0\ntrain/1.mp4 one\n", "line 2"),
        (b"train/0.mp4 0\ntrain/1.mp4 -3\n", "line 2"),
        (b"train/0.mp4 0\n\n\xff\xfe\n", "line 3"),
        (b"path,label\nthere.mp4,0\nnot/there.mp4,1\n", "line 2"),
        (b"path,label\nthere.mp4\n", "line 2"),
        (b"", "no videos found"),
    ],
)
def test_a_list_cannot_be_read(house, text, said):
    (house.data / "list.csv").write_bytes(text)
    house.refuses(FINETUNE, said, data=house.data / "list.csv", test_data=house.data / "val.csv")


def test_no_video_decodes(house):
    videos = house.folder / "videos"
    videos.mkdir()
    for number in range(8):
        (videos / f"{number}.mp4").write_bytes(b"no frame in here")
    house.refuses(TEACHER, "of 8 videos are broken", data=videos)
    house.refuses(TEACHER, "videos/0.mp4", data=videos / "0.mp4", batch=1)


def test_no_video_of_the_test_decodes(house):
    for path in (house.data / "val").iterdir():
        path.write_bytes(b"no frame in here")
    house.refuses(FINETUNE, "none of the 6 videos", data=house.data)
    house.refuses(f"evaluate {house.folder}/finetune --workers 0", "none of the 6 videos", data=house.data)


def test_pictures_are_no_clips_of_four_frames(house):
    pictures = house.folder / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (16, 16)).save(pictures / f"{number}.png")
    house.refuses(TEACHER, "is a picture, a clip of one frame, and clips of 4 frames are asked for", data=pictures)


def test_labels_or_their_test_are_missing(house):
    house.refuses(FINETUNE, "has no labels", data=house.data / "unlabelled.txt")
    (house.data / "val.csv").unlink()
    house.refuses(FINETUNE, "no val split", data=house.data)


def test_the_test_has_other_classes(house):
    other = house.folder / "other"
    for number, name in enumerate(("left", "upwards")):
        (other / "val" / name).mkdir(parents=True)
        shutil.copy(next((house.data / "val").iterdir()), other / "val" / name / f"{number}.mp4")
    house.refuses(FINETUNE, "has the class 'upwards'", data=house.data, test_data=other)
    house.refuses(f"evaluate {house.folder}/finetune --workers 0", "has the class 'upwards'", data=other)


def test_a_label_is_beyond_the_classes_of_the_model(house):
    video = next((house.data / "val").iterdir())
    (house.folder / "three.txt").write_text(f"{video} 2\n")
    house.refuses(f"evaluate {house.folder}/finetune --workers 0", "'2'", data=house.folder / "three.txt")


def test_some_labels_are_missing(house):
    for split in ("train", "val"):
        listed = (house.data / f"{split}.csv").read_text()
        (house.data / f"{split}.csv").write_text("\n".join(line.split()[0] for line in listed.splitlines()))
        house.refuses(FINETUNE, f"{split}.csv has no labels", data=house.data)
        (house.data / f"{split}.csv").write_text(listed)
    evaluate = f"evaluate {house.folder}/finetune --workers 0"
    house.refuses(evaluate, "unlabelled.txt has no labels", data=house.data / "unlabelled.txt")
    some = house.data / "some.jsonl"
    some.write_text('{"path": "train/000000.mp4", "label": 0}\n{"path": "train/000001.mp4"}\n')
    house.refuses(evaluate, f"line 2 of {some} has no label", data=some)
    house.refuses(FINETUNE, f"line 2 of {some} has no label", data=house.data, test_data=some)


def listed(house, name, *labels):
    """A list of the training videos with these labels."""
    videos = sorted((house.data / "train").iterdir())[: len(labels)]
    lines = [f"{video} {label}" for video, label in zip(videos, labels, strict=True)]
    (house.folder / name).write_text("\n".join(lines))
    return house.folder / name


def test_training_shows_a_single_class(house):
    one = listed(house, "one.txt", *[0] * 8)
    house.refuses(FINETUNE, "one.txt has videos of one class only, '0'", data=one, test_data=one)
    second = listed(house, "second.txt", *[1] * 8)  # number 0 is a class without videos
    house.refuses(FINETUNE, "second.txt has videos of one class only, '1'", data=second, test_data=second)
    shutil.copytree(house.data / "val", house.folder / "folders/train/waving")
    (house.folder / "folders/val").mkdir()
    shutil.copytree(house.data / "val", house.folder / "folders/val/waving")
    house.refuses(FINETUNE, "one class only, 'waving'", data=house.folder / "folders", batch=6)


def test_the_test_asks_for_a_class_that_training_does_not_show(house):
    train = listed(house, "train.txt", 0, 2, 0, 2, 0, 2, 0, 2)
    val = listed(house, "val.txt", 0, 1, 2)
    house.refuses(FINETUNE, f"{val} asks for the class '1', of which {train} has no video", data=train, test_data=val)
    beyond = listed(house, "beyond.txt", 0, 3)
    house.refuses(FINETUNE, "beyond.txt has the class '3'", data=train, test_data=beyond)


def test_the_test_is_empty(house):
    evaluate = f"evaluate {house.folder}/finetune --workers 0"
    for text in ("", "path,label\n"):
        (house.data / "val.csv").write_text(text)
        house.refuses(FINETUNE, "no videos found", data=house.data)
        house.refuses(evaluate, "no videos found", data=house.data)
    (house.folder / "nothing").mkdir()
    house.refuses(evaluate, "no videos found", data=house.folder / "nothing")
    for name in ("train/left", "train/right", "val/left"):
        (house.folder / "folders" / name).mkdir(parents=True)
    for side in ("left", "right"):
        shutil.copytree(house.data / "val", house.folder / "folders/train" / side, dirs_exist_ok=True)
    house.refuses(FINETUNE, "no videos found", data=house.folder / "folders")


def test_a_test_has_no_place_to_leave_its_findings(house):
    evaluate = f"evaluate {house.folder}/finetune --out"
    house.refuses(f"{evaluate} {house.folder}/finetune", "holds something else than a test", data=house.data)
    house.refuses(f"{evaluate} {house.data}/val.csv/out", "cannot be written", data=house.data)


# ---- Numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clips__sampling__num_frames": 7}, "a clip of 7 frames does not divide into tubelets of 2; take 6 frames"),
        ({"clips__size": (18, 16)}, "a clip of 18 rows does not divide into tubelets of 4"),
        ({"clips__size": (16, 3)}, "a clip of 3 columns does not divide into tubelets of 4"),
        ({"clips__repeats": 3}, "does not divide into 3 copies"),
        ({"batch": 64}, "the data set has 16 videos and one step takes 64"),
        ({"batch": -8}, "take a multiple of 1"),
        ({"device_batch": 1, "clips__repeats": 2}, "cannot hold the 2 copies"),
        ({"schedule__epochs": 0}, "train longer"),
        ({"schedule__warmup_epochs": 10}, "warm up for less"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"method__mask__ratio": 1.0}, "a mask ratio of 1.0"),
        ({"method__mask__ratio": -1}, "a mask ratio of -1.0"),
        ({"method__mask__ratio": 0.05}, "hides none of the 32 tokens"),
        ({"method__encoder__tubelet": (2, 16, 16)}, "hides none of the 2 tokens"),
        ({"method__encoder__tubelet": (1, 1, 1), "method__target": "per_channel"}, "a tubelet of one pixel"),
        ({"method__encoder__heads": 5}, "a width of 24 does not divide into 5 heads"),
        ({"method__encoder__heads": 0}, "heads is 0"),
        ({"method__encoder__depth": -1}, "depth is -1"),
        ({"method__encoder__drop_path": 1}, "drop_path is 1.0; take 0 up to, but below, 1"),
        ({"method__encoder__positions": "learned"}, "set learned_grid"),
        ({"method__decoder__positions": "sincos3d", "method__decoder__dim": 20}, "a width of 20"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_pre_training_that_cannot_be(house, options, said):
    house.refuses(TEACHER, said, data=house.data / "unlabelled.txt", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method__layer_pairs": (1, 4)}, "AMD's pairs name block 4 of a teacher of 3 blocks"),
        ({"method__layer_pairs": (0, 1)}, "AMD's pairs name block 0 of a student of 2 blocks"),
        ({"method__mask__student_ratio": 1}, "a mask ratio of 1.0 for the student"),
        ({"method__mask__teacher_ratio": -0.5}, "a mask ratio of -0.5 for the teacher"),
        ({"method__mask__teacher_ratio": 0.9}, "the teacher's mask ratio 0.9 is above the student's"),
        ({"method__encoder__tubelet": (2, 8, 8)}, "have to be the teacher's (2, 4, 4)"),
        ({"method__direct_weight": "nan"}, "direct_factor is nan"),
        ({"method__teacher__checkpoint": ""}, "the teacher has no weights; give --method.teacher.weights"),
    ],
)
def test_a_distillation_that_cannot_be(house, options, said):
    teacher = {"method__teacher__checkpoint": house.folder / "teacher"}
    house.refuses(AMD, said, data=house.data / "unlabelled.txt", **{**teacher, **options})


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (MVD, {"image_teacher": "finetune"}, "looks at single frames, and the tubelets of this one have 2"),
        (MVD, {"video_teacher": "image_teacher"}, "into 4 slots of time cannot teach a student of 2"),
        (MVD, {"image_teacher": ""}, "the image teacher has no weights; give --method.image-teacher.weights"),
        (MVD, {"video_teacher": ""}, "the video teacher has no weights; give --method.video-teacher.weights"),
        (MVD, {"image_weight": 0, "video_weight": 0}, "nothing to learn"),
        (MVD, {"mask__ratio": 0}, "hides none of the 32 tokens"),
        (MASKAGAIN, {"teacher": "image_teacher"}, "have to be the teacher's (1, 4, 4)"),
        (MASKAGAIN, {"encoder__heads": 3}, "the student's 3 heads have to be the teacher's 2"),
        (MASKAGAIN, {"encoder__dim": 32, "value_weight": 1}, "width 32 has to be the teacher's 24"),
        (MASKAGAIN, {"layers": (1, 4)}, "block 4 of a teacher of 3 blocks"),
        (MASKAGAIN, {"hidden_weight": 0, "hint_weight": 0, "relation_weight": 0}, "learns nothing from its teacher"),
        (MASKAGAIN, {"global_top_k": 0}, "global_keys is 0; take 1 or more"),
        (DMAE, {"teacher": "image_teacher"}, "have to be the teacher's (1, 4, 4)"),
        (DMAE, {"encoder__class_token": ()}, "the student has a class token and the teacher has none"),
        (DMAE, {"encoder__dim": 32, "projection": "none"}, "needs a projection to its teacher's 24"),
        (DMAE, {"pairs": (3, 1)}, "block 3 of a student of 2 blocks"),
        (DMAE, {"pairs": ()}, "no blocks to align"),
        (STMAE, {"encoder__no_class_token": ()}, "the encoder's class token, which it has not"),
        (STMAE, {"encoder__learned_grid": "None"}, "set learned_grid"),
        (STMAE, {"decoder__learned_grid": (-1, 4, 4)}, "learned_grid is -1; take 1 or more"),
    ],
)
def test_a_method_that_cannot_be(house, command, options, said):
    (method,) = [name for name, each in METHODS.items() if each == command]
    given = teachers_of(method, house.folder)
    for name, value in options.items():
        whose = f"method__{name}"
        if name.endswith("teacher"):
            whose, value = f"{whose}__weights", value and house.folder / value
        given[whose] = value
    house.refuses(command, said, data=house.data / "unlabelled.txt", **given)


def test_mvd_has_no_teacher_at_all(house):
    command = f"{MVD} --method.image-teacher None --method.video-teacher None"
    house.refuses(command, "MVD has nothing to learn", data=house.data / "unlabelled.txt")


@pytest.mark.parametrize("frames", [0, 3])
def test_frames_that_are_rebuilt_do_not_divide_a_tubelet(house, frames):
    said = f"{frames} frames cannot be rebuilt of each tubelet of 2"
    house.boxes(STMAE, said, data=house.data, method__predicted_frames=frames)


@pytest.mark.parametrize(
    "name", ["base_k400", "ablation_mask_space", "ablation_mask_frame", "ablation_k400_mask_cuboid"]
)
@pytest.mark.parametrize(
    ("ratio", "said"), [(0.99, "hides all"), (0, "hides none of the 32"), (1, "mask ratio of 1.0")]
)
def test_a_mask_shows_or_hides_nothing(house, name, ratio, said):
    command = STMAE.replace("stmae.base_k400", f"stmae.{name}")
    house.refuses(command, said, data=house.data / "unlabelled.txt", method__mask__ratio=ratio)


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (TEACHER, {"method__encoder__heads": 3}, "an encoder whose heads is 2, and the recipe's is 3"),
        (TEACHER, {"method__encoder__dim": 32}, "an encoder whose dim is 24, and the recipe's is 32"),
        (TEACHER, {"method__encoder__class_token": ()}, "whose class_token is False, and the recipe's is True"),
        (IMAGE_TEACHER, {}, "whose tubelet is (2, 4, 4), and the recipe's is (1, 4, 4)"),
    ],
)
def test_a_pre_training_cannot_go_on_from_another_encoder(house, command, options, said):
    start = {"init": house.folder / "teacher", **options}
    house.refuses(command, said, data=house.data / "unlabelled.txt", **start)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views__size": (18, 16)}, "a clip of 18 rows does not divide into tubelets of 4"),
        ({"dropout": 2}, "dropout is 2.0; take 0 to 1"),
        ({"label_smoothing": -1}, "smoothing is -1.0"),
        ({"mask_ratio": 1}, "mask_ratio is 1.0; take 0 up to, but below, 1"),
        ({"batch": 9}, "the data set has 8 videos"),
    ],
)
def test_a_fine_tuning_that_cannot_be(house, options, said):
    house.refuses(FINETUNE, said, data=house.data, **options)


def test_an_odd_number_of_clips_is_not_mixed(house):
    house.refuses(MIXED, "7 clips cannot be mixed in pairs", data=house.data, batch=7, clips__repeats=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device_batch": 0}, "--device-batch is 0"),
        ({"workers": -5}, "--workers is -5"),
        ({"save_seconds": "nan"}, "every nan seconds"),
        ({"clips__flip_probability": 2}, "flip is 2.0"),
        ({"clips__repeats": 0}, "a video gives 0 copies"),
        ({"views__temporal_clips": 0}, "views is 0"),
        ({"views__spatial_crops": 0}, "crops is 0"),
        ({"views__short_side": 0}, "short_side is 0"),
        ({"clips__size": (0, 16)}, "size is 0"),
        ({"mixup__probability": "nan"}, "probability is nan"),
        ({"random_erasing__scale": (0.5, 0.1)}, "erasing takes an area"),
        ({"clips__randaugment__num_ops": -1}, "operations is -1"),
        ({"clips__crop__ratio": (0, 1)}, "a crop takes an area"),
        ({"clips__sampling__num_frames": 0}, "a clip of 0 frames"),
        ({"encoder__tubelet": (0, 4, 4)}, "take 1 or more"),
        ({"optim__base_lr": "nan"}, "base_lr is nan"),
        ({"optim__betas": (1, 1)}, "beta is 1.0"),
        ({"optim__weight_decay": -1}, "weight_decay is -1.0"),
        ({"optim__bsae_lr": 1}, "--optim.base-lr"),
    ],
)
def test_an_option_whose_value_is_of_no_use(house, options, said):
    house.boxes(MIXED, said, data=house.data, **options)


# ---- Checkpoints ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(house):
    """Files that are no weights of ours, by what they are; and what is said of them."""
    folder = house.folder / "checkpoints"
    folder.mkdir()
    torch.save(ZEROS, folder / "other.pth")
    torch.save({"model": [1, 2]}, folder / "list.pth")
    torch.save(HouseKeeper(), folder / "object.pth")
    save_file(ZEROS, folder / "other.safetensors")
    save_file(ZEROS, folder / "metadata.safetensors", metadata={"vidstill": "[]"})
    for name in ("garbage.pth", "garbage.safetensors"):
        (folder / name).write_bytes(b"no weights" * 100)
    (folder / "empty.pth").touch()
    whole = (house.folder / "teacher/model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


class HouseKeeper:
    """Something that is not to be unpickled."""


CHECKPOINTS = {
    "missing.pth": "there is no file or run",
    "other.pth": "neither vidstill's nor in a layout known here",
    "list.pth": "holds no named tensors",
    "object.pth": "it was not executed",
    "other.safetensors": "neither vidstill's nor in a layout known here",
    "metadata.safetensors": "no readable safetensors file",
    "garbage.pth": "no file of plain tensors",
    "garbage.safetensors": "no readable safetensors file",
    "empty.pth": "no file of plain tensors",
    "cut.safetensors": "no readable safetensors file",
    "": "holds no model.safetensors",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_missing_or_foreign(house, checkpoints, name):
    said, file = CHECKPOINTS[name], checkpoints / name
    house.refuses(FINETUNE, said, data=house.data, init=file)
    house.refuses(AMD, said, data=house.data / "unlabelled.txt", method__teacher__checkpoint=file)
    if "layout" not in said:
        house.refuses(f"evaluate {file} --workers 0", said, data=house.data)


def test_only_a_fine_tuned_model_is_evaluated(house, checkpoints):
    house.refuses(f"evaluate {house.folder}/teacher", "is no fine-tuned model but pretraining", data=house.data)
    house.refuses(f"evaluate {checkpoints}/other.pth", "neither vidstill's nor in a layout known here", data=house.data)


def test_a_classifiers_file_does_not_hold_what_it_says(house):
    """It says that it is wider, deeper or of more classes than its tensors are, or not what its classes are called."""
    whole = read_checkpoint(house.folder / "finetune")
    encoder = whole.metadata["classifier"]["encoder"]
    told = {
        "'encoder.blocks.0.attn.proj.bias' is (24,), this model's is (32,)": {
            "classifier": {**whole.metadata["classifier"], "encoder": {**encoder, "dim": 32}}
        },
        "first 'encoder.blocks.2": {"classifier": {**whole.metadata["classifier"], "encoder": {**encoder, "depth": 3}}},
        "scores 3 classes and names 2": {"classifier": {**whole.metadata["classifier"], "classes": 3}},
        "scores 2 classes and names 3": {"classes": ["left", "right", "up"]},
        "ClassifierConfig is None": {"classifier": None},
        "has no field 'dmi'": {"classifier": {**whole.metadata["classifier"], "encoder": {"dmi": 24}}},
        "ViewsConfig is incomplete": {"views": {}},
    }
    file = house.folder / "damaged.safetensors"
    for said, wrong in told.items():
        write_checkpoint(file, whole.tensors, {**whole.metadata, **wrong})
        house.refuses(f"evaluate {file} --workers 0", said, data=house.data)
    for word in ("classifier", "classes", "views"):
        write_checkpoint(file, whole.tensors, {name: value for name, value in whole.metadata.items() if name != word})
        house.refuses(f"evaluate {file} --workers 0", f"does not say what its {word} are", data=house.data)


def test_an_encoder_s_file_does_not_hold_what_it_says(house):
    whole = read_checkpoint(house.folder / "teacher")
    for name, value in (("dim", 32), ("tubelet", [2, 8, 8])):
        wider = {**whole.metadata, "encoder": {**whole.metadata["encoder"], name: value}}
        write_checkpoint(house.folder / "damaged.safetensors", whole.tensors, wider)
        house.refuses(FINETUNE, "damaged.safetensors", data=house.data, init=house.folder / "damaged.safetensors")


# ---- The folder -----------------------------------------------------------------------------------------------------


def test_the_folder_holds_another_recipes_run(house):
    unlabelled, teacher = house.data / "unlabelled.txt", house.folder / "teacher"
    short = {"schedule__epochs": 2}
    house.refuses(TEACHER, "recipe.schedule.epochs is 2, here it is 10", data=unlabelled, out=teacher)
    house.refuses(TEACHER, "recipe.seed is 0, here it is 1", data=unlabelled, out=teacher, seed=1, **short)
    house.refuses(FINETUNE, "holds another recipe's run", data=house.data, out=teacher, **short)


def test_the_folder_holds_a_run_from_another_start(house):
    out = house.folder / "finetune"
    start = {"init": house.folder / "finetune", "schedule__epochs": 2}
    house.refuses(FINETUNE, "init is , here it is", data=house.data, out=out, **start)


def test_the_folder_holds_a_run_on_other_data(house):
    out, short = house.folder / "finetune", {"schedule__epochs": 2}
    train = house.data / "train.csv"
    house.refuses(FINETUNE, "tested on other data", data=house.data, test_data=train, out=out, **short)
    with (house.data / "unlabelled.txt").open("a") as file:
        file.write("train/000000.mp4\n")
    teacher = house.folder / "teacher"
    house.refuses(TEACHER, "a run on other data", data=house.data / "unlabelled.txt", out=teacher, **short)


def test_the_folder_holds_other_files(house):
    house.refuses(TEACHER, "no run's folder", data=house.data / "unlabelled.txt", out=house.data)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 1}', "\0"])
def test_the_folders_recipe_is_none(house, text):
    (house.folder / "teacher/recipe.json").write_text(text)
    house.refuses(TEACHER, "recipe.json", data=house.data / "unlabelled.txt", out=house.folder / "teacher")


def test_a_file_stands_in_place_of_the_folder(house):
    file = house.folder / "teacher/recipe.json"
    house.refuses(TEACHER, "no run's folder", data=house.data / "unlabelled.txt", out=file)
    house.refuses(TEACHER, "cannot be written", data=house.data / "unlabelled.txt", out=file / "out")


def test_the_folder_cannot_be_made(house):
    house.refuses(TEACHER, "cannot be written", data=house.data / "unlabelled.txt", out="/proc/nowhere/out")


def test_a_state_is_damaged(house):
    teacher = house.folder / "teacher"
    (teacher / "model.safetensors").unlink()
    (state,) = (teacher / "state").iterdir()
    state.write_bytes(b"no state")
    recipe = json.loads((teacher / "recipe.json").read_text())
    assert main(typed(TEACHER, data=house.data / "unlabelled.txt", out=teacher, schedule__epochs=2)) == 2
    assert f"{state} cannot be read" in house.capsys.readouterr().err
    assert json.loads((teacher / "recipe.json").read_text()) == recipe
