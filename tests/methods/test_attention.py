"""What attention selects, and what is compared of it: MaskAgain's equations 1 to 8, and the rows of its table 4."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vidstill.methods.maskagain_losses import (
    attend_selected_keys,
    attention_loss,
    drop_class_token,
    select_top_k,
    selected_value_loss,
    split_by_slot,
    value_loss,
)
from vidstill.models.layers import AttentionMap

B, HEADS, SLOTS, PLACES, D = 2, 3, 4, 5, 6
V = SLOTS * PLACES
seeds = st.integers(0, 1000)


def attention(seed: int, *, tokens: int = V) -> AttentionMap:
    chance = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(B, HEADS, tokens, tokens, generator=chance)
    return AttentionMap(logits, torch.randn(B, HEADS, tokens, D, generator=chance))


def waves(logit: tuple[float, float], value: tuple[float, float]) -> AttentionMap:
    """Arrays 3 · sin(a n + b) and sin(a n + b), n the running number of an entry."""

    def wave(shape: tuple[int, ...], a: float, b: float) -> torch.Tensor:
        return (a * torch.arange(math.prod(shape), dtype=torch.float64) + b).sin().view(shape).float()

    return AttentionMap(3 * wave((2, 3, 16, 16), *logit), wave((2, 3, 16, 4), *value))


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ({"slots": 1, "top_k": 4}, 0.49291265),
        ({"slots": 1, "top_k": 4, "temperature": 4.0}, 0.42921481),
        ({"slots": 1, "top_k": 16}, 0.20505732),
        ({"slots": 8, "top_k": 2}, 0.81840557),
        ({"slots": 8, "top_k": 2, "value_order": "aligned"}, 0.63465202),
        ({"slots": 8, "top_k": 1}, 1.02436149),
    ],
    ids=str,
)
def test_losses_of_waves_are_those_of_the_authors_code(options, printed):
    student, teacher = waves((0.7, 0.0), (0.37, 0.0)), waves((1.3, 0.5), (0.91, 0.2))
    loss = selected_value_loss(student, teacher, **options)
    assert loss.item() == pytest.approx(printed, rel=1e-6)  # eight digits are printed, float32 has seven


def by_the_book(side: AttentionMap, chosen: AttentionMap, k: int, *, renormalised: bool) -> torch.Tensor:
    """Equations 2 and 3, query by query."""
    taken = torch.zeros_like(side.values)
    for b, head, query in torch.cartesian_prod(*map(torch.arange, side.logits.shape[:3])).tolist():
        shares = side.logits[b, head, query].softmax(dim=0)
        kept = chosen.logits[b, head, query].topk(k).indices
        taken[b, head, query] = sum(shares[key] * side.values[b, head, key] for key in kept.tolist())
        if renormalised:
            taken[b, head, query] /= shares[kept].sum()
    return taken


@pytest.mark.parametrize("mass", ["renormalized", "unchanged"])
@pytest.mark.parametrize("selection", ["own", "teacher"])
def test_the_global_loss_is_that_of_the_equations(mass, selection):
    student, teacher = attention(0, tokens=7), attention(1, tokens=7)
    ours = by_the_book(student, teacher if selection == "teacher" else student, 3, renormalised=mass == "renormalized")
    theirs = by_the_book(teacher, teacher, 3, renormalised=mass == "renormalized")
    loss = selected_value_loss(
        student, teacher, slots=1, top_k=3, key_selection=selection, attention_normalization=mass
    )
    torch.testing.assert_close(loss, F.mse_loss(ours, theirs))


@pytest.mark.parametrize("keys", [None, V, V + 1])
@pytest.mark.parametrize("mass", ["renormalized", "unchanged"])
@pytest.mark.parametrize("selection", ["own", "teacher"])
def test_all_keys_are_weighted_value_transfer(keys, mass, selection):
    student, teacher = attention(0), attention(1)
    ours, theirs = ((side.logits / 0.5).softmax(dim=-1) @ side.values for side in (student, teacher))
    loss = selected_value_loss(
        student, teacher, slots=1, top_k=keys, attention_normalization=mass, key_selection=selection, temperature=0.5
    )
    torch.testing.assert_close(loss, F.mse_loss(ours, theirs))


@given(seeds, st.integers(1, PLACES))
def test_of_each_row_the_largest_are_chosen(seed, k):
    logits = split_by_slot(attention(seed).logits, SLOTS)
    chosen = select_top_k(logits, k)
    assert (chosen.sum(dim=-1) == k).all()
    assert (logits.masked_fill(~chosen, math.inf).amin(-1) >= logits.masked_fill(chosen, -math.inf).amax(-1)).all()


def test_whatever_equals_the_last_one_chosen_is_chosen_too():
    logits = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0]).expand(1, 1, 2, 1, -1)
    assert select_top_k(logits, 2)[0, 0, 0, 0].tolist() == [True, True, True, True, False]


@given(seeds, st.integers(1, V))
def test_a_single_slot_is_the_whole_clip_however_values_are_paired(seed, k):
    student, teacher = attention(seed), attention(seed + 1)
    whole = selected_value_loss(student, teacher, slots=1, top_k=k)
    for pairs in ("released", "aligned"):
        assert torch.equal(selected_value_loss(student, teacher, slots=1, top_k=k, value_order=pairs), whole)


def reordered(side: AttentionMap, keys: torch.Tensor) -> AttentionMap:
    return AttentionMap(side.logits[..., keys], side.values[:, :, keys])


@given(seeds, st.data(), st.integers(1, PLACES), st.sampled_from(["own", "teacher"]))
def test_the_order_of_the_keys_in_a_slot_does_not_matter_where_values_are_aligned(seed, data, k, selection):
    order = torch.tensor(
        [slot * PLACES + place for slot in range(SLOTS) for place in data.draw(st.permutations(range(PLACES)))]
    )
    student, teacher = attention(seed), attention(seed + 1)
    losses = [
        selected_value_loss(one, other, slots=SLOTS, top_k=k, value_order="aligned", key_selection=selection)
        for one, other in ((student, teacher), (reordered(student, order), reordered(teacher, order)))
    ]
    torch.testing.assert_close(losses[1], losses[0])


@pytest.mark.parametrize("pairs", ["released", "aligned"])
def test_values_meet_the_attention_of_their_own_tokens_or_as_released_of_others(pairs):
    side = attention(0)
    logits = split_by_slot(side.logits, SLOTS)
    taken = attend_selected_keys(logits, select_top_k(logits, None), side.values, value_order=pairs)
    slot, query = 2, 7
    expected = torch.zeros(B, HEADS, D)
    shares = side.logits[:, :, query, slot * PLACES : (slot + 1) * PLACES].softmax(dim=-1)
    for place in range(PLACES):
        key = slot * PLACES + place if pairs == "aligned" else place * SLOTS + slot
        expected += shares[:, :, place, None] * side.values[:, :, key]
    torch.testing.assert_close(taken[:, query, slot], expected.flatten(1))


@given(seeds, st.integers(1, PLACES))
def test_where_what_is_kept_is_renormalised_it_does_not_matter_what_it_was_a_share_of(seed, k):
    side = attention(seed)
    logits = split_by_slot(side.logits, SLOTS)
    chosen = select_top_k(logits, k)
    in_slot = side.logits.view(B, HEADS, V, SLOTS, PLACES).softmax(dim=-1) * chosen
    in_clip = side.logits.softmax(dim=-1).view(B, HEADS, V, SLOTS, PLACES) * chosen
    values = side.values.view(B, HEADS, SLOTS, PLACES, D)
    for shares in (in_slot, in_clip):
        kept = shares / shares.sum(dim=-1, keepdim=True)
        expected = (kept[..., None] * values[:, :, None]).sum(dim=-2)
        taken = attend_selected_keys(logits, chosen, side.values, value_order="aligned").unflatten(-1, (HEADS, D))
        torch.testing.assert_close(taken, expected.permute(0, 2, 3, 1, 4))


@given(seeds)
def test_over_the_slots_the_plain_shares_of_the_clip_add_up_to_the_attended_values(seed):
    side = attention(seed)
    logits = split_by_slot(side.logits, SLOTS)
    taken = attend_selected_keys(
        logits,
        select_top_k(logits, None),
        side.values,
        attention_normalization="unchanged",
        local_softmax="clip",
        value_order="aligned",
    )
    expected = side.logits.softmax(dim=-1) @ side.values
    torch.testing.assert_close(taken.sum(dim=2).unflatten(-1, (HEADS, D)), expected.transpose(1, 2))


def test_a_plain_share_of_a_slot_is_as_many_times_larger_as_its_slot_has_less_of_the_clip():
    side = attention(0)
    logits = split_by_slot(side.logits, SLOTS)
    chosen = select_top_k(logits, 2)
    slot, clip = (
        attend_selected_keys(logits, chosen, side.values, attention_normalization="unchanged", local_softmax=shares)
        for shares in ("slot", "clip")
    )
    of_slot = side.logits.softmax(dim=-1).view(B, HEADS, V, SLOTS, PLACES).sum(dim=-1)
    expected = clip.unflatten(-1, (HEADS, D)) / of_slot.permute(0, 2, 3, 1)[..., None]
    torch.testing.assert_close(slot.unflatten(-1, (HEADS, D)), expected)


def test_a_student_that_gives_nothing_to_the_teachers_keys_still_has_a_loss_and_a_gradient():
    teacher = attention(1)
    logits = torch.where(select_top_k(split_by_slot(teacher.logits, 1), 3).squeeze(3), -500.0, 500.0).requires_grad_()
    loss = selected_value_loss(
        AttentionMap(logits, attention(0).values), teacher, slots=1, top_k=3, key_selection="teacher"
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_mapping_is_given_joined_heads():
    student, teacher = attention(0), attention(1)
    matrix = torch.randn(HEADS * D, 7, generator=torch.Generator().manual_seed(2))
    ours, theirs = (
        (side.logits.softmax(dim=-1) @ side.values).transpose(1, 2).flatten(2) for side in (student, teacher)
    )
    loss = selected_value_loss(
        student, teacher, slots=1, top_k=None, projections=(lambda z: z @ matrix, lambda z: 2 * z @ matrix)
    )
    torch.testing.assert_close(loss, F.mse_loss(ours @ matrix, 2 * theirs @ matrix))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_attention_transfer_is_a_mean_over_heads_and_queries(temperature):
    student, teacher = attention(0), attention(1)
    ours, theirs = ((side.logits / temperature).softmax(dim=-1) for side in (student, teacher))
    rows = (theirs * (theirs / ours).log()).sum(dim=-1)
    torch.testing.assert_close(attention_loss(student, teacher, temperature=temperature), rows.mean())
    squares = attention_loss(student, teacher, loss="l2", temperature=temperature)
    torch.testing.assert_close(squares, (ours - theirs).square().mean())


@given(seeds, st.sampled_from(["kl", "l2"]))
def test_the_same_attention_is_no_loss_however_large_its_logits_are(seed, kind):
    side = attention(seed)
    assert attention_loss(side, AttentionMap(side.logits + 30, side.values), loss=kind).item() == pytest.approx(
        0, abs=1e-6
    )
    assert attention_loss(side, attention(seed + 1), loss=kind) > 0


def test_value_transfer_is_the_mean_squared_difference():
    student, teacher = attention(0), attention(1)
    torch.testing.assert_close(value_loss(student, teacher), F.mse_loss(student.values, teacher.values))


def test_a_class_token_neither_attends_nor_is_attended_to():
    side = attention(0)
    left = drop_class_token(side, V - 1)
    assert torch.equal(left.logits, side.logits[:, :, 1:, 1:])
    assert torch.equal(left.values, side.values[:, :, 1:])
    assert torch.equal(drop_class_token(side, V).logits, side.logits)


def test_attention_is_normalised_in_single_precision():
    side = AttentionMap(*(tensor.bfloat16() for tensor in attention(0)))
    assert drop_class_token(side, V).logits.dtype == torch.float32
