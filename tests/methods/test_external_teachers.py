"""What each method learns from another library's model: where its definition allows, and else the reason why not."""

from dataclasses import replace

import pytest
import torch
import tyro
from safetensors.torch import load_file
from teachers_of_others import library, save, save_timm
from tiny_models import AMD, DMAE, MASKAGAIN, MVD, as_images, built, clips, only
from torch import Tensor, nn

from vidstill.methods.common.teacher import (
    TeacherConfig,
    list_teacher_configs,
    list_teachers,
    replace_teacher_configs,
)
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.models.external.base import ExternalEncoder
from vidstill.models.external.registry import load_external_encoder
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError, gather_tokens

SEED = torch.tensor([3, 5])
PATCHES = (1, 16, 16)  # timm's


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, ExternalEncoder]:
    library("transformers"), library("timm")
    folder = tmp_path_factory.mktemp("teachers")
    file = save_timm(folder / "vit.safetensors")
    named = {kind: load_external_encoder(f"transformers:{save(kind, folder / kind)}") for kind in ("dinov2", "vjepa2")}
    return named | {"timm": load_external_encoder(f"timm:test_vit@{file}", load_file(file))}


def taught(config, **teachers: ExternalEncoder) -> nn.Module:
    """The method with external teachers in these fields, with their weights."""
    configs = list_teacher_configs(config)
    changes = {name: replace(configs[name], model=model.config, checkpoint="x") for name, model in teachers.items()}
    method = built(replace(config, **changes))
    for name, model in teachers.items():
        list_teachers(method)[name].set_model(model)
    return method


def images(config, student: int = 16):
    """A method of images, of a student of these patches."""
    flat = as_images(config)
    return replace(flat, encoder=replace(flat.encoder, tubelet=(1, student, student)))


def learns(method: nn.Module, clip: Tensor) -> dict[str, Tensor]:
    output = method(clip, None, SEED)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    return dict(output.parts)


# ---- AMD and DMAE: token by token ----------------------------------------------------------------------------------


def test_amd_learns_from_a_vit_of_timm_on_images(others):
    method = taught(images(AMD), teacher=others["timm"])
    clip = clips(frames=1, rows=64, columns=48)
    mask = method.config.mask.draw(SEED, method.encoder.grid(clip))
    both, alone = method.forward_teacher(clip, mask)
    seen = others["timm"](clip, mask.teacher_visible, layers=(2, 3)).layers
    for layer in (2, 3):
        assert torch.equal(torch.cat([both[layer], alone[layer]], dim=1), seen[layer])
    hidden = clip.clone()
    cubes = hidden.view(2, 3, 1, 4, 16, 3, 16)
    for row, kept in enumerate(mask.teacher_visible):
        for token in set(range(12)) - set(kept.tolist()):
            cubes[row, :, 0, token // 3, :, token % 3] = 0
    assert torch.equal(
        method.forward_teacher(hidden, mask)[0][3], both[3]
    )  # it sees visible and extra tokens, and no others
    assert set(learns(method, clip)) == {"reconstruction", "direct", "generation"}


def test_amd_learns_from_v_jepa_2_on_clips(others):
    method = taught(replace(AMD, layer_pairs=((1, 1), (2, 2))), teacher=others["vjepa2"])
    parts = learns(method, clips())
    assert parts["direct"] > 0
    assert parts["generation"] > 0


def test_amd_says_why_a_teacher_of_frames_cannot_teach_a_student_of_clips(others):
    teacher = TeacherConfig(model=others["timm"].config)
    with pytest.raises(InputError, match=r"the student's tubelets \(2, 4, 4\) must be the teacher's \(1, 16, 16\)"):
        replace(AMD, teacher=teacher).build()
    method = taught(replace(AMD, encoder=replace(AMD.encoder, tubelet=PATCHES)), teacher=others["timm"])
    with pytest.raises(InputError, match="sees single frames, and got a clip of 4"):
        method(clips(rows=64, columns=48), None, SEED)


def test_amd_says_that_a_teacher_cannot_see_a_clip_of_another_size(others):
    teacher = TeacherConfig(model=replace(others["vjepa2"].config, input_resolution="native"))
    with pytest.raises(InputError, match="must see the student's clip"):
        replace(AMD, layer_pairs=((1, 1),), teacher=teacher).build()


def test_dmae_learns_from_a_vit_of_timm_but_from_no_class_token(others):
    config = images(replace(DMAE, layer_pairs=((1, 4),)))
    with pytest.raises(InputError, match="the student has a class token and the teacher has none"):
        taught(config, teacher=others["timm"])
    method = taught(replace(config, align_class_token=False), teacher=others["timm"])
    assert learns(method, clips(frames=1, rows=64, columns=48))["alignment"] > 0


def test_maskagain_learns_from_a_foreign_teachers_features_and_says_why_not_from_its_attention(others):
    config = replace(MASKAGAIN, hidden=replace(MASKAGAIN.hidden, layers=(2, 2)))
    with pytest.raises(InputError, match="cannot return the attention of a block"):
        taught(config, teacher=others["vjepa2"])(clips(), None, SEED)
    method = taught(only(config, hint=1.0, relation=1.0), teacher=others["vjepa2"])
    assert set(learns(method, clips())) == {"hint", "relation"}


# ---- MVD: any grid, and several at once -----------------------------------------------------------------------------


def test_mvd_guesses_what_foreign_teachers_make_of_hidden_tokens(others):
    method = taught(MVD, image=others["dinov2"], video=others["vjepa2"])
    clip = clips()
    grid = method.encoder.grid(clip)
    features = method.forward_teachers(clip, grid)
    assert {name: rows.shape for name, rows in features.items()} == dict.fromkeys(("image", "video"), (2, 24, 24))
    assert torch.equal(features["video"], others["vjepa2"](clip, layers=(2,)).layers[2])
    first = others["dinov2"](clip[:, :, 2:3], layers=(2,)).layers[2]  # of the second slot
    torch.testing.assert_close(features["image"][:, 12:], first)
    mask = method.draw_mask(clip, SEED)
    assert torch.equal(method.select_targets(features, mask)["image"], gather_tokens(features["image"], mask.masked))
    assert set(learns(method, clip)) == {"image", "video"}


def test_mvd_learns_from_extra_teachers_each_by_its_weight(others):
    external = TeacherBranch(model=others["timm"].config, checkpoint="x", weight=2.0)
    extra = (replace(MVD.video, weight=0.5), external, replace(MVD.image, weight=0.0))
    config = replace(MVD, image=None, extra=extra, image_frames="all")
    method = built(config)
    method.teachers["extra_2"].set_model(others["timm"])
    parts = learns(method, clips())
    assert list(parts) == ["video", "extra_1", "extra_2", "extra_3"]
    loss = method(clips(), None, SEED).loss
    torch.testing.assert_close(loss, parts["video"] + 0.5 * parts["extra_1"] + 2 * parts["extra_2"])
    names = method.state_dict()
    assert not [name for name in names if "teacher" in name]
    widths = [names[f"decoders.extra_{number}.head.weight"].shape[0] for number in (1, 2, 3)]
    assert widths == [32, 2 * 64, 2 * 16]  # of image teachers, both frames of a tubelet, concatenated
    assert from_dict(MVDConfig, to_dict(config)) == config


def test_extra_teachers_leave_the_other_losses_unchanged():
    plain = built(MVD, seed=4)
    more = built(replace(MVD, extra=(replace(MVD.video, weight=0.0),)), seed=5)
    more.load_state_dict(plain.state_dict(), strict=False)
    for name, teacher in plain.teachers.items():
        more.teachers[name].model.load_state_dict(teacher.model.state_dict())
    assert torch.equal(more(clips(), None, SEED).loss, plain(clips(), None, SEED).loss)


def test_an_extra_teacher_with_a_negative_weight_is_refused():
    with pytest.raises(InputError, match=r"weight is -1\.0; take 0 or more"):
        replace(MVD, extra=(replace(MVD.video, weight=-1.0),)).build()


def test_extra_teachers_are_given_by_checkpoint_and_weight():
    config = tyro.cli(MVDConfig, args=["--extra", "run/a", "0.5*timm:vit@f", "2*b*c"])
    assert [(branch.checkpoint, branch.weight) for branch in config.extra] == [
        ("run/a", 1),
        ("timm:vit@f", 0.5),
        ("b*c", 2),
    ]
    teachers = list_teacher_configs(config)
    assert list(teachers) == ["image", "video", "extra_1", "extra_2", "extra_3"]
    assert replace_teacher_configs(config, teachers) == config
