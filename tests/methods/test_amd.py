"""AMD against its equations, and each of its ablations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import AMD, ENCODER, GRID, TEACHER, VIDEOMAE, built, clips

from vidstill.methods.amd import AMDQuirks
from vidstill.methods.common.masking import NestedTubeMask, TubeMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


def groups(config):
    """The first words of the parameters that a configuration builds, with their layers."""
    names = {name for name, _ in built(config).named_parameters()}
    return {
        ".".join(name.split(".")[:2]) if "projections" in name or "generators" in name else name.split(".")[0]
        for name in names
    }


@pytest.mark.parametrize(
    ("alignment", "parts"),
    [
        ("serial", {"projections.1", "projections.2", "generators.0", "generators.1"}),
        (
            "parallel",
            {"projections.1", "projections.2", "generation_projections.1", "generation_projections.2"}
            | {"generators.0", "generators.1"},
        ),
        ("direct", {"projections.1", "projections.2"}),
        ("generation", {"generation_projections.1", "generation_projections.2", "generators.0", "generators.1"}),
    ],
)
def test_an_alignment_builds_the_parameters_it_needs_and_no_others(alignment, parts):
    assert groups(replace(AMD, alignment=alignment)) == {"encoder", "decoder"} | parts


@pytest.mark.parametrize("kind", TORCH)
def test_losses_are_means_over_layers_tokens_and_channels(kind):
    config = replace(AMD, feature_loss=kind)
    method, mask = built(config), config.mask.draw(SEED, GRID)
    output = method(CLIP, seed=SEED)
    teacher = method.teacher.model(CLIP, mask.teacher_visible, layers=(2, 3)).layers
    student = method.encoder(CLIP, mask.visible, layers=(1, 2))
    seen = mask.visible.shape[1]

    projected = {layer: student.layers[layer] @ method.projections[str(layer)].weight.T for layer in (1, 2)}
    direct = [TORCH[kind](projected[ours], teacher[theirs][:, :seen]) for ours, theirs in config.layer_pairs]
    generated = [
        TORCH[kind](
            method.generators[place](projected[ours], mask.visible, mask.teacher_only, GRID), teacher[theirs][:, seen:]
        )
        for place, (ours, theirs) in enumerate(config.layer_pairs)
    ]
    torch.testing.assert_close(output.parts["direct"], torch.stack(direct).mean())
    torch.testing.assert_close(output.parts["generation"], torch.stack(generated).mean())


def test_the_reconstruction_is_videomaes():
    method, plain = built(AMD), built(VIDEOMAE)
    own = {name: t for name, t in method.state_dict().items() if name.startswith(("encoder.", "decoder."))}
    plain.load_state_dict(own)
    torch.testing.assert_close(method(CLIP, seed=SEED).parts["reconstruction"], plain(CLIP, seed=SEED).loss)


def test_factors_weigh_the_parts():
    factors = {"reconstruction_weight": 0.5, "direct_weight": 3.0, "generation_weight": 0.25}
    output = built(replace(AMD, **factors))(CLIP, seed=SEED)
    expected = sum(factors[f"{name}_weight"] * part for name, part in output.parts.items())
    torch.testing.assert_close(output.loss, expected)
    for name, part in built(AMD)(CLIP, seed=SEED).parts.items():
        assert torch.equal(part, output.parts[name])


@pytest.mark.parametrize(("alignment", "absent"), [("direct", "generation"), ("generation", "direct")])
def test_what_is_not_aligned_costs_nothing(alignment, absent):
    assert built(replace(AMD, alignment=alignment))(CLIP, seed=SEED).parts[absent].item() == 0


def test_a_generators_mask_token_is_trained_or_stays_as_it_was_drawn():
    for constant in (False, True):
        method = built(replace(AMD, released=AMDQuirks(constant_mask_tokens=constant)))
        before = [generator.mask_token.clone() for generator in method.generators]
        method(CLIP, seed=SEED).loss.backward()
        optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1)
        optimizer.step()
        for old, generator in zip(before, method.generators, strict=True):
            assert torch.equal(old, generator.mask_token) == constant
        assert "generators.0.mask_token" in method.state_dict()  # so that a resumed run goes on with the same


def test_serial_generation_continues_from_the_direct_projection_and_parallel_has_its_own():
    for alignment, moves in (("serial", True), ("parallel", False)):
        method = built(replace(AMD, alignment=alignment))
        before = method(CLIP, seed=SEED).parts
        with torch.no_grad():
            method.projections["1"].weight.mul_(2)
        after = method(CLIP, seed=SEED).parts
        assert not torch.equal(before["direct"], after["direct"])
        assert torch.equal(before["generation"], after["generation"]) != moves


def test_a_generated_layer_continues_from_its_own_layers_projection_or_the_one_at_its_place():
    other = replace(AMD, layer_pairs=((1, 2), (2, 3)), generation_layer_pairs=((2, 3),))
    for by_index, layer in ((False, "2"), (True, "1")):
        method = built(replace(other, released=AMDQuirks(projection_by_index=by_index)))
        method(CLIP, seed=SEED).parts["generation"].backward()
        touched = {name for name, linear in method.projections.items() if linear.weight.grad is not None}
        assert touched == {layer}


def test_teacher_and_student_may_see_everything():
    whole = NestedTubeMask(student_ratio=0.0, teacher_ratio=0.0)
    output = built(replace(AMD, mask=whole))(CLIP, seed=SEED)
    assert output.parts["reconstruction"].item() == 0
    assert output.parts["generation"].item() == 0
    assert output.parts["direct"].item() > 0
    output.loss.backward()


def test_a_teacher_that_sees_everything_has_a_target_for_every_hidden_token():
    config = replace(AMD, mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.0))
    method, mask = built(config), config.mask.draw(SEED, GRID)
    both, teacher_only = method.forward_teacher(CLIP, mask)
    assert both[3].shape[1] + teacher_only[3].shape[1] == GRID.num_tokens
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_generators_of_a_student_with_learned_positions_have_the_flat_code():
    learned = replace(ENCODER, positions="learned", learned_grid=(GRID.t, GRID.h, GRID.w))
    config = replace(AMD, encoder=learned)
    assert config.generator_config.positions == "sinusoid"
    assert torch.isfinite(built(config)(CLIP, seed=SEED).loss)


def test_a_mask_without_tokens_for_the_teacher_alone_is_met_with_a_sentence():
    with pytest.raises(ValueError, match="draw it with NestedTubeMask"):
        built(AMD)(CLIP, mask=TubeMask(ratio=0.75).draw(SEED, GRID))


def test_generators_have_the_asked_depth_and_the_teachers_width():
    method = built(replace(AMD, generator_depth=3, teacher=TeacherConfig(model=replace(TEACHER, dim=128))))
    assert [len(generator.blocks) for generator in method.generators] == [3, 3]
    assert method.generators[0].mask_token.shape == (1, 128)
    assert method.generators[0].blocks[0].attn.heads == 2  # 64 channels each


@pytest.mark.parametrize(("width", "heads"), [(32, 1), (64, 1), (200, 2), (768, 12), (1024, 16)])
def test_a_generators_heads_have_64_channels_or_the_next_number_that_divides(width, heads):
    assert replace(AMD, teacher=TeacherConfig(model=replace(TEACHER, dim=width))).generator_config.heads == heads


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layer_pairs": ((3, 3),)}, r"block 3 of a student of 2 blocks; take 1 to 2"),
        ({"layer_pairs": ((1, 4),)}, r"block 4 of a teacher of 3 blocks; take 1 to 3"),
        ({"layer_pairs": ((0, 1),)}, r"block 0 of a student"),
        ({"layer_pairs": ()}, r"no layers to align"),
        ({"encoder": replace(ENCODER, tubelet=(2, 8, 8))}, r"student's tubelets \(2, 8, 8\) must be the teacher's"),
        (
            {
                "layer_pairs": ((1, 1),),
                "generation_layer_pairs": ((1, 1), (2, 2)),
                "released": AMDQuirks(projection_by_index=True),
            },
            r"needs a direct pair for every generated one",
        ),
    ],
)
def test_what_cannot_be_aligned_is_met_with_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(AMD, **changes).build()
