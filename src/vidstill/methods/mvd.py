"""MVD: hide nine tubes in ten of a clip, and rebuild what frozen teachers make of them: of frames, and of clips."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import Distance, distance, precise
from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.common.teacher import Frames, Frozen, TeacherConfig, Teachers, clip_features, frame_features
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.init import initialise
from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import BASE, IMAGE_BASE, ViTConfig
from vidstill.utils.types import Grid, InputError, Output, take, within

Distillation = Literal["masked", "visible", "full"]
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
    decoder: DecoderConfig = DecoderConfig(dim=768, depth=2, heads=12, positions="sincos3d", project_bias=True)
    image_teacher: TeacherConfig | None = TeacherConfig(model=IMAGE_BASE)  # None: the video teacher alone
    video_teacher: TeacherConfig | None = TeacherConfig(model=BASE)  # None: the image teacher alone
    mask: TubeMask | RandomMask = TubeMask(ratio=0.90)
    distill: Distillation = "masked"
    image_frames: Frames = "first"  # of each tubelet that the image teacher looks at (released); all of them
    normalise: bool = False  # each token's features to zero mean and unit variance (an option that no script sets)
    image_distance: Distance = "smooth_l1"
    video_distance: Distance = "smooth_l1"
    image_factor: float = 1.0  # of the loss; at 0 (released for a single teacher), it is computed all the same
    video_factor: float = 1.0
    # Beyond the paper: teachers of images or of clips besides, each with a decoder of its own, compared as its kind is
    more_teachers: Teachers = ()
    more_factors: tuple[float, ...] = ()  # of their losses, in order; none: 1 each

    def build(self) -> "MVD":
        return MVD(self)

    @property
    def lessons(self) -> "dict[str, Lesson]":
        """What the student learns from each teacher, by the name of its part of the loss."""
        more = zip(self.more_teachers, self.more_factors or (1.0,) * len(self.more_teachers), strict=True)
        every = {
            "image": ("image", self.image_teacher, self.image_factor),
            "video": ("video", self.video_teacher, self.video_factor),
        } | {
            f"more_{number}": ("image" if teacher.model.tubelet[0] == 1 else "video", teacher, factor)
            for number, (teacher, factor) in enumerate(more, start=1)
        }
        distances = {"image": self.image_distance, "video": self.video_distance}
        looked_at = self.encoder.tubelet[0] if self.image_frames == "all" else 1
        return {
            name: Lesson(
                teacher=teacher,
                of_images=kind == "image",
                width=teacher.model.dim * (looked_at if kind == "image" else 1),
                distance=distances[kind],
                factor=factor,
            )
            for name, (kind, teacher, factor) in every.items()
            if teacher is not None
        }


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One teacher, the width of what it makes of a token, and how the student's guess is compared with that."""

    teacher: TeacherConfig
    of_images: bool
    width: int
    distance: Distance
    factor: float


class MVD(nn.Module):
    """Masked Video Distillation (Wang et al., CVPR 2023, arXiv:2212.04500).

    L_k = mean over masked tokens p and channels of smooth_l1(D_k(S(visible))(p) - T_k(clip)(p))
    L   = w_image L_image + w_video L_video

    T_k is the image or the video teacher's last block, before its final norm; S the student, D_k its decoder for T_k.
    """

    image_teacher: Frozen | None
    video_teacher: Frozen | None
    image_decoder: nn.Module | None
    video_decoder: nn.Module | None

    def __init__(self, config: MVDConfig):
        super().__init__()
        _check(config)
        self.config = config
        self.encoder = config.encoder.build()
        if self.encoder.class_token is not None:
            nn.init.normal_(self.encoder.class_token, std=1e-6)  # as released
        branches = {name: _branch(config, lesson) for name, lesson in config.lessons.items()}
        self.image_teacher, self.image_decoder = branches.pop("image", (None, None))
        self.video_teacher, self.video_decoder = branches.pop("video", (None, None))
        self.more_teachers = nn.ModuleList(teacher for teacher, _ in branches.values())
        self.more_decoders = nn.ModuleList(decoder for _, decoder in branches.values())

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
        mask = mask or self.draw(clip, seed)
        features = self.look(clip, grid)
        return self.compare(self.guess(clip, mask), self.targets(features, mask))

    def draw(self, clip: Float[Tensor, "b 3 t h w"], seed: Int[Tensor, "b"] | None) -> Mask:
        """What the student sees: by the configured mask, or everything."""
        grid = self.encoder.grid(clip)
        if self.config.distill != "full":
            return self.config.mask.draw(seed, grid)
        every = torch.arange(grid.tokens, device=clip.device).expand(len(clip), -1)
        return Mask(every, every[:, :0])

    def look(self, clip: Float[Tensor, "b 3 t h w"], grid: Grid) -> dict[str, Float[Tensor, "b n d"]]:
        """What each teacher makes of the whole clip, for every token of the student's grid."""
        lessons, teachers = self.config.lessons, (self.image_teacher, self.video_teacher, *self.more_teachers)
        taught = zip(lessons.items(), (teacher for teacher in teachers if teacher is not None), strict=True)
        return {
            name: frame_features(teacher, clip, grid, self.config.image_frames)
            if lesson.of_images
            else clip_features(teacher, clip, grid)
            for (name, lesson), teacher in taught
        }

    def targets(self, features: Mapping[str, Float[Tensor, "b n d"]], mask: Mask) -> dict[str, Float[Tensor, "b m d"]]:
        """Of each teacher's features, those that the student has to guess."""
        places = mask.masked if self.config.distill == "masked" else mask.visible
        chosen = {name: precise(take(every, places)) for name, every in features.items()}
        if not self.config.normalise:
            return chosen
        return {name: F.layer_norm(rows, rows.shape[-1:], eps=NORM_EPS) for name, rows in chosen.items()}

    def guess(self, clip: Float[Tensor, "b 3 t h w"], mask: Mask) -> dict[str, Float[Tensor, "b m d"]]:
        """What the student takes each teacher's features for, from the tokens that it sees."""
        seen, grid = self.encoder(clip, mask.visible), self.encoder.grid(clip)
        decoders = (self.image_decoder, self.video_decoder, *self.more_decoders)
        there = [decoder for decoder in decoders if decoder is not None]
        return {
            name: decoder(seen.tokens, mask.visible, mask.masked, grid, seen.classes)
            if isinstance(decoder, Decoder)
            else decoder(seen.tokens)
            for name, decoder in zip(self.config.lessons, there, strict=True)
        }

    def compare(
        self, guesses: Mapping[str, Float[Tensor, "b m d"]], targets: Mapping[str, Float[Tensor, "b m d"]]
    ) -> Output:
        """The loss, and how far the student is from each teacher."""
        lessons = self.config.lessons
        parts = {name: distance(guess, targets[name], lessons[name].distance) for name, guess in guesses.items()}
        loss = torch.stack([lessons[name].factor * part for name, part in parts.items()]).sum()
        return Output(loss, parts)


def _branch(config: MVDConfig, lesson: Lesson) -> tuple[Frozen, nn.Module]:
    """A teacher, and what guesses its features: a decoder, or for each token a linear layer."""
    width, teacher = config.encoder.dim, lesson.teacher.model
    if config.distill != "masked":
        head = nn.Linear(width, lesson.width)
        initialise(head)
        return Frozen(teacher.build()), head
    decoder = config.decoder.build(width, out_dim=lesson.width)
    initialise(decoder.project)  # released: Xavier's, as all of the student's linear layers; VideoMAE's has torch's own
    return Frozen(teacher.build()), decoder


def _check(config: MVDConfig) -> None:
    """Raises an InputError where there is nothing to learn."""
    within(0, math.inf, image_factor=config.image_factor, video_factor=config.video_factor)
    for factor in config.more_factors:
        within(0, math.inf, more_factors=factor)
    if config.more_factors and len(config.more_factors) != len(config.more_teachers):
        raise InputError(
            f"MVD has {len(config.more_teachers)} more teachers and {len(config.more_factors)} factors for them; give "
            "--method.more-factors one for each, or none"
        )
    if not any(lesson.factor for lesson in config.lessons.values()):
        raise InputError("MVD has nothing to learn: give it an image or a video teacher whose factor is not 0")
    if config.image_teacher is not None and config.image_teacher.model.tubelet[0] != 1:
        raise InputError(
            f"MVD's image teacher looks at single frames, and the tubelets of this one have "
            f"{config.image_teacher.model.tubelet[0]}; give it as the video teacher"
        )
