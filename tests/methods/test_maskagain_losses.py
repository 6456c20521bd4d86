"""MaskAgain's losses against its equations: what attention and activations select, and what is compared of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidstill.methods.maskagain_losses import (
    MaskAgainQuirks,
    attend_selected_keys,
    attention_loss,
    compute_log_relations,
    drop_class_token,
    hint_loss,
    relation_loss,
    select_salient_tokens,
    select_top_k,
    selected_value_loss,
    split_by_slot,
    value_loss,
    zero_other_tokens,
)
from vidstill.models.attention import AttentionMap
from vidstill.utils.types import gather_tokens

B, HEADS, SLOTS, PATCHES, D = 2, 3, 4, 5, 6
V = SLOTS * PATCHES
seeds = st.integers(0, 1000)
UNCHANGED = MaskAgainQuirks(attention_normalization="unchanged")
ALIGNED = MaskAgainQuirks(value_order="aligned")
GATHERED = MaskAgainQuirks(hint_tokens="gathered")


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_attention(seed: int, *, tokens: int = V) -> AttentionMap:
    numbers = randn(seed, B, HEADS, tokens, tokens + D)
    return AttentionMap(2 * numbers[..., :tokens], numbers[..., tokens:])


def build_waves(logit: tuple[float, float], value: tuple[float, float]) -> AttentionMap:
    """Return 3 · sin(a n + b) and sin(a n + b), n the running number of an entry."""

    def compute_wave(shape: tuple[int, ...], a: float, b: float) -> torch.Tensor:
        return (a * torch.arange(math.prod(shape), dtype=torch.float64) + b).sin().view(shape).float()

    return AttentionMap(3 * compute_wave((2, 3, 16, 16), *logit), compute_wave((2, 3, 16, 4), *value))


# ---- Hidden level ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ({"slots": 1, "top_k": 4}, 0.49291265),
        ({"slots": 1, "top_k": 4, "temperature": 4.0}, 0.42921481),
        ({"slots": 1, "top_k": 16}, 0.20505732),
        ({"slots": 8, "top_k": 2}, 0.81840557),
        ({"slots": 8, "top_k": 2, "quirks": ALIGNED}, 0.63465202),
        ({"slots": 8, "top_k": 1}, 1.02436149),
    ],
    ids=str,
)
def test_losses_of_waves_are_those_of_the_authors_code(options, printed):
    student, teacher = build_waves((0.7, 0.0), (0.37, 0.0)), build_waves((1.3, 0.5), (0.91, 0.2))
    loss = selected_value_loss(student, teacher, **options)
    assert loss.item() == pytest.approx(printed, rel=1e-6)  # eight digits are printed, float32 has seven


def attend_by_query(side: AttentionMap, selecting: AttentionMap, k: int, *, renormalized: bool) -> torch.Tensor:
    """Compute equations 2 and 3, query by query."""
    output = torch.zeros_like(side.values)
    for b, head, query in torch.cartesian_prod(*map(torch.arange, side.logits.shape[:3])).tolist():
        attention = side.logits[b, head, query].softmax(dim=0)
        keys = selecting.logits[b, head, query].topk(k).indices
        output[b, head, query] = sum(attention[key] * side.values[b, head, key] for key in keys.tolist())
        if renormalized:
            output[b, head, query] /= attention[keys].sum()
    return output


@pytest.mark.parametrize("normalization", ["renormalized", "unchanged"])
@pytest.mark.parametrize("key_selection", ["own", "teacher"])
def test_the_global_loss_is_that_of_the_equations(normalization, key_selection):
    quirks, renormalized = MaskAgainQuirks(attention_normalization=normalization), normalization == "renormalized"
    student, teacher = draw_attention(0, tokens=7), draw_attention(1, tokens=7)
    selecting = teacher if key_selection == "teacher" else student
    prediction = attend_by_query(student, selecting, 3, renormalized=renormalized)
    target = attend_by_query(teacher, teacher, 3, renormalized=renormalized)
    loss = selected_value_loss(student, teacher, slots=1, top_k=3, key_selection=key_selection, quirks=quirks)
    torch.testing.assert_close(loss, F.mse_loss(prediction, target))
    values = [(side.logits / 0.5).softmax(dim=-1) @ side.values for side in (student, teacher)]
    for top_k in (None, 7, 8):  # all keys: weighted value transfer
        loss = selected_value_loss(
            student, teacher, slots=1, top_k=top_k, key_selection=key_selection, temperature=0.5, quirks=quirks
        )
        torch.testing.assert_close(loss, F.mse_loss(*values))


@given(seeds, st.integers(1, PATCHES))
def test_the_largest_of_each_row_are_selected(seed, k):
    logits = split_by_slot(draw_attention(seed).logits, SLOTS)
    key_mask = select_top_k(logits, k)
    assert (key_mask.sum(dim=-1) == k).all()
    assert (logits.masked_fill(~key_mask, math.inf).amin(-1) >= logits.masked_fill(key_mask, -math.inf).amax(-1)).all()


def test_all_keys_equal_to_the_last_selected_one_are_selected():
    logits = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0]).expand(1, 1, 2, 1, -1)
    assert select_top_k(logits, 2)[0, 0, 0, 0].tolist() == [True, True, True, True, False]


@given(seeds, st.integers(1, V))
def test_with_a_single_slot_the_value_order_makes_no_difference(seed, k):
    student, teacher = draw_attention(seed), draw_attention(seed + 1)
    released = selected_value_loss(student, teacher, slots=1, top_k=k)
    assert torch.equal(released, selected_value_loss(student, teacher, slots=1, top_k=k, quirks=ALIGNED))


@given(seeds, st.data(), st.integers(1, PATCHES), st.sampled_from(["own", "teacher"]))
def test_the_order_of_the_keys_in_a_slot_makes_no_difference_to_aligned_values(seed, data, k, key_selection):
    permutations = [data.draw(st.permutations(range(PATCHES))) for _ in range(SLOTS)]
    order = torch.tensor([slot * PATCHES + patch for slot, patches in enumerate(permutations) for patch in patches])
    sides = [draw_attention(seed), draw_attention(seed + 1)]
    moved = [AttentionMap(side.logits[..., order], side.values[:, :, order]) for side in sides]
    options = {"slots": SLOTS, "top_k": k, "key_selection": key_selection, "quirks": ALIGNED}
    losses = [selected_value_loss(*pair, **options) for pair in (sides, moved)]
    torch.testing.assert_close(losses[1], losses[0])


@pytest.mark.parametrize("order", ["released", "aligned"])
def test_attention_weighs_the_values_of_its_own_tokens_or_as_released_of_others(order):
    side = draw_attention(0)
    logits = split_by_slot(side.logits, SLOTS)
    output = attend_selected_keys(logits, select_top_k(logits, None), side.values, MaskAgainQuirks(value_order=order))
    slot, query = 2, 7
    expected = torch.zeros(B, HEADS, D)
    attention = side.logits[:, :, query, slot * PATCHES : (slot + 1) * PATCHES].softmax(dim=-1)
    for patch in range(PATCHES):
        key = slot * PATCHES + patch if order == "aligned" else patch * SLOTS + slot
        expected += attention[:, :, patch, None] * side.values[:, :, key]
    torch.testing.assert_close(output[:, query, slot], expected.flatten(1))


@given(seeds, st.integers(1, PATCHES))
def test_renormalized_attention_does_not_depend_on_the_softmax_before(seed, k):
    side = draw_attention(seed)
    logits = split_by_slot(side.logits, SLOTS)
    key_mask = select_top_k(logits, k)
    in_slot = logits.softmax(dim=-1) * key_mask
    in_clip = split_by_slot(side.logits.softmax(dim=-1), SLOTS) * key_mask
    values = side.values.view(B, HEADS, SLOTS, PATCHES, D)
    output = attend_selected_keys(logits, key_mask, side.values, ALIGNED).unflatten(-1, (HEADS, D))
    for attention in (in_slot, in_clip):
        renormalized = attention / attention.sum(dim=-1, keepdim=True)
        expected = (renormalized[..., None] * values[:, :, None]).sum(dim=-2)
        torch.testing.assert_close(output, expected.permute(0, 2, 3, 1, 4))


@given(seeds)
def test_outputs_of_unchanged_attention_over_the_clip_add_up_to_the_attended_values(seed):
    side = draw_attention(seed)
    logits = split_by_slot(side.logits, SLOTS)
    quirks = MaskAgainQuirks(attention_normalization="unchanged", local_softmax="clip", value_order="aligned")
    output = attend_selected_keys(logits, select_top_k(logits, None), side.values, quirks)
    expected = side.logits.softmax(dim=-1) @ side.values
    torch.testing.assert_close(output.sum(dim=2).unflatten(-1, (HEADS, D)), expected.transpose(1, 2))


def test_unchanged_attention_over_a_slot_is_that_over_the_clip_divided_by_the_slots_share():
    side = draw_attention(0)
    logits = split_by_slot(side.logits, SLOTS)
    over_clip = MaskAgainQuirks(attention_normalization="unchanged", local_softmax="clip")
    slot, clip = (
        attend_selected_keys(logits, select_top_k(logits, 2), side.values, quirks) for quirks in (UNCHANGED, over_clip)
    )
    share = split_by_slot(side.logits.softmax(dim=-1), SLOTS).sum(dim=-1)
    expected = clip.unflatten(-1, (HEADS, D)) / share.permute(0, 2, 3, 1)[..., None]
    torch.testing.assert_close(slot.unflatten(-1, (HEADS, D)), expected)


def test_a_student_without_attention_to_the_teachers_keys_has_a_finite_loss_and_gradient():
    teacher = draw_attention(1)
    logits = torch.where(select_top_k(split_by_slot(teacher.logits, 1), 3).squeeze(3), -500.0, 500.0).requires_grad_()
    student = AttentionMap(logits, draw_attention(0).values)
    loss = selected_value_loss(student, teacher, slots=1, top_k=3, key_selection="teacher")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_projections_take_joined_heads():
    student, teacher = draw_attention(0), draw_attention(1)
    matrix = randn(2, HEADS * D, 7)
    prediction, target = (
        (side.logits.softmax(dim=-1) @ side.values).transpose(1, 2).flatten(2) for side in (student, teacher)
    )
    projections = lambda z: z @ matrix, lambda z: 2 * z @ matrix
    loss = selected_value_loss(student, teacher, slots=1, top_k=None, projections=projections)
    torch.testing.assert_close(loss, F.mse_loss(prediction @ matrix, 2 * target @ matrix))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_attention_and_value_transfer_are_means_over_heads_and_queries(temperature):
    sides = student, teacher = draw_attention(0), draw_attention(1)
    prediction, target = ((side.logits / temperature).softmax(dim=-1) for side in sides)
    rows = (target * (target / prediction).log()).sum(dim=-1)
    torch.testing.assert_close(attention_loss(*sides, temperature=temperature), rows.mean())
    squares = attention_loss(*sides, loss="l2", temperature=temperature)
    torch.testing.assert_close(squares, (prediction - target).square().mean())
    torch.testing.assert_close(value_loss(*sides), F.mse_loss(student.values, teacher.values))


@given(seeds, st.sampled_from(["kl", "l2"]))
def test_equal_attention_has_no_loss_and_other_attention_has_one(seed, kind):
    side = draw_attention(seed)
    shifted = AttentionMap(side.logits + 30, side.values)
    assert attention_loss(side, shifted, loss=kind).item() == pytest.approx(0, abs=1e-6)
    assert attention_loss(side, draw_attention(seed + 1), loss=kind) > 0


def test_the_class_token_is_dropped_and_attention_is_in_single_precision():
    side = draw_attention(0)
    without = drop_class_token(side, V - 1)
    assert torch.equal(without.logits, side.logits[:, :, 1:, 1:])
    assert torch.equal(without.values, side.values[:, :, 1:])
    assert torch.equal(drop_class_token(side, V).logits, side.logits)
    low = AttentionMap(*(tensor.bfloat16() for tensor in side))
    assert drop_class_token(low, V).logits.dtype == torch.float32


# ---- Output level ---------------------------------------------------------------------------------------------------

N, DIM, TEACHER_DIM = 7, 4, 6
every_softmax = pytest.mark.parametrize("softmax", ["rows", "pairs"])


def draw_features(seed: int, dim: int = DIM, tokens: int = N) -> torch.Tensor:
    return randn(seed, 3, tokens, dim)


@given(seeds, st.integers(1, N))
def test_salient_tokens_have_the_largest_sums(seed, count):
    teacher = draw_features(seed)
    for clip, salient in zip(teacher.tolist(), select_salient_tokens(teacher, count).tolist(), strict=True):
        sums = [sum(abs(number) for number in token) for token in clip]
        assert sorted(salient) == sorted(sorted(range(N), key=lambda token: -sums[token])[:count])


@pytest.mark.parametrize("count", [None, N, N + 1])
def test_all_tokens_are_salient_if_no_fewer_are_requested(count):
    salient = select_salient_tokens(draw_features(0), count).sort(dim=1).values
    assert torch.equal(salient, torch.arange(N).expand(3, -1))


@pytest.mark.parametrize("tokens", ["zeroed", "gathered"])
@pytest.mark.parametrize("count", [1, 3, None])
def test_without_a_projection_the_hint_is_the_mean_over_salient_tokens_and_channels(tokens, count):
    student, teacher = draw_features(0), draw_features(1)
    salient = select_salient_tokens(teacher, count)
    loss = hint_loss(student, teacher, salient, quirks=MaskAgainQuirks(hint_tokens=tokens))
    torch.testing.assert_close(loss, F.mse_loss(gather_tokens(student, salient), gather_tokens(teacher, salient)))


@given(seeds, st.integers(1, N))
def test_zeroed_tokens_add_the_projection_of_zero(seed, count):
    torch.manual_seed(seed)
    projection = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, TEACHER_DIM))
    student, teacher = draw_features(seed), draw_features(seed + 1, TEACHER_DIM)
    salient = select_salient_tokens(teacher, count)
    zeroed = hint_loss(student, teacher, salient, projection=projection)
    gathered = hint_loss(student, teacher, salient, quirks=GATHERED, projection=projection)
    of_zero = projection(torch.zeros(DIM)).square().mean()
    torch.testing.assert_close(zeroed, gathered + (N - count) / count * of_zero)


def test_salient_tokens_stay_where_they_are():
    tokens, salient = draw_features(0), torch.tensor([[5, 0], [1, 2], [6, 3]])
    zeroed = zero_other_tokens(tokens, salient)
    assert torch.equal(gather_tokens(zeroed, salient), gather_tokens(tokens, salient))
    assert zeroed.count_nonzero() == 3 * 2 * DIM


def compute_relations(tokens: torch.Tensor, temperature: float, softmax: str) -> list[list[float]]:
    """Compute P of equations 15 and 16, number by number."""
    rows = tokens.double().flatten(0, 1).tolist()

    def compute_similarity(i: int, j: int) -> float:
        if i == j:
            return -1000.0
        product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return product / math.hypot(*rows[i]) / math.hypot(*rows[j])

    powers = [[math.exp(compute_similarity(i, j) / temperature) for j in range(len(rows))] for i in range(len(rows))]
    total = sum(map(sum, powers))
    return [[power / (total if softmax == "pairs" else sum(row)) for power in row] for row in powers]


@every_softmax
def test_the_relation_loss_is_that_of_the_equations(softmax):
    student, teacher = draw_features(0), draw_features(1, TEACHER_DIM)
    prediction, target = compute_relations(student, 0.1, softmax), compute_relations(teacher, 0.05, softmax)
    pairs = [pair for rows in zip(target, prediction, strict=True) for pair in zip(*rows, strict=True)]
    divergence = sum(p * math.log(p / q) for p, q in pairs if p > 0)
    expected = divergence / len(prediction) if softmax == "rows" else divergence
    loss = relation_loss(student, teacher, softmax=softmax)
    assert loss.item() == pytest.approx(expected, rel=1e-4)  # cosines are rounded, then divided by 0.05


@given(seeds, st.sampled_from(["rows", "pairs"]), st.floats(0.1, 10), st.permutations(range(N)))
def test_relations_are_of_directions_alone_and_the_order_of_the_tokens_makes_no_difference(seed, softmax, scale, order):
    student, teacher = draw_features(seed), draw_features(seed + 1, TEACHER_DIM)
    expected = relation_loss(student, teacher, softmax=softmax)
    rotated = student @ torch.linalg.qr(draw_features(seed + 2)[0, :DIM]).Q
    scaled = rotated * (scale * torch.rand(3, N, 1, generator=torch.Generator().manual_seed(seed)) + 0.1)
    torch.testing.assert_close(relation_loss(scaled, teacher, softmax=softmax), expected, rtol=1e-3, atol=1e-4)
    moved = relation_loss(student[:, order], teacher[:, order], softmax=softmax)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


@every_softmax
def test_equal_relations_have_no_loss_and_others_have_one(softmax):
    tokens = draw_features(0)
    same = relation_loss(3 * tokens, tokens, student_temperature=0.1, teacher_temperature=0.1, softmax=softmax)
    assert same.item() == pytest.approx(0, abs=1e-5)
    assert relation_loss(draw_features(1), tokens, softmax=softmax) > 0.01


@every_softmax
def test_a_token_has_no_relation_to_itself_and_the_others_sum_to_1(softmax):
    relations = compute_log_relations(draw_features(0), 0.1, softmax).exp()
    assert (relations.diagonal() == 0).all()
    sums = relations.sum(dim=1) if softmax == "rows" else relations.sum()
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_relations_are_computed_in_single_precision_under_autocast():
    student, teacher = draw_features(0), draw_features(1)
    exact = relation_loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_loss(student, teacher), exact)


def test_a_single_token_has_no_relations():
    student, teacher = draw_features(0, tokens=1)[:1], draw_features(1, tokens=1)[:1]
    assert relation_loss(student.requires_grad_(), teacher).item() == 0
