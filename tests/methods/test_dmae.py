"""DMAE against its equation, its bounds, and each of its settings."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mask_structure import hidden_pixels
from tiny_models import DMAE, ENCODER, GRID, IMAGEMAE, METHODS, TEACHER, VIDEOMAE, built, clips
from torch import nn

from vidstill.methods.common.masking import TubeMask
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


def alignment(config, *, seed=0):
    with torch.no_grad():
        return built(config, seed=seed)(CLIP, seed=SEED).parts["alignment"]


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("unit_length", ["if_projected", "never"])
@pytest.mark.parametrize("with_class", [True, False])
def test_the_alignment_is_a_sum_over_pairs_of_means_over_tokens_and_channels(kind, unit_length, with_class):
    config = replace(TWO_PAIRS, feature_loss=kind, l2_normalize=unit_length, align_class_token=with_class)
    method, mask = built(config), config.mask.draw(SEED, GRID)
    student = method.encoder(CLIP, mask.visible, layers=(1, 2))
    teacher = method.teacher.model(CLIP, mask.visible, layers=(2, 3))

    apart = []
    for (ours, theirs), linear in zip(config.layer_pairs, method.projections, strict=True):
        guess, target = student.layers[ours], teacher.layers[theirs]
        if with_class:
            guess, target = (
                torch.cat([seen.cls_layers[block], seen.layers[block]], dim=1)
                for seen, block in ((student, ours), (teacher, theirs))
            )
        guess = guess @ linear.weight.T + linear.bias
        if unit_length == "if_projected":
            guess, target = (z / z.square().sum(dim=-1, keepdim=True).sqrt() for z in (guess, target))
        apart.append(TORCH[kind](guess, target))
    torch.testing.assert_close(method(CLIP, seed=SEED).parts["alignment"], apart[0] + apart[1])


@pytest.mark.parametrize(("config", "plain"), [(DMAE, replace(IMAGEMAE, target="input")), (VIDEO, VIDEOMAE)])
def test_the_reconstruction_is_that_of_a_method_without_a_teacher_bit_for_bit(config, plain):
    method, other, mask = built(config), built(plain), config.mask.draw(SEED, GRID)
    own = {name: t for name, t in method.state_dict().items() if name.startswith(("encoder.", "decoder."))}
    other.load_state_dict(own)
    assert torch.equal(method(CLIP, mask=mask).parts["reconstruction"], other(CLIP, mask=mask).loss)


def test_a_student_that_is_its_teacher_is_aligned():
    for unit_length in ("never", "always"):
        method = built(replace(TWINS, l2_normalize=unit_length))
        method.teacher.model.load_state_dict(method.encoder.state_dict())
        assert method(CLIP, seed=SEED).parts["alignment"].item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_unit_vectors_are_never_further_apart_than_opposite_ones(seed):
    """The sum of d absolute values is at most √d times the length, which is at most 2; and a length's square, 4."""
    assert 0 < alignment(DMAE, seed=seed) < 2 / TEACHER.dim**0.5
    assert 0 < alignment(replace(DMAE, feature_loss="l2"), seed=seed) < 4 / TEACHER.dim


def test_random_directions_are_as_far_apart_as_in_theory():
    width, chance = 1024, torch.Generator().manual_seed(0)
    mine, its = (torch.randn(2, 50, width, generator=chance) for _ in range(2))
    none = torch.empty(2, 0, width)
    student = Features(tokens=mine, cls_token=none, layers={1: mine}, cls_layers={1: none})
    teacher = Features(tokens=none, cls_token=none, layers={1: 7 * its}, cls_layers={1: none})
    method = built(replace(TWINS, layer_pairs=((1, 1),), l2_normalize="always"))
    (apart,) = method.compute_alignment_losses(student, teacher)
    assert apart.item() == pytest.approx((4 / torch.pi / width) ** 0.5, rel=0.01)  # of normal differences


def test_the_length_of_features_counts_where_there_is_no_projection():
    assert not DMAEConfig(projection="none").uses_l2_norm
    assert DMAEConfig().uses_l2_norm
    for unit_length, moves in (("if_projected", True), ("always", False)):
        method = built(replace(TWINS, layer_pairs=((2, 2),), l2_normalize=unit_length))
        mask = TWINS.mask.draw(SEED, GRID)
        student, seen = method.encoder(CLIP, mask.visible, layers=(2,)), method.forward_teacher(CLIP, mask)
        longer = replace(seen, layers={2: 3 * seen.layers[2]}, cls_layers={2: 3 * seen.cls_layers[2]})
        (before,), (after,) = (
            method.compute_alignment_losses(student, seen),
            method.compute_alignment_losses(student, longer),
        )
        assert torch.allclose(before, after) != moves


def test_the_teacher_sees_what_the_student_sees_and_no_more():
    for config in (DMAE, VIDEO):
        method, mask = built(config), config.mask.draw(SEED, GRID)
        pixels = hidden_pixels(mask.visible, GRID, config.encoder.tubelet)
        clean, met = (method.forward_teacher(clip, mask) for clip in (CLIP, CLIP.masked_fill(pixels, float("nan"))))
        assert clean.layers[2].shape == (2, mask.visible.shape[1], TEACHER.dim)
        assert torch.equal(clean.layers[2], met.layers[2])
        assert torch.equal(clean.cls_layers[2], met.cls_layers[2])


def test_the_teachers_blocks_after_the_last_pair_do_not_run():
    method = built(DMAE)
    loss = method(CLIP, seed=SEED).loss
    method.teacher.model.blocks[2].forward = None
    assert torch.equal(method(CLIP, seed=SEED).loss, loss)


def test_the_factor_weighs_the_alignment():
    output = built(replace(DMAE, alignment_weight=3.0))(CLIP, seed=SEED)
    torch.testing.assert_close(output.loss, output.parts["reconstruction"] + 3 * output.parts["alignment"])
    assert torch.equal(output.parts["alignment"], alignment(DMAE))


@pytest.mark.parametrize(
    ("projection", "shapes"),
    [
        ("fc-1layer", [(32, 24)]),
        ("mlp-1layer", [(32, 24), (32, 32)]),
        ("mlp-2layer", [(32, 24), (32, 32), (32, 32), (32, 32)]),
    ],
)
def test_every_pair_has_a_projection_of_its_own_with_biases_and_torchs_start(projection, shapes):
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


def test_without_a_projection_nothing_is_trained_for_the_alignment():
    assert not list(TWINS.build().projections.parameters())


def test_a_student_starts_as_maes():
    torch.manual_seed(0)
    method = replace(DMAE, encoder=replace(DMAE.encoder, dim=96)).build()
    embed = method.encoder.patch_embed.weight
    bound = (6 / sum(embed.shape)) ** 0.5
    assert 0.9 * bound < embed.abs().max() <= bound
    assert not method.decoder.embed.bias.any()


def test_the_alignment_falls_when_one_image_is_learned_by_heart():
    method = built(DMAE)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    parts = []
    for _ in range(40):
        output = method(CLIP, seed=SEED)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        parts.append(output.parts["alignment"].item())
    assert parts[-1] < 0.5 * parts[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layer_pairs": ((3, 3),)}, r"block 3 of a student of 2 blocks; take 1 to 2"),
        ({"layer_pairs": ((1, 4),)}, r"block 4 of a teacher of 3 blocks; take 1 to 3"),
        ({"layer_pairs": ((0, 1),)}, r"block 0 of a student"),
        ({"layer_pairs": ()}, r"no blocks to align"),
        ({"projection": "none"}, r"width 24 needs a projection to its teacher's 32"),
        ({"alignment_weight": -1.0}, r"alignment_weight is -1.0"),
        ({"encoder": ENCODER}, r"the teacher has a class token and the student has none"),
        ({"teacher": TeacherConfig(model=TEACHER)}, r"the student has a class token and the teacher has none"),
        (
            {"encoder": replace(DMAE.encoder, tubelet=(2, 8, 8))},
            r"student's tubelets \(2, 8, 8\) must be the teacher's",
        ),
    ],
)
def test_what_cannot_be_aligned_is_met_with_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(DMAE, **changes).build()


def test_a_student_with_a_class_token_learns_from_a_teacher_without_one_by_the_other_tokens():
    config = replace(DMAE, teacher=TeacherConfig(model=TEACHER), align_class_token=False)
    assert alignment(config) > 0


def test_clips_are_hidden_in_tubes():
    mask = VIDEO.mask.draw(SEED, GRID)
    assert isinstance(VIDEO.mask, TubeMask)
    places = mask.masked.view(2, GRID.t, -1) % (GRID.h * GRID.w)
    assert torch.equal(places[:, :1].expand_as(places), places)
