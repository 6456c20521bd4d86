"""MaskAgain: what its terms compare, and what changes them."""

from dataclasses import replace

import pytest
import torch
from mask_structure import hidden_pixels
from tiny_models import ENCODER, GRID, MASKAGAIN, TEACHER, VIDEOMAE, built, clips, only

from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.methods.maskagain_losses import global_loss, hint_loss, local_loss, relation_loss, select_salient_tokens
from vidstill.models.vit import BASE
from vidstill.utils.types import gather_tokens

CLIP = clips()
SEED = torch.tensor([11, 12])
HIDDEN = ("global", "local", "attention", "value")
PROJECTED = replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER))


def seen_by(method, mask):
    """Attention and output of the last blocks: the student's, the teacher's."""
    student, teacher = method.config.encoder.depth, method.config.teacher.model.depth
    ours = method.encoder(CLIP, mask.visible, layers=(student,), attention=(student,))
    theirs = method.teacher.model(CLIP, mask.visible, layers=(teacher,), attention=(teacher,))
    return (ours.attention[student], theirs.attention[teacher]), (ours.layers[student], theirs.layers[teacher])


def test_the_defaults_are_the_papers_for_a_base_student():
    config = MaskAgainConfig()
    assert config.encoder == config.teacher.model == BASE
    assert config.loss_weights == {"global": 3.0, "local": 1.0, "hint": 0.2, "relation": 0.1}
    assert (config.global_top_k, config.local_top_k, config.salient_tokens) == (10, 10, 10)
    assert (config.attention_temperature, config.student_temperature, config.teacher_temperature) == (1.0, 0.1, 0.05)


def test_each_term_compares_the_last_blocks_at_the_visible_tokens():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    attention, output = seen_by(method, mask)
    telling = select_salient_tokens(output[1], 5)
    expected = {
        "global": global_loss(*attention, top_k=4),
        "local": local_loss(*attention, slots=GRID.t, top_k=3),
        "hint": hint_loss(*output, telling),
        "relation": relation_loss(*(gather_tokens(side, telling) for side in output)),
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
    hint = hint_loss(*output, select_salient_tokens(output[1], 5), projection=phi["hint"])
    torch.testing.assert_close(parts["hint"], hint)
    global_ = global_loss(*attention, top_k=4, projections=(phi["global_student"], phi["global_teacher"]))
    torch.testing.assert_close(parts["global"], global_)
    local = local_loss(*attention, slots=GRID.t, top_k=3, projections=(phi["local_student"], phi["local_teacher"]))
    torch.testing.assert_close(parts["local"], local)


def test_the_slots_are_those_of_the_clip():
    config = only(MASKAGAIN, local_weight=1.0)
    method, clip = built(config), clips(frames=6)
    mask = config.mask.draw(SEED, method.encoder.grid(clip))
    student = method.encoder(clip, mask.visible, attention=(2,)).attention[2]
    teacher = method.teacher(clip, mask.visible, attention=(3,)).attention[3]
    loss = local_loss(student, teacher, slots=3, top_k=3)
    torch.testing.assert_close(method(clip, seed=SEED).loss, loss)


@pytest.mark.parametrize(
    "factors",
    [
        {"global_weight": 2.0, "local_weight": 0.5, "hidden_weight": 3.0},
        {"attention_weight": 2.0, "value_weight": 0.5, "hidden_weight": 0.25},
        {"hint_weight": 2.0, "relation_weight": 0.5, "reconstruction_weight": 4.0},
    ],
    ids=str,
)
def test_factors_weigh_the_parts(factors):
    output = built(only(MASKAGAIN, **factors))(CLIP, seed=SEED)
    hidden = factors.pop("hidden_weight", 1.0)
    weights = {
        name.removesuffix("_weight"): factor * (hidden if name.split("_")[0] in HIDDEN else 1.0)
        for name, factor in factors.items()
    }
    assert output.parts.keys() == weights.keys()
    torch.testing.assert_close(output.loss, sum(weights[name] * part for name, part in output.parts.items()))


@pytest.mark.parametrize("term", ["global", "local", "hint"])
def test_no_selection_is_the_selection_of_all(term):
    field = {"global": "global_top_k", "local": "local_top_k", "hint": "salient_tokens"}[term]
    config = only(MASKAGAIN, **{f"{term}_weight": 1.0})
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
        ("local", {"mass": "plain", "local_softmax": "clip"}),
        ("local", {"local_pairs": "aligned"}),
        ("local", {"attention_temperature": 4.0}),
        ("attention", {"attention_loss": "l2"}),
        ("attention", {"attention_temperature": 4.0}),
        ("value", {"layers": (1, 2)}),
        ("attention", {"layers": (1, 2)}),
        ("relation", {"relation_softmax": "pairs"}),
        ("relation", {"student_temperature": 0.2}),
        ("relation", {"teacher_temperature": 0.2}),
        ("relation", {"salient_tokens": 4}),
    ],
    ids=str,
)
def test_every_choice_changes_the_loss(term, change):
    config = only(MASKAGAIN, **{f"{term}_weight": 1.0})
    assert not torch.equal(built(config)(CLIP, seed=SEED).loss, built(replace(config, **change))(CLIP, seed=SEED).loss)


def test_tokens_that_are_left_out_do_not_train_the_projection():
    zeroed, gathered = (
        built(only(PROJECTED, hint_weight=1.0, hint_tokens=tokens))(CLIP, seed=SEED).loss
        for tokens in ("zeroed", "gathered")
    )
    assert zeroed > gathered


def test_hidden_pixels_reach_nothing_where_none_are_rebuilt():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    poisoned = CLIP.masked_fill(hidden_pixels(mask.visible, GRID, ENCODER.tubelet), float("nan"))
    assert torch.equal(method(poisoned, mask=mask).loss, method(CLIP, mask=mask).loss)


def test_clips_meet_one_another_in_the_relations_alone():
    method, clip, seed = built(MASKAGAIN), clips(4), torch.arange(4)
    whole = method(clip, seed=seed).parts
    halves = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name, part in whole.items():
        mean = torch.stack([half[name] for half in halves]).mean()
        assert torch.isclose(mean, part, rtol=1e-5) == (name != "relation"), name


def test_pixels_are_rebuilt_as_videomae_does():
    method, plain = built(only(MASKAGAIN, hint_weight=1.0, reconstruction_weight=1.0)), built(VIDEOMAE)
    plain.load_state_dict(method.state_dict())
    mask = VIDEOMAE.mask.draw(SEED, GRID)
    torch.testing.assert_close(method(CLIP, mask=mask).parts["reconstruction"], plain(CLIP, mask=mask).loss)


def test_the_outputs_are_compared_before_the_norm_that_a_decoder_brings():
    bare, rebuilding = (
        built(only(MASKAGAIN, hint_weight=1.0, **more)) for more in ({}, {"reconstruction_weight": 1.0})
    )
    names = set(bare.encoder.state_dict())
    assert set(rebuilding.encoder.state_dict()) - names == {"norm.weight", "norm.bias"}
    bare.encoder.load_state_dict({n: t for n, t in rebuilding.encoder.state_dict().items() if n in names})
    bare.teacher.model.load_state_dict(rebuilding.teacher.model.state_dict())
    assert torch.equal(bare(CLIP, seed=SEED).parts["hint"], rebuilding(CLIP, seed=SEED).parts["hint"])


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
