"""Telling tokens and what is compared of them: MaskAgain's equations 10 to 17."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidstill.methods.maskagain_losses import (
    compute_log_relations,
    hint_loss,
    relation_loss,
    select_salient_tokens,
    zero_other_tokens,
)
from vidstill.utils.types import gather_tokens

B, V, D, D_TEACHER = 3, 7, 4, 6
seeds = st.integers(0, 1000)


def features(seed: int, width: int = D, tokens: int = V) -> torch.Tensor:
    return torch.randn(B, tokens, width, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.integers(1, V))
def test_the_most_telling_tokens_have_the_largest_sums(seed, count):
    teacher = features(seed)
    telling = select_salient_tokens(teacher, count)
    for clip, chosen in zip(teacher.tolist(), telling.tolist(), strict=True):
        sums = [sum(abs(number) for number in token) for token in clip]
        assert sorted(chosen) == sorted(sorted(range(V), key=lambda token: -sums[token])[:count])


@pytest.mark.parametrize("count", [None, V, V + 1])
def test_all_tokens_are_telling_where_no_fewer_are_asked_for(count):
    assert torch.equal(select_salient_tokens(features(0), count).sort(dim=1).values, torch.arange(V).expand(B, -1))


@pytest.mark.parametrize("tokens", ["zeroed", "gathered"])
@pytest.mark.parametrize("count", [1, 3, None])
def test_without_a_mapping_the_hint_is_the_mean_over_telling_tokens_and_channels(tokens, count):
    student, teacher = features(0), features(1)
    telling = select_salient_tokens(teacher, count)
    loss = hint_loss(student, teacher, telling, tokens=tokens)
    torch.testing.assert_close(loss, F.mse_loss(gather_tokens(student, telling), gather_tokens(teacher, telling)))


@given(seeds, st.integers(1, V))
def test_zeroed_tokens_add_what_the_mapping_makes_of_zero(seed, count):
    torch.manual_seed(seed)
    mapped = nn.Sequential(nn.Linear(D, 2 * D), nn.ReLU(), nn.Linear(2 * D, D_TEACHER))
    student, teacher = features(seed), features(seed + 1, D_TEACHER)
    telling = select_salient_tokens(teacher, count)
    zeroed, gathered = (
        hint_loss(student, teacher, telling, tokens=tokens, projection=mapped) for tokens in ("zeroed", "gathered")
    )
    of_zero = mapped(torch.zeros(D)).square().mean()
    torch.testing.assert_close(zeroed, gathered + (V - count) / count * of_zero)


def test_zeroed_tokens_keep_their_places():
    tokens = features(0)
    telling = torch.tensor([[5, 0], [1, 2], [6, 3]])
    zeroed = zero_other_tokens(tokens, telling)
    assert torch.equal(gather_tokens(zeroed, telling), gather_tokens(tokens, telling))
    assert zeroed.count_nonzero() == B * 2 * D


def by_the_book(tokens: torch.Tensor, temperature: float, *, pairs: bool) -> list[list[float]]:
    """P of equations 15 and 16; or with a softmax for each row."""
    rows = tokens.double().flatten(0, 1).tolist()

    def likeness(i: int, j: int) -> float:
        if i == j:
            return -1000.0
        product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return product / math.hypot(*rows[i]) / math.hypot(*rows[j])

    powers = [[math.exp(likeness(i, j) / temperature) for j in range(len(rows))] for i in range(len(rows))]
    every = sum(map(sum, powers))
    return [[power / (every if pairs else sum(row)) for power in row] for row in powers]


@pytest.mark.parametrize("shares", ["rows", "pairs"])
def test_the_relation_loss_is_that_of_the_equations(shares):
    student, teacher = features(0), features(1, D_TEACHER)
    ours = by_the_book(student, 0.1, pairs=shares == "pairs")
    theirs = by_the_book(teacher, 0.05, pairs=shares == "pairs")
    divergence = sum(
        p * math.log(p / q)
        for row, other in zip(theirs, ours, strict=True)
        for p, q in zip(row, other, strict=True)
        if p > 0
    )
    expected = divergence / len(ours) if shares == "rows" else divergence
    loss = relation_loss(student, teacher, softmax=shares)
    assert loss.item() == pytest.approx(expected, rel=1e-4)  # cosines are rounded, then divided by 0.05


@given(seeds, st.sampled_from(["rows", "pairs"]), st.floats(0.1, 10))
def test_relations_are_of_directions_alone(seed, shares, scale):
    student, teacher = features(seed), features(seed + 1, D_TEACHER)
    turned = student @ torch.linalg.qr(features(seed + 2)[0, :D]).Q
    scaled = turned * (scale * torch.rand(B, V, 1, generator=torch.Generator().manual_seed(seed)) + 0.1)
    expected = relation_loss(student, teacher, softmax=shares)
    torch.testing.assert_close(
        relation_loss(scaled, teacher, softmax=shares), expected, rtol=1e-3, atol=1e-4
    )  # as they are


@given(seeds, st.sampled_from(["rows", "pairs"]), st.permutations(range(V)))
def test_the_order_of_the_tokens_does_not_matter(seed, shares, order):
    student, teacher = features(seed), features(seed + 1, D_TEACHER)
    moved = relation_loss(student[:, order], teacher[:, order], softmax=shares)
    torch.testing.assert_close(moved, relation_loss(student, teacher, softmax=shares), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shares", ["rows", "pairs"])
def test_the_same_relations_are_no_loss_and_others_are_one(shares):
    tokens = features(0)
    same = relation_loss(3 * tokens, tokens, student_temperature=0.1, teacher_temperature=0.1, softmax=shares)
    assert same.item() == pytest.approx(0, abs=1e-5)
    assert relation_loss(features(1), tokens, softmax=shares) > 0.01


@pytest.mark.parametrize("shares", ["rows", "pairs"])
def test_a_token_has_no_relation_to_itself_and_all_others_have_shares(shares):
    shown = compute_log_relations(features(0), 0.1, shares).exp()
    assert (shown.diagonal() == 0).all()
    sums = shown.sum(dim=1) if shares == "rows" else shown.sum()
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_relations_are_computed_in_single_precision_whatever_the_run_s_is():
    student, teacher = features(0), features(1)
    exact = relation_loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_loss(student, teacher), exact)


def test_a_single_token_has_no_relations_to_be_wrong():
    student, teacher = features(0, tokens=1)[:1], features(1, tokens=1)[:1]
    assert relation_loss(student.requires_grad_(), teacher).item() == 0
