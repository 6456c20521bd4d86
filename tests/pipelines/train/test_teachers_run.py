"""Runs that learn from two teachers or one, of ours or of other libraries: results, resuming and refusals."""

import json
from dataclasses import replace
from statistics import mean

import pytest
import torch
from teachers_of_others import library, save, save_timm
from tiny_models import MVD as MVD_CONFIG
from tiny_models import built
from tiny_runs import AMD, FINETUNE, MASKAGAIN, MVD, STEPS, TEACHER, about, log, make_data, run, typed, weights

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.cli.main import main
from vidstill.methods import mvd
from vidstill.models.external.base import ExternalEncoderConfig
from vidstill.pipelines.run_config import RunConfig
from vidstill.pipelines.train.pretrain import run_pretraining
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

IMAGES = (
    "--clips.sampling.num-frames 1 --clips.size 64 64 --method.encoder.tubelet 1 16 16 --method.layer-pairs 1 3 2 6"
)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with `data` and the run `teacher`."""
    folder = tmp_path_factory.mktemp("road")
    make_data(folder / "data")
    run(TEACHER, data=folder / "data/unlabelled.txt", out=folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def image_teacher(tmp_path_factory):
    """A file of an encoder of images."""
    config = replace(MVD_CONFIG.image.model, dim=32, heads=2)
    tensors = {f"encoder.{name}": tensor for name, tensor in built(config).state_dict().items()}
    path = tmp_path_factory.mktemp("image") / "teacher.safetensors"
    write_checkpoint(path, tensors, {"kind": "pretraining", "encoder": to_dict(config)})
    return path


def distill(road, out, *, init=None, method=MVD_CONFIG, **teachers):
    """Run MVD with these teachers on the road's clips."""
    like = from_dict(PretrainRecipe, about(road / "teacher")["recipe"])
    files = {name: replace(getattr(MVD_CONFIG, name), checkpoint=str(file)) for name, file in teachers.items()}
    method = replace(method, **{name: files.get(name) for name in ("image", "video")})
    run_config = RunConfig(data=road / "data/unlabelled.txt", out=out, workers=0, precision="fp32")
    return run_pretraining(replace(like, method=method), run_config, init=init)


@pytest.mark.parametrize("taught_by", [("image",), ("video",), ("image", "video")], ids=" and ".join)
def test_a_student_learns_from_both_teachers_or_either(road, tmp_path, image_teacher, taught_by):
    files = {"image": image_teacher, "video": road / "teacher"}
    out = distill(road, tmp_path / "out", **{name: files[name] for name in taught_by})
    steps = log(out)
    assert set(steps[0]["parts"]) == set(taught_by)
    assert mean(line["loss"] for line in steps[-3:]) < 0.95 * mean(line["loss"] for line in steps[:3])
    assert {name.split(".")[1] for name in weights(out) if name.startswith("decoders.")} == set(taught_by)
    assert [source["role"] for source in about(out)["provenance"]] == [f"{name}_teacher" for name in taught_by]


def test_a_teacher_without_weights_is_named_with_its_option(road, tmp_path):
    with pytest.raises(InputError, match=r"the video teacher has no checkpoint; give --method\.video\.checkpoint"):
        distill(road, tmp_path / "out", video="")


def test_a_student_of_clips_may_start_from_its_teacher_of_images(road, tmp_path, image_teacher):
    """Its kernel is repeated over the frames (MVD, table 12, does not say how they started)."""
    out = distill(road, tmp_path / "out", image=image_teacher, init=str(image_teacher))
    scratch = distill(road, tmp_path / "scratch", image=image_teacher)
    assert json.loads((out / "recipe.json").read_text())["sources"]["init"]["source"] == str(image_teacher)
    assert log(out)[0]["loss"] != log(scratch)[0]["loss"]
    start = read_checkpoint(image_teacher).tensors["encoder.blocks.1.mlp.fc2.weight"]
    apart = [(weights(each)["encoder.blocks.1.mlp.fc2.weight"] - start).norm() for each in (out, scratch)]
    assert apart[0] < 0.5 * apart[1]


@pytest.mark.parametrize("tokens", ["visible", "full"])
def test_without_a_decoder_the_mask_may_hide_nothing(road, tmp_path, tokens):
    method = replace(MVD_CONFIG, distillation_tokens=tokens, mask=replace(MVD_CONFIG.mask, ratio=0.0))
    out = distill(road, tmp_path / "out", method=method, video=road / "teacher")
    assert len(log(out)) == STEPS["teacher"]


@pytest.fixture(scope="module")
def decoderless(road):
    """A student of MaskAgain: it has neither a decoder nor a final norm; it saw everything."""
    teacher = {"method__teacher__checkpoint": road / "teacher", "method__mask__ratio": 0}
    run(MASKAGAIN, data=road / "data/unlabelled.txt", out=road / "maskagain", **teacher)
    return road / "maskagain"


def test_a_student_without_a_final_norm_is_fine_tuned_with_a_fresh_one(road, decoderless, tmp_path, capsys):
    options = {"data": road / "data", "init": decoderless, "schedule__epochs": 2}
    run(FINETUNE, out=tmp_path / "fresh", **options)
    assert main(typed(FINETUNE, out=tmp_path / "pretrained", norm="pretrained", **options)) == 2
    assert "has no final norm that a classifier could start from; take --norm fresh" in capsys.readouterr().err
    assert not (tmp_path / "pretrained").exists()


def test_a_student_without_a_final_norm_teaches_another(road, decoderless, tmp_path):
    out = distill(road, tmp_path / "out", video=decoderless)
    assert set(log(out)[0]["parts"]) == {"video"}


# ---- Teachers of other libraries ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(road):
    """The road's folder, with models of other libraries."""
    library("transformers"), library("timm")
    for kind in ("dinov2", "vjepa2", "siglip"):
        save(kind, road / kind)
    (road / "dinov2" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    save_timm(road / "vit.safetensors")
    return road


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
        if len(calls) == 8:  # the first is the dry run's
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
        (AMD, {"method__teacher__checkpoint": "timm:test_vit@{}/vit.safetensors"}, "be the teacher's (1, 16, 16)"),
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
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()
