"""MVD: hide nine tubes in ten of a clip, and rebuild what frozen teachers make of them: of frames, and of clips."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import RegressionLoss, regression_loss, upcast_to_float32
from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.common.teacher import (
    FrozenTeacher,
    TeacherConfig,
    TeacherFrames,
    TeacherList,
    extract_clip_features,
    extract_frame_features,
)
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.init import init_xavier_weights
from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import BASE, IMAGE_BASE, ViTConfig
from vidstill.utils.types import Grid, InputError, Output, check_range, gather_tokens

DistillationTokens = Literal["masked", "visible", "full"]
"""Where the student learns (table 11): at the tokens that are hidden from it, which decoders rebuild; at those that it
sees, by a linear layer from each ("per-token distillation"); or so at all tokens, with nothing hidden.

Of the latter two no code was released. Inferred from the former: what they learn from and how it is compared; that the
linear layer comes after the student's final norm, in the place of the decoder; and how it starts.
"""


@dataclass(frozen=True, kw_only=True)
class MVDConfig:
    """MVD on clips; on images (table 14), it has MAE's sizes, positions and mask, and an image teacher alone."""

    encoder: ViTConfig = replace(BASE, positions="sincos3d")
    # One for each teacher, of these settings; released: as wide as the encoder in S and B, its drop path the encoder's
    decoder: DecoderConfig = DecoderConfig(dim=768, depth=2, heads=12, positions="sincos3d", embed_bias=True)
    image_teacher: TeacherConfig | None = TeacherConfig(model=IMAGE_BASE)  # None: the video teacher alone
    video_teacher: TeacherConfig | None = TeacherConfig(model=BASE)  # None: the image teacher alone
    mask: TubeMask | RandomMask = TubeMask(ratio=0.90)
    distillation_tokens: DistillationTokens = "masked"
    image_frames: TeacherFrames = "first"  # of each tubelet that the image teacher looks at (released); all of them
    normalize_targets: bool = (
        False  # each token's features to zero mean and unit variance (an option that no script sets)
    )
    image_loss: RegressionLoss = "smooth_l1"
    video_loss: RegressionLoss = "smooth_l1"
    image_weight: float = 1.0  # of the loss; at 0 (released for a single teacher), it is computed all the same
    video_weight: float = 1.0
    # Beyond the paper: teachers of images or of clips besides, each with a decoder of its own, compared as its kind is
    extra_teachers: TeacherList = ()
    extra_weights: tuple[float, ...] = ()  # of their losses, in order; none: 1 each

    def build(self) -> "MVD":
        return MVD(self)

    @property
    def branches(self) -> "dict[str, TeacherBranch]":
        """What the student learns from each teacher, by the name of its part of the loss."""
        more = zip(self.extra_teachers, self.extra_weights or (1.0,) * len(self.extra_teachers), strict=True)
        every = {
            "image": ("image", self.image_teacher, self.image_weight),
            "video": ("video", self.video_teacher, self.video_weight),
        } | {
            f"more_{number}": ("image" if teacher.model.tubelet[0] == 1 else "video", teacher, factor)
            for number, (teacher, factor) in enumerate(more, start=1)
        }
        distances = {"image": self.image_loss, "video": self.video_loss}
        looked_at = self.encoder.tubelet[0] if self.image_frames == "all" else 1
        return {
            name: TeacherBranch(
                teacher=teacher,
                per_frame=kind == "image",
                dim=teacher.model.dim * (looked_at if kind == "image" else 1),
                loss=distances[kind],
                weight=factor,
            )
            for name, (kind, teacher, factor) in every.items()
            if teacher is not None
        }


@dataclass(frozen=True, kw_only=True)
class TeacherBranch:
    """One teacher, the width of what it makes of a token, and how the student's guess is compared with that."""

    teacher: TeacherConfig
    per_frame: bool
    dim: int
    loss: RegressionLoss
    weight: float


class MVD(nn.Module):
    """Masked Video Distillation (Wang et al., CVPR 2023, arXiv:2212.04500).

    L_k = mean over masked tokens p and channels of smooth_l1(D_k(S(visible))(p) - T_k(clip)(p))
    L   = w_image L_image + w_video L_video

    T_k is the image or the video teacher's last block, before its final norm; S the student, D_k its decoder for T_k.
    """

    image_teacher: FrozenTeacher | None
    video_teacher: FrozenTeacher | None
    image_decoder: nn.Module | None
    video_decoder: nn.Module | None

    def __init__(self, config: MVDConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        self.encoder = config.encoder.build()
        if self.encoder.cls_token is not None:
            nn.init.normal_(self.encoder.cls_token, std=1e-6)  # as released
        branches = {name: _build_branch(config, lesson) for name, lesson in config.branches.items()}
        self.image_teacher, self.image_decoder = branches.pop("image", (None, None))
        self.video_teacher, self.video_decoder = branches.pop("video", (None, None))
        self.extra_teachers = nn.ModuleList(teacher for teacher, _ in branches.values())
        self.extra_decoders = nn.ModuleList(decoder for _, decoder in branches.values())

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of clips of colours in [0, 1]; the mask is drawn from the seeds where none is given."""
        grid = self.encoder.grid(clip)
        mask = mask or self.draw_mask(clip, seed)
        features = self.forward_teachers(clip, grid)
        return self.forward_loss(self.forward_student(clip, mask), self.select_targets(features, mask))

    def draw_mask(self, clip: Float[Tensor, "b 3 t h w"], seed: Int[Tensor, "b"] | None) -> Mask:
        """What the student sees: by the configured mask, or everything."""
        grid = self.encoder.grid(clip)
        if self.config.distillation_tokens != "full":
            return self.config.mask.draw(seed, grid)
        every = torch.arange(grid.num_tokens, device=clip.device).expand(len(clip), -1)
        return Mask(every, every[:, :0])

    def forward_teachers(self, clip: Float[Tensor, "b 3 t h w"], grid: Grid) -> dict[str, Float[Tensor, "b n d"]]:
        """What each teacher makes of the whole clip, for every token of the student's grid."""
        lessons, teachers = self.config.branches, (self.image_teacher, self.video_teacher, *self.extra_teachers)
        taught = zip(lessons.items(), (teacher for teacher in teachers if teacher is not None), strict=True)
        return {
            name: extract_frame_features(teacher, clip, grid, self.config.image_frames)
            if lesson.per_frame
            else extract_clip_features(teacher, clip, grid)
            for (name, lesson), teacher in taught
        }

    def select_targets(
        self, features: Mapping[str, Float[Tensor, "b n d"]], mask: Mask
    ) -> dict[str, Float[Tensor, "b m d"]]:
        """Of each teacher's features, those that the student has to guess."""
        places = mask.masked if self.config.distillation_tokens == "masked" else mask.visible
        chosen = {name: upcast_to_float32(gather_tokens(every, places)) for name, every in features.items()}
        if not self.config.normalize_targets:
            return chosen
        return {name: F.layer_norm(rows, rows.shape[-1:], eps=NORM_EPS) for name, rows in chosen.items()}

    def forward_student(self, clip: Float[Tensor, "b 3 t h w"], mask: Mask) -> dict[str, Float[Tensor, "b m d"]]:
        """What the student takes each teacher's features for, from the tokens that it sees."""
        seen, grid = self.encoder(clip, mask.visible), self.encoder.grid(clip)
        decoders = (self.image_decoder, self.video_decoder, *self.extra_decoders)
        there = [decoder for decoder in decoders if decoder is not None]
        return {
            name: decoder(seen.tokens, mask.visible, mask.masked, grid, seen.cls_token)
            if isinstance(decoder, Decoder)
            else decoder(seen.tokens)
            for name, decoder in zip(self.config.branches, there, strict=True)
        }

    def forward_loss(
        self, predictions: Mapping[str, Float[Tensor, "b m d"]], targets: Mapping[str, Float[Tensor, "b m d"]]
    ) -> Output:
        """The loss, and how far the student is from each teacher."""
        lessons = self.config.branches
        parts = {name: regression_loss(guess, targets[name], lessons[name].loss) for name, guess in predictions.items()}
        loss = torch.stack([lessons[name].weight * part for name, part in parts.items()]).sum()
        return Output(loss, parts)


def _build_branch(config: MVDConfig, branch: TeacherBranch) -> tuple[FrozenTeacher, nn.Module]:
    """A teacher, and what guesses its features: a decoder, or for each token a linear layer."""
    width, teacher = config.encoder.dim, branch.teacher.model
    if config.distillation_tokens != "masked":
        head = nn.Linear(width, branch.dim)
        init_xavier_weights(head)
        return FrozenTeacher(teacher.build()), head
    decoder = config.decoder.build(width, out_dim=branch.dim)
    init_xavier_weights(
        decoder.embed
    )  # released: Xavier's, as all of the student's linear layers; VideoMAE's has torch's own
    return FrozenTeacher(teacher.build()), decoder


def _check_config(config: MVDConfig) -> None:
    """Raises an InputError where there is nothing to learn."""
    check_range(0, math.inf, image_weight=config.image_weight, video_weight=config.video_weight)
    for factor in config.extra_weights:
        check_range(0, math.inf, extra_weights=factor)
    if config.extra_weights and len(config.extra_weights) != len(config.extra_teachers):
        raise InputError(
            f"MVD has {len(config.extra_teachers)} more teachers and {len(config.extra_weights)} factors for them; give "
            "--method.more-factors one for each, or none"
        )
    if not any(lesson.weight for lesson in config.branches.values()):
        raise InputError("MVD has nothing to learn: give it an image or a video teacher whose factor is not 0")
    if config.image_teacher is not None and config.image_teacher.model.tubelet[0] != 1:
        raise InputError(
            f"MVD's image teacher looks at single frames, and the tubelets of this one have "
            f"{config.image_teacher.model.tubelet[0]}; give it as the video teacher"
        )
