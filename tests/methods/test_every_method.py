"""What is true of every method: a new one joins by its tiny configuration in `tiny_models.METHOD_NAMES`."""

import pkgutil
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from mask_structure import get_masked_pixels
from tiny_models import (
    AMD,
    DECODER,
    DMAE,
    GRID,
    IMAGEMAE,
    MASKAGAIN,
    METHODS,
    STMAE,
    VIDEOMAE,
    as_images,
    built,
    clips,
    only,
)

import vidstill.methods
from vidstill.engine.distributed import Runtime
from vidstill.methods.common.masking import Mask, TubeMask
from vidstill.methods.common.method import Method
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import list_teacher_configs, list_teachers
from vidstill.methods.maskagain import HiddenConfig, MaskAgainQuirks
from vidstill.synthetic.drawing import draw_clip
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])


def parametrize_methods(condition) -> Any:
    configs = {name: config for name, config in METHODS.items() if condition(name, config)}
    return pytest.mark.parametrize("config", configs.values(), ids=configs)


every_method = parametrize_methods(lambda *_: True)
with_teacher = parametrize_methods(lambda _, config: bool(list_teacher_configs(config)))
for_images = parametrize_methods(lambda name, _: not name.startswith("stmae"))  # which predicts one frame of several


@every_method
def test_saved_weights_decide_the_loss(config):
    one, other = built(config, seed=0), built(config, seed=1)
    for name, teacher in list_teachers(one).items():  # their weights come from their own checkpoints
        list_teachers(other)[name].model.load_state_dict(teacher.model.state_dict())
    assert not torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)


@every_method
def test_every_trainable_weight_gets_a_gradient(config):
    method = built(config)
    assert isinstance(method, Method)
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.any(), name


@every_method
def test_the_loss_is_finite_has_named_parts_and_does_not_depend_on_the_labels(config):
    method = built(config)
    outputs = [method(CLIP, label, SEED) for label in (None, torch.tensor([0, 1]), torch.tensor([3, 3]))]
    assert torch.isfinite(outputs[0].loss)
    assert all(torch.equal(output.loss, outputs[0].loss) for output in outputs)
    assert all(part.shape == () and part >= 0 for part in outputs[0].parts.values())
    assert any(part > 0 for part in outputs[0].parts.values())


@every_method
def test_masked_pixels_do_not_affect_the_encoder(config):
    method = built(config)
    grid, blocks = method.encoder.grid(CLIP), range(1, config.encoder.depth + 1)
    mask = config.mask.draw(SEED, grid)
    poisoned = CLIP.masked_fill(get_masked_pixels(mask.visible, grid, config.encoder.tubelet), float("nan"))
    assert poisoned.isnan().any()
    expected, features = (method.encoder(clip, mask.visible, layers=blocks) for clip in (CLIP, poisoned))
    assert torch.equal(features.tokens, expected.tokens)
    assert all(torch.equal(features.layers[block], expected.layers[block]) for block in blocks)


@every_method
def test_the_seed_decides_the_mask_in_any_batch(config):
    """Relations are those of a batch's tokens to one another: they alone are not the mean over the clips."""
    method, clip, seed = built(config), clips(4), torch.arange(4)
    whole = method(clip, seed=seed)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(method(clip[order], seed=seed[order]).loss, whole.loss)
    parts = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name in whole.parts.keys() - {"relation"}:
        torch.testing.assert_close(torch.stack([each[name] for each in parts]).mean(), whole.parts[name])
    assert not torch.equal(method(clip, seed=seed + 100).loss, whole.loss)


@every_method
def test_explicit_mask_is_used_and_without_mask_and_seeds_none_is_drawn(config):
    method = built(config)
    mask = config.mask.draw(SEED, method.encoder.grid(CLIP))
    assert torch.equal(method(CLIP, mask=mask).loss, method(CLIP, seed=SEED).loss)
    with pytest.raises(ValueError, match="a mask, or the seeds"):
        method(CLIP)


@every_method
@pytest.mark.parametrize("shape", [(2, 4, 4), (6, 8, 20), (8, 16, 16)], ids=str)
def test_clips_may_have_any_size(config, shape):
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
def test_clip_that_does_not_divide_is_an_error(config):
    with pytest.raises(InputError, match="take 12 rows"):
        built(config)(clips(rows=15), seed=SEED)


@every_method
def test_the_loss_is_the_same_in_double_precision_and_close_in_bfloat16(config):
    method = built(config)
    loss = method(CLIP, seed=SEED).loss
    exact = deepcopy(method).double()(CLIP.double(), seed=SEED).loss
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), loss, rtol=1e-4, atol=1e-5)  # 24 bits, through all blocks
    with Runtime("bf16").compute(method):
        low = method(CLIP, seed=SEED).loss
        low.backward()
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss, rtol=0.02, atol=0)  # 8 bits
    assert {parameter.grad.dtype for parameter in method.parameters() if parameter.grad is not None} == {torch.float32}


@every_method
def test_config_can_be_written_and_read(config):
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
def test_each_teacher_changes_the_loss_and_its_final_norm_does_not(config):
    for name in list_teacher_configs(config):
        for part, is_used in (("patch_embed", True), ("norm", False)):
            one, other = built(config), built(config)
            with torch.no_grad():
                getattr(list_teachers(other)[name].model, part).weight.mul_(2)
            assert torch.equal(one(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss) != is_used, (name, part)


@every_method
def test_the_loss_falls(config):
    """A few steps on one batch of synthetic clips with fixed masks."""
    frames = [draw_clip(action, seed, 4, (16, 16)) for seed, action in enumerate(("left", "growing"))]
    clip = rearrange(torch.from_numpy(np.stack(frames)), "b t h w c -> b c t h w") / 255
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


@pytest.mark.parametrize(("config", "target"), [(VIDEOMAE, "per_channel"), (IMAGEMAE, "per_patch"), (STMAE, None)])
def test_a_masked_autoencoder_has_the_mean_square_over_masked_tokens(config, target):
    method, mask = built(config), config.mask.draw(SEED, GRID)
    expected = method.compute_target(CLIP, mask.masked)
    reconstruction = method.decoder(method.encoder(CLIP, mask.visible), mask.visible, mask.masked, GRID)
    output = method(CLIP, seed=SEED)
    torch.testing.assert_close(output.loss, F.mse_loss(reconstruction, expected))
    assert torch.equal(output.loss, output.parts["reconstruction"])
    if target:
        assert torch.equal(expected, compute_pixel_target(CLIP, config.encoder, mask.masked, target))
    reversed_mask = Mask(mask.visible.flip(1), mask.masked.flip(1))
    torch.testing.assert_close(method(CLIP, mask=reversed_mask).loss, output.loss)


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (AMD, VIDEOMAE),
        (DMAE, replace(IMAGEMAE, target="input")),
        (METHODS["dmae-video"], VIDEOMAE),
        (replace(only(MASKAGAIN, hint=1.0), decoder=DECODER), VIDEOMAE),
    ],
    ids=["amd", "dmae", "dmae-video", "maskagain"],
)
def test_a_distillation_reconstructs_as_the_method_without_a_teacher(config, plain):
    method, other, mask = built(config), built(plain), config.mask.draw(SEED, GRID)
    weights = method.state_dict().items()
    other.load_state_dict({name: t for name, t in weights if name.startswith(("encoder.", "decoder."))})
    assert torch.equal(method(CLIP, mask=mask).parts["reconstruction"], other(CLIP, mask=mask).loss)


@pytest.mark.parametrize(
    ("config", "changes", "weights"),
    [
        (
            AMD,
            {"reconstruction_weight": 0.5, "direct_weight": 3.0, "generation_weight": 0.25},
            {"reconstruction": 0.5, "direct": 3.0, "generation": 0.25},
        ),
        (DMAE, {"alignment_weight": 3.0}, {"reconstruction": 1.0, "alignment": 3.0}),
        (
            only(MASKAGAIN, **{"global": 2.0, "local": 0.5}),
            {"released": MaskAgainQuirks(hidden_weight=3.0)},
            {"global": 6.0, "local": 1.5},
        ),
        (
            only(MASKAGAIN, attention=2.0, value=0.5),
            {"released": MaskAgainQuirks(hidden_weight=0.25)},
            {"attention": 0.5, "value": 0.125},
        ),
        (
            replace(only(MASKAGAIN, hint=2.0, relation=0.5), decoder=DECODER),
            {},
            {"hint": 2.0, "relation": 0.5, "reconstruction": 1.0},
        ),
    ],
    ids=["amd", "dmae", "maskagain", "maskagain-transfer", "maskagain-output"],
)
def test_the_loss_is_the_weighted_sum_of_its_parts(config, changes, weights):
    plain, output = built(config)(CLIP, seed=SEED), built(replace(config, **changes))(CLIP, seed=SEED)
    assert output.parts.keys() == weights.keys()
    torch.testing.assert_close(output.loss, sum(weights[name] * part for name, part in output.parts.items()))
    assert all(torch.equal(part, plain.parts[name]) for name, part in output.parts.items())


@pytest.mark.parametrize("config", [AMD, DMAE, MASKAGAIN], ids=["amd", "dmae", "maskagain"])
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((3, 3), "block 3 of a student of 2 blocks; take 1 to 2"),
        ((1, 4), "block 4 of a teacher of 3 blocks; take 1 to 3"),
        ((0, 1), "block 0 of a student of 2 blocks"),
        (None, r"student's tubelets \(2, 8, 8\) must be the teacher's \(2, 4, 4\)"),
    ],
)
def test_blocks_that_do_not_exist_and_other_tubelets_are_errors(config, pair, message):
    field = "hidden" if config == MASKAGAIN else "layer_pairs"
    changes = {field: HiddenConfig(layers=pair) if config == MASKAGAIN else (pair,)}
    if pair is None:
        changes = {"encoder": replace(config.encoder, tubelet=(2, 8, 8))}
    with pytest.raises(InputError, match=message):
        replace(config, **changes).build()


def test_a_mask_that_masks_nothing_leaves_nothing_to_reconstruct():
    output = built(replace(VIDEOMAE, mask=TubeMask(ratio=0.0)))(CLIP, seed=SEED)
    assert output.loss.item() == 0
    output.loss.backward()


def test_decoder_without_the_class_token_that_it_needs_is_an_error():
    for config in (IMAGEMAE, METHODS["mvd-class-token"]):
        without = replace(config, encoder=replace(config.encoder, class_token=False))
        with pytest.raises(InputError, match=r"needs the encoder's class token.*give --method.encoder.class-token"):
            built(without)(CLIP, seed=SEED)


def test_the_methods_tested_are_those_of_the_package():
    files = {module.name for module in pkgutil.iter_modules(vidstill.methods.__path__)}
    files -= {"common", "maskagain_losses"}
    assert files == {name.partition("-")[0] for name in METHODS}
