"""Frozen teachers, of clips or of single frames: without gradients, outside every checkpoint."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.external.base import ExternalEncoder, ExternalEncoderConfig, InputResolution
from vidstill.models.vit import Features, ViT, ViTConfig
from vidstill.utils.types import Grid, InputError

TeacherFrames = Literal["first", "all"]
"""Frames of each tubelet that an image teacher sees; the features of all of them are concatenated, in order."""

LayerPairs = tuple[tuple[int, int], ...]
"""Blocks that are compared, counted from 1: (the student's, the teacher's)."""

TeacherModelConfig: TypeAlias = ViTConfig | ExternalEncoderConfig
"""What a method may know of its teacher: `dim`, `depth`, `heads`, `tubelet` and `class_token`; and how it is built."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A pre-trained encoder and its checkpoint."""

    model: TeacherModelConfig  # read from the checkpoint where that states it
    # a run directory, a file, transformers:FOLDER_OR_NAME, timm:NAME or timm:NAME@FILE
    checkpoint: str = field(default="", compare=False)  # a run compares what it holds
    input_resolution: InputResolution = "match_student"  # native: the frame size that an external model was trained on


class FrozenTeacher(nn.Module):
    """An encoder in eval mode: none of its parameters is listed, trained, saved or put into train mode.

    It moves between devices and precisions with the module that holds it.
    """

    def __init__(self, model: ViT | ExternalEncoder):
        super().__init__()
        self.autocast_dtype: torch.dtype | None = None
        self.set_model(model)

    def set_model(self, model: ViT | ExternalEncoder) -> None:
        """Replace the model by one that has its weights."""
        self.__dict__["model"] = model.eval().requires_grad_(False)  # bypasses nn.Module's registration

    @property
    def model(self) -> ViT | ExternalEncoder:
        return self.__dict__["model"]

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Keep the weights in the precision of the computation only; a library's model runs under autocast."""
        if isinstance(self.model, ExternalEncoder):
            self.autocast_dtype = None if dtype == torch.float32 else dtype
            return
        parameters = [each for each in self.model.parameters() if each.dtype != dtype]
        if parameters:  # a copy: whoever gave the model may use it elsewhere
            casted = {id(each): nn.Parameter(each.detach().to(dtype), requires_grad=False) for each in parameters}
            self.set_model(deepcopy(self.model, casted))

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
        with self._autocast(clip.device.type):
            return self.model(clip, visible, layers=layers, attention=attention, intermediates_only=True)

    def _autocast(self, device_type: str) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast_dtype is None else torch.autocast(device_type, self.autocast_dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenTeacher":
        self.model._apply(fn)
        return super()._apply(fn, recurse)


def list_teacher_configs(method_config: Any) -> dict[str, TeacherConfig]:
    """Return a method config's teachers by field name; of a tuple of them, `extra_1`, `extra_2`, ..."""
    values: dict[str, Any] = {}
    for name, value in ((each.name, getattr(method_config, each.name)) for each in fields(method_config)):
        items = value if isinstance(value, tuple) else ()
        values |= {name: value} | {f"{name}_{number}": item for number, item in enumerate(items, start=1)}
    return {name: value for name, value in values.items() if isinstance(value, TeacherConfig)}


def replace_teacher_configs(method_config: Any, teachers: Mapping[str, TeacherConfig]) -> Any:
    """Return a method config with these teachers, named as `list_teacher_configs` names them."""
    changes: dict[str, Any] = {}
    for name, teacher in teachers.items():
        if hasattr(method_config, name):
            changes[name] = teacher
        else:
            field = name.rpartition("_")[0]
            changes[field] = (*changes.get(field, ()), teacher)
    return replace(method_config, **changes)


def list_teachers(method: nn.Module) -> dict[str, FrozenTeacher]:
    """Return a method's teachers by the names that `list_teacher_configs` gives their configs."""
    teachers = {name: part for name, part in method.named_modules() if isinstance(part, FrozenTeacher)}
    return {name.removeprefix("teachers."): teacher for name, teacher in teachers.items()}


def check_layer_pairs(field: str, layer_pairs: LayerPairs, student: ViTConfig, teacher: TeacherModelConfig) -> None:
    """Check that student and teacher can be compared token by token, block by block.

    Args:
        field: What the error message calls the pairs, e.g. "AMD's layer pairs".
        layer_pairs: The student's and the teacher's blocks, counted from 1.
        student: Its tubelets must be the teacher's.
        teacher: An external one must see the student's clip, not one of its native size.

    Raises:
        InputError: Tubelets or frame sizes differ, or a block does not exist.
    """
    if student.tubelet != teacher.tubelet:
        raise InputError(
            f"{field} compare token with token: the student's tubelets {student.tubelet} "
            f"must be the teacher's {teacher.tubelet}"
        )
    if isinstance(teacher, ExternalEncoderConfig) and teacher.input_resolution == "native":
        raise InputError(
            f"{field} compare token with token: the teacher must see the student's clip, so leave its "
            "input-resolution at match_student"
        )
    for pair in layer_pairs:
        for role, block, depth in zip(("student", "teacher"), pair, (student.depth, teacher.depth), strict=True):
            if not 1 <= block <= depth:
                raise InputError(f"{field} name block {block} of a {role} of {depth} blocks; take 1 to {depth}")


def extract_features(
    teacher: FrozenTeacher, clip: Float[Tensor, "b 3 t h w"], grid: Grid, frames: TeacherFrames = "first"
) -> Float[Tensor, "b n d"]:
    """Return a teacher's last block, before any norm, for each token of a student's grid.

    A teacher of images sees single frames. A teacher with other patches gets the clip resized so that it has as many
    tokens; features of another grid, from frames of the teacher's native size, are resized as frames are. If a video
    teacher's tubelets have more frames, each of its time steps serves all the student's within it (MVD, table 13, does
    not say how they were matched).

    Args:
        teacher: A model of clips or images.
        clip: What the student sees; colours in [0, 1].
        grid: The student's tokens.
        frames: Frames of each tubelet that a teacher of images sees.

    Raises:
        InputError: The student's time steps do not divide into the teacher's.
    """
    model, images = teacher.model, clip
    if model.config.tubelet[0] == 1:
        step = clip.shape[2] // grid.t if frames == "first" else 1
        images = rearrange(clip[:, :, ::step], "b c t h w -> (b t) c 1 h w")
    images = resize_clip_to_grid(images, grid, model.config)
    own, last = model.grid(images), model.config.depth
    features = teacher(images, layers=(last,)).layers[last]
    if (own.h, own.w) != (grid.h, grid.w):
        maps = rearrange(features, "b (t h w) d -> (b t) d h w", h=own.h, w=own.w)
        features = rearrange(_resize_images(maps, (grid.h, grid.w)), "(b t) d h w -> b (t h w) d", t=own.t)
    if model.config.tubelet[0] == 1:
        return rearrange(features, "(b t r) s d -> b (t s) (r d)", b=len(clip), t=grid.t)
    if grid.t % own.t:
        raise InputError(
            f"a teacher with {own.t} time steps cannot teach a student with {grid.t}; take one whose tubelets have "
            f"{clip.shape[2] // grid.t} frames as the student's, or a multiple"
        )
    return repeat(features, "b (t s) d -> b (t r s) d", t=own.t, r=grid.t // own.t)


def resize_clip_to_grid(
    clip: Float[Tensor, "b 3 t h w"], grid: Grid, model: TeacherModelConfig
) -> Float[Tensor, "b 3 t rows columns"]:
    """Resize a clip so that a model cuts it into a grid's rows and columns, or to the model's native size.

    Antialiased bilinear, as PIL. (MVD's loader instead crops the smaller clip from the source a second time, so that
    it is not resized twice.)

    Args:
        clip: What the student sees.
        grid: The student's tokens.
        model: Whose patches, and `input_resolution`, decide the size.
    """
    size = (grid.h * model.tubelet[1], grid.w * model.tubelet[2])
    if isinstance(model, ExternalEncoderConfig) and model.input_resolution == "native":
        size = model.train_size
    if size == tuple(clip.shape[-2:]):
        return clip
    frames = _resize_images(rearrange(clip, "b c t h w -> (b t) c h w"), size)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clip))


def _resize_images(images: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c rows columns"]:
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
