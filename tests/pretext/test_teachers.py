"""A frozen model only looks, wherever the model that holds it goes."""

import copy

import torch
from torch import nn

from tiny_models import TEACHER, built, clips
from vidstill.pretext.teachers import Frozen


class Holder(nn.Module):
    """A student with a teacher."""

    def __init__(self):
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.teacher = Frozen(built(TEACHER))


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
    seen = holder.teacher.look(clip, layers=(1, 3)).layers
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
        other.teacher.model.embed.bias.add_(1)
    assert not torch.equal(other.teacher.model.embed.bias, holder.teacher.model.embed.bias)


def test_a_teacher_gives_the_raw_outputs_of_its_blocks():
    holder, clip = Holder(), clips()
    visible = torch.tensor([[5, 0, 3], [1, 2, 4]])
    seen = holder.teacher.look(clip, visible, layers=(2,)).layers
    assert torch.equal(seen[2], holder.teacher.model(clip, visible, layers=(2,)).layers[2])
