"""MaskAgain: what its terms compare, and what changes them."""

from dataclasses import replace

import pytest
import torch
from mask_structure import hidden_pixels
from tiny_models import DECODER, ENCODER, GRID, MASKAGAIN, TEACHER, VIDEOMAE, built, clips, only

from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import MaskAgainConfig, MaskAgainQuirks
from vidstill.methods.maskagain_losses import hint_loss, relation_loss, select_salient_tokens, selected_value_loss
from vidstill.models.vit import BASE
from vidstill.utils.types import InputError, gather_tokens

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
    hidden, output = config.hidden, config.output
    assert (hidden.global_top_k, hidden.local_top_k, output.salient_tokens) == (10, 10, 10)
    assert (hidden.temperature, output.student_temperature, output.teacher_temperature) == (1.0, 0.1, 0.05)
    assert output.relation_clips == 64


def test_each_term_compares_the_last_blocks_at_the_visible_tokens():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    attention, output = seen_by(method, mask)
    telling = select_salient_tokens(output[1], 5)
    expected = {
        "global": selected_value_loss(*attention, slots=1, top_k=4),
        "local": selected_value_loss(*attention, slots=GRID.t, top_k=3),
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
    global_ = selected_value_loss(
        *attention, slots=1, top_k=4, projections=(phi["global_student"], phi["global_teacher"])
    )
    torch.testing.assert_close(parts["global"], global_)
    local = selected_value_loss(
        *attention, slots=GRID.t, top_k=3, projections=(phi["local_student"], phi["local_teacher"])
    )
    torch.testing.assert_close(parts["local"], local)


def test_the_slots_are_those_of_the_clip():
    config = only(MASKAGAIN, local=1.0)
    method, clip = built(config), clips(frames=6)
    mask = config.mask.draw(SEED, method.encoder.grid(clip))
    student = method.encoder(clip, mask.visible, attention=(2,)).attention[2]
    teacher = method.teacher(clip, mask.visible, attention=(3,)).attention[3]
    loss = selected_value_loss(student, teacher, slots=3, top_k=3)
    torch.testing.assert_close(method(clip, seed=SEED).loss, loss)


@pytest.mark.parametrize(
    ("weights", "hidden_weight", "decoder"),
    [
        ({"global": 2.0, "local": 0.5}, 3.0, None),
        ({"attention": 2.0, "value": 0.5}, 0.25, None),
        ({"hint": 2.0, "relation": 0.5}, 1.0, DECODER),
    ],
)
def test_weights_weigh_the_parts(weights, hidden_weight, decoder):
    config = replace(only(MASKAGAIN, **weights), decoder=decoder, released=MaskAgainQuirks(hidden_weight=hidden_weight))
    output = built(config)(CLIP, seed=SEED)
    expected = {term: weight * (hidden_weight if term in HIDDEN else 1.0) for term, weight in weights.items()}
    expected |= {"reconstruction": 1.0} if decoder else {}
    assert output.parts.keys() == expected.keys()
    torch.testing.assert_close(output.loss, sum(expected[name] * part for name, part in output.parts.items()))


def change(config: MaskAgainConfig, part: str, **changes) -> MaskAgainConfig:
    """With other fields in `hidden`, `output` or `released`."""
    return replace(config, **{part: replace(getattr(config, part), **changes)})


@pytest.mark.parametrize(
    ("term", "part", "field"),
    [("global", "hidden", "global_top_k"), ("local", "hidden", "local_top_k"), ("hint", "output", "salient_tokens")],
)
def test_no_selection_is_the_selection_of_all(term, part, field):
    config = only(MASKAGAIN, **{term: 1.0})
    losses = [built(change(config, part, **{field: count}))(CLIP, seed=SEED).loss for count in (None, 99, 2)]
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
def test_every_choice_changes_the_loss(term, part, changes):
    config = only(MASKAGAIN, **{term: 1.0})
    other = change(config, part, **changes)
    assert not torch.equal(built(config)(CLIP, seed=SEED).loss, built(other)(CLIP, seed=SEED).loss)


def test_tokens_that_are_left_out_do_not_train_the_projection():
    zeroed, gathered = (
        built(only(replace(PROJECTED, released=MaskAgainQuirks(hint_tokens=tokens)), hint=1.0))(CLIP, seed=SEED).loss
        for tokens in ("zeroed", "gathered")
    )
    assert zeroed > gathered


def test_hidden_pixels_reach_nothing_where_none_are_rebuilt():
    method, mask = built(MASKAGAIN), MASKAGAIN.mask.draw(SEED, GRID)
    poisoned = CLIP.masked_fill(hidden_pixels(mask.visible, GRID, ENCODER.tubelet), float("nan"))
    assert torch.equal(method(poisoned, mask=mask).loss, method(CLIP, mask=mask).loss)


def gradients_of_chunks(method, clip, seed, chunks: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The mean loss over chunks, and its gradients, accumulated chunk by chunk."""
    method.zero_grad()
    losses = []
    for part, part_seed in zip(clip.chunk(chunks), seed.chunk(chunks), strict=True):
        losses.append(method(part, seed=part_seed).loss)
        (losses[-1] / chunks).backward()
    return torch.stack(losses).mean(), [parameter.grad for parameter in method.parameters() if parameter.requires_grad]


def test_loss_and_gradients_do_not_depend_on_how_many_groups_a_device_holds_at_once():
    method, clip, seed = built(change(MASKAGAIN, "output", relation_clips=2)), clips(8), torch.arange(8)
    loss, gradients = gradients_of_chunks(method, clip, seed, 1)
    for chunks in (2, 4):
        chunked_loss, chunked_gradients = gradients_of_chunks(method, clip, seed, chunks)
        torch.testing.assert_close(chunked_loss, loss)
        torch.testing.assert_close(chunked_gradients, gradients, rtol=1e-4, atol=1e-6)
    whole, _ = gradients_of_chunks(built(MASKAGAIN), clip, seed, 1)
    assert not torch.isclose(whole, loss)  # one group of all clips


def test_clips_meet_one_another_in_the_relations_of_their_group_alone():
    method, clip, seed = built(change(MASKAGAIN, "output", relation_clips=4)), clips(4), torch.arange(4)
    whole = method(clip, seed=seed).parts
    halves = [method(clip[k : k + 2], seed=seed[k : k + 2]).parts for k in (0, 2)]
    for name, part in whole.items():
        mean = torch.stack([half[name] for half in halves]).mean()
        assert torch.isclose(mean, part, rtol=1e-5) == (name != "relation"), name


def test_clips_that_do_not_divide_into_groups_are_refused():
    method = built(change(MASKAGAIN, "output", relation_clips=2))
    with pytest.raises(InputError, match=r"3 clips do not divide into groups of 2 .* --device-batch"):
        method(clips(3), seed=torch.arange(3))


def test_pixels_are_rebuilt_as_videomae_does():
    method, plain = built(replace(only(MASKAGAIN, hint=1.0), decoder=DECODER)), built(VIDEOMAE)
    plain.load_state_dict(method.state_dict())
    mask = VIDEOMAE.mask.draw(SEED, GRID)
    torch.testing.assert_close(method(CLIP, mask=mask).parts["reconstruction"], plain(CLIP, mask=mask).loss)


def test_the_outputs_are_compared_before_the_norm_that_a_decoder_brings():
    bare, rebuilding = (built(replace(only(MASKAGAIN, hint=1.0), decoder=decoder)) for decoder in (None, DECODER))
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
