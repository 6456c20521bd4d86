"""How near a student's features are to its teacher's, layer by layer."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vidstill.models.vit import ViT


def cka(one: Float[Tensor, "n d"], other: Float[Tensor, "n e"]) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019, arXiv:1905.00414, eq. 3 and table 1).

    1 for features that are alike up to rotation, scale and place, 0 for uncorrelated ones. Widths may differ.
    """
    one, other = (side.double() - side.double().mean(dim=0) for side in (one, other))
    together = (other.T @ one).norm().square()
    return (together / ((one.T @ one).norm() * (other.T @ other).norm())).item()


def counterparts(depth: int, teacher_depth: int) -> dict[int, int]:
    """The teacher's layer at the same share of its depth, for each layer of the student; both counted from 1."""
    return {layer: max(1, round(layer * teacher_depth / depth)) for layer in range(1, depth + 1)}


@torch.no_grad()
def similarity(student: ViT, teacher: ViT, clips: Iterable[Float[Tensor, "_ 3 t h w"]]) -> list[float]:
    """The alignment of each layer of the student with its counterpart in the teacher, on whole clips.

    From each token its mean over the clips is taken: else the position codes, which every model has, would make all
    of them alike.
    """
    pairs = counterparts(len(student.blocks), len(teacher.blocks))
    ours: dict[int, list[Tensor]] = {layer: [] for layer in pairs}
    theirs: dict[int, list[Tensor]] = {layer: [] for layer in pairs.values()}
    for clip in clips:
        for model, kept in ((student, ours), (teacher, theirs)):
            for layer, tokens in model.look(clip, layers=tuple(kept)).layers.items():
                kept[layer].append(tokens.float().cpu())
    return [
        cka(contents(torch.cat(ours[layer])), contents(torch.cat(theirs[counterpart])))
        for layer, counterpart in pairs.items()
    ]


def contents(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b*n d"]:
    """The tokens of all clips as rows, each less the mean of its place over the clips."""
    return rearrange(tokens - tokens.mean(dim=0), "b n d -> (b n) d")
