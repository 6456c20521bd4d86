"""How near a student's features are to its teacher's, layer by layer."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vidstill.models.vit import ViT


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019, arXiv:1905.00414, eq. 3 and table 1).

    1 for features that are alike up to rotation, scale and place, 0 for uncorrelated ones. Widths may differ.
    """
    x, y = (side.double() - side.double().mean(dim=0) for side in (x, y))
    together = (y.T @ x).norm().square()
    return (together / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def match_layers(student_depth: int, teacher_depth: int) -> dict[int, int]:
    """The teacher's layer at the same share of its depth, for each layer of the student; both counted from 1."""
    return {layer: max(1, round(layer * teacher_depth / student_depth)) for layer in range(1, student_depth + 1)}


@torch.no_grad()
def compute_layer_similarity(student: ViT, teacher: ViT, clips: Iterable[Float[Tensor, "_ 3 t h w"]]) -> list[float]:
    """The alignment of each layer of the student with its counterpart in the teacher, on whole clips.

    From each token its mean over the clips is taken: else the position codes, which every model has, would make all
    of them alike.
    """
    pairs = match_layers(len(student.blocks), len(teacher.blocks))
    ours: dict[int, list[Tensor]] = {layer: [] for layer in pairs}
    theirs: dict[int, list[Tensor]] = {layer: [] for layer in pairs.values()}
    for clip in clips:
        for model, kept in ((student, ours), (teacher, theirs)):
            for layer, tokens in model.forward_intermediates(clip, layers=tuple(kept)).layers.items():
                kept[layer].append(tokens.float().cpu())
    return [
        linear_cka(center_tokens(torch.cat(ours[layer])), center_tokens(torch.cat(theirs[counterpart])))
        for layer, counterpart in pairs.items()
    ]


def center_tokens(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b*n d"]:
    """The tokens of all clips as rows, each less the mean of its place over the clips."""
    return rearrange(tokens - tokens.mean(dim=0), "b n d -> (b n) d")
