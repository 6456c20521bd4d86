"""Runs that learn from other libraries' models: what they leave, resume with, and refuse before anything is written."""

import json
from statistics import mean

import pytest
import torch
from teachers_of_others import library, save, save_timm
from tiny_runs import AMD, MVD, TEACHER, about, log, make_data, run, typed, weights

from vidstill.cli.main import main
from vidstill.methods import mvd
from vidstill.models.external.base import ExternalEncoderConfig
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.utils.config_io import from_dict

IMAGES = (
    "--clips.sampling.num-frames 1 --clips.size 64 64 --method.encoder.tubelet 1 16 16 --method.layer-pairs 1 3 2 6"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`data`, a `teacher` of ours, and models of other libraries."""
    library("transformers"), library("timm")
    folder = tmp_path_factory.mktemp("foreign")
    make_data(folder / "data")
    for kind in ("dinov2", "vjepa2", "siglip"):
        save(kind, folder / kind)
    (folder / "dinov2" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    save_timm(folder / "vit.safetensors")
    run(TEACHER, data=folder / "data/unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    return folder


def taught(folder, **more):
    """The options of a student of MVD with a DINOv2-shaped teacher of images and a V-JEPA-2-shaped one of clips."""
    return {
        "data": folder / "data/unlabelled.txt",
        "method__image__checkpoint": f"transformers:{folder / 'dinov2'}",
        "method__video__checkpoint": f"transformers:{folder / 'vjepa2'}",
        **more,
    }


@pytest.fixture(scope="module")
def student(folder):
    run(MVD, out=folder / "student", **taught(folder))
    return folder / "student"


def test_mvd_learns_from_dinov2_and_v_jepa_2(student):
    steps = log(student)
    assert set(steps[0]["parts"]) == {"image", "video"}
    for part in ("image", "video"):
        assert mean(s["parts"][part] for s in steps[-3:]) < 0.9 * mean(s["parts"][part] for s in steps[:3])
    assert {name.partition(".")[0] for name in weights(student)} == {"encoder", "decoders"}


def test_a_run_says_what_its_teachers_are_and_under_which_licence(student, folder):
    recipe = from_dict(PretrainRecipe, json.loads((student / "recipe.json").read_text())["recipe"])
    image, video = recipe.method.image.model, recipe.method.video.model
    assert isinstance(image, ExternalEncoderConfig)
    assert (image.source, image.tubelet, image.dim) == (f"transformers:{folder / 'dinov2'}", (1, 4, 4), 24)
    assert (video.tubelet, video.train_size, video.depth) == ((2, 4, 4), (16, 16), 2)
    past = {entry["role"]: entry for entry in about(student)["provenance"]}
    assert past["image_teacher"]["layout"] == "transformers dinov2"
    assert "CC-BY-NC-4.0" in about(student)["licence"]


def test_a_run_that_broke_off_ends_with_the_same_weights(student, folder, monkeypatch):
    compared, calls = mvd.MVD.forward_loss, []

    def breaks(self, *args):
        calls.append(len(args[0]))
        if len(calls) == 8:  # the rehearsal's is the first
            raise KeyboardInterrupt
        return compared(self, *args)

    options = taught(folder, out=folder / "resumed", save_seconds=0)
    with monkeypatch.context() as patched:
        patched.setattr(mvd.MVD, "forward_loss", breaks)
        assert main(typed(MVD, **options)) != 0
    assert not (folder / "resumed" / "model.safetensors").exists()
    run(MVD, **options)
    ended, uninterrupted = weights(folder / "resumed"), weights(student)
    assert all(torch.equal(ended[name], uninterrupted[name]) for name in uninterrupted)
    assert [line["loss"] for line in log(folder / "resumed")] == [line["loss"] for line in log(student)]


def test_several_teachers_are_typed_after_one_option(folder, tmp_path):
    siglip, timm = f"0.5*transformers:{folder / 'siglip'}", f"0.5*timm:test_vit@{folder / 'vit.safetensors'}"
    extra = {"method__extra": (folder / "teacher", siglip, timm), "schedule__epochs": 2}
    run(MVD, out=tmp_path / "out", **taught(folder, **extra))
    assert list(log(tmp_path / "out")[0]["parts"]) == ["image", "video", "extra_1", "extra_2", "extra_3"]
    roles = [entry["role"] for entry in about(tmp_path / "out")["provenance"]]
    assert roles == [f"{name}_teacher" for name in ("image", "video", "extra_1", "extra_2", "extra_3")]


def test_a_teacher_may_see_frames_of_its_own_size(folder, student, tmp_path):
    native = {"method__image__input_resolution": "native", "clips__size": (12, 12), "schedule__epochs": 2}
    run(MVD, out=tmp_path / "native", **taught(folder, **native))
    matched = native | {"method__image__input_resolution": "match_student"}
    run(MVD, out=tmp_path / "matched", **taught(folder, **matched))
    first = [log(tmp_path / name)[0]["parts"] for name in ("native", "matched")]
    assert first[0]["video"] == first[1]["video"]
    assert first[0]["image"] != first[1]["image"]


def test_amd_learns_from_a_vit_of_timm_where_both_see_images(folder, tmp_path):
    options = {"data": folder / "data/unlabelled.txt", "schedule__epochs": 4}
    options["method__teacher__checkpoint"] = f"timm:test_vit@{folder / 'vit.safetensors'}"
    run(f"{AMD} {IMAGES}", out=tmp_path / "out", **options)
    steps = log(tmp_path / "out")
    assert all(line["parts"]["direct"] > 0 and line["parts"]["generation"] > 0 for line in steps)
    assert mean(line["loss"] for line in steps[-3:]) < mean(line["loss"] for line in steps[:3])


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (
            AMD,
            {"method__teacher__checkpoint": "timm:test_vit@{}/vit.safetensors"},
            "must be the teacher's (1, 16, 16)",
        ),
        (AMD, {"method__teacher__checkpoint": "transformers:{}/dinov2"}, "must be the teacher's (1, 4, 4)"),
        (MVD, {"method__image__checkpoint": "transformers:{}/vjepa2"}, "give it as --method.video"),
        (MVD, {"method__video__checkpoint": "transformers:{}/siglip"}, "give it as --method.image"),
        (MVD, {"method__video__checkpoint": "transformers:{}/nothing"}, "transformers cannot read"),
        (MVD, {"method__video__checkpoint": "timm:test_vit@{}/nothing"}, "there is no file"),
        (MVD, {"method__extra": "{}/nothing"}, "there is no"),
        (
            MVD,
            {"method__video__checkpoint": "{}/teacher", "method__video__input_resolution": "native"},
            "--method.video.input-resolution native is for transformers: and timm: only",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_written(
    folder, tmp_path, capsys, command, options, message
):
    args = {name: str(value).format(folder) for name, value in options.items()}
    shared = taught(folder) if command == MVD else {"data": folder / "data/unlabelled.txt"}
    assert main(typed(command, **(shared | args), out=tmp_path / "out")) == 2
    said_to_user = capsys.readouterr().err
    assert message in said_to_user
    assert "Traceback" not in said_to_user
    assert not (tmp_path / "out").exists()
