"""MVD: mask nine tubes in ten of a clip, and regress frozen image and video teachers' features of them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import RegressionLoss, regression_loss, upcast_to_float32
from vidstill.methods.common.masking import Mask, TubeMask
from vidstill.methods.common.method import AnyMask, Clips, Method
from vidstill.methods.common.teacher import FrozenTeacher, TeacherConfig, TeacherFrames, extract_features
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.layers import NORM_EPS, init_xavier_weights
from vidstill.models.vit import BASE, IMAGE_BASE, ViTConfig
from vidstill.utils.types import Grid, InputError, Output, check_range, gather_tokens

DistillationTokens = Literal["masked", "visible", "full"]
"""Tokens that the student learns at (table 11): masked ones, reconstructed by decoders; visible ones, each mapped by a
linear layer ("per-token distillation"); or all tokens so, with nothing masked.

No code of the latter two was released. Inferred from the first: targets and loss; that the linear layer follows the
student's final norm, in place of the decoder; and its initialisation.
"""


@dataclass(frozen=True, kw_only=True)
class TeacherBranch(TeacherConfig):
    """A teacher, and how the student's prediction is compared with its features."""

    loss: RegressionLoss = "smooth_l1"  # between reconstructed and teacher's features; smooth_l1: l2 below 1, else l1
    weight: float = 1.0  # weight of the loss; at 0 (released for a single teacher) it is computed all the same

    @property
    def is_image_teacher(self) -> bool:
        return self.model.tubelet[0] == 1


def _parse_branch(text: str) -> TeacherBranch:
    """Read `CHECKPOINT` or `WEIGHT*CHECKPOINT`; what the model is, the checkpoint says."""
    weight, checkpoint = re.fullmatch(r"(?:(\d*\.?\d+)\*)?(.+)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # matches any text
    return TeacherBranch(model=BASE, checkpoint=checkpoint, weight=1.0 if weight is None else float(weight))


ExtraBranches: TypeAlias = Annotated[
    tuple[TeacherBranch, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[[WEIGHT*]CHECKPOINT ...]",
        instance_from_str=lambda texts: tuple(map(_parse_branch, texts)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda branches: [f"{branch.weight:g}*{branch.checkpoint}" for branch in branches],
    ),
]
"""Any number of branches, each given on the command line by its checkpoint and, optionally, its weight."""


@dataclass(frozen=True, kw_only=True)
class MVDConfig:
    """MVD on clips; on images (table 14) it has MAE's sizes, positions and mask, and only an image teacher."""

    encoder: ViTConfig = replace(BASE, positions="sincos3d")
    # One per teacher; released: as wide as the encoder in S and B, with the encoder's drop path
    decoder: DecoderConfig = DecoderConfig(dim=768, depth=2, heads=12, positions="sincos3d", embed_bias=True)
    image: TeacherBranch | None = TeacherBranch(model=IMAGE_BASE)  # None: only the video teacher
    video: TeacherBranch | None = TeacherBranch(model=BASE)  # None: only the image teacher
    # Beyond the paper: further image or video teachers, each with its own decoder, e.g. RUN 0.5*timm:NAME
    extra: ExtraBranches = ()
    mask: AnyMask = TubeMask(ratio=0.90)  # which tokens the student does not see
    distillation_tokens: DistillationTokens = "masked"  # tokens whose features are compared
    image_frames: TeacherFrames = "first"  # frames of each tubelet that image teachers see (released: first)
    normalize_targets: bool = False  # each token's features to zero mean and unit variance (no released script does)

    def build(self) -> "MVD":
        return MVD(self)

    @property
    def branches(self) -> dict[str, TeacherBranch]:
        """All branches by the name of their teacher, decoder and part of the loss."""
        extra = {f"extra_{number}": branch for number, branch in enumerate(self.extra, start=1)}
        branches = {"image": self.image, "video": self.video, **extra}
        return {name: branch for name, branch in branches.items() if branch is not None}


class MVD(Method):
    """Masked Video Distillation (Wang et al., CVPR 2023, arXiv:2212.04500).

    L_k = mean over masked tokens p and channels of smooth_l1(D_k(S(visible))(p) - T_k(clip)(p))
    L   = w_image L_image + w_video L_video

    T_k is the image or the video teacher's last block, before its final norm; S the student, D_k its decoder for T_k.
    """

    config: MVDConfig

    def __init__(self, config: MVDConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        self.encoder = config.encoder.build()
        if self.encoder.cls_token is not None:
            nn.init.normal_(self.encoder.cls_token, std=1e-6)  # as released
        self.decoders, self.teachers = nn.ModuleDict(), nn.ModuleDict()
        for name, branch in config.branches.items():
            self.decoders[name] = self._build_decoder(branch)
            self.teachers[name] = FrozenTeacher(branch.model.build())

    def draw_mask(self, clip: Clips, seed: Int[Tensor, "b"] | None) -> Mask:
        """Draw the configured mask, or one that masks nothing."""
        if self.config.distillation_tokens != "full":
            return super().draw_mask(clip, seed)
        indices = torch.arange(self.encoder.grid(clip).num_tokens, device=clip.device).expand(len(clip), -1)
        return Mask(indices, indices[:, :0])

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        targets = self.select_targets(self.forward_teachers(clip, self.encoder.grid(clip)), mask)
        return self.forward_loss(self.forward_student(clip, mask), targets)

    def forward_teachers(self, clip: Clips, grid: Grid) -> dict[str, Float[Tensor, "b n d"]]:
        """Return each teacher's features of the whole clip, for every token of the student's grid."""
        frames = self.config.image_frames
        return {
            name: extract_features(teacher, clip, grid, frames)  # type: ignore[arg-type]  # torch forgets what it holds
            for name, teacher in self.teachers.items()
        }

    def select_targets(
        self, features: Mapping[str, Float[Tensor, "b n d"]], mask: Mask
    ) -> dict[str, Float[Tensor, "b m d"]]:
        """Return each teacher's features at the tokens that the student learns at."""
        indices = mask.masked if self.config.distillation_tokens == "masked" else mask.visible
        targets = {name: upcast_to_float32(gather_tokens(each, indices)) for name, each in features.items()}
        if not self.config.normalize_targets:
            return targets
        return {name: F.layer_norm(target, target.shape[-1:], eps=NORM_EPS) for name, target in targets.items()}

    def forward_student(self, clip: Clips, mask: Mask) -> dict[str, Float[Tensor, "b m d"]]:
        """Predict each teacher's features from the visible tokens."""
        features, grid = self.encoder(clip, mask.visible), self.encoder.grid(clip)
        return {
            name: decoder(features, mask.visible, mask.masked, grid)
            if isinstance(decoder, Decoder)
            else decoder(features.tokens)
            for name, decoder in self.decoders.items()
        }

    def forward_loss(
        self, predictions: Mapping[str, Float[Tensor, "b m d"]], targets: Mapping[str, Float[Tensor, "b m d"]]
    ) -> Output:
        """Return the weighted sum of the branches' losses, and each of them."""
        parts, weighted = {}, []
        for name, branch in self.config.branches.items():
            parts[name] = regression_loss(predictions[name], targets[name], branch.loss)
            weighted.append(branch.weight * parts[name])
        return Output(torch.stack(weighted).sum(), parts)

    def _build_decoder(self, branch: TeacherBranch) -> nn.Module:
        """Build a decoder for a teacher's features, or a linear layer per token."""
        config, out_dim = self.config, branch.model.dim
        if branch.is_image_teacher and config.image_frames == "all":
            out_dim *= config.encoder.tubelet[0]
        if config.distillation_tokens != "masked":
            head = nn.Linear(config.encoder.dim, out_dim)
            init_xavier_weights(head)
            return head
        decoder = config.decoder.build(config.encoder.dim, out_dim=out_dim)
        init_xavier_weights(decoder.embed)  # released: as all linear layers of the student; VideoMAE's has torch's own
        return decoder


def _check_config(config: MVDConfig) -> None:
    """Raise an InputError if there is nothing to learn, or a teacher is of the other kind."""
    for branch in config.branches.values():
        check_range(0, math.inf, weight=branch.weight)
    if not any(branch.weight for branch in config.branches.values()):
        raise InputError("MVD has nothing to learn: give it an image or a video teacher whose weight is not 0")
    if config.image is not None and not config.image.is_image_teacher:
        raise InputError("MVD's image teacher sees single frames, and this model sees clips; give it as --method.video")
    if config.video is not None and config.video.is_image_teacher and config.encoder.tubelet[0] > 1:
        raise InputError("MVD's video teacher sees clips, and this model sees single frames; give it as --method.image")
