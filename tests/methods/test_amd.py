"""AMD against its equations, and each of its ablations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import AMD, ENCODER, GRID, TEACHER, built, clips

from vidstill.methods.amd import AMDQuirks
from vidstill.methods.common.masking import NestedTubeMask, TubeMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
PROJECTIONS = {"projections.1", "projections.2"}
GENERATORS = {"generators.0", "generators.1"}
OWN_PROJECTIONS = {"generation_projections.1", "generation_projections.2"}


@pytest.mark.parametrize(
    ("alignment", "modules", "absent"),
    [
        ("serial", PROJECTIONS | GENERATORS, None),
        ("parallel", PROJECTIONS | OWN_PROJECTIONS | GENERATORS, None),
        ("direct", PROJECTIONS, "generation"),
        ("generation", OWN_PROJECTIONS | GENERATORS, "direct"),
    ],
)
def test_an_alignment_builds_the_modules_it_needs_and_no_others(alignment, modules, absent):
    method = built(replace(AMD, alignment=alignment))
    names = (name.split(".") for name, _ in method.named_parameters())
    built_modules = {".".join(name[: 1 if name[0] in ("encoder", "decoder") else 2]) for name in names}
    assert built_modules == {"encoder", "decoder"} | modules
    assert absent is None or method(CLIP, seed=SEED).parts[absent].item() == 0


@pytest.mark.parametrize("kind", TORCH)
def test_losses_are_means_over_layers_tokens_and_channels(kind):
    config = replace(AMD, feature_loss=kind)
    method, mask = built(config), config.mask.draw(SEED, GRID)
    output = method(CLIP, seed=SEED)
    teacher = method.teacher.model(CLIP, mask.teacher_visible, layers=(2, 3)).layers
    student = method.encoder(CLIP, mask.visible, layers=(1, 2))
    count = mask.visible.shape[1]

    direct, generation = [], []
    for (layer, teacher_layer), generator in zip(config.layer_pairs, method.generators, strict=True):
        projected = student.layers[layer] @ method.projections[str(layer)].weight.T
        direct.append(TORCH[kind](projected, teacher[teacher_layer][:, :count]))
        generated = generator(projected, mask.visible, mask.teacher_only, GRID)
        generation.append(TORCH[kind](generated, teacher[teacher_layer][:, count:]))
    torch.testing.assert_close(output.parts["direct"], torch.stack(direct).mean())
    torch.testing.assert_close(output.parts["generation"], torch.stack(generation).mean())


def test_mask_tokens_of_generators_are_trained_or_constant():
    for is_constant in (False, True):
        method = built(replace(AMD, released=AMDQuirks(constant_mask_tokens=is_constant)))
        before = [generator.mask_token.clone() for generator in method.generators]
        method(CLIP, seed=SEED).loss.backward()
        torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1).step()
        for token, generator in zip(before, method.generators, strict=True):
            assert torch.equal(token, generator.mask_token) == is_constant
        assert "generators.0.mask_token" in method.state_dict()  # so that a resumed run has the same


def test_serial_generation_continues_from_the_direct_projection_and_parallel_has_its_own():
    for alignment, changes in (("serial", True), ("parallel", False)):
        method = built(replace(AMD, alignment=alignment))
        before = method(CLIP, seed=SEED).parts
        with torch.no_grad():
            method.projections["1"].weight.mul_(2)
        after = method(CLIP, seed=SEED).parts
        assert not torch.equal(before["direct"], after["direct"])
        assert torch.equal(before["generation"], after["generation"]) != changes


def test_a_generated_layer_continues_from_its_own_layers_projection_or_as_released_by_index():
    config = replace(AMD, layer_pairs=((1, 2), (2, 3)), generation_layer_pairs=((2, 3),))
    for by_index, layer in ((False, "2"), (True, "1")):
        method = built(replace(config, released=AMDQuirks(projection_by_index=by_index)))
        method(CLIP, seed=SEED).parts["generation"].backward()
        assert {name for name, linear in method.projections.items() if linear.weight.grad is not None} == {layer}


def test_teacher_and_student_may_see_everything():
    output = built(replace(AMD, mask=NestedTubeMask(student_ratio=0.0, teacher_ratio=0.0)))(CLIP, seed=SEED)
    assert output.parts["reconstruction"].item() == output.parts["generation"].item() == 0
    assert output.parts["direct"].item() > 0
    output.loss.backward()


def test_a_teacher_that_sees_everything_has_a_target_for_every_token():
    config = replace(AMD, mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.0))
    method, mask = built(config), config.mask.draw(SEED, GRID)
    both, teacher_only = method.forward_teacher(CLIP, mask)
    assert both[3].shape[1] + teacher_only[3].shape[1] == GRID.num_tokens
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_generators_of_a_student_with_learned_positions_have_sinusoids():
    config = replace(AMD, encoder=replace(ENCODER, positions="learned", learned_grid=(GRID.t, GRID.h, GRID.w)))
    assert config.generator_config.positions == "sinusoid"
    assert torch.isfinite(built(config)(CLIP, seed=SEED).loss)


def test_generators_have_the_configured_depth_and_the_teachers_width():
    method = built(replace(AMD, generator_depth=3, teacher=TeacherConfig(model=replace(TEACHER, dim=128))))
    assert [len(generator.blocks) for generator in method.generators] == [3, 3]
    assert method.generators[0].mask_token.shape == (1, 128)
    assert method.generators[0].blocks[0].attn.heads == 2  # 64 channels each, or the next number that divides
    for dim, heads in ((32, 1), (64, 1), (200, 2), (768, 12), (1024, 16)):
        assert replace(AMD, teacher=TeacherConfig(model=replace(TEACHER, dim=dim))).generator_config.heads == heads


def test_a_mask_without_tokens_for_the_teacher_alone_is_an_error():
    with pytest.raises(ValueError, match="draw it with NestedTubeMask"):
        built(AMD)(CLIP, mask=TubeMask(ratio=0.75).draw(SEED, GRID))


def test_missing_layer_pairs_are_an_error():
    with pytest.raises(InputError, match="no layers to align"):
        replace(AMD, layer_pairs=()).build()
    generated, quirks = ((1, 1), (2, 2)), AMDQuirks(projection_by_index=True)
    with pytest.raises(InputError, match="needs a direct pair for every generated one"):
        replace(AMD, layer_pairs=((1, 1),), generation_layer_pairs=generated, released=quirks).build()
