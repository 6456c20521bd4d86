"""MaskAgain's losses: a teacher's attention, values and features, compared where attention or activation is large."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import regression_loss, upcast_to_float32
from vidstill.models.attention import AttentionMap
from vidstill.utils.types import gather_tokens

RelationSoftmax = Literal["rows", "pairs"]
"""Of the similarities: over each row, whose divergences are averaged (released), or over all pairs (paper)."""

Projection = Callable[[Tensor], Tensor]
"""phi, to the width in which student and teacher are compared."""


_SELF_SIMILARITY = -1000.0  # a token's similarity to itself, so that its softmax weight is 0 (section 3.3.2)
_UNCHANGED = nn.Identity()  # a projection where the widths are equal


@dataclass(frozen=True, kw_only=True)
class MaskAgainQuirks:
    """Where the released code differs from the paper. Defaults: the released code."""

    # the attention to selected keys sums to 1 again; paper: unchanged (eq. 3 and 7)
    attention_normalization: Literal["renormalized", "unchanged"] = "renormalized"
    # unchanged attention is a softmax over the keys of a time step; paper: of the clip (before eq. 5)
    local_softmax: Literal["slot", "clip"] = "slot"
    # the attention of token t·n + d, with n tokens per time step, weighs the value of token d·steps + t; paper: its own
    # (aligned, eq. 7)
    value_order: Literal["released", "aligned"] = "released"
    # tokens that are not salient are zeroed before the projection; paper: left out (gathered)
    hint_tokens: Literal["zeroed", "gathered"] = "zeroed"
    relation_softmax: RelationSoftmax = "rows"  # over each row of similarities; paper: over all pairs
    hidden_weight: float = 1.0  # weight of all hidden-level terms together


RELEASED = MaskAgainQuirks()


# ---- Hidden level (section 3.2) -------------------------------------------------------------------------------------


def drop_class_token(attention: AttentionMap, num_tokens: int) -> AttentionMap:
    """Return the attention among a clip's tokens, in float32 or better, without a class token before them."""
    first = attention.logits.shape[-1] - num_tokens
    logits, values = attention.logits[..., first:, first:], attention.values[..., first:, :]
    return AttentionMap(upcast_to_float32(logits), values)


def selected_value_loss(
    student: AttentionMap,
    teacher: AttentionMap,
    *,
    slots: int,
    top_k: int | None,
    temperature: float = 1.0,
    key_selection: Literal["own", "teacher"] = "own",
    quirks: MaskAgainQuirks = RELEASED,
    projections: tuple[Projection, Projection] = (_UNCHANGED, _UNCHANGED),
) -> Float[Tensor, ""]:
    """Return MAGlobal (MaskAgain, eq. 1 to 4) with one slot, or MALocal (eq. 5 to 8) with the clip's time steps.

    Each query's output is computed from the keys that it attends to most, and compared with the teacher's.

    Args:
        student: Logits and values of one block.
        teacher: As `student`.
        slots: F, slots of equally many tokens, which are consecutive.
        top_k: k, keys per query and slot; None: all, which is "weighted value transfer" (table 4).
        temperature: Divides the logits.
        key_selection: Whose largest attention selects the student's keys: its own, or its teacher's (table 5).
        quirks: What the attention to the selected keys sums to, and which values it weighs.
        projections: phi_s and phi_t.
    """
    student_logits, teacher_logits = (split_by_slot(side.logits / temperature, slots) for side in (student, teacher))
    teacher_keys = select_top_k(teacher_logits, top_k)  # eq. (2), (6)
    student_keys = teacher_keys if key_selection == "teacher" else select_top_k(student_logits, top_k)
    prediction = projections[0](attend_selected_keys(student_logits, student_keys, student.values, quirks))
    target = projections[1](attend_selected_keys(teacher_logits, teacher_keys, teacher.values, quirks))
    return regression_loss(prediction.flatten(1, 2), target.flatten(1, 2), "l2")  # eq. (4), (8)


def split_by_slot(logits: Float[Tensor, "b heads q v"], slots: int) -> Float[Tensor, "b heads q t n"]:
    """Return A_f: the logits with the keys of each slot along an axis of their own."""
    return rearrange(logits, "b heads q (t n) -> b heads q t n", t=slots)


def select_top_k(logits: Float[Tensor, "b heads q t n"], top_k: int | None) -> Bool[Tensor, "b heads q t n"]:
    """Return the selections of eq. (1) and (5): true at the k largest of each row, and at ties with the k-th."""
    if top_k is None or top_k >= logits.shape[-1]:
        return torch.ones_like(logits, dtype=torch.bool)
    return logits >= logits.detach().topk(top_k, dim=-1).values[..., -1:]


def attend_selected_keys(
    logits: Float[Tensor, "b heads q t n"],
    key_mask: Bool[Tensor, "b heads q t n"],
    values: Float[Tensor, "b heads v d"],
    quirks: MaskAgainQuirks = RELEASED,
) -> Float[Tensor, "b q t heads*d"]:
    """Return (M ⊙ A) V per slot (eq. 3 and 7), the sum of the selected keys' values by their attention; heads joined.

    Args:
        logits: A before its softmax, see `split_by_slot`.
        key_mask: M.
        values: V.
        quirks: What the attention sums to, and which values it weighs.
    """
    if quirks.attention_normalization == "renormalized":  # softmax over the selected keys, whatever the others' share
        attention = logits.masked_fill(~key_mask, -torch.inf).softmax(dim=-1)
    else:
        axes = -1 if quirks.local_softmax == "slot" else (-2, -1)
        attention = (logits - logits.logsumexp(dim=axes, keepdim=True)).exp() * key_mask
    order = "(t n)" if quirks.value_order == "aligned" else "(n t)"
    by_slot = rearrange(values, f"b heads {order} d -> b heads t n d", t=logits.shape[-2])
    output = einsum(attention.to(values.dtype), by_slot, "b heads q t n, b heads t n d -> b q t heads d")
    return rearrange(output, "b q t heads d -> b q t (heads d)")


def attention_loss(
    student: AttentionMap, teacher: AttentionMap, *, loss: Literal["kl", "l2"] = "kl", temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Return attention transfer (MaskAgain, table 4): the loss between softmax(logits / temperature), head by head.

    The paper states neither how its divergence is averaged (here over heads and queries) nor a factor for the
    temperature (here none).

    Args:
        student: Logits and values of one block.
        teacher: As `student`.
        loss: KL divergence from the teacher's attention, or the mean squared difference of all entries.
        temperature: Divides the logits.
    """
    student_log, teacher_log = ((side.logits / temperature).log_softmax(dim=-1) for side in (student, teacher))
    if loss == "l2":
        return F.mse_loss(student_log.exp(), teacher_log.exp())
    return F.kl_div(student_log, teacher_log, log_target=True, reduction="none").sum(dim=-1).mean()


def value_loss(student: AttentionMap, teacher: AttentionMap) -> Float[Tensor, ""]:
    """Return value transfer (MaskAgain, table 4): the mean squared difference of the values, head by head."""
    prediction, target = (rearrange(side.values, "b heads v d -> b v (heads d)") for side in (student, teacher))
    return regression_loss(prediction, target, "l2")


# ---- Output level (section 3.3) -------------------------------------------------------------------------------------


def select_salient_tokens(teacher: Float[Tensor, "b v d"], count: int | None) -> Int[Tensor, "b k"]:
    """Return the tokens of each clip with the largest sum of absolute activations (MaskAgain, eq. 10 to 12).

    Args:
        count: K_f; None, or more than there are tokens: all.
    """
    activation = upcast_to_float32(teacher).abs().sum(dim=-1)
    num_tokens = activation.shape[1]
    return activation.topk(min(count or num_tokens, num_tokens), dim=1).indices


def hint_loss(
    student: Float[Tensor, "b v d"],
    teacher: Float[Tensor, "b v d_teacher"],
    salient: Int[Tensor, "b k"],
    *,
    quirks: MaskAgainQuirks = RELEASED,
    projection: Projection = _UNCHANGED,
) -> Float[Tensor, ""]:
    """Return MAHint (MaskAgain, eq. 13 and 14): the mean squared difference at the salient tokens.

    Args:
        student: Output of the last block.
        teacher: As `student`.
        salient: Token numbers.
        quirks: What happens to the other tokens.
        projection: phi''_s.
    """
    if quirks.hint_tokens == "gathered":
        return regression_loss(projection(gather_tokens(student, salient)), gather_tokens(teacher, salient), "l2")
    prediction, target = projection(zero_other_tokens(student, salient)), zero_other_tokens(teacher, salient)
    return regression_loss(prediction, target, "l2") * (student.shape[1] / salient.shape[1])


def zero_other_tokens(tokens: Float[Tensor, "b v d"], salient: Int[Tensor, "b k"]) -> Float[Tensor, "b v d"]:
    """Return the tokens with all but the salient ones set to zero."""
    return tokens * torch.zeros_like(tokens[..., :1]).scatter(1, salient[..., None], 1.0)


def relation_loss(
    student: Float[Tensor, "b k d"],
    teacher: Float[Tensor, "b k d_teacher"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.05,
    softmax: RelationSoftmax = "rows",
) -> Float[Tensor, ""]:
    """Return MARel (MaskAgain, eq. 15 to 17): KL(teacher || student) of the similarities among all given tokens.

    Args:
        student: Salient tokens of a group of clips.
        teacher: As `student`.
        student_temperature: Divides the student's similarities.
        teacher_temperature: Divides the teacher's.
        softmax: Of the similarities.
    """
    student_log = compute_log_relations(student, student_temperature, softmax)
    teacher_log = compute_log_relations(teacher, teacher_temperature, softmax)
    divergence = F.kl_div(student_log, teacher_log, log_target=True, reduction="sum")
    return divergence / len(student_log) if softmax == "rows" else divergence


def compute_log_relations(
    features: Float[Tensor, "b k d"], temperature: float, softmax: RelationSoftmax
) -> Float[Tensor, "r r"]:
    """Return log P (eq. 15 and 16) of the tokens of all clips together, in float32 or better.

    Args:
        features: Their cosines are the similarities.
        temperature: Divides the similarities.
        softmax: Of the similarities.
    """
    device = features.device.type  # "meta", of a dry run, has no autocast
    with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):  # a user's own loop may use it
        rows = F.normalize(rearrange(upcast_to_float32(features), "b k d -> (b k) d"), dim=1)
        similarity = rows @ rows.T
    diagonal = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    scaled = similarity.masked_fill(diagonal, _SELF_SIMILARITY) / temperature
    return scaled - scaled.logsumexp(dim=1 if softmax == "rows" else (0, 1), keepdim=True)
