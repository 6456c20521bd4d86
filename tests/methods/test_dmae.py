"""DMAE against its equation, its bounds, and each of its settings."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mask_structure import get_masked_pixels
from tiny_models import DMAE, ENCODER, GRID, METHODS, TEACHER, built, clips
from torch import nn

from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.models.vit import Features
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
VIDEO = METHODS["dmae-video"]
TWO_PAIRS = replace(DMAE, layer_pairs=((1, 2), (2, 3)))
TWINS = replace(DMAE, teacher=TeacherConfig(model=DMAE.encoder), layer_pairs=((1, 1), (2, 2)), projection="none")
TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


def compute_alignment(config, *, seed=0):
    with torch.no_grad():
        return built(config, seed=seed)(CLIP, seed=SEED).parts["alignment"]


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("l2_normalize", ["if_projected", "never"])
@pytest.mark.parametrize("align_class_token", [True, False])
def test_the_alignment_is_a_sum_over_pairs_of_means_over_tokens_and_channels(kind, l2_normalize, align_class_token):
    config = replace(TWO_PAIRS, feature_loss=kind, l2_normalize=l2_normalize, align_class_token=align_class_token)
    method, mask = built(config), config.mask.draw(SEED, GRID)
    student = method.encoder(CLIP, mask.visible, layers=(1, 2))
    teacher = method.teacher.model(CLIP, mask.visible, layers=(2, 3))
    losses = []
    for (layer, teacher_layer), linear in zip(config.layer_pairs, method.projections, strict=True):
        prediction, target = student.layers[layer], teacher.layers[teacher_layer]
        if align_class_token:
            prediction = torch.cat([student.cls_layers[layer], prediction], dim=1)
            target = torch.cat([teacher.cls_layers[teacher_layer], target], dim=1)
        prediction = prediction @ linear.weight.T + linear.bias
        if l2_normalize == "if_projected":
            prediction, target = (z / z.square().sum(dim=-1, keepdim=True).sqrt() for z in (prediction, target))
        losses.append(TORCH[kind](prediction, target))
    torch.testing.assert_close(method(CLIP, seed=SEED).parts["alignment"], losses[0] + losses[1])


def test_a_student_equal_to_its_teacher_is_aligned():
    for l2_normalize in ("never", "always"):
        method = built(replace(TWINS, l2_normalize=l2_normalize))
        method.teacher.model.load_state_dict(method.encoder.state_dict())
        assert method(CLIP, seed=SEED).parts["alignment"].item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_unit_vectors_are_never_further_apart_than_opposite_ones(seed):
    """The sum of d absolute values is at most √d times the length, which is at most 2; and a length's square, 4."""
    assert 0 < compute_alignment(DMAE, seed=seed) < 2 / TEACHER.dim**0.5
    assert 0 < compute_alignment(replace(DMAE, feature_loss="l2"), seed=seed) < 4 / TEACHER.dim


def test_random_directions_are_as_far_apart_as_in_theory():
    width, generator = 1024, torch.Generator().manual_seed(0)
    tokens, teacher_tokens = (torch.randn(2, 50, width, generator=generator) for _ in range(2))
    none = torch.empty(2, 0, width)
    student = Features(tokens=tokens, cls_token=none, layers={1: tokens}, cls_layers={1: none})
    teacher = Features(tokens=none, cls_token=none, layers={1: 7 * teacher_tokens}, cls_layers={1: none})
    method = built(replace(TWINS, layer_pairs=((1, 1),), l2_normalize="always"))
    (loss,) = method.compute_alignment_losses(student, teacher)
    assert loss.item() == pytest.approx((4 / torch.pi / width) ** 0.5, rel=0.01)  # of normal differences


def test_without_a_projection_nothing_is_trained_and_the_length_of_features_counts():
    assert not list(TWINS.build().projections.parameters())
    assert not DMAEConfig(projection="none").uses_l2_norm
    assert DMAEConfig().uses_l2_norm
    for l2_normalize, changes in (("if_projected", True), ("always", False)):
        method = built(replace(TWINS, layer_pairs=((2, 2),), l2_normalize=l2_normalize))
        mask = TWINS.mask.draw(SEED, GRID)
        student, teacher = method.encoder(CLIP, mask.visible, layers=(2,)), method.forward_teacher(CLIP, mask)
        longer = replace(teacher, layers={2: 3 * teacher.layers[2]}, cls_layers={2: 3 * teacher.cls_layers[2]})
        (before,), (after,) = (method.compute_alignment_losses(student, each) for each in (teacher, longer))
        assert torch.allclose(before, after) != changes


def test_the_teacher_sees_what_the_student_sees_and_no_more():
    for config in (DMAE, VIDEO):
        method, mask = built(config), config.mask.draw(SEED, GRID)
        method.teacher.model.blocks[2].forward = None  # no pair needs the last block, which does not run
        poisoned = CLIP.masked_fill(get_masked_pixels(mask.visible, GRID, config.encoder.tubelet), float("nan"))
        expected, features = (method.forward_teacher(clip, mask) for clip in (CLIP, poisoned))
        assert features.layers[2].shape == (2, mask.visible.shape[1], TEACHER.dim)
        assert torch.equal(features.layers[2], expected.layers[2])
        assert torch.equal(features.cls_layers[2], expected.cls_layers[2])


@pytest.mark.parametrize(
    ("projection", "shapes"),
    [
        ("fc-1layer", [(32, 24)]),
        ("mlp-1layer", [(32, 24), (32, 32)]),
        ("mlp-2layer", [(32, 24), (32, 32), (32, 32), (32, 32)]),
    ],
)
def test_every_pair_has_a_projection_of_its_own_with_biases_and_torchs_initial_weights(projection, shapes):
    torch.manual_seed(0)
    method = replace(TWO_PAIRS, projection=projection).build()
    assert len(method.projections) == 2
    for part in method.projections:
        linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        assert [tuple(layer.weight.shape) for layer in linear] == shapes
        for layer in linear:
            bound = layer.in_features**-0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert 0 < layer.bias.abs().max() <= bound


def test_initial_weights_of_the_student_are_maes():
    torch.manual_seed(0)
    method = replace(DMAE, encoder=replace(DMAE.encoder, dim=96)).build()
    bound = (6 / sum(method.encoder.patch_embed.weight.shape)) ** 0.5
    assert 0.9 * bound < method.encoder.patch_embed.weight.abs().max() <= bound
    assert not method.decoder.embed.bias.any()


def test_the_alignment_falls_when_one_batch_is_memorized():
    method = built(DMAE)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        output = method(CLIP, seed=SEED)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.parts["alignment"].item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_pairs": ()}, r"no blocks to align"),
        ({"projection": "none"}, r"width 24 needs a projection to its teacher's 32"),
        ({"alignment_weight": -1.0}, r"alignment_weight is -1.0"),
        ({"encoder": ENCODER}, r"the teacher has a class token and the student has none"),
        ({"teacher": TeacherConfig(model=TEACHER)}, r"the student has a class token and the teacher has none"),
    ],
)
def test_student_and_teacher_that_cannot_be_aligned_are_an_error(changes, message):
    with pytest.raises(InputError, match=message):
        replace(DMAE, **changes).build()


def test_a_student_with_a_class_token_learns_the_other_tokens_from_a_teacher_without_one():
    assert compute_alignment(replace(DMAE, teacher=TeacherConfig(model=TEACHER), align_class_token=False)) > 0
