"""Mistakes of users: one clear sentence, exit code 2, and nothing written."""

import json
import shutil

import pytest
import torch
from PIL import Image
from refused_runs import Runs
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = make_data(folder / "data")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    run(IMAGE_TEACHER, data=data / "unlabelled.txt", out=folder / "image_teacher", schedule__epochs=2)
    run(FINETUNE, data=data, out=folder / "finetune", schedule__epochs=2)
    return folder


@pytest.fixture
def runs(built, tmp_path, capsys):
    return Runs(shutil.copytree(built, tmp_path / "runs"), capsys)


# ---- Data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"train/0.mp4 0\ntrain/1.mp4 one\n", "line 2"),
        (b"path,label\nnot/there.mp4,1\n", "line 2"),
        (b"", "no videos found"),
    ],
)
def test_a_list_that_cannot_be_read(runs, text, message):
    (runs.data / "list.csv").write_bytes(text)
    runs.refuses(FINETUNE, message, data=runs.data / "list.csv", test_data=runs.data / "val.csv")
    runs.refuses(TEACHER, "nowhere does not exist", data="nowhere")


def test_no_video_decodes_or_has_a_clip(runs):
    videos, images = runs.folder / "videos", runs.folder / "images"
    for folder in (videos, images):
        folder.mkdir()
    for number in range(8):
        (videos / f"{number}.mp4").write_bytes(b"no frame in here")
        Image.new("RGB", (16, 16)).save(images / f"{number}.png")
    runs.refuses(TEACHER, "of 8 videos are broken", data=videos)
    runs.refuses(TEACHER, "videos/0.mp4", data=videos / "0.mp4", batch=1)
    runs.refuses(TEACHER, "is an image, a clip of one frame, but clips have 4 frames", data=images)
    for path in (runs.data / "val").iterdir():
        path.write_bytes(b"no frame in here")
    runs.refuses(FINETUNE, "none of the 6 videos", data=runs.data)
    runs.refuses(f"evaluate {runs.folder}/finetune --workers 0", "none of the 6 videos", data=runs.data)


def test_labels_or_the_val_split_are_missing(runs):
    runs.refuses(FINETUNE, "has no labels", data=runs.data / "unlabelled.txt")
    (runs.data / "val.csv").unlink()
    runs.refuses(FINETUNE, "no val split", data=runs.data)


def test_the_test_set_has_other_classes(runs):
    other = runs.folder / "other"
    for number, name in enumerate(("left", "upwards")):
        (other / "val" / name).mkdir(parents=True)
        shutil.copy(next((runs.data / "val").iterdir()), other / "val" / name / f"{number}.mp4")
    runs.refuses(FINETUNE, "has the class 'upwards'", data=runs.data, test_data=other)
    runs.refuses(f"evaluate {runs.folder}/finetune --workers 0", "has the class 'upwards'", data=other)


def test_a_label_is_not_a_class_of_the_model(runs):
    video = next((runs.data / "val").iterdir())
    (runs.folder / "three.txt").write_text(f"{video} 2\n")
    runs.refuses(f"evaluate {runs.folder}/finetune --workers 0", "'2'", data=runs.folder / "three.txt")


def test_some_labels_are_missing(runs):
    for split in ("train", "val"):
        text = (runs.data / f"{split}.csv").read_text()
        (runs.data / f"{split}.csv").write_text("\n".join(line.split()[0] for line in text.splitlines()))
        runs.refuses(FINETUNE, f"{split}.csv has no labels", data=runs.data)
        (runs.data / f"{split}.csv").write_text(text)
    evaluate = f"evaluate {runs.folder}/finetune --workers 0"
    runs.refuses(evaluate, "unlabelled.txt has no labels", data=runs.data / "unlabelled.txt")
    some = runs.data / "some.jsonl"
    some.write_text('{"path": "train/000000.mp4", "label": 0}\n{"path": "train/000001.mp4"}\n')
    runs.refuses(evaluate, f"line 2 of {some} has no label", data=some)
    runs.refuses(FINETUNE, f"line 2 of {some} has no label", data=runs.data, test_data=some)


def write_list(runs, name, *labels):
    """A list of the training videos with these labels."""
    videos = sorted((runs.data / "train").iterdir())[: len(labels)]
    lines = [f"{video} {label}" for video, label in zip(videos, labels, strict=True)]
    (runs.folder / name).write_text("\n".join(lines))
    return runs.folder / name


def test_the_training_set_has_a_single_class(runs):
    one = write_list(runs, "one.txt", *[0] * 8)
    runs.refuses(FINETUNE, "one.txt have the class '0'", data=one, test_data=one)
    second = write_list(runs, "second.txt", *[1] * 8)  # number 0 is a class without videos
    runs.refuses(FINETUNE, "second.txt have the class '1'", data=second, test_data=second)
    shutil.copytree(runs.data / "val", runs.folder / "folders/train/waving")
    (runs.folder / "folders/val").mkdir()
    shutil.copytree(runs.data / "val", runs.folder / "folders/val/waving")
    runs.refuses(FINETUNE, "have the class 'waving'", data=runs.folder / "folders", batch=6)


def test_the_test_set_has_a_class_that_the_training_set_lacks(runs):
    train = write_list(runs, "train.txt", 0, 2, 0, 2, 0, 2, 0, 2)
    val = write_list(runs, "val.txt", 0, 1, 2)
    runs.refuses(
        FINETUNE, f"{val} has the class '1', of which {train} has no training video", data=train, test_data=val
    )
    beyond = write_list(runs, "beyond.txt", 0, 3)
    runs.refuses(FINETUNE, "beyond.txt has the class '3'", data=train, test_data=beyond)


def test_the_test_set_is_empty(runs):
    evaluate = f"evaluate {runs.folder}/finetune --workers 0"
    for text in ("", "path,label\n"):
        (runs.data / "val.csv").write_text(text)
        runs.refuses(FINETUNE, "no videos found", data=runs.data)
        runs.refuses(evaluate, "no videos found", data=runs.data)
    (runs.folder / "nothing").mkdir()
    runs.refuses(evaluate, "no videos found", data=runs.folder / "nothing")
    for name in ("train/left", "train/right", "val/left"):
        (runs.folder / "folders" / name).mkdir(parents=True)
    for side in ("left", "right"):
        shutil.copytree(runs.data / "val", runs.folder / "folders/train" / side, dirs_exist_ok=True)
    runs.refuses(FINETUNE, "no videos found", data=runs.folder / "folders")


def test_results_cannot_be_written(runs):
    evaluate = f"evaluate {runs.folder}/finetune --out"
    runs.refuses(f"{evaluate} {runs.folder}/finetune", "holds something else than an evaluation", data=runs.data)
    runs.refuses(f"{evaluate} {runs.data}/val.csv/out", "cannot be written", data=runs.data)


# ---- Numbers --------------------------------------------------------------------------------------------------------


MASKS = [
    ({"method__mask__ratio": ratio}, message)
    for ratio, message in ((0.99, "masks all"), (0, "hides none of the 32"), (1, "mask ratio of 1.0"))
]
MISTAKES = {  # the options that are wrong for a command, and what it answers
    TEACHER: [
        ({"clips__sampling__num_frames": 7}, "a clip of 7 frames does not divide into tubelets of 2; take 6 frames"),
        ({"clips__size": (18, 16)}, "a clip of 18 rows does not divide into tubelets of 4"),
        ({"clips__size": (16, 3)}, "a clip of 3 columns does not divide into tubelets of 4"),
        ({"clips__repeats": 3}, "does not divide into 3 copies"),
        ({"batch": 64}, "the dataset has 16 videos and one step takes 64; lower --batch to 16 clips"),
        ({"batch": -8}, "take a multiple of 1"),
        ({"device_batch": 1, "clips__repeats": 2}, "cannot hold the 2 copies"),
        ({"schedule__epochs": 0}, "raise --schedule.epochs"),
        ({"schedule__warmup_epochs": 10}, "lower --schedule.warmup-epochs"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"method__mask__ratio": 1.0}, "a mask ratio of 1.0"),
        ({"method__mask__ratio": -1}, "a mask ratio of -1.0"),
        ({"method__mask__ratio": 0}, "hides none of the 32 tokens"),
        ({"method__encoder__tubelet": (2, 16, 16)}, "masks all 2 tokens"),
        ({"method__encoder__tubelet": (1, 1, 1), "method__target": "per_channel"}, "a tubelet of one pixel"),
        ({"method__encoder__heads": 5}, "5 heads do not divide a width of 24"),
        ({"method__encoder__heads": 0}, "heads is 0"),
        ({"method__encoder__depth": -1}, "depth is -1"),
        ({"method__encoder__drop_path": 1}, "drop_path is 1.0; take 0 to less than 1"),
        ({"method__encoder__positions": "learned"}, "give its learned-grid"),
        ({"method__decoder__positions": "sincos3d", "method__decoder__dim": 20}, "a width of 20"),
        ({"seed": -1}, "seed is -1"),
        ({"init": "teacher", "method__encoder__heads": 3}, "an encoder whose heads is 2, and the recipe's is 3"),
        ({"init": "teacher", "method__encoder__dim": 32}, "an encoder whose dim is 24, and the recipe's is 32"),
        (
            {"init": "teacher", "method__encoder__class_token": ()},
            "whose class_token is False, and the recipe's is True",
        ),
    ],
    IMAGE_TEACHER: [({"init": "teacher"}, "whose tubelet is (2, 4, 4), and the recipe's is (1, 4, 4)")],
    AMD: [
        ({"method__layer_pairs": (1, 4)}, "AMD's layer pairs name block 4 of a teacher of 3 blocks"),
        ({"method__layer_pairs": (0, 1)}, "AMD's layer pairs name block 0 of a student of 2 blocks"),
        ({"method__mask__student_ratio": 1}, "a mask ratio of 1.0 for the student"),
        ({"method__mask__teacher_ratio": -0.5}, "a mask ratio of -0.5 for the teacher"),
        ({"method__mask__teacher_ratio": 0.9}, "the teacher's mask ratio 0.9 is above the student's"),
        ({"method__encoder__tubelet": (2, 8, 8)}, "must be the teacher's (2, 4, 4)"),
        ({"method__direct_weight": "nan"}, "direct_weight is nan"),
        ({"method__teacher__checkpoint": ""}, "the teacher has no checkpoint; give --method.teacher.checkpoint"),
    ],
    MVD: [
        ({"method__image__checkpoint": "finetune"}, "this model sees clips; give it as --method.video"),
        ({"method__image__checkpoint": ""}, "the image teacher has no checkpoint; give --method.image.checkpoint"),
        ({"method__video__checkpoint": ""}, "the video teacher has no checkpoint; give --method.video.checkpoint"),
        ({"method__image__weight": 0, "method__video__weight": 0}, "nothing to learn"),
        ({"method__mask__ratio": 0}, "hides none of the 32 tokens"),
    ],
    MASKAGAIN: [
        ({"method__teacher__checkpoint": "image_teacher"}, "must be the teacher's (1, 4, 4)"),
        ({"method__encoder__heads": 3}, "the student's 3 heads must be the teacher's 2"),
        ({"method__encoder__dim": 32, "method__hidden__value_weight": 1}, "width 32 must be the teacher's 24"),
        ({"method__hidden__layers": (1, 4)}, "block 4 of a teacher of 3 blocks"),
        (
            {
                "method__released__hidden_weight": 0,
                "method__output__hint_weight": 0,
                "method__output__relation_weight": 0,
            },
            "learns nothing from its teacher",
        ),
        ({"method__hidden__global_top_k": 0}, "global_top_k is 0; take 1 or more"),
    ],
    DMAE: [
        ({"method__teacher__checkpoint": "image_teacher"}, "must be the teacher's (1, 4, 4)"),
        ({"method__encoder__class_token": ()}, "the student has a class token and the teacher has none"),
        ({"method__encoder__dim": 32, "method__projection": "none"}, "needs a projection to its teacher's 24"),
        ({"method__layer_pairs": (3, 1)}, "block 3 of a student of 2 blocks"),
        ({"method__layer_pairs": ()}, "no blocks to align"),
    ],
    STMAE: [
        *MASKS,
        ({"method__predicted_frames": 0}, "0 frames of each tubelet of 2 cannot be reconstructed"),
        ({"method__predicted_frames": 3}, "3 frames of each tubelet of 2 cannot be reconstructed"),
        ({"method__encoder__no_class_token": ()}, "the encoder's class token, and the encoder has none"),
        ({"method__encoder__learned_grid": "None"}, "give its learned-grid"),
        ({"method__decoder__learned_grid": (-1, 4, 4)}, "learned_grid is -1; take 1 or more"),
    ],
    FINETUNE: [
        ({"views__size": (18, 16)}, "a clip of 18 rows does not divide into tubelets of 4"),
        ({"dropout": 2}, "dropout is 2.0; take 0 to 1"),
        ({"label_smoothing": -1}, "smoothing is -1.0"),
        ({"mask_ratio": 1}, "mask_ratio is 1.0; take 0 to less than 1"),
        ({"batch": 9}, "the dataset has 8 videos"),
    ],
    MIXED: [
        ({"device_batch": 0}, "--device-batch is 0"),
        ({"workers": -5}, "--workers is -5"),
        ({"save_seconds": "nan"}, "--save-seconds is nan"),
        ({"clips__flip_probability": 2}, "flip is 2.0"),
        ({"clips__repeats": 0}, "clips.repeats is 0"),
        ({"views__temporal_clips": 0}, "temporal_clips is 0"),
        ({"views__spatial_crops": 0}, "spatial_crops is 0"),
        ({"views__short_side": 0}, "short_side is 0"),
        ({"clips__size": (0, 16)}, "size is 0"),
        ({"mixup__probability": "nan"}, "probability is nan"),
        ({"random_erasing__scale": (0.5, 0.1)}, "random erasing takes a scale"),
        ({"clips__randaugment__num_ops": -1}, "num_ops is -1"),
        ({"clips__crop__ratio": (0, 1)}, "a crop takes a scale"),
        ({"clips__sampling__num_frames": 0}, "num_frames is 0"),
        ({"encoder__tubelet": (0, 4, 4)}, "take 1 or more"),
        ({"optim__base_lr": "nan"}, "base_lr is nan"),
        ({"optim__betas": (1, 1)}, "beta is 1.0"),
        ({"optim__weight_decay": -1}, "weight_decay is -1.0"),
        ({"batch": 7, "clips__repeats": 1}, "7 clips cannot be mixed in groups of 7"),
    ],
}
MISTAKES[f"{MVD} --method.image None --method.video None"] = [({}, "MVD has nothing to learn")]
for mask in ("ablation_mask_space", "ablation_mask_frame", "ablation_k400_mask_cuboid"):
    MISTAKES[STMAE.replace("base_k400", mask)] = MASKS


@pytest.mark.parametrize(
    ("command", "options", "message"), [(command, *case) for command, cases in MISTAKES.items() for case in cases]
)
def test_an_impossible_option(runs, command, options, message):
    """The options begin with those that give a method its teachers; a run is named by its directory."""
    data = runs.data if command in (FINETUNE, MIXED) else runs.data / "unlabelled.txt"
    method = next((name for name, each in METHODS.items() if each == command), "")
    teachers = teachers_of(method, runs.folder) if command != TEACHER and method else {}
    values = {
        name: runs.folder / value if value and name.endswith(("init", "checkpoint")) else value
        for name, value in options.items()
    }
    runs.refuses(command, message, data=data, **{**teachers, **values})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "auto"], "--data"),
        (["pretrain", "quickstart.teacher"], "--data"),
        (["pretrain", "quickstart.teacher", "--data", "clips", "--val", "clips"], "Unrecognized options: --val"),
        (
            ["pretrain", "quickstart.teacher", "--data", "clips", "--val-data", "clips"],
            "Unrecognized options: --val-data",
        ),
    ],
)
def test_an_option_that_is_missing_or_not_the_verb_s_is_named(arguments, message, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out


# ---- Checkpoints ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(runs):
    """Files that are no weights of vidstill."""
    folder = runs.folder / "checkpoints"
    folder.mkdir()
    torch.save(ZEROS, folder / "other.pth")
    save_file(ZEROS, folder / "metadata.safetensors", metadata={"vidstill": "[]"})
    (folder / "garbage.pth").write_bytes(b"no weights" * 100)
    whole = (runs.folder / "teacher/model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


CHECKPOINTS = {
    "missing.pth": "there is no file or run",
    "other.pth": "neither vidstill's nor of a known layout",
    "metadata.safetensors": "no readable safetensors file",
    "garbage.pth": "no file of plain tensors",
    "cut.safetensors": "no readable safetensors file",
    "": "holds no model.safetensors",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_missing_or_foreign(runs, checkpoints, name):
    message, file = CHECKPOINTS[name], checkpoints / name
    runs.refuses(FINETUNE, message, data=runs.data, init=file)
    runs.refuses(AMD, message, data=runs.data / "unlabelled.txt", method__teacher__checkpoint=file)
    runs.refuses(f"evaluate {file} --workers 0", message, data=runs.data)


def test_only_a_fine_tuned_model_can_be_evaluated(runs):
    runs.refuses(f"evaluate {runs.folder}/teacher", "is no fine-tuned model but pretraining", data=runs.data)


def test_a_classifier_file_contradicts_its_metadata(runs):
    """It says that it is wider, deeper or of more classes than its tensors are, or not what its classes are called."""
    whole = read_checkpoint(runs.folder / "finetune")
    encoder = whole.metadata["classifier"]["encoder"]
    classifier = whole.metadata["classifier"]
    cases = {
        "'encoder.blocks.0.attn.proj.bias' is (24,), this model's is (32,)": {"encoder": {**encoder, "dim": 32}},
        "has 3 blocks, its tensors 2": {"encoder": {**encoder, "depth": 3}},
        "scores 3 classes and names 2": {"num_classes": 3},
        "has no field 'dmi'": {"encoder": {"dmi": 24}},
    }
    cases = {message: {"classifier": {**classifier, **wrong}} for message, wrong in cases.items()} | {
        "scores 2 classes and names 3": {"classes": ["left", "right", "up"]},
        "ClassifierConfig is None": {"classifier": None},
        "ViewsConfig is incomplete": {"views": {}},
    }
    file = runs.folder / "damaged.safetensors"
    for message, wrong in cases.items():
        write_checkpoint(file, whole.tensors, {**whole.metadata, **wrong})
        runs.refuses(f"evaluate {file} --workers 0", message, data=runs.data)
    for field in ("classifier", "classes", "views"):
        write_checkpoint(file, whole.tensors, {name: value for name, value in whole.metadata.items() if name != field})
        runs.refuses(f"evaluate {file} --workers 0", f"does not state its {field}", data=runs.data)


def test_an_encoder_file_contradicts_its_metadata(runs):
    whole = read_checkpoint(runs.folder / "teacher")
    for name, value in (("dim", 32), ("tubelet", [2, 8, 8])):
        wider = {**whole.metadata, "encoder": {**whole.metadata["encoder"], name: value}}
        write_checkpoint(runs.folder / "damaged.safetensors", whole.tensors, wider)
        runs.refuses(FINETUNE, "damaged.safetensors", data=runs.data, init=runs.folder / "damaged.safetensors")


# ---- The run directory -----------------------------------------------------------------------------------------------


def test_the_run_directory_holds_another_run(runs):
    unlabelled, teacher, finetune = runs.data / "unlabelled.txt", runs.folder / "teacher", runs.folder / "finetune"
    short = {"schedule__epochs": 2}
    runs.refuses(TEACHER, "recipe.schedule.epochs is 2, here it is 10", data=unlabelled, out=teacher)
    runs.refuses(TEACHER, "recipe.seed is 0, here it is 1", data=unlabelled, out=teacher, seed=1, **short)
    runs.refuses(
        FINETUNE,
        "holds a run with other settings (recipe is a PretrainRecipe, here a FinetuneRecipe)",
        data=runs.data,
        out=teacher,
        **short,
    )
    runs.refuses(FINETUNE, "init is nothing, here it is", data=runs.data, out=finetune, init=finetune, **short)
    first, second, *_ = (runs.data / "val.csv").read_text().splitlines()
    (runs.data / "two.csv").write_text(f"{first}\n{second}\n")
    test = {"test_data": runs.data / "two.csv"}
    runs.refuses(FINETUNE, "data.test differs", data=runs.data, out=finetune, **test, **short)
    with unlabelled.open("a") as file:
        file.write("train/000000.mp4\n")
    runs.refuses(TEACHER, "data.train differs", data=unlabelled, out=teacher, **short)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.json is damaged"),
        ("{", "recipe.json is damaged"),
        ("\0", "recipe.json is damaged"),
        ("[]", "holds no recipe of a run"),
        ('{"data": 1}', "holds no recipe of a run"),
    ],
)
def test_the_run_directory_has_a_damaged_recipe(runs, text, message):
    (runs.folder / "teacher/recipe.json").write_text(text)
    (runs.folder / "teacher/SHA256SUMS").unlink()
    runs.refuses(TEACHER, message, data=runs.data / "unlabelled.txt", out=runs.folder / "teacher")


def test_the_run_directory_cannot_be_made(runs):
    unlabelled, file = runs.data / "unlabelled.txt", runs.folder / "teacher/recipe.json"
    runs.refuses(TEACHER, "is a file", data=unlabelled, out=file)
    for out in (file / "out", "/proc/nowhere/out"):
        runs.refuses(TEACHER, "cannot be written", data=unlabelled, out=out)
    runs.refuses(TEACHER, "something else than a run", data=unlabelled, out=runs.data)


def test_a_training_checkpoint_is_damaged(runs):
    teacher = runs.folder / "teacher"
    (teacher / "model.safetensors").unlink()
    states = list((teacher / "state").glob("*.pt"))
    for state in states:
        state.write_bytes(b"no state")
    recipe = json.loads((teacher / "recipe.json").read_text())
    assert main(typed(TEACHER, data=runs.data / "unlabelled.txt", out=teacher, schedule__epochs=2)) == 2
    assert f"no state in {teacher / 'state'} can be used ({max(states)} is damaged" in runs.capsys.readouterr().err
    assert json.loads((teacher / "recipe.json").read_text()) == recipe
