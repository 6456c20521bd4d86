"""Frozen teachers: outside of what is trained and saved; of clips or frames, at the size that they need."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import GRID, TEACHER, built, clips
from torch import nn

from vidstill.methods.common.teacher import FrozenTeacher, extract_features, resize_clip_to_grid
from vidstill.utils.types import InputError

IMAGE_TEACHER = replace(TEACHER, tubelet=(1, 4, 4), positions="sincos2d", class_token=True)


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.teacher = FrozenTeacher(built(TEACHER))


def test_a_teacher_is_neither_listed_nor_saved_and_a_copy_has_one_of_its_own():
    student = Student()
    assert {name for name, _ in student.named_parameters()} == {"own.weight", "own.bias"}
    assert set(student.state_dict()) == {"own.weight", "own.bias"}
    assert list(student.teacher.buffers()) == []
    other = copy.deepcopy(student)
    with torch.no_grad():
        other.teacher.model.patch_embed.bias.add_(1)
    assert not torch.equal(other.teacher.model.patch_embed.bias, student.teacher.model.patch_embed.bias)


def test_a_teacher_stays_in_eval_mode_and_without_gradient():
    student = Student().train()
    assert not any(part.training for part in student.teacher.model.modules())
    student.requires_grad_(True)
    assert not any(parameter.requires_grad for parameter in student.teacher.model.parameters())
    features = student.teacher(clips().requires_grad_(), layers=(1, 3)).layers
    assert not any(tokens.requires_grad for tokens in features.values())


def test_a_teacher_moves_with_the_model_that_has_it():
    student = Student().to(torch.float64)
    assert {p.dtype for p in student.teacher.model.parameters()} == {torch.float64}
    assert student.teacher.model.mean.dtype == torch.float64
    student.to("meta")
    assert {t.device.type for t in (*student.teacher.model.parameters(), student.teacher.model.mean)} == {"meta"}


def test_a_teacher_returns_the_raw_outputs_of_its_blocks_and_runs_no_further():
    teacher, visible = FrozenTeacher(built(TEACHER)), torch.tensor([[5, 0, 3], [1, 2, 4]])
    expected = teacher.model(clips(), visible, layers=(2,)).layers[2]
    teacher.model.blocks[2].forward = None
    assert torch.equal(teacher(clips(), visible, layers=(2,)).layers[2], expected)


# ---- Features for every token of a student's grid -------------------------------------------------------------------


def test_features_of_a_clip_are_the_raw_output_of_the_last_block():
    teacher = FrozenTeacher(built(TEACHER))
    assert torch.equal(extract_features(teacher, clips(), GRID), teacher.model(clips(), layers=(3,)).layers[3])


def test_a_teacher_of_images_sees_the_first_frame_of_each_tubelet_alone_or_all_of_them():
    teacher, clip = FrozenTeacher(built(IMAGE_TEACHER)), clips()
    features = extract_features(teacher, clip, GRID)
    for slot, tokens in enumerate(features.chunk(GRID.t, dim=1)):
        expected = teacher.model(clip[:, :, 2 * slot, None], layers=(3,)).layers[3]  # without its class token
        torch.testing.assert_close(tokens, expected)
    changed = clip.clone()
    changed[:, :, 1::2] = 0.5
    assert torch.equal(extract_features(teacher, changed, GRID), features)
    both = extract_features(teacher, clip, GRID, "all")  # concatenated, in order
    torch.testing.assert_close(both[..., :32], features)
    torch.testing.assert_close(both[..., 32:], extract_features(teacher, clip.roll(-1, dims=2), GRID))


@pytest.mark.parametrize("size", [(12, 9), (28, 21), (16, 24)], ids=str)
def test_a_clip_is_resized_as_pil_does(size):
    clip, (rows, columns) = clips(), size
    resized = resize_clip_to_grid(clip, GRID, replace(TEACHER, tubelet=(2, rows // GRID.h, columns // GRID.w)))
    assert tuple(resized.shape) == (2, 3, 4, rows, columns)
    for index in np.ndindex(2, 3, 4):
        image = Image.fromarray(clip[index].numpy()).resize((columns, rows), Image.Resampling.BILINEAR)
        torch.testing.assert_close(resized[index], torch.from_numpy(np.array(image)), rtol=0, atol=1e-5)  # float32
    assert resize_clip_to_grid(clip, GRID, TEACHER) is clip


@pytest.mark.parametrize("patch", [3, 6])
@pytest.mark.parametrize("model", [TEACHER, IMAGE_TEACHER], ids=["clips", "images"])
def test_a_teacher_of_other_patches_sees_the_clip_at_the_size_of_as_many_tokens(model, patch):
    teacher = FrozenTeacher(built(replace(model, tubelet=(model.tubelet[0], patch, patch))))
    resized = resize_clip_to_grid(clips(), GRID, teacher.model.config)
    assert tuple(resized.shape[-2:]) == (GRID.h * patch, GRID.w * patch)
    assert torch.equal(extract_features(teacher, clips(), GRID), extract_features(teacher, resized, GRID))


def test_a_time_step_of_longer_tubelets_is_that_of_all_time_steps_within_it():
    teacher, clip = FrozenTeacher(built(replace(TEACHER, tubelet=(4, 4, 4)))), clips(frames=8)
    assert resize_clip_to_grid(clip, GRID, teacher.model.config) is clip
    features = extract_features(teacher, clip, replace(GRID, t=4)).unflatten(1, (4, -1))
    expected = teacher.model(clip, layers=(3,)).layers[3].unflatten(1, (2, -1))
    for slot in range(4):
        assert torch.equal(features[:, slot], expected[:, slot // 2])


@pytest.mark.parametrize(("frames", "tubelet"), [(12, 3), (20, 5)])
def test_time_steps_that_do_not_cover_the_students_are_an_error(frames, tubelet):
    teacher = FrozenTeacher(built(replace(TEACHER, tubelet=(tubelet, 4, 4))))
    with pytest.raises(InputError, match="take one whose tubelets have 2 frames as the student's, or a multiple"):
        extract_features(teacher, clips(frames=frames), replace(GRID, t=frames // 2))
