"""What is true of every method: a new one joins by its tiny configuration in `tiny_models.METHOD_NAMES`."""

import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from mask_structure import hidden_pixels
from tiny_models import METHODS, as_images, built, clips
from torch import nn

import vidstill.methods
from vidstill.methods.common.method import MaskConfig, Method, MethodConfig
from vidstill.methods.common.teacher import list_teacher_configs, list_teachers
from vidstill.synthetic.drawing import draw_clip
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import Grid, InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
VIDEO_ONLY = ("stmae", "maskagain")  # papers of clips alone


def of_kind(*, keep) -> Any:
    chosen = {name: config for name, config in METHODS.items() if keep(name, config)}
    return pytest.mark.parametrize("config", chosen.values(), ids=chosen)


every_method = of_kind(keep=lambda *_: True)
with_teacher = of_kind(keep=lambda _, config: bool(list_teacher_configs(config)))
for_images = of_kind(keep=lambda name, _: name.partition("-")[0] not in VIDEO_ONLY)


def grid_of(method: nn.Module) -> Grid:
    return method.encoder.grid(CLIP)


@every_method
def test_the_saved_weights_decide_the_loss(config):
    one, other = built(config, seed=0), built(config, seed=1)
    for name, teacher in list_teachers(one).items():  # their weights come from their own checkpoints
        list_teachers(other)[name].model.load_state_dict(teacher.model.state_dict())
    assert not torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)


@every_method
def test_a_method_and_its_config_have_what_the_protocols_ask(config):
    assert isinstance(config, MethodConfig)
    assert isinstance(config.mask, MaskConfig)
    assert isinstance(built(config), Method)


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
    assert all(part.shape == () and part >= 0 for part in output.parts.values())
    assert any(part > 0 for part in output.parts.values())


@every_method
def test_the_loss_does_not_depend_on_the_labels(config):
    method = built(config)
    losses = [method(CLIP, label, SEED).loss for label in (None, torch.tensor([0, 1]), torch.tensor([3, 3]))]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


@every_method
def test_masked_pixels_cannot_reach_what_is_encoded(config):
    method = built(config)
    mask = config.mask.draw(SEED, grid_of(method))
    poisoned = CLIP.masked_fill(hidden_pixels(mask.visible, grid_of(method), config.encoder.tubelet), float("nan"))
    assert poisoned.isnan().any()
    blocks = range(1, config.encoder.depth + 1)
    clean, met = (method.encoder(clip, mask.visible, layers=blocks) for clip in (CLIP, poisoned))
    assert torch.equal(clean.tokens, met.tokens)
    assert all(torch.equal(clean.layers[block], met.layers[block]) for block in blocks)


@every_method
def test_a_seed_decides_the_mask_whatever_the_batch_it_arrives_in(config):
    """Relations are those of a batch's tokens to one another: they alone are not the mean over the clips."""
    method, clip, seed = built(config), clips(4), torch.arange(4)
    whole = method(clip, seed=seed)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(method(clip[order], seed=seed[order]).loss, whole.loss)
    halves = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name in whole.parts.keys() - {"relation"}:
        torch.testing.assert_close(torch.stack([half[name] for half in halves]).mean(), whole.parts[name])
    assert not torch.equal(method(clip, seed=seed + 100).loss, whole.loss)


@every_method
def test_a_mask_that_is_given_is_the_mask_that_is_used(config):
    method = built(config)
    mask = config.mask.draw(SEED, grid_of(method))
    assert torch.equal(method(CLIP, mask=mask).loss, method(CLIP, seed=SEED).loss)


@every_method
@pytest.mark.parametrize("shape", [(2, 4, 4), (6, 8, 20), (8, 16, 16)], ids=str)
def test_frames_rows_and_columns_are_free(config, shape):
    frames, rows, columns = shape
    output = built(config)(clips(frames=frames, rows=rows, columns=columns), seed=SEED)
    assert torch.isfinite(output.loss)


@for_images
def test_images_are_clips_of_one_frame(config):
    method = built(as_images(config))
    output = method(clips(frames=1), seed=SEED)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert method.encoder.patch_embed.weight.grad.any()


@every_method
def test_a_clip_that_does_not_divide_is_met_with_a_sentence(config):
    with pytest.raises(InputError, match="take 12 rows"):
        built(config)(clips(rows=15), seed=SEED)


@every_method
def test_the_same_in_double_precision(config):
    method = built(config)
    loss = method(CLIP, seed=SEED).loss
    exact = method.double()(CLIP.double(), seed=SEED).loss
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), loss, rtol=1e-4, atol=1e-5)  # 24 bits, through all blocks


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
    assert from_dict(type(config), to_dict(config)) == config


@with_teacher
def test_teachers_are_frozen_and_in_no_checkpoint(config):
    method = built(config).train()
    models = {name: teacher.model for name, teacher in list_teachers(method).items()}
    assert models.keys() == list_teacher_configs(config).keys()
    assert not any(part.training for model in models.values() for part in model.modules())
    ids = {id(tensor) for model in models.values() for tensor in (*model.parameters(), *model.buffers())}
    assert not [name for name, parameter in method.named_parameters() if id(parameter) in ids]
    assert not [name for name in method.state_dict() if name.startswith(("teacher.", "teachers."))]
    before = {name: {n: t.clone() for n, t in model.state_dict().items()} for name, model in models.items()}
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    method(CLIP, seed=SEED).loss.backward()
    optimizer.step()
    for name, model in models.items():
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(tensor, before[name][n]) for n, tensor in model.state_dict().items())
    method.to(torch.float64)
    assert {p.dtype for model in models.values() for p in model.parameters()} == {torch.float64}


@with_teacher
def test_each_teacher_is_looked_at(config):
    for name in list_teacher_configs(config):
        one, other = built(config), built(config)
        with torch.no_grad():
            list_teachers(other)[name].model.patch_embed.weight.mul_(2)
        assert not torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss), name


@every_method
def test_the_loss_falls(config):
    """A few steps on one batch of made clips, whose masks stay: what is asked for can be learned."""
    drawn = [draw_clip(action, seed, 4, (16, 16)) for seed, action in enumerate(("left", "growing"))]
    clip = rearrange(torch.from_numpy(np.stack(drawn)), "b t h w c -> b c t h w") / 255
    method = built(config)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = method(clip, seed=SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_the_methods_here_are_those_of_the_package():
    files = {module.name for module in pkgutil.iter_modules(vidstill.methods.__path__)}
    files -= {"common", "maskagain_losses"}
    assert files == {name.partition("-")[0] for name in METHODS}
