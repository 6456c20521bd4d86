"""What is true of every method: a new one joins by its tiny configuration in `tiny_models.METHODS`."""

import pkgutil
from dataclasses import replace

import pytest
import torch

import vidstill.methods
from tiny_models import DECODER, ENCODER, GRID, METHODS, TEACHER, VIDEOMAE, built, clips
from vidstill.config import from_plain, to_plain
from vidstill.pretext.masks import Mask
from vidstill.pretext.teachers import TeacherConfig
from vidstill.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
every_method = pytest.mark.parametrize("config", METHODS.values(), ids=METHODS)
with_teacher = pytest.mark.parametrize(
    "config", [c for n, c in METHODS.items() if n != "videomae"], ids=[n for n in METHODS if n != "videomae"]
)


def hidden_pixels(mask: Mask) -> torch.Tensor:
    """True where a pixel of the clips is hidden from the student (and, for AMD, from the teacher too)."""
    hidden = torch.ones(2, GRID.tokens, dtype=torch.bool).scatter(1, mask.teacher_visible, False)
    cubes = hidden.view(2, 1, GRID.t, GRID.h, GRID.w)
    return cubes.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)


@every_method
def test_the_saved_weights_decide_the_loss(config):
    one, other = built(config, seed=0), built(config, seed=1)
    if hasattr(one, "teacher"):  # its weights come from its own file
        other.teacher.model.load_state_dict(one.teacher.model.state_dict())
    assert not torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)


@every_method
def test_every_trainable_weight_gets_a_gradient(config):
    method = built(config)
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


@every_method
def test_the_loss_is_a_number_and_its_parts_are_named(config):
    output = built(config)(CLIP, torch.tensor([0, 1]), SEED)
    assert torch.isfinite(output.loss)
    assert all(part.shape == () for part in output.parts.values())
    assert output.parts["reconstruction"] > 0


@every_method
def test_the_loss_does_not_depend_on_the_labels(config):
    method = built(config)
    losses = [method(CLIP, label, SEED).loss for label in (None, torch.tensor([0, 1]), torch.tensor([3, 3]))]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


@every_method
def test_masked_pixels_cannot_reach_what_is_encoded(config):
    method = built(config)
    mask = config.mask.draw(SEED, GRID)
    poisoned = CLIP.masked_fill(hidden_pixels(mask), float("nan"))
    assert poisoned.isnan().any()
    clean, met = (method.encoder(clip, mask.visible).tokens for clip in (CLIP, poisoned))
    assert torch.equal(clean, met)
    if hasattr(method, "teacher"):
        for of_clean, of_poisoned in zip(method.look(CLIP, mask), method.look(poisoned, mask), strict=True):
            assert all(torch.equal(of_clean[layer], of_poisoned[layer]) for layer in of_clean)
    assert method(poisoned, mask=mask).loss.isnan()  # as targets they are read


@every_method
def test_a_seed_decides_the_mask_whatever_the_batch_it_arrives_in(config):
    method, clip, seed = built(config), clips(4), torch.arange(4)
    whole = method(clip, seed=seed).loss
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(method(clip[order], seed=seed[order]).loss, whole)
    halves = [method(clip[k : k + 2], seed=seed[k : k + 2]).loss for k in (0, 2)]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)
    assert not torch.equal(method(clip, seed=seed + 100).loss, whole)


@every_method
def test_a_mask_that_is_given_is_the_mask_that_is_used(config):
    method = built(config)
    mask = config.mask.draw(SEED, GRID)
    assert torch.equal(method(CLIP, mask=mask).loss, method(CLIP, seed=SEED).loss)


@every_method
@pytest.mark.parametrize("shape", [(2, 4, 4), (6, 8, 20), (8, 16, 16)], ids=str)
def test_frames_rows_and_columns_are_free(config, shape):
    frames, rows, columns = shape
    output = built(config)(clips(frames=frames, rows=rows, columns=columns), seed=SEED)
    assert torch.isfinite(output.loss)


@every_method
def test_images_are_clips_of_one_frame(config):
    image = {"tubelet": (1, 4, 4), "positions": "sincos2d"}
    config = replace(config, encoder=replace(ENCODER, **image), decoder=replace(DECODER, positions="sincos2d"))
    if hasattr(config, "teacher"):
        config = replace(config, teacher=TeacherConfig(model=replace(TEACHER, **image)))
    method = built(config)
    output = method(clips(frames=1), seed=SEED)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert method.encoder.embed.weight.grad.any()


@every_method
def test_a_clip_that_does_not_divide_is_met_with_a_sentence(config):
    with pytest.raises(InputError, match="take 4 frames"):
        built(config)(clips(frames=5), seed=SEED)


@every_method
def test_the_same_in_double_precision(config):
    method = built(config)
    loss = method(CLIP, seed=SEED).loss
    exact = method.double()(CLIP.double(), seed=SEED).loss
    torch.testing.assert_close(exact.float(), loss, rtol=1e-4, atol=1e-5)


@every_method
def test_a_method_trains_in_bfloat16(config):
    method = built(config)
    exact = method(CLIP, seed=SEED).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(CLIP, seed=SEED).loss
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)  # 8 bits


@every_method
def test_a_configuration_survives_being_written_and_read(config):
    assert from_plain(type(config), to_plain(config)) == config


@with_teacher
def test_a_teacher_is_frozen_and_in_no_checkpoint(config):
    method = built(config).train()
    teacher = method.teacher.model
    assert not any(part.training for part in teacher.modules())
    assert not [name for name in (*dict(method.named_parameters()), *method.state_dict()) if "teacher" in name]
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    method(CLIP, seed=SEED).loss.backward()
    optimizer.step()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    method.to(torch.float64)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}


@with_teacher
def test_the_teacher_is_looked_at(config):
    one, other = built(config), built(config)
    with torch.no_grad():
        other.teacher.model.embed.weight.mul_(2)
    assert not torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)


def test_the_methods_here_are_those_of_the_package():
    files = {module.name for module in pkgutil.iter_modules(vidstill.methods.__path__)}
    assert files == {name.partition("-")[0] for name in METHODS}
    assert VIDEOMAE in METHODS.values()
