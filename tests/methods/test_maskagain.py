"""MaskAgain: what its terms compare, what changes them, and what is built, run and trained for them."""

from dataclasses import replace

import pytest
import torch
from mask_structure import get_masked_pixels
from tiny_models import DECODER, ENCODER, GRID, MASKAGAIN, TEACHER, built, clips, only

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder
from vidstill.engine.distributed import Runtime
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import HiddenConfig, MaskAgainConfig, MaskAgainQuirks, OutputConfig
from vidstill.methods.maskagain_losses import hint_loss, relation_loss, select_salient_tokens, selected_value_loss
from vidstill.models.layers import Attention
from vidstill.models.vit import BASE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError, gather_tokens

CLIP = clips()
SEED = torch.tensor([11, 12])
PROJECTED = replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER))
OFF = only(MASKAGAIN)
THREE_HEADS = replace(ENCODER, heads=3)


def run_last_blocks(method, mask, clip=CLIP):
    """Return attention and output of the last blocks: the student's, the teacher's."""
    depth, teacher_depth = method.config.encoder.depth, method.config.teacher.model.depth
    student = method.encoder(clip, mask.visible, layers=(depth,), attention=(depth,))
    teacher = method.teacher.model(clip, mask.visible, layers=(teacher_depth,), attention=(teacher_depth,))
    attention = student.attention[depth], teacher.attention[teacher_depth]
    return attention, (student.layers[depth], teacher.layers[teacher_depth])


def change(config: MaskAgainConfig, part: str, **changes) -> MaskAgainConfig:
    """Change fields of `hidden`, `output` or `released`."""
    return replace(config, **{part: replace(getattr(config, part), **changes)})


def compute_loss(config: MaskAgainConfig) -> torch.Tensor:
    return built(config)(CLIP, seed=SEED).loss


# ---- The loss -------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_for_a_base_student():
    config = MaskAgainConfig()
    assert config.encoder == config.teacher.model == BASE
    assert config.loss_weights == {"global": 3.0, "local": 1.0, "hint": 0.2, "relation": 0.1}
    hidden, output = config.hidden, config.output
    assert (hidden.global_top_k, hidden.local_top_k, output.salient_tokens) == (10, 10, 10)
    assert (hidden.temperature, output.student_temperature, output.teacher_temperature) == (1.0, 0.1, 0.05)
    assert output.relation_clips == 64


@pytest.mark.parametrize("config", [MASKAGAIN, PROJECTED], ids=["plain", "projected"])
def test_each_term_compares_the_last_blocks_at_the_visible_tokens(config):
    method, mask = built(config), config.mask.draw(SEED, GRID)
    attention, output = run_last_blocks(method, mask)
    salient, phi = select_salient_tokens(output[1], 5), method.projections
    assert bool(phi) == (config is PROJECTED)
    pairs = [(phi[f"{term}_student"], phi[f"{term}_teacher"]) for term in ("global", "local") if phi]
    of_global, of_local = ({"projections": pair} for pair in pairs) if phi else ({}, {})
    expected = {
        "global": selected_value_loss(*attention, slots=1, top_k=4, **of_global),
        "local": selected_value_loss(*attention, slots=GRID.t, top_k=3, **of_local),
        "hint": hint_loss(*output, salient, **({"projection": phi["hint"]} if phi else {})),
        "relation": relation_loss(*(gather_tokens(side, salient) for side in output)),
    }
    parts = method(CLIP, seed=SEED).parts
    assert parts.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(parts[name], loss)


def test_the_slots_are_the_clips_time_steps():
    config = only(MASKAGAIN, local=1.0)
    method, clip = built(config), clips(frames=6)
    attention, _ = run_last_blocks(method, config.mask.draw(SEED, method.encoder.grid(clip)), clip)
    expected = selected_value_loss(*attention, slots=3, top_k=3)
    torch.testing.assert_close(method(clip, seed=SEED).loss, expected)


@pytest.mark.parametrize(
    ("term", "part", "field"),
    [("global", "hidden", "global_top_k"), ("local", "hidden", "local_top_k"), ("hint", "output", "salient_tokens")],
)
def test_no_selection_is_the_selection_of_all(term, part, field):
    config = only(MASKAGAIN, **{term: 1.0})
    losses = [compute_loss(change(config, part, **{field: count})) for count in (None, 99, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize(
    ("term", "part", "changes"),
    [
        ("global", "hidden", {"key_selection": "teacher"}),
        ("global", "released", {"attention_normalization": "unchanged"}),
        ("global", "hidden", {"temperature": 4.0}),
        ("local", "hidden", {"key_selection": "teacher"}),
        ("local", "released", {"attention_normalization": "unchanged"}),
        ("local", "released", {"attention_normalization": "unchanged", "local_softmax": "clip"}),
        ("local", "released", {"value_order": "aligned"}),
        ("local", "hidden", {"temperature": 4.0}),
        ("attention", "hidden", {"attention_loss": "l2"}),
        ("attention", "hidden", {"temperature": 4.0}),
        ("value", "hidden", {"layers": (1, 2)}),
        ("attention", "hidden", {"layers": (1, 2)}),
        ("relation", "released", {"relation_softmax": "pairs"}),
        ("relation", "output", {"student_temperature": 0.2}),
        ("relation", "output", {"teacher_temperature": 0.2}),
        ("relation", "output", {"salient_tokens": 4}),
        ("relation", "output", {"relation_clips": 1}),
    ],
    ids=str,
)
def test_every_setting_changes_the_loss(term, part, changes):
    config = only(MASKAGAIN, **{term: 1.0})
    assert not torch.equal(compute_loss(config), compute_loss(change(config, part, **changes)))


def test_tokens_that_are_left_out_do_not_train_the_projection():
    config = only(PROJECTED, hint=1.0)
    assert compute_loss(config) > compute_loss(change(config, "released", hint_tokens="gathered"))


def test_masked_pixels_affect_nothing_if_none_are_reconstructed():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    poisoned = CLIP.masked_fill(get_masked_pixels(mask.visible, GRID, ENCODER.tubelet), float("nan"))
    assert torch.equal(method(poisoned, mask=mask).loss, method(CLIP, mask=mask).loss)


def accumulate_gradients(method, clip, seed, num_chunks: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the mean loss over chunks, and its gradients, accumulated chunk by chunk."""
    method.zero_grad()
    losses = []
    for chunk, chunk_seed in zip(clip.chunk(num_chunks), seed.chunk(num_chunks), strict=True):
        losses.append(method(chunk, seed=chunk_seed).loss)
        (losses[-1] / num_chunks).backward()
    return torch.stack(losses).mean(), [parameter.grad for parameter in method.parameters() if parameter.requires_grad]


def test_loss_and_gradients_do_not_depend_on_how_many_groups_a_device_processes_at_once():
    method, clip, seed = built(change(MASKAGAIN, "output", relation_clips=2)), clips(8), torch.arange(8)
    loss, gradients = accumulate_gradients(method, clip, seed, 1)
    for num_chunks in (2, 4):
        chunked_loss, chunked_gradients = accumulate_gradients(method, clip, seed, num_chunks)
        torch.testing.assert_close(chunked_loss, loss)
        torch.testing.assert_close(chunked_gradients, gradients, rtol=1e-4, atol=1e-6)
    whole, _ = accumulate_gradients(built(MASKAGAIN), clip, seed, 1)
    assert not torch.isclose(whole, loss)  # one group of all clips


def test_clips_are_related_within_their_group_alone():
    method, clip, seed = built(change(MASKAGAIN, "output", relation_clips=4)), clips(4), torch.arange(4)
    whole = method(clip, seed=seed).parts
    chunks = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name, part in whole.items():
        mean = torch.stack([chunk[name] for chunk in chunks]).mean()
        assert torch.isclose(mean, part, rtol=1e-5) == (name != "relation"), name
    with pytest.raises(InputError, match=r"3 clips do not divide into groups of 2 .* --device-batch"):
        built(change(MASKAGAIN, "output", relation_clips=2))(clips(3), seed=torch.arange(3))


def test_outputs_are_compared_before_the_norm_that_a_decoder_adds():
    plain, with_decoder = (built(replace(only(MASKAGAIN, hint=1.0), decoder=decoder)) for decoder in (None, DECODER))
    names, weights = set(plain.encoder.state_dict()), with_decoder.encoder.state_dict()
    assert set(weights) - names == {"norm.weight", "norm.bias"}
    plain.encoder.load_state_dict({name: weights[name] for name in names})
    plain.teacher.model.load_state_dict(with_decoder.teacher.model.state_dict())
    assert torch.equal(plain(CLIP, seed=SEED).parts["hint"], with_decoder(CLIP, seed=SEED).parts["hint"])


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": replace(ENCODER, class_token=True)},
        {"teacher": TeacherConfig(model=replace(MASKAGAIN.teacher.model, class_token=True))},
    ],
    ids=["encoder", "teacher"],
)
def test_class_tokens_are_not_compared(changes):
    output = built(replace(MASKAGAIN, **changes))(CLIP, seed=SEED)
    assert output.parts.keys() == {"global", "local", "hint", "relation"}
    assert torch.isfinite(output.loss)


def test_an_image_is_a_clip_of_one_time_step():
    image = {"tubelet": (1, 4, 4), "positions": "sincos2d"}
    teacher = TeacherConfig(model=replace(MASKAGAIN.teacher.model, **image))
    method = built(replace(MASKAGAIN, encoder=replace(ENCODER, **image), teacher=teacher))
    assert all(torch.isfinite(part) for part in method(clips(frames=1), seed=SEED).parts.values())


def test_every_part_in_bfloat16_is_close_to_that_in_single_precision():
    """Keys and tokens at the edge of a selection may change places; the loss is of the same size."""
    method = built(PROJECTED)
    exact = method(CLIP, seed=SEED).parts
    with Runtime("bf16").compute(method):
        parts = method(CLIP, seed=SEED).parts
    for name, part in parts.items():
        assert part.dtype == torch.float32, name
        torch.testing.assert_close(part, exact[name], rtol=0.05, atol=0.0)


# ---- What is built, run and trained ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        (only(PROJECTED, **{"global": 1.0}), {"global_student", "global_teacher"}),
        (only(PROJECTED, local=1.0), {"local_student", "local_teacher"}),
        (only(PROJECTED, hint=1.0), {"hint"}),
        (only(PROJECTED, relation=1.0), set()),
        (only(PROJECTED, attention=1.0), set()),
        (only(replace(PROJECTED, decoder=DECODER), attention=1.0), {"decoder"}),
        (only(replace(PROJECTED, released=MaskAgainQuirks(hidden_weight=0.0)), hint=1.0, value=1.0), {"hint"}),
    ],
    ids=["global", "local", "hint", "relation", "attention", "with pixels", "hidden level off"],
)
def test_what_no_term_needs_is_neither_computed_nor_built(config, modules):
    method = built(config)
    names = {name.removeprefix("projections.").partition(".")[0] for name, _ in method.named_parameters()}
    assert names == {"encoder"} | modules
    assert set(method(CLIP, seed=SEED).parts) == set(method.config.loss_weights)


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_what_no_term_reaches_is_not_trained(layers, layer_scale):
    encoder = replace(ENCODER, layer_scale=layer_scale)
    method = built(only(replace(MASKAGAIN, encoder=encoder, hidden=HiddenConfig(layers=layers)), **{"global": 1.0}))
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not method.encoder.blocks[0 if layers else 1].mlp.fc1.weight.requires_grad


@pytest.mark.parametrize(
    ("config", "maps", "teacher_blocks"),
    [
        (only(replace(MASKAGAIN, hidden=HiddenConfig(layers=(1, 2))), value=1.0), (1, 2), 1),
        (only(MASKAGAIN, value=1.0), (2, 3), 2),
        (only(MASKAGAIN, hint=1.0), None, 3),
        (MASKAGAIN, (2, 3), 3),
    ],
    ids=["values of other blocks", "values", "hint", "all"],
)
def test_one_block_returns_its_attention_and_the_teacher_runs_no_further_than_it_must(
    config, maps, teacher_blocks, monkeypatch
):
    method = built(config)
    student, teacher = method.encoder.blocks, method.teacher.model.blocks
    mapped, run, original = [], [], Attention.compute_map

    def record(self, *args):
        mapped.append(self)
        return original(self, *args)

    monkeypatch.setattr(Attention, "compute_map", record)
    for block in teacher:
        block.register_forward_hook(lambda block, *_: run.append(block))
    method(CLIP, seed=SEED)
    assert mapped == ([student[maps[0] - 1].attn, teacher[maps[1] - 1].attn] if maps else [])
    assert run == list(teacher[:teacher_blocks])


@pytest.mark.parametrize(
    ("config", "projections"),
    [
        (
            replace(MASKAGAIN, encoder=THREE_HEADS, projections="always"),
            {"hint", "global_student", "global_teacher", "local_student", "local_teacher"},
        ),
        (only(replace(MASKAGAIN, encoder=THREE_HEADS), hint=1.0, relation=1.0), set()),
    ],
    ids=["projected", "output level"],
)
def test_heads_may_differ_if_they_are_joined_or_not_compared(config, projections):
    method = built(config)
    assert set(method.projections) == projections
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_an_encoder_without_a_final_norm_initializes_a_classifier_and_a_teacher():
    method = built(MASKAGAIN)
    weights = Checkpoint(method.state_dict(), {"encoder": {}})
    classifier, teacher = ClassifierConfig(encoder=ENCODER, num_classes=5).build(), ENCODER.build()
    init_encoder(classifier.encoder, weights, ENCODER)
    assert torch.equal(classifier.encoder(CLIP).tokens, method.encoder(CLIP).tokens)
    init_encoder(teacher, weights, ENCODER)
    assert torch.equal(teacher(CLIP, layers=(2,)).layers[2], method.encoder(CLIP).tokens)


def test_encoders_and_projections_have_the_authors_sizes():
    with torch.device("meta"):
        small, base = (MaskAgainConfig(encoder=size).build() for size in (SMALL, BASE))

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert (count(small.encoder), count(base.encoder), count(base.projections)) == (21_879_168, 86_225_664, 0)
    sizes = {"hint": 886_272, "global_student": 295_680, "local_student": 295_680}
    sizes |= {"global_teacher": 590_592, "local_teacher": 590_592}
    assert {name: count(part) for name, part in small.projections.items()} == sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": OFF.hidden, "output": OFF.output}, r"learns nothing from its teacher: all its weights are 0"),
        ({"hidden": OFF.hidden, "output": OFF.output, "decoder": DECODER}, r"learns nothing from its teacher"),
        ({"hidden": HiddenConfig(layers=(1, 0))}, r"block 0 of a teacher of 3 blocks; take 1 to 3"),
        ({"encoder": THREE_HEADS}, r"student's 3 heads must be the teacher's 2, .*projections always"),
        (
            {"encoder": THREE_HEADS, "projections": "always", "hidden": HiddenConfig(key_selection="teacher")},
            r"student's 3 heads must be the teacher's 2",
        ),
        (
            {"encoder": THREE_HEADS, "projections": "always", "hidden": HiddenConfig(attention_weight=1.0)},
            r"student's 3 heads must be the teacher's 2",
        ),
        (
            {"teacher": TeacherConfig(model=TEACHER), "hidden": HiddenConfig(value_weight=1.0)},
            r"width 24 must be the teacher's 32",
        ),
        ({"hidden": HiddenConfig(global_top_k=0)}, r"global_top_k is 0; take 1 or more"),
        ({"output": OutputConfig(salient_tokens=0)}, r"salient_tokens is 0; take 1 or more"),
        ({"output": OutputConfig(relation_clips=0)}, r"relation_clips is 0; take 1 or more"),
        ({"output": OutputConfig(hint_weight=-1.0)}, r"hint_weight is -1\.0; take 0 or more"),
        ({"hidden": HiddenConfig(temperature=0.0)}, r"temperature is 0\.0; take 1e-06 or more"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_an_error(changes, message):
    with pytest.raises(InputError, match=message):
        replace(MASKAGAIN, **changes).build()
