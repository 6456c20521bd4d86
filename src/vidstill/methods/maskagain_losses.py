"""What one block attends with, matched between a student and its teacher: what its attention selects, or all of it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vidstill.methods.common.losses import regression_loss, upcast_to_float32
from vidstill.models.layers import AttentionMap
from vidstill.models.vit import ViT
from vidstill.utils.types import gather_tokens

KeySelection = Literal["own", "teacher"]
"""Whose largest attention chooses the keys of the student: its own, or its teacher's (MaskAgain, table 5)."""

AttentionNormalization = Literal["renormalised", "plain"]
"""The attention that a query keeps sums to 1 again (released), or stays what it was (paper, eq. 3 and 7)."""

LocalSoftmax = Literal["slot", "clip"]
"""A plain attention is a share among the keys of its slot (released), or of the clip (paper, before eq. 5)."""

ValueOrder = Literal["released", "aligned"]
"""Whose value the attention of token t·n + d weighs, of slots of n tokens: as released, that of another token, d·slots
+ t; or its own (paper, eq. 7)."""

AttentionLoss = Literal["kl", "l2"]
"""From the teacher's attention: each query's divergence, averaged, or the squared difference of all entries."""

FeatureProjection = Callable[[Tensor], Tensor]
"""To the width in which student and teacher are compared."""


def identity_projection(features: Tensor) -> Tensor:
    """The mapping of features that have a common width already."""
    return features


def drop_class_token(attention: AttentionMap, num_tokens: int) -> AttentionMap:
    """The attention of a clip's tokens on one another, in float32 or better; a class token before them is left out."""
    first = attention.logits.shape[-1] - num_tokens
    logits, values = attention.logits[..., first:, first:], attention.values[..., first:, :]
    return AttentionMap(upcast_to_float32(logits), values)


def global_loss(
    student: AttentionMap,
    teacher: AttentionMap,
    *,
    top_k: int | None,
    temperature: float = 1.0,
    key_selection: KeySelection = "own",
    attention_normalization: AttentionNormalization = "renormalised",
    projections: tuple[FeatureProjection, FeatureProjection] = (identity_projection, identity_projection),
) -> Float[Tensor, ""]:
    """MAGlobal (MaskAgain, eq. 1 to 4): what a query takes from the keys that it attends to most, in the whole clip.

    Args:
        top_k: k; None: all, which is "weighted value transfer" (table 4).
        projections: phi_s and phi_t.
    """
    return local_loss(
        student,
        teacher,
        slots=1,
        top_k=top_k,
        temperature=temperature,
        key_selection=key_selection,
        attention_normalization=attention_normalization,
        projections=projections,
    )


def local_loss(
    student: AttentionMap,
    teacher: AttentionMap,
    *,
    slots: int,
    top_k: int | None,
    temperature: float = 1.0,
    key_selection: KeySelection = "own",
    attention_normalization: AttentionNormalization = "renormalised",
    softmax: LocalSoftmax = "slot",
    value_order: ValueOrder = "released",
    projections: tuple[FeatureProjection, FeatureProjection] = (identity_projection, identity_projection),
) -> Float[Tensor, ""]:
    """MALocal (MaskAgain, eq. 5 to 8): what a query takes, in each slot of time, from the keys that it attends to most.

    Args:
        slots: F; every slot has equally many tokens, which stand slot by slot.
        top_k: k, of each slot; None: all.
        projections: phi'_s and phi'_t.
    """
    ours, theirs = (split_by_slot(side.logits / temperature, slots) for side in (student, teacher))
    their_keys = select_top_k(theirs, top_k)  # eq. (2), (6)
    our_keys = their_keys if key_selection == "teacher" else select_top_k(ours, top_k)
    taken = partial(
        attend_selected_keys, attention_normalization=attention_normalization, softmax=softmax, value_order=value_order
    )  # eq. (3), (7)
    to_guess, to_target = projections
    guess, target = (
        to_guess(taken(ours, our_keys, student.values)),
        to_target(taken(theirs, their_keys, teacher.values)),
    )
    return regression_loss(guess.flatten(1, 2), target.flatten(1, 2), "l2")  # eq. (4), (8)


def split_by_slot(logits: Float[Tensor, "b heads q v"], slots: int) -> Float[Tensor, "b heads q t n"]:
    """A_f: the keys of each slot of time apart."""
    return rearrange(logits, "b heads q (t n) -> b heads q t n", t=slots)


def select_top_k(logits: Float[Tensor, "b heads q t n"], top_k: int | None) -> Bool[Tensor, "b heads q t n"]:
    """The selection functions of eq. (1) and (5): true at the k largest of each row, and at what equals the k-th."""
    if top_k is None or top_k >= logits.shape[-1]:
        return torch.ones_like(logits, dtype=torch.bool)
    return logits >= logits.detach().topk(top_k, dim=-1).values[..., -1:]


def attend_selected_keys(
    logits: Float[Tensor, "b heads q t n"],
    key_mask: Bool[Tensor, "b heads q t n"],
    values: Float[Tensor, "b heads v d"],
    *,
    attention_normalization: AttentionNormalization = "renormalised",
    softmax: LocalSoftmax = "slot",
    value_order: ValueOrder = "released",
) -> Float[Tensor, "b q t heads*d"]:
    """(M ⊙ A) V, in each slot (eq. 3 and 7): the sum of the chosen keys' values by their attention, heads joined."""
    if attention_normalization == "renormalised":  # the softmax over the chosen keys, whatever the others' share was
        attention = logits.masked_fill(~key_mask, -torch.inf).softmax(dim=-1)
    else:
        among = -1 if softmax == "slot" else (-2, -1)
        attention = (logits - logits.logsumexp(dim=among, keepdim=True)).exp() * key_mask
    order = "(t n)" if value_order == "aligned" else "(n t)"
    by_key = rearrange(values, f"b heads {order} d -> b heads t n d", t=logits.shape[-2])
    taken = einsum(attention, by_key.to(attention.dtype), "b heads q t n, b heads t n d -> b q t heads d")
    return rearrange(taken, "b q t heads d -> b q t (heads d)")


def attention_loss(
    student: AttentionMap, teacher: AttentionMap, *, loss: AttentionLoss = "kl", temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Attention transfer (MaskAgain, table 4): of softmax(logits / temperature), head by head.

    The paper states neither how its divergence is averaged (here over heads and queries) nor a factor of the
    temperature (here none).
    """
    ours, theirs = ((side.logits / temperature).log_softmax(dim=-1) for side in (student, teacher))
    if loss == "l2":
        return F.mse_loss(ours.exp(), theirs.exp())
    return F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=-1).mean()


def value_loss(student: AttentionMap, teacher: AttentionMap) -> Float[Tensor, ""]:
    """Value transfer (MaskAgain, table 4): the mean squared difference of the values, head by head."""
    ours, theirs = (rearrange(side.values, "b heads v d -> b v (heads d)") for side in (student, teacher))
    return regression_loss(ours, theirs, "l2")


def freeze_after_attention(encoder: ViT, block_number: int) -> None:
    """Leaves untrained what no term reaches: what comes after the attention of this block, counted from 1.

    Several processes would wait for its gradients.
    """
    block = encoder.blocks[block_number - 1]
    unreached = [block.attn.proj, block.norm2, block.mlp, *encoder.blocks[block_number:]]  # type: ignore[union-attr]  # torch forgets what a list holds
    for part in unreached:
        part.requires_grad_(False)
    for factor in (block.gamma_1, block.gamma_2):
        if factor is not None:
            factor.requires_grad_(False)


HintTokens = Literal["zeroed", "gathered"]


RelationSoftmax = Literal["rows", "pairs"]


_SELF_SIMILARITY = -1000.0  # a token's likeness to itself, so that it has no share (section 3.3.2)


def select_salient_tokens(teacher: Float[Tensor, "b v d"], count: int | None) -> Int[Tensor, "b k"]:
    """The tokens of each clip whose channels have the largest sum of absolute values (MaskAgain, eq. 10 to 12).

    Args:
        count: K_f; None, or more than there are: all.
    """
    activation = upcast_to_float32(teacher).abs().sum(dim=-1)
    tokens = activation.shape[1]
    return activation.topk(tokens if count is None else min(count, tokens), dim=1).indices


def hint_loss(
    student: Float[Tensor, "b v d"],
    teacher: Float[Tensor, "b v d_teacher"],
    salient: Int[Tensor, "b k"],
    *,
    tokens: HintTokens = "zeroed",
    projection: FeatureProjection = identity_projection,
) -> Float[Tensor, ""]:
    """MAHint (MaskAgain, eq. 13 and 14): the mean squared difference of the telling tokens.

    Args:
        projection: phi''_s.
    """
    if tokens == "gathered":
        return regression_loss(projection(gather_tokens(student, salient)), gather_tokens(teacher, salient), "l2")
    guess, target = projection(zero_other_tokens(student, salient)), zero_other_tokens(teacher, salient)
    return regression_loss(guess, target, "l2") * (student.shape[1] / salient.shape[1])


def zero_other_tokens(tokens: Float[Tensor, "b v d"], salient: Int[Tensor, "b k"]) -> Float[Tensor, "b v d"]:
    """The telling tokens in their places, and zeros in the others'."""
    return tokens * torch.zeros_like(tokens[..., :1]).scatter(1, salient[..., None], 1.0)


def relation_loss(
    student: Float[Tensor, "b k d"],
    teacher: Float[Tensor, "b k d_teacher"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.05,
    softmax: RelationSoftmax = "rows",
) -> Float[Tensor, ""]:
    """MARel (MaskAgain, eq. 15 to 17): KL(teacher || student) of how alike the tokens of a batch are to one another.

    The batch is what a device takes at once. With shares by row, it is the mean over the rows.
    """
    ours = compute_log_relations(student, student_temperature, softmax)
    theirs = compute_log_relations(teacher, teacher_temperature, softmax)
    divergence = F.kl_div(ours, theirs, log_target=True, reduction="sum")
    return divergence / len(ours) if softmax == "rows" else divergence


def compute_log_relations(
    features: Float[Tensor, "b k d"], temperature: float, softmax: RelationSoftmax
) -> Float[Tensor, "r r"]:
    """The logarithms of P (eq. 15 and 16), for the tokens of all clips together, in float32 or better."""
    kind = features.device.type
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # a rehearsal on meta has none
        rows = F.normalize(rearrange(upcast_to_float32(features), "b k d -> (b k) d"), dim=1)
        alike = rows @ rows.T
    itself = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    scaled = alike.masked_fill(itself, _SELF_SIMILARITY) / temperature
    return scaled - scaled.logsumexp(dim=1 if softmax == "rows" else (0, 1), keepdim=True)
