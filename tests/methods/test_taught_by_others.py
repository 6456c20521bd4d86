"""What each method learns from another library's model: where its definition allows, and else the reason why not."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from teachers_of_others import library, save, save_timm
from tiny_models import AMD, DMAE, MASKAGAIN, MVD, as_images, built, clips, only
from torch import Tensor, nn

from vidstill.methods.common.teacher import FrozenTeacher, TeacherConfig
from vidstill.methods.mvd import MVDConfig
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
    """The method with foreign teachers in these fields, their weights in place."""
    described = {field: TeacherConfig(model=teacher.config, checkpoint="x") for field, teacher in teachers.items()}
    method = built(replace(config, **described))
    for field, teacher in teachers.items():
        getattr(method, field).set_model(teacher)
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
    with pytest.raises(InputError, match=r"the student's tubelets \(2, 4, 4\) have to be the teacher's \(1, 16, 16\)"):
        replace(AMD, teacher=teacher).build()
    method = taught(replace(AMD, encoder=replace(AMD.encoder, tubelet=PATCHES)), teacher=others["timm"])
    with pytest.raises(InputError, match="looks at single frames, and is shown a clip of 4"):
        method(clips(rows=64, columns=48), None, SEED)


def test_amd_says_that_a_teacher_cannot_see_a_clip_of_another_size(others):
    teacher = TeacherConfig(model=replace(others["vjepa2"].config, input_resolution="own"))
    with pytest.raises(InputError, match="sees the student's clip, not one of its own size"):
        replace(AMD, layer_pairs=((1, 1),), teacher=teacher).build()


def test_dmae_learns_from_a_vit_of_timm_but_from_no_class_token(others):
    config = images(replace(DMAE, layer_pairs=((1, 4),)))
    with pytest.raises(InputError, match="the student has a class token and the teacher has none"):
        taught(config, teacher=others["timm"])
    method = taught(replace(config, align_class_token=False), teacher=others["timm"])
    assert learns(method, clips(frames=1, rows=64, columns=48))["alignment"] > 0


def test_maskagain_learns_from_a_foreign_teachers_features_and_says_why_not_from_its_attention(others):
    config = replace(MASKAGAIN, attention_layers=(2, 2))
    with pytest.raises(InputError, match="is asked what a block attends with"):
        taught(config, teacher=others["vjepa2"])(clips(), None, SEED)
    method = taught(only(config, hint_weight=1.0, relation_weight=1.0), teacher=others["vjepa2"])
    assert set(learns(method, clips())) == {"hint", "relation"}


# ---- MVD: any grid, and several at once -----------------------------------------------------------------------------


def test_mvd_guesses_what_foreign_teachers_make_of_hidden_tokens(others):
    method = taught(MVD, image_teacher=others["dinov2"], video_teacher=others["vjepa2"])
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


def test_mvd_learns_from_more_teachers_each_by_its_factor(others):
    more = (MVD.video_teacher, TeacherConfig(model=others["timm"].config, checkpoint="x"), MVD.image_teacher)
    config = replace(MVD, image_teacher=None, extra_teachers=more, extra_weights=(0.5, 2.0, 0.0), image_frames="all")
    method = built(config)
    method.extra_teachers[1].set_model(others["timm"])
    assert all(isinstance(teacher, FrozenTeacher) for teacher in method.extra_teachers)
    parts = learns(method, clips())
    assert list(parts) == ["video", "more_1", "more_2", "more_3"]
    loss = method(clips(), None, SEED).loss
    torch.testing.assert_close(loss, parts["video"] + 0.5 * parts["more_1"] + 2 * parts["more_2"])
    names = method.state_dict()
    assert not [name for name in names if "teacher" in name]
    widths = [names[f"extra_decoders.{place}.head.weight"].shape[0] for place in range(3)]
    assert widths == [32, 2 * 64, 2 * 16]  # both frames of a tubelet side by side, of the teachers of images
    assert from_dict(MVDConfig, to_dict(config)) == config


def test_more_teachers_leave_what_mvd_was_as_it_was():
    plain = built(MVD, seed=4)
    assert not [name for name in plain.state_dict() if name.startswith("more")]
    more = built(replace(MVD, extra_teachers=(MVD.video_teacher,), extra_weights=(0.0,)), seed=5)
    more.load_state_dict(plain.state_dict(), strict=False)
    for field in ("image_teacher", "video_teacher"):
        getattr(more, field).model.load_state_dict(getattr(plain, field).model.state_dict())
    assert torch.equal(more(clips(), None, SEED).loss, plain(clips(), None, SEED).loss)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra_weights": (1.0,)}, "MVD has 0 more teachers and 1 factors for them"),
        ({"extra_teachers": (MVD.video_teacher,), "extra_weights": (-1.0,)}, "extra_weights is -1.0; take 0 or more"),
        ({"image_teacher": None, "video_teacher": None}, "nothing to learn"),
    ],
)
def test_more_teachers_that_cannot_be_weighed_are_met_with_a_sentence(change, said):
    with pytest.raises(InputError, match=said):
        replace(MVD, **change).build()
