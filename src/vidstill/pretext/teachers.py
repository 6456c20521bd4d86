"""Frozen models that others learn from: of clips, or frame by frame; without gradients, outside every checkpoint."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.vit import Looked, ViT, ViTConfig
from vidstill.types import Grid, InputError

Frames = Literal["first", "all"]
"""Which frames of a tubelet a teacher of images looks at; the features of all of them stand side by side, in order."""


Pairs = tuple[tuple[int, int], ...]
"""Blocks that are compared, counted from 1: (the student's, the teacher's)."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A pre-trained encoder, and where its weights are."""

    model: ViTConfig
    weights: str = ""  # a run's folder or a file of weights


class Frozen(nn.Module):
    """An encoder that only looks: no parameter of it is listed, trained, saved or put into train mode.

    It moves between devices and precisions with the model that holds it.
    """

    def __init__(self, model: ViT):
        super().__init__()
        self.__dict__["model"] = model.eval().requires_grad_(False)  # past nn.Module's own bookkeeping

    @property
    def model(self) -> ViT:
        return self.__dict__["model"]

    @torch.no_grad()
    def look(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
    ) -> Looked:
        """What the wanted blocks give, counted from 1; those after the last one that is needed do not run."""
        return self.model.look(clip, visible, layers=layers, attention=attention)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self.model._apply(fn)
        return super()._apply(fn, recurse)


def check_pairs(field: str, pairs: Pairs, student: ViTConfig, teacher: ViTConfig) -> None:
    """Holds a method that compares token with token, block with block, to those that are there.

    Args:
        field: the method's and the field's name, "AMD's pairs".

    Raises:
        InputError: student and teacher have other tubelets, or a block is named that one of them has not.
    """
    if student.tubelet != teacher.tubelet:
        raise InputError(
            f"{field} compare token with token: the student's tubelets {student.tubelet} "
            f"have to be the teacher's {teacher.tubelet}"
        )
    for ours, theirs in pairs:
        for who, block, depth in (("student", ours, student.depth), ("teacher", theirs, teacher.depth)):
            if not 1 <= block <= depth:
                raise InputError(f"{field} name block {block} of a {who} of {depth} blocks; take 1 to {depth}")


def clip_features(teacher: Frozen, clip: Float[Tensor, "b 3 t h w"], grid: Grid) -> Float[Tensor, "b n d"]:
    """What a teacher of clips makes of each token of a student's grid: its last block's output, before any norm.

    A teacher of other patches is shown the clip at the size at which it has as many. Where its tubelets last longer,
    its slot is that of all the student's slots within it (MVD, table 13, does not say how they were matched).

    Raises:
        InputError: its slots of time are not whole numbers of the student's.
    """
    shown = fitted(clip, grid, teacher.model.config)
    slots = teacher.model.grid(shown).t
    if grid.t % slots:
        raise InputError(
            f"a teacher that cuts the clip into {slots} slots of time cannot teach a student of {grid.t}; take one "
            f"whose tubelets have {clip.shape[2] // grid.t} frames as the student's, or a multiple"
        )
    return repeat(_last(teacher, shown), "b (t s) d -> b (t r s) d", t=slots, r=grid.t // slots)


def frame_features(
    teacher: Frozen, clip: Float[Tensor, "b 3 t h w"], grid: Grid, frames: Frames = "first"
) -> Float[Tensor, "b n d"]:
    """What a teacher of images, frame by frame, makes of each token of a student's grid; as `clip_features`."""
    if frames == "first":
        clip = clip[:, :, :: clip.shape[2] // grid.t]
    images = rearrange(clip, "b c t h w -> (b t) c 1 h w")
    features = _last(teacher, fitted(images, grid, teacher.model.config))
    return rearrange(features, "(b t r) s d -> b (t s) (r d)", b=len(clip), t=grid.t)


def fitted(clip: Float[Tensor, "b 3 t h w"], grid: Grid, model: ViTConfig) -> Float[Tensor, "b 3 t rows columns"]:
    """The clip at the size at which a model cuts its frames into a grid's rows and columns.

    Bilinear, over the pixels that a larger one covers, as PIL does. (MVD's loader instead cuts the crop of a smaller
    clip out of the source a second time, so that it is not resized twice.)
    """
    size = (grid.h * model.tubelet[1], grid.w * model.tubelet[2])
    if size == tuple(clip.shape[-2:]):
        return clip
    frames = rearrange(clip, "b c t h w -> (b t) c h w")
    resized = F.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    return rearrange(resized, "(b t) c h w -> b c t h w", b=len(clip))


def _last(teacher: Frozen, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b v d"]:
    last = teacher.model.config.depth
    return teacher.look(clip, layers=(last,)).layers[last]
