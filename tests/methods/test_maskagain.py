"""MaskAgain: which of its terms are computed, of what, and what they train."""

from dataclasses import replace

import pytest
import torch

from tiny_models import DECODER, ENCODER, GRID, MASKAGAIN, TEACHER, VIDEOMAE, built, clips
from vidstill.downstream.classification import ClassifierConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.models.layers import Attention
from vidstill.models.vit import BASE, SMALL
from vidstill.pretext.attention import global_loss, local_loss
from vidstill.pretext.relations import hint_loss, relation_loss, telling_tokens
from vidstill.pretext.teachers import TeacherConfig
from vidstill.types import InputError, take
from vidstill.weights.files import Weights
from vidstill.weights.transfer import start_encoder

CLIP = clips()
SEED = torch.tensor([11, 12])
NONE = dict.fromkeys(("global_factor", "local_factor", "hint_factor", "relation_factor"), 0.0)
HIDDEN = ("global", "local", "attention", "value")
PROJECTED = replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER))


def only(config, **factors):
    """The configuration with these terms alone; a decoder where pixels are asked for."""
    decoder = DECODER if "reconstruction_factor" in factors else None
    return replace(config, **(NONE | factors), decoder=decoder)


def seen_by(method, mask):
    """Attention and output of the last blocks: the student's, the teacher's."""
    student, teacher = method.config.encoder.depth, method.config.teacher.model.depth
    ours = method.encoder(CLIP, mask.visible, layers=(student,), attention=(student,))
    theirs = method.teacher.model(CLIP, mask.visible, layers=(teacher,), attention=(teacher,))
    return (ours.attention[student], theirs.attention[teacher]), (ours.layers[student], theirs.layers[teacher])


def test_the_defaults_are_the_papers_for_a_base_student():
    config = MaskAgainConfig()
    assert config.encoder == config.teacher.model == BASE
    assert config.factors == {"global": 3.0, "local": 1.0, "hint": 0.2, "relation": 0.1}
    assert (config.global_keys, config.local_keys, config.telling) == (10, 10, 10)
    assert (config.attention_temperature, config.student_temperature, config.teacher_temperature) == (1.0, 0.1, 0.05)


def test_each_term_compares_the_last_blocks_at_the_visible_tokens():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    attention, output = seen_by(method, mask)
    telling = telling_tokens(output[1], 5)
    expected = {
        "global": global_loss(*attention, keys=4),
        "local": local_loss(*attention, slots=GRID.t, keys=3),
        "hint": hint_loss(*output, telling),
        "relation": relation_loss(*(take(side, telling) for side in output)),
    }
    parts = method(CLIP, seed=SEED).parts
    assert parts.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(parts[name], loss)


def test_a_narrower_student_is_projected_and_so_is_its_teacher():
    method, mask = built(PROJECTED), PROJECTED.mask.draw(SEED, GRID)
    attention, output = seen_by(method, mask)
    phi = method.projections
    parts = method(CLIP, seed=SEED).parts
    hint = hint_loss(*output, telling_tokens(output[1], 5), mapped=phi["hint"])
    torch.testing.assert_close(parts["hint"], hint)
    global_ = global_loss(*attention, keys=4, mapped=(phi["global_student"], phi["global_teacher"]))
    torch.testing.assert_close(parts["global"], global_)
    local = local_loss(*attention, slots=GRID.t, keys=3, mapped=(phi["local_student"], phi["local_teacher"]))
    torch.testing.assert_close(parts["local"], local)


def test_the_slots_are_those_of_the_clip():
    config = only(MASKAGAIN, local_factor=1.0)
    method, clip = built(config), clips(frames=6)
    mask = config.mask.draw(SEED, method.encoder.grid(clip))
    student = method.encoder(clip, mask.visible, attention=(2,)).attention[2]
    teacher = method.teacher.look(clip, mask.visible, attention=(3,)).attention[3]
    loss = local_loss(student, teacher, slots=3, keys=3)
    torch.testing.assert_close(method(clip, seed=SEED).loss, loss)


@pytest.mark.parametrize(
    ("factors", "parts"),
    [
        ({"global_factor": 1.0}, {"global_student", "global_teacher"}),
        ({"local_factor": 1.0}, {"local_student", "local_teacher"}),
        ({"hint_factor": 1.0}, {"hint"}),
        ({"relation_factor": 1.0}, set()),
        ({"attention_factor": 1.0}, set()),
        ({"attention_factor": 1.0, "reconstruction_factor": 1.0}, {"decoder"}),
        ({"global_factor": 1.0, "hidden_factor": 0.0, "hint_factor": 1.0}, {"hint"}),
    ],
    ids=str,
)
def test_what_no_term_needs_is_neither_computed_nor_built(factors, parts):
    method = built(only(PROJECTED, **factors))
    names = {name.removeprefix("projections.").partition(".")[0] for name, _ in method.named_parameters()}
    assert names == {"encoder"} | parts
    assert set(method(CLIP, seed=SEED).parts) == set(method.config.factors)


@pytest.mark.parametrize(
    "factors",
    [
        {"global_factor": 2.0, "local_factor": 0.5, "hidden_factor": 3.0},
        {"attention_factor": 2.0, "value_factor": 0.5, "hidden_factor": 0.25},
        {"hint_factor": 2.0, "relation_factor": 0.5, "reconstruction_factor": 4.0},
    ],
    ids=str,
)
def test_factors_weigh_the_parts(factors):
    output = built(only(MASKAGAIN, **factors))(CLIP, seed=SEED)
    hidden = factors.pop("hidden_factor", 1.0)
    weights = {
        name.removesuffix("_factor"): factor * (hidden if name.split("_")[0] in HIDDEN else 1.0)
        for name, factor in factors.items()
    }
    assert output.parts.keys() == weights.keys()
    torch.testing.assert_close(output.loss, sum(weights[name] * part for name, part in output.parts.items()))


@pytest.mark.parametrize("term", ["global", "local", "hint"])
def test_no_selection_is_the_selection_of_all(term):
    field = {"global": "global_keys", "local": "local_keys", "hint": "telling"}[term]
    config = only(MASKAGAIN, **{f"{term}_factor": 1.0})
    losses = [built(replace(config, **{field: count}))(CLIP, seed=SEED).loss for count in (None, 99, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize(
    ("term", "change"),
    [
        ("global", {"selection": "teacher"}),
        ("global", {"mass": "plain"}),
        ("global", {"attention_temperature": 4.0}),
        ("local", {"selection": "teacher"}),
        ("local", {"mass": "plain"}),
        ("local", {"mass": "plain", "local_shares": "clip"}),
        ("local", {"local_pairs": "aligned"}),
        ("local", {"attention_temperature": 4.0}),
        ("attention", {"attention_distance": "l2"}),
        ("attention", {"attention_temperature": 4.0}),
        ("value", {"layers": (1, 2)}),
        ("attention", {"layers": (1, 2)}),
        ("relation", {"relation_shares": "pairs"}),
        ("relation", {"student_temperature": 0.2}),
        ("relation", {"teacher_temperature": 0.2}),
        ("relation", {"telling": 4}),
    ],
    ids=str,
)
def test_every_choice_changes_the_loss(term, change):
    config = only(MASKAGAIN, **{f"{term}_factor": 1.0})
    assert not torch.equal(built(config)(CLIP, seed=SEED).loss, built(replace(config, **change))(CLIP, seed=SEED).loss)


def test_tokens_that_are_left_out_do_not_train_the_projection():
    zeroed, gathered = (
        built(only(PROJECTED, hint_factor=1.0, hint_tokens=tokens))(CLIP, seed=SEED).loss
        for tokens in ("zeroed", "gathered")
    )
    assert zeroed > gathered


def test_a_student_of_the_same_width_may_be_projected_whatever_its_heads_are():
    config = replace(MASKAGAIN, encoder=replace(ENCODER, heads=3), projections="always")
    method = built(config)
    assert set(method.projections) == {"hint", "global_student", "global_teacher", "local_student", "local_teacher"}
    assert torch.isfinite(method(CLIP, seed=SEED).loss)


def test_hidden_pixels_reach_nothing_where_none_are_rebuilt():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    hidden = torch.ones(2, GRID.tokens, dtype=torch.bool).scatter(1, mask.visible, False)
    cubes = hidden.view(2, 1, GRID.t, GRID.h, GRID.w)
    pixels = cubes.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    poisoned = CLIP.masked_fill(pixels, float("nan"))
    assert torch.equal(method(poisoned, mask=mask).loss, method(CLIP, mask=mask).loss)


def test_clips_meet_one_another_in_the_relations_alone():
    method, clip, seed = built(MASKAGAIN), clips(4), torch.arange(4)
    whole = method(clip, seed=seed).parts
    halves = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name, part in whole.items():
        mean = torch.stack([half[name] for half in halves]).mean()
        assert torch.isclose(mean, part, rtol=1e-5) == (name != "relation"), name


@pytest.mark.parametrize(
    ("config", "maps", "teacher_blocks"),
    [
        (only(MASKAGAIN, value_factor=1.0, layers=(1, 2)), (1, 2), 1),
        (only(MASKAGAIN, value_factor=1.0), (2, 3), 2),
        (only(MASKAGAIN, hint_factor=1.0), None, 3),
        (MASKAGAIN, (2, 3), 3),
    ],
    ids=["values of other blocks", "values", "hint", "all"],
)
def test_one_block_gives_its_attention_and_the_teacher_runs_no_further_than_it_must(
    config, maps, teacher_blocks, monkeypatch
):
    method = built(config)
    student, teacher = method.encoder.blocks, method.teacher.model.blocks
    mapped, run, original = [], [], Attention.map

    def noted(self, *given):
        mapped.append(self)
        return original(self, *given)

    monkeypatch.setattr(Attention, "map", noted)
    for block in teacher:
        block.register_forward_hook(lambda block, *_: run.append(block))
    method(CLIP, seed=SEED)
    assert mapped == ([student[maps[0] - 1].attn, teacher[maps[1] - 1].attn] if maps else [])
    assert run == list(teacher[:teacher_blocks])


def test_pixels_are_rebuilt_as_videomae_does():
    method, plain = built(only(MASKAGAIN, hint_factor=1.0, reconstruction_factor=1.0)), built(VIDEOMAE)
    plain.load_state_dict(method.state_dict())
    mask = VIDEOMAE.mask.draw(SEED, GRID)
    torch.testing.assert_close(method(CLIP, mask=mask).parts["reconstruction"], plain(CLIP, mask=mask).loss)


def test_the_outputs_are_compared_before_the_norm_that_a_decoder_brings():
    bare, rebuilding = (
        built(only(MASKAGAIN, hint_factor=1.0, **more)) for more in ({}, {"reconstruction_factor": 1.0})
    )
    names = set(bare.encoder.state_dict())
    assert set(rebuilding.encoder.state_dict()) - names == {"norm.weight", "norm.bias"}
    bare.encoder.load_state_dict({n: t for n, t in rebuilding.encoder.state_dict().items() if n in names})
    bare.teacher.model.load_state_dict(rebuilding.teacher.model.state_dict())
    assert torch.equal(bare(CLIP, seed=SEED).parts["hint"], rebuilding(CLIP, seed=SEED).parts["hint"])


def test_an_encoder_without_a_final_norm_starts_a_classifier_and_a_teacher():
    method = built(MASKAGAIN)
    weights = Weights(method.state_dict(), {"encoder": {}})
    classifier = ClassifierConfig(encoder=ENCODER, classes=5).build()
    start_encoder(classifier.encoder, weights, ENCODER)
    assert torch.equal(classifier.encoder(CLIP).tokens, method.encoder(CLIP).tokens)
    teacher = ENCODER.build()
    start_encoder(teacher, weights, ENCODER)
    assert torch.equal(teacher.look(CLIP, layers=(2,)).layers[2], method.encoder(CLIP).tokens)


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_what_no_term_reaches_is_not_trained(layers, layer_scale):
    encoder = replace(ENCODER, layer_scale=layer_scale)
    method = built(only(replace(MASKAGAIN, encoder=encoder), global_factor=1.0, layers=layers))
    method(CLIP, seed=SEED).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    last = f"encoder.blocks.{0 if layers else 1}.mlp.fc1.weight"
    assert not dict(method.named_parameters())[last].requires_grad


@pytest.mark.parametrize("who", ["encoder", "teacher"])
def test_class_tokens_are_left_out_of_what_is_compared(who):
    with_class = (
        replace(MASKAGAIN, encoder=replace(ENCODER, class_token=True))
        if who == "encoder"
        else replace(MASKAGAIN, teacher=TeacherConfig(model=replace(MASKAGAIN.teacher.model, class_token=True)))
    )
    output = built(with_class)(CLIP, seed=SEED)
    assert output.parts.keys() == {"global", "local", "hint", "relation"}
    assert torch.isfinite(output.loss)


def test_an_image_is_a_clip_of_one_slot():
    flat = {"tubelet": (1, 4, 4), "positions": "sincos2d"}
    teacher = TeacherConfig(model=replace(MASKAGAIN.teacher.model, **flat))
    method = built(replace(MASKAGAIN, encoder=replace(ENCODER, **flat), teacher=teacher))
    parts = method(clips(frames=1), seed=SEED).parts
    assert all(torch.isfinite(part) for part in parts.values())


def test_a_loss_in_bfloat16_stays_near_that_in_single_precision():
    """Keys and tokens at the edge of a selection may change places; the loss is of the same size."""
    method = built(PROJECTED)
    exact = method(CLIP, seed=SEED).parts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = method(CLIP, seed=SEED).parts
    for name, part in parts.items():
        assert part.dtype == torch.float32, name
        torch.testing.assert_close(part, exact[name], rtol=0.05, atol=0.0)


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
        (NONE, r"learns nothing from its teacher: all its factors are 0"),
        (NONE | {"decoder": DECODER}, r"learns nothing from its teacher"),
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
            {"encoder": replace(ENCODER, heads=3), "projections": "always", "attention_factor": 1.0},
            r"student's 3 heads have to be the teacher's 2",
        ),
        ({"teacher": TeacherConfig(model=TEACHER), "value_factor": 1.0}, r"width 24 has to be the teacher's 32"),
        ({"global_keys": 0}, r"global_keys is 0; take 1 or more"),
        ({"telling": 0}, r"telling is 0; take 1 or more"),
        ({"hint_factor": -1.0}, r"hint_factor is -1\.0; take 0 or more"),
        ({"attention_temperature": 0.0}, r"attention_temperature is 0\.0; take 1e-06 or more"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_met_with_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(MASKAGAIN, **changes).build()


def test_a_hint_or_relations_do_not_ask_for_equal_heads():
    config = only(replace(MASKAGAIN, encoder=replace(ENCODER, heads=3)), hint_factor=1.0, relation_factor=1.0)
    assert torch.isfinite(built(config)(CLIP, seed=SEED).loss)
