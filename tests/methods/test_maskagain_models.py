"""MaskAgain: what is built, run and trained for its terms, and what cannot be compared."""

from dataclasses import replace

import pytest
import torch
from tiny_models import DECODER, ENCODER, MASKAGAIN, TEACHER, built, clips, only

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import HiddenConfig, MaskAgainConfig, MaskAgainQuirks, OutputConfig
from vidstill.models.layers import Attention
from vidstill.models.vit import BASE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
PROJECTED = replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER))
OFF = only(MASKAGAIN)
THREE_HEADS = replace(ENCODER, heads=3)


@pytest.mark.parametrize(
    ("config", "parts"),
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
def test_what_no_term_needs_is_neither_computed_nor_built(config, parts):
    method = built(config)
    names = {name.removeprefix("projections.").partition(".")[0] for name, _ in method.named_parameters()}
    assert names == {"encoder"} | parts
    assert set(method(CLIP, seed=SEED).parts) == set(method.config.loss_weights)


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_what_no_term_reaches_is_not_trained(layers, layer_scale):
    encoder = replace(ENCODER, layer_scale=layer_scale)
    method = built(only(replace(MASKAGAIN, encoder=encoder, hidden=HiddenConfig(layers=layers)), **{"global": 1.0}))
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    last = f"encoder.blocks.{0 if layers else 1}.mlp.fc1.weight"
    assert not dict(method.named_parameters())[last].requires_grad


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
def test_one_block_gives_its_attention_and_the_teacher_runs_no_further_than_it_must(
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


def test_a_student_of_the_same_width_may_be_projected_whatever_its_heads_are():
    config = replace(MASKAGAIN, encoder=THREE_HEADS, projections="always")
    method = built(config)
    assert set(method.projections) == {"hint", "global_student", "global_teacher", "local_student", "local_teacher"}
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_a_hint_or_relations_do_not_ask_for_equal_heads():
    config = only(replace(MASKAGAIN, encoder=THREE_HEADS), hint=1.0, relation=1.0)
    assert torch.isfinite(built(config)(CLIP, seed=SEED).loss)


def test_an_encoder_without_a_final_norm_starts_a_classifier_and_a_teacher():
    method = built(MASKAGAIN)
    weights = Checkpoint(method.state_dict(), {"encoder": {}})
    classifier = ClassifierConfig(encoder=ENCODER, num_classes=5).build()
    init_encoder(classifier.encoder, weights, ENCODER)
    assert torch.equal(classifier.encoder(CLIP).tokens, method.encoder(CLIP).tokens)
    teacher = ENCODER.build()
    init_encoder(teacher, weights, ENCODER)
    assert torch.equal(teacher(CLIP, layers=(2,)).layers[2], method.encoder(CLIP).tokens)


def test_encoders_and_projections_have_the_authors_sizes():
    with torch.device("meta"):
        small, base = (MaskAgainConfig(encoder=size).build() for size in (SMALL, BASE))

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert (count(small.encoder), count(base.encoder), count(base.projections)) == (21_879_168, 86_225_664, 0)
    assert {name: count(part) for name, part in small.projections.items()} == {
        "hint": 886_272,
        "global_student": 295_680,
        "local_student": 295_680,
        "global_teacher": 590_592,
        "local_teacher": 590_592,
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden": OFF.hidden, "output": OFF.output}, r"learns nothing from its teacher: all its weights are 0"),
        ({"hidden": OFF.hidden, "output": OFF.output, "decoder": DECODER}, r"learns nothing from its teacher"),
        ({"encoder": replace(ENCODER, tubelet=(2, 8, 8))}, r"tubelets \(2, 8, 8\) must be the teacher's \(2, 4, 4\)"),
        ({"hidden": HiddenConfig(layers=(3, 3))}, r"block 3 of a student of 2 blocks; take 1 to 2"),
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
def test_what_cannot_be_compared_is_met_with_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(MASKAGAIN, **changes).build()
