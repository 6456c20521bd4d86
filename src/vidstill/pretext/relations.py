"""The most telling tokens of a teacher, and how a student is to follow them: each as it is, and how they are alike."""

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.pretext.attention import Mapped, as_it_is
from vidstill.pretext.losses import distance, precise
from vidstill.types import take

HintTokens = Literal["zeroed", "gathered"]
"""What becomes of the other tokens of the student: set to 0 before they are mapped, so that what the mapping makes of
0 is drawn to 0 too (released), or left out (paper, eq. 13)."""

RelationShares = Literal["rows", "pairs"]
"""A likeness is a share among those of its row (released), or of all pairs (paper, eq. 15 and 16)."""

_ITSELF = -1000.0  # a token's likeness to itself, so that it has no share (section 3.3.2)


def telling_tokens(teacher: Float[Tensor, "b v d"], count: int | None) -> Int[Tensor, "b k"]:
    """The tokens of each clip whose channels have the largest sum of absolute values (MaskAgain, eq. 10 to 12).

    Args:
        count: K_f; None, or more than there are: all.
    """
    activation = precise(teacher).abs().sum(dim=-1)
    tokens = activation.shape[1]
    return activation.topk(tokens if count is None else min(count, tokens), dim=1).indices


def hint_loss(
    student: Float[Tensor, "b v d"],
    teacher: Float[Tensor, "b v d_teacher"],
    telling: Int[Tensor, "b k"],
    *,
    tokens: HintTokens = "zeroed",
    mapped: Mapped = as_it_is,
) -> Float[Tensor, ""]:
    """MAHint (MaskAgain, eq. 13 and 14): the mean squared difference of the telling tokens.

    Args:
        mapped: phi''_s.
    """
    if tokens == "gathered":
        return distance(mapped(take(student, telling)), take(teacher, telling), "l2")
    guess, target = mapped(others_zeroed(student, telling)), others_zeroed(teacher, telling)
    return distance(guess, target, "l2") * (student.shape[1] / telling.shape[1])


def others_zeroed(tokens: Float[Tensor, "b v d"], telling: Int[Tensor, "b k"]) -> Float[Tensor, "b v d"]:
    """The telling tokens in their places, and zeros in the others'."""
    return tokens * torch.zeros_like(tokens[..., :1]).scatter(1, telling[..., None], 1.0)


def relation_loss(
    student: Float[Tensor, "b k d"],
    teacher: Float[Tensor, "b k d_teacher"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.05,
    shares: RelationShares = "rows",
) -> Float[Tensor, ""]:
    """MARel (MaskAgain, eq. 15 to 17): KL(teacher || student) of how alike the tokens of a batch are to one another.

    The batch is what a device takes at once. With shares by row, it is the mean over the rows.
    """
    ours = relations(student, student_temperature, shares)
    theirs = relations(teacher, teacher_temperature, shares)
    divergence = F.kl_div(ours, theirs, log_target=True, reduction="sum")
    return divergence / len(ours) if shares == "rows" else divergence


def relations(features: Float[Tensor, "b k d"], temperature: float, shares: RelationShares) -> Float[Tensor, "r r"]:
    """The logarithms of P (eq. 15 and 16), for the tokens of all clips together, in float32 or better."""
    kind = features.device.type
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # a rehearsal on meta has none
        rows = F.normalize(rearrange(precise(features), "b k d -> (b k) d"), dim=1)
        alike = rows @ rows.T
    itself = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    scaled = alike.masked_fill(itself, _ITSELF) / temperature
    return scaled - scaled.logsumexp(dim=1 if shares == "rows" else (0, 1), keepdim=True)
