"""What one block attends with, matched between a student and its teacher: what its attention selects, or all of it."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from vidstill.models.layers import AttentionMap
from vidstill.models.vit import ViT
from vidstill.pretext.losses import distance, precise

Selection = Literal["own", "teacher"]
"""Whose largest attention chooses the keys of the student: its own, or its teacher's (MaskAgain, table 5)."""

Mass = Literal["renormalised", "plain"]
"""The attention that a query keeps sums to 1 again (released), or stays what it was (paper, eq. 3 and 7)."""

Shares = Literal["slot", "clip"]
"""A plain attention is a share among the keys of its slot (released), or of the clip (paper, before eq. 5)."""

ValuePairs = Literal["released", "aligned"]
"""Whose value the attention of token t·n + d weighs, of slots of n tokens: as released, that of another token, d·slots
+ t; or its own (paper, eq. 7)."""

AttentionDistance = Literal["kl", "l2"]
"""From the teacher's attention: each query's divergence, averaged, or the squared difference of all entries."""

Mapped = Callable[[Tensor], Tensor]
"""To the width in which student and teacher are compared."""


def as_it_is(features: Tensor) -> Tensor:
    """The mapping of features that have a common width already."""
    return features


def among_tokens(attention: AttentionMap, tokens: int) -> AttentionMap:
    """The attention of a clip's tokens on one another, in float32 or better; a class token before them is left out."""
    first = attention.logits.shape[-1] - tokens
    logits, values = attention.logits[..., first:, first:], attention.values[..., first:, :]
    return AttentionMap(precise(logits), values)


def global_loss(
    student: AttentionMap,
    teacher: AttentionMap,
    *,
    keys: int | None,
    temperature: float = 1.0,
    selection: Selection = "own",
    mass: Mass = "renormalised",
    mapped: tuple[Mapped, Mapped] = (as_it_is, as_it_is),
) -> Float[Tensor, ""]:
    """MAGlobal (MaskAgain, eq. 1 to 4): what a query takes from the keys that it attends to most, in the whole clip.

    Args:
        keys: k; None: all, which is "weighted value transfer" (table 4).
        mapped: phi_s and phi_t.
    """
    return local_loss(
        student, teacher, slots=1, keys=keys, temperature=temperature, selection=selection, mass=mass, mapped=mapped
    )


def local_loss(
    student: AttentionMap,
    teacher: AttentionMap,
    *,
    slots: int,
    keys: int | None,
    temperature: float = 1.0,
    selection: Selection = "own",
    mass: Mass = "renormalised",
    shares: Shares = "slot",
    pairs: ValuePairs = "released",
    mapped: tuple[Mapped, Mapped] = (as_it_is, as_it_is),
) -> Float[Tensor, ""]:
    """MALocal (MaskAgain, eq. 5 to 8): what a query takes, in each slot of time, from the keys that it attends to most.

    Args:
        slots: F; every slot has equally many tokens, which stand slot by slot.
        keys: k, of each slot; None: all.
        mapped: phi'_s and phi'_t.
    """
    ours, theirs = (by_slot(side.logits / temperature, slots) for side in (student, teacher))
    their_keys = largest(theirs, keys)  # eq. (2), (6)
    our_keys = their_keys if selection == "teacher" else largest(ours, keys)
    taken = partial(weighed, mass=mass, shares=shares, pairs=pairs)  # eq. (3), (7)
    to_guess, to_target = mapped
    guess, target = (
        to_guess(taken(ours, our_keys, student.values)),
        to_target(taken(theirs, their_keys, teacher.values)),
    )
    return distance(guess.flatten(1, 2), target.flatten(1, 2), "l2")  # eq. (4), (8)


def by_slot(logits: Float[Tensor, "b heads q v"], slots: int) -> Float[Tensor, "b heads q t n"]:
    """A_f: the keys of each slot of time apart."""
    return rearrange(logits, "b heads q (t n) -> b heads q t n", t=slots)


def largest(logits: Float[Tensor, "b heads q t n"], keys: int | None) -> Bool[Tensor, "b heads q t n"]:
    """The selection functions of eq. (1) and (5): true at the k largest of each row, and at what equals the k-th."""
    if keys is None or keys >= logits.shape[-1]:
        return torch.ones_like(logits, dtype=torch.bool)
    return logits >= logits.detach().topk(keys, dim=-1).values[..., -1:]


def weighed(
    logits: Float[Tensor, "b heads q t n"],
    chosen: Bool[Tensor, "b heads q t n"],
    values: Float[Tensor, "b heads v d"],
    *,
    mass: Mass = "renormalised",
    shares: Shares = "slot",
    pairs: ValuePairs = "released",
) -> Float[Tensor, "b q t heads*d"]:
    """(M ⊙ A) V, in each slot (eq. 3 and 7): the sum of the chosen keys' values by their attention, heads joined."""
    if mass == "renormalised":  # the softmax over the chosen keys, whatever the others' share was
        attention = logits.masked_fill(~chosen, -torch.inf).softmax(dim=-1)
    else:
        among = -1 if shares == "slot" else (-2, -1)
        attention = (logits - logits.logsumexp(dim=among, keepdim=True)).exp() * chosen
    order = "(t n)" if pairs == "aligned" else "(n t)"
    by_key = rearrange(values, f"b heads {order} d -> b heads t n d", t=logits.shape[-2])
    taken = einsum(attention, by_key.to(attention.dtype), "b heads q t n, b heads t n d -> b q t heads d")
    return rearrange(taken, "b q t heads d -> b q t (heads d)")


def attention_loss(
    student: AttentionMap, teacher: AttentionMap, *, kind: AttentionDistance = "kl", temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Attention transfer (MaskAgain, table 4): of softmax(logits / temperature), head by head.

    The paper states neither how its divergence is averaged (here over heads and queries) nor a factor of the
    temperature (here none).
    """
    ours, theirs = ((side.logits / temperature).log_softmax(dim=-1) for side in (student, teacher))
    if kind == "l2":
        return F.mse_loss(ours.exp(), theirs.exp())
    return F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=-1).mean()


def value_loss(student: AttentionMap, teacher: AttentionMap) -> Float[Tensor, ""]:
    """Value transfer (MaskAgain, table 4): the mean squared difference of the values, head by head."""
    ours, theirs = (rearrange(side.values, "b heads v d -> b v (heads d)") for side in (student, teacher))
    return distance(ours, theirs, "l2")


def freeze_after_attention(encoder: ViT, number: int) -> None:
    """Leaves untrained what no term reaches: what comes after the attention of this block, counted from 1.

    Several processes would wait for its gradients.
    """
    block = encoder.blocks[number - 1]
    unreached = [block.attn.proj, block.norm2, block.mlp, *encoder.blocks[number:]]  # type: ignore[union-attr]  # torch forgets what a list holds
    for part in unreached:
        part.requires_grad_(False)
    for factor in (block.gamma_1, block.gamma_2):
        if factor is not None:
            factor.requires_grad_(False)
