"""MaskAgain: what is built, run and trained for its terms, and what cannot be compared."""

from dataclasses import replace

import pytest
import torch
from tiny_models import DECODER, ENCODER, MASKAGAIN, NO_TERM, TEACHER, built, clips, only

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import init_encoder
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.models.layers import Attention
from vidstill.models.vit import BASE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
PROJECTED = replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER))


@pytest.mark.parametrize(
    ("factors", "parts"),
    [
        ({"global_weight": 1.0}, {"global_student", "global_teacher"}),
        ({"local_weight": 1.0}, {"local_student", "local_teacher"}),
        ({"hint_weight": 1.0}, {"hint"}),
        ({"relation_weight": 1.0}, set()),
        ({"attention_weight": 1.0}, set()),
        ({"attention_weight": 1.0, "reconstruction_weight": 1.0}, {"decoder"}),
        ({"global_weight": 1.0, "hidden_weight": 0.0, "hint_weight": 1.0}, {"hint"}),
    ],
    ids=str,
)
def test_what_no_term_needs_is_neither_computed_nor_built(factors, parts):
    method = built(only(PROJECTED, **factors))
    names = {name.removeprefix("projections.").partition(".")[0] for name, _ in method.named_parameters()}
    assert names == {"encoder"} | parts
    assert set(method(CLIP, seed=SEED).parts) == set(method.config.factors)


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_what_no_term_reaches_is_not_trained(layers, layer_scale):
    encoder = replace(ENCODER, layer_scale=layer_scale)
    method = built(only(replace(MASKAGAIN, encoder=encoder), global_weight=1.0, layers=layers))
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    last = f"encoder.blocks.{0 if layers else 1}.mlp.fc1.weight"
    assert not dict(method.named_parameters())[last].requires_grad


@pytest.mark.parametrize(
    ("config", "maps", "teacher_blocks"),
    [
        (only(MASKAGAIN, value_weight=1.0, attention_layers=(1, 2)), (1, 2), 1),
        (only(MASKAGAIN, value_weight=1.0), (2, 3), 2),
        (only(MASKAGAIN, hint_weight=1.0), None, 3),
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

    def noted(self, *given):
        mapped.append(self)
        return original(self, *given)

    monkeypatch.setattr(Attention, "map", noted)
    for block in teacher:
        block.register_forward_hook(lambda block, *_: run.append(block))
    method(CLIP, seed=SEED)
    assert mapped == ([student[maps[0] - 1].attn, teacher[maps[1] - 1].attn] if maps else [])
    assert run == list(teacher[:teacher_blocks])


def test_a_student_of_the_same_width_may_be_projected_whatever_its_heads_are():
    config = replace(MASKAGAIN, encoder=replace(ENCODER, heads=3), projections="always")
    method = built(config)
    assert set(method.projections) == {"hint", "global_student", "global_teacher", "local_student", "local_teacher"}
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_a_hint_or_relations_do_not_ask_for_equal_heads():
    config = only(replace(MASKAGAIN, encoder=replace(ENCODER, heads=3)), hint_weight=1.0, relation_weight=1.0)
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
        (NO_TERM, r"learns nothing from its teacher: all its factors are 0"),
        (NO_TERM | {"decoder": DECODER}, r"learns nothing from its teacher"),
        (
            {"encoder": replace(ENCODER, tubelet=(2, 8, 8))},
            r"tubelets \(2, 8, 8\) have to be the teacher's \(2, 4, 4\)",
        ),
        ({"layers": (3, 3)}, r"block 3 of a student of 2 blocks; take 1 to 2"),
        ({"layers": (1, 0)}, r"block 0 of a teacher of 3 blocks; take 1 to 3"),
        ({"encoder": replace(ENCODER, heads=3)}, r"student's 3 heads have to be the teacher's 2; .*projections always"),
        (
            {"encoder": replace(ENCODER, heads=3), "projections": "always", "selection": "teacher"},
            r"student's 3 heads have to be the teacher's 2",
        ),
        (
            {"encoder": replace(ENCODER, heads=3), "projections": "always", "attention_weight": 1.0},
            r"student's 3 heads have to be the teacher's 2",
        ),
        ({"teacher": TeacherConfig(model=TEACHER), "value_weight": 1.0}, r"width 24 has to be the teacher's 32"),
        ({"global_top_k": 0}, r"global_keys is 0; take 1 or more"),
        ({"salient_tokens": 0}, r"telling is 0; take 1 or more"),
        ({"hint_weight": -1.0}, r"hint_factor is -1\.0; take 0 or more"),
        ({"attention_temperature": 0.0}, r"attention_temperature is 0\.0; take 1e-06 or more"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_met_with_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(MASKAGAIN, **changes).build()
