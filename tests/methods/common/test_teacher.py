"""A frozen model only looks, wherever the model that holds it goes; at clips or frames, at the size that it needs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import GRID, TEACHER, built, clips
from torch import nn

from vidstill.methods.common.teacher import (
    FrozenTeacher,
    extract_clip_features,
    extract_frame_features,
    resize_clip_to_grid,
)
from vidstill.utils.types import InputError

OF_IMAGES = replace(TEACHER, tubelet=(1, 4, 4), positions="sincos2d", class_token=True)


class Holder(nn.Module):
    """A student with a teacher."""

    def __init__(self):
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.teacher = FrozenTeacher(built(TEACHER))


def test_a_teacher_is_neither_listed_nor_saved():
    holder = Holder()
    assert {name for name, _ in holder.named_parameters()} == {"own.weight", "own.bias"}
    assert set(holder.state_dict()) == {"own.weight", "own.bias"}
    assert list(holder.teacher.buffers()) == []


def test_a_teacher_stays_in_eval_mode_and_without_gradient():
    holder = Holder().train()
    assert not any(part.training for part in holder.teacher.model.modules())
    holder.requires_grad_(True)
    assert not any(parameter.requires_grad for parameter in holder.teacher.model.parameters())
    clip = clips().requires_grad_()
    seen = holder.teacher(clip, layers=(1, 3)).layers
    assert not any(tokens.requires_grad for tokens in seen.values())


def test_a_teacher_moves_with_the_model_that_holds_it():
    holder = Holder()
    holder.to(torch.float64)
    assert {p.dtype for p in holder.teacher.model.parameters()} == {torch.float64}
    assert holder.teacher.model.mean.dtype == torch.float64
    holder.to("meta")
    assert {t.device.type for t in (*holder.teacher.model.parameters(), holder.teacher.model.mean)} == {"meta"}


def test_a_copy_has_a_teacher_of_its_own():
    holder = Holder()
    other = copy.deepcopy(holder)
    with torch.no_grad():
        other.teacher.model.patch_embed.bias.add_(1)
    assert not torch.equal(other.teacher.model.patch_embed.bias, holder.teacher.model.patch_embed.bias)


def test_a_teacher_gives_the_raw_outputs_of_its_blocks():
    holder, clip = Holder(), clips()
    visible = torch.tensor([[5, 0, 3], [1, 2, 4]])
    seen = holder.teacher(clip, visible, layers=(2,)).layers
    assert torch.equal(seen[2], holder.teacher.model(clip, visible, layers=(2,)).layers[2])


# ---- Features for every token of a student's grid -------------------------------------------------------------------


def test_features_of_a_clip_are_the_raw_output_of_the_last_block():
    teacher = FrozenTeacher(built(TEACHER))
    assert torch.equal(extract_clip_features(teacher, clips(), GRID), teacher.model(clips(), layers=(3,)).layers[3])


def test_a_frame_is_looked_at_as_if_it_were_alone():
    teacher, clip = FrozenTeacher(built(OF_IMAGES)), clips()
    features = extract_frame_features(teacher, clip, GRID)
    for slot, own in enumerate(features.chunk(GRID.t, dim=1)):
        alone = teacher.model(clip[:, :, 2 * slot, None], layers=(3,)).layers[3]  # without its class token
        torch.testing.assert_close(own, alone)
    changed = clip.clone()
    changed[:, :, 1::2] = 0.5
    assert torch.equal(extract_frame_features(teacher, changed, GRID), features)


def test_the_features_of_all_frames_of_a_tubelet_stand_side_by_side_in_order():
    teacher, clip = FrozenTeacher(built(OF_IMAGES)), clips()
    both = extract_frame_features(teacher, clip, GRID, "all")
    torch.testing.assert_close(both[..., :32], extract_frame_features(teacher, clip, GRID))
    torch.testing.assert_close(both[..., 32:], extract_frame_features(teacher, clip.roll(-1, dims=2), GRID))


@pytest.mark.parametrize("size", [(12, 9), (28, 21), (16, 24)], ids=str)
def test_a_clip_is_resized_as_pil_does(size):
    clip, (rows, columns) = clips(), size
    shown = resize_clip_to_grid(clip, GRID, replace(TEACHER, tubelet=(2, rows // GRID.h, columns // GRID.w)))
    assert tuple(shown.shape) == (2, 3, 4, rows, columns)
    for place in np.ndindex(2, 3, 4):
        picture = Image.fromarray(clip[place].numpy()).resize((columns, rows), Image.Resampling.BILINEAR)
        torch.testing.assert_close(
            shown[place], torch.from_numpy(np.array(picture)), rtol=0, atol=1e-5
        )  # both in float32


def test_a_clip_that_fits_is_shown_as_it_is():
    assert resize_clip_to_grid(clip := clips(), GRID, TEACHER) is clip


@pytest.mark.parametrize("patch", [3, 6])
def test_a_teacher_of_other_patches_is_shown_the_clip_at_the_size_of_as_many(patch):
    size = (GRID.h * patch, GRID.w * patch)
    for features, model in ((extract_clip_features, TEACHER), (extract_frame_features, OF_IMAGES)):
        teacher = FrozenTeacher(built(replace(model, tubelet=(model.tubelet[0], patch, patch))))
        shown = resize_clip_to_grid(clips(), GRID, teacher.model.config)
        assert tuple(shown.shape[-2:]) == size
        assert torch.equal(features(teacher, clips(), GRID), features(teacher, shown, GRID))


def test_a_slot_of_longer_tubelets_is_that_of_all_slots_within_it():
    teacher, clip = FrozenTeacher(built(replace(TEACHER, tubelet=(4, 4, 4)))), clips(frames=8)
    grid = replace(GRID, t=4)
    features = extract_clip_features(teacher, clip, grid).unflatten(1, (4, -1))
    own = teacher.model(clip, layers=(3,)).layers[3].unflatten(1, (2, -1))
    for slot in range(4):
        assert torch.equal(features[:, slot], own[:, slot // 2])


@pytest.mark.parametrize(("frames", "tubelet"), [(4, 1), (12, 3)])
def test_slots_that_do_not_cover_the_students_are_met_with_a_sentence(frames, tubelet):
    teacher = FrozenTeacher(built(replace(TEACHER, tubelet=(tubelet, 4, 4))))
    with pytest.raises(InputError, match="take one whose tubelets have 2 frames as the student's, or a multiple"):
        extract_clip_features(teacher, clips(frames=frames), replace(GRID, t=frames // 2))
