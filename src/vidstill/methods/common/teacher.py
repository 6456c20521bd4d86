"""Frozen models that others learn from: of clips, or frame by frame; without gradients, outside every checkpoint."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
import tyro
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.external.base import ExternalEncoder, ExternalEncoderConfig, InputResolution
from vidstill.models.vit import BASE, Features, ViT, ViTConfig
from vidstill.utils.types import Grid, InputError

TeacherFrames = Literal["first", "all"]
"""Which frames of a tubelet a teacher of images looks at; the features of all of them stand side by side, in order."""


LayerPairs = tuple[tuple[int, int], ...]
"""Blocks that are compared, counted from 1: (the student's, the teacher's)."""


TeacherModelConfig: TypeAlias = ViTConfig | ExternalEncoderConfig
"""What a method may know of its teacher: `dim`, `depth`, `heads`, `tubelet` and `class_token`; and how it is built."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A pre-trained encoder, and where its weights are."""

    model: TeacherModelConfig  # another library's says itself what it is
    checkpoint: str = ""  # a run's folder, a file of weights, transformers:FOLDER_OR_NAME, timm:NAME or timm:NAME@FILE
    input_resolution: InputResolution = (
        "fitted"  # own: another library's model sees frames of its own size; its features are resampled
    )


TeacherList: TypeAlias = Annotated[
    tuple[TeacherConfig, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[WEIGHTS [WEIGHTS ...]]",
        instance_from_str=lambda words: tuple(TeacherConfig(model=BASE, weights=word) for word in words),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda teachers: [teacher.weights for teacher in teachers],
    ),
]
"""Any number of teachers, typed as what each has under `weights`; what they are is taken from there."""


class FrozenTeacher(nn.Module):
    """An encoder that only looks: no parameter of it is listed, trained, saved or put into train mode.

    It moves between devices and precisions with the model that holds it.
    """

    def __init__(self, model: ViT | ExternalEncoder):
        super().__init__()
        self.set_model(model)

    def set_model(self, model: ViT | ExternalEncoder) -> None:
        """Takes a model that has its weights in the place of the one that it was built with."""
        self.__dict__["model"] = model.eval().requires_grad_(False)  # past nn.Module's own bookkeeping

    @property
    def model(self) -> ViT | ExternalEncoder:
        return self.__dict__["model"]

    @torch.no_grad()
    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
    ) -> Features:
        """Return intermediate features, see `ViT.forward`; blocks after the last requested one do not run."""
        return self.model(clip, visible, layers=layers, attention=attention, intermediates_only=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenTeacher":
        self.model._apply(fn)
        return super()._apply(fn, recurse)


def check_layer_pairs(field: str, layer_pairs: LayerPairs, student: ViTConfig, teacher: TeacherModelConfig) -> None:
    """Holds a method that compares token with token, block with block, to those that are there.

    Args:
        field: the method's and the field's name, "AMD's pairs".

    Raises:
        InputError: student and teacher have other tubelets or frames of another size, or a block is named that one of
            them has not.
    """
    if student.tubelet != teacher.tubelet:
        raise InputError(
            f"{field} compare token with token: the student's tubelets {student.tubelet} "
            f"have to be the teacher's {teacher.tubelet}"
        )
    if isinstance(teacher, ExternalEncoderConfig) and teacher.input_resolution == "own":
        raise InputError(
            f"{field} compare token with token: the teacher sees the student's clip, not one of its own size"
        )
    for ours, theirs in layer_pairs:
        for who, block, depth in (("student", ours, student.depth), ("teacher", theirs, teacher.depth)):
            if not 1 <= block <= depth:
                raise InputError(f"{field} name block {block} of a {who} of {depth} blocks; take 1 to {depth}")


def extract_clip_features(
    teacher: FrozenTeacher, clip: Float[Tensor, "b 3 t h w"], grid: Grid
) -> Float[Tensor, "b n d"]:
    """What a teacher of clips makes of each token of a student's grid: its last block's output, before any norm.

    A teacher of other patches is shown the clip at the size at which it has as many. Where its tubelets last longer,
    its slot is that of all the student's slots within it (MVD, table 13, does not say how they were matched).

    Raises:
        InputError: its slots of time are not whole numbers of the student's.
    """
    features, slots = _compute_features(teacher, clip, grid)
    if grid.t % slots:
        raise InputError(
            f"a teacher that cuts the clip into {slots} slots of time cannot teach a student of {grid.t}; take one "
            f"whose tubelets have {clip.shape[2] // grid.t} frames as the student's, or a multiple"
        )
    return repeat(features, "b (t s) d -> b (t r s) d", t=slots, r=grid.t // slots)


def extract_frame_features(
    teacher: FrozenTeacher, clip: Float[Tensor, "b 3 t h w"], grid: Grid, frames: TeacherFrames = "first"
) -> Float[Tensor, "b n d"]:
    """What a teacher of images, frame by frame, makes of each token of a student's grid; as `extract_clip_features`."""
    if frames == "first":
        clip = clip[:, :, :: clip.shape[2] // grid.t]
    images = rearrange(clip, "b c t h w -> (b t) c 1 h w")
    features, _ = _compute_features(teacher, images, grid)
    return rearrange(features, "(b t r) s d -> b (t s) (r d)", b=len(clip), t=grid.t)


def resize_clip_to_grid(
    clip: Float[Tensor, "b 3 t h w"], grid: Grid, model: TeacherModelConfig
) -> Float[Tensor, "b 3 t rows columns"]:
    """The clip at the size at which a model cuts its frames into a grid's rows and columns, or at the model's own.

    Bilinear, over the pixels that a larger one covers, as PIL does. (MVD's loader instead cuts the crop of a smaller
    clip out of the source a second time, so that it is not resized twice.)
    """
    size = (grid.h * model.tubelet[1], grid.w * model.tubelet[2])
    if isinstance(model, ExternalEncoderConfig) and model.input_resolution == "own":
        size = model.train_size
    if size == tuple(clip.shape[-2:]):
        return clip
    frames = _resize_images(rearrange(clip, "b c t h w -> (b t) c h w"), size)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clip))


def _compute_features(
    teacher: FrozenTeacher, clip: Float[Tensor, "b 3 t h w"], grid: Grid
) -> tuple[Float[Tensor, "b n d"], int]:
    """A teacher's last features on a grid's rows and columns, and how many slots of time there are.

    Those of another grid, from frames of the teacher's own size, are resampled as frames are.
    """
    shown = resize_clip_to_grid(clip, grid, teacher.model.config)
    own, last = teacher.model.grid(shown), teacher.model.config.depth
    features = teacher(shown, layers=(last,)).layers[last]
    if (own.h, own.w) != (grid.h, grid.w):
        maps = rearrange(features, "b (t h w) d -> (b t) d h w", h=own.h, w=own.w)
        features = rearrange(_resize_images(maps, (grid.h, grid.w)), "(b t) d h w -> b (t h w) d", t=own.t)
    return features, own.t


def _resize_images(images: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c rows columns"]:
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
