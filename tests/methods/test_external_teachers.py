"""Methods with teachers of timm and transformers: what they learn where their definition allows, errors elsewhere."""

from dataclasses import replace

import pytest
import torch
import tyro
from safetensors.torch import load_file
from teachers_of_others import library, save, save_timm
from tiny_models import AMD, DMAE, MASKAGAIN, MVD, as_images, built, clips, only
from torch import Tensor, nn

from vidstill.methods.common.teacher import TeacherConfig, list_teacher_configs, list_teachers, replace_teacher_configs
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.models.external.base import ExternalEncoder
from vidstill.models.external.registry import load_external_encoder
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError, gather_tokens

SEED = torch.tensor([3, 5])
PATCHES = (1, 16, 16)  # timm's


@pytest.fixture(scope="module")
def external(tmp_path_factory) -> dict[str, ExternalEncoder]:
    library("transformers"), library("timm")
    folder = tmp_path_factory.mktemp("teachers")
    file = save_timm(folder / "vit.safetensors")
    named = {kind: load_external_encoder(f"transformers:{save(kind, folder / kind)}") for kind in ("dinov2", "vjepa2")}
    return named | {"timm": load_external_encoder(f"timm:test_vit@{file}", load_file(file))}


def build_with(config, **teachers: ExternalEncoder) -> nn.Module:
    """The method with external teachers in these fields, with their weights."""
    configs = list_teacher_configs(config)
    changes = {name: replace(configs[name], model=model.config, checkpoint="x") for name, model in teachers.items()}
    method = built(replace(config, **changes))
    for name, model in teachers.items():
        list_teachers(method)[name].set_model(model)
    return method


def with_timms_patches(config):
    """Return the config for images and a student of timm's patches."""
    images = as_images(config)
    return replace(images, encoder=replace(images.encoder, tubelet=PATCHES))


def backpropagate(method: nn.Module, clip: Tensor) -> dict[str, Tensor]:
    output = method(clip, None, SEED)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    return dict(output.parts)


# ---- AMD and DMAE: token by token ----------------------------------------------------------------------------------


def test_amd_learns_from_a_vit_of_timm_on_images(external):
    method = build_with(with_timms_patches(AMD), teacher=external["timm"])
    clip = clips(frames=1, rows=64, columns=48)
    mask = method.config.mask.draw(SEED, method.encoder.grid(clip))
    both, alone = method.forward_teacher(clip, mask)
    expected = external["timm"](clip, mask.teacher_visible, layers=(2, 3)).layers
    for layer in (2, 3):
        assert torch.equal(torch.cat([both[layer], alone[layer]], dim=1), expected[layer])
    changed = clip.clone()
    cubes = changed.view(2, 3, 1, 4, 16, 3, 16)
    for row, visible in enumerate(mask.teacher_visible):
        for token in set(range(12)) - set(visible.tolist()):
            cubes[row, :, 0, token // 3, :, token % 3] = 0
    assert torch.equal(method.forward_teacher(changed, mask)[0][3], both[3])  # it sees its own tokens alone
    assert set(backpropagate(method, clip)) == {"reconstruction", "direct", "generation"}


def test_amd_learns_from_v_jepa_2_on_clips(external):
    method = build_with(replace(AMD, layer_pairs=((1, 1), (2, 2))), teacher=external["vjepa2"])
    parts = backpropagate(method, clips())
    assert parts["direct"] > 0
    assert parts["generation"] > 0


def test_a_teacher_of_frames_cannot_teach_amds_student_of_clips(external):
    teacher = TeacherConfig(model=external["timm"].config)
    with pytest.raises(InputError, match=r"the student's tubelets \(2, 4, 4\) must be the teacher's \(1, 16, 16\)"):
        replace(AMD, teacher=teacher).build()
    method = build_with(replace(AMD, encoder=replace(AMD.encoder, tubelet=PATCHES)), teacher=external["timm"])
    with pytest.raises(InputError, match="sees single frames, and got a clip of 4"):
        method(clips(rows=64, columns=48), None, SEED)


def test_amds_teacher_cannot_see_a_clip_of_another_size(external):
    teacher = TeacherConfig(model=replace(external["vjepa2"].config, input_resolution="native"))
    with pytest.raises(InputError, match="must see the student's clip"):
        replace(AMD, layer_pairs=((1, 1),), teacher=teacher).build()


def test_dmae_learns_from_a_vit_of_timm_but_not_from_a_class_token(external):
    config = with_timms_patches(replace(DMAE, layer_pairs=((1, 4),)))
    with pytest.raises(InputError, match="the student has a class token and the teacher has none"):
        build_with(config, teacher=external["timm"])
    method = build_with(replace(config, align_class_token=False), teacher=external["timm"])
    assert backpropagate(method, clips(frames=1, rows=64, columns=48))["alignment"] > 0


def test_maskagain_learns_from_an_external_teachers_features_but_not_from_its_attention(external):
    config = replace(MASKAGAIN, hidden=replace(MASKAGAIN.hidden, layers=(2, 2)))
    with pytest.raises(InputError, match="cannot return the attention of a block"):
        build_with(config, teacher=external["vjepa2"])(clips(), None, SEED)
    method = build_with(only(config, hint=1.0, relation=1.0), teacher=external["vjepa2"])
    assert set(backpropagate(method, clips())) == {"hint", "relation"}


# ---- MVD: any grid, and several at once -----------------------------------------------------------------------------


def test_mvd_predicts_external_teachers_features_of_masked_tokens(external):
    method = build_with(MVD, image=external["dinov2"], video=external["vjepa2"])
    clip = clips()
    grid = method.encoder.grid(clip)
    features = method.forward_teachers(clip, grid)
    assert {name: rows.shape for name, rows in features.items()} == dict.fromkeys(("image", "video"), (2, 24, 24))
    assert torch.equal(features["video"], external["vjepa2"](clip, layers=(2,)).layers[2])
    first = external["dinov2"](clip[:, :, 2:3], layers=(2,)).layers[2]  # of the second slot
    torch.testing.assert_close(features["image"][:, 12:], first)
    mask = method.draw_mask(clip, SEED)
    assert torch.equal(method.select_targets(features, mask)["image"], gather_tokens(features["image"], mask.masked))
    assert set(backpropagate(method, clip)) == {"image", "video"}


def test_mvd_learns_from_extra_teachers_each_by_its_weight(external):
    branch = TeacherBranch(model=external["timm"].config, checkpoint="x", weight=2.0)
    extra = (replace(MVD.video, weight=0.5), branch, replace(MVD.image, weight=0.0))
    config = replace(MVD, image=None, extra=extra, image_frames="all")
    method = built(config)
    method.teachers["extra_2"].set_model(external["timm"])
    parts = backpropagate(method, clips())
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


def test_extra_teachers_are_parsed_as_weight_and_checkpoint():
    config = tyro.cli(MVDConfig, args=["--extra", "run/a", "0.5*timm:vit@f", "2*b*c"])
    branches = [(branch.checkpoint, branch.weight) for branch in config.extra]
    assert branches == [("run/a", 1), ("timm:vit@f", 0.5), ("b*c", 2)]
    teachers = list_teacher_configs(config)
    assert list(teachers) == ["image", "video", "extra_1", "extra_2", "extra_3"]
    assert replace_teacher_configs(config, teachers) == config
