"""Similarity of a student's features to its teacher's, layer by layer (linear CKA)."""

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vidstill.models.vit import ViT


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Return the linear centred kernel alignment (Kornblith et al., ICML 2019, arXiv:1905.00414, eq. 3 and table 1).

    It is 1 for features that are equal up to rotation, scale and translation, 0 for uncorrelated ones. Widths may
    differ.
    """
    x, y = (side.double() - side.double().mean(dim=0) for side in (x, y))
    cross = (y.T @ x).norm().square()
    return (cross / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def match_layers(student_depth: int, teacher_depth: int) -> dict[int, int]:
    """Return, for each student layer, the teacher layer at the same relative depth; both are counted from 1."""
    return {layer: max(1, round(layer * teacher_depth / student_depth)) for layer in range(1, student_depth + 1)}


@torch.no_grad()
def compute_layer_similarity(student: ViT, teacher: ViT, clips: Sequence[Float[Tensor, "_ 3 t h w"]]) -> list[float]:
    """Return the CKA of each student layer with its counterpart in the teacher, on unmasked clips.

    Each token's mean over the clips is subtracted: otherwise the position embeddings, which every model has, would
    make all models similar.
    """
    pairs = match_layers(len(student.blocks), len(teacher.blocks))

    def extract(model: ViT, layers: Iterable[int]) -> dict[int, Tensor]:
        outputs = [model(clip, layers=tuple(layers), intermediates_only=True).layers for clip in clips]
        return {n: center_tokens(torch.cat([each[n] for each in outputs]).float()) for n in outputs[0]}

    student_features, teacher_features = extract(student, pairs), extract(teacher, sorted(set(pairs.values())))
    return [linear_cka(student_features[layer], teacher_features[other]) for layer, other in pairs.items()]


def center_tokens(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b*n d"]:
    """Return the tokens of all clips as rows, each minus the mean over the clips at its position."""
    return rearrange(tokens - tokens.mean(dim=0), "b n d -> (b n) d")
