"""DMAE: student and teacher see the same few tokens; a block of each is aligned, while the student rebuilds pixels."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.init import init_mae_weights
from vidstill.methods.common.losses import RegressionLoss, regression_loss, upcast_to_float32
from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.methods.common.teacher import FrozenTeacher, LayerPairs, TeacherConfig, check_layer_pairs
from vidstill.models.decoder import MAE_DECODER, DecoderConfig
from vidstill.models.vit import IMAGE_BASE, IMAGE_LARGE, Features, ViTConfig
from vidstill.utils.types import InputError, Output, check_range

ProjectionKind = Literal["fc-1layer", "mlp-1layer", "mlp-2layer", "none"]
"""From the student's width to the teacher's, for each pair: a linear layer, a perceptron of one hidden layer, two of
them, or nothing where they have one width."""


@dataclass(frozen=True, kw_only=True)
class DMAEConfig:
    """DMAE on images; on clips, as AMD's authors compare with it, it has VideoMAE's sizes, target and tube mask."""

    encoder: ViTConfig = IMAGE_BASE
    decoder: DecoderConfig = MAE_DECODER
    teacher: TeacherConfig = TeacherConfig(model=IMAGE_LARGE)
    mask: RandomMask | TubeMask = RandomMask(ratio=0.75)  # of both
    target: PixelTarget = "input"  # pixels as they enter the encoder; normalised in MAE and VideoMAE
    layer_pairs: LayerPairs = ((9, 18),)  # after three quarters of the depth of each
    projection: ProjectionKind = "fc-1layer"
    feature_loss: RegressionLoss = "l1"  # between features
    # Both sides are brought to length 1, token by token; released: where there is a projection.
    l2_normalize: Literal["where_projected", "always", "never"] = "where_projected"
    align_class_token: bool = True  # as the other tokens, where there is one
    alignment_weight: float = 1.0  # of the features' loss

    def build(self) -> "DMAE":
        return DMAE(self)

    @property
    def uses_l2_norm(self) -> bool:
        return self.l2_normalize == "always" or (self.l2_normalize == "where_projected" and self.projection != "none")


class DMAE(nn.Module):
    """Masked Autoencoders Enable Efficient Knowledge Distillers (Bai et al., CVPR 2023, arXiv:2208.12256).

    L = mean over masked patches p of |I(p) - rebuilt(p)|^2
      + sum over pairs of blocks, mean over visible tokens and channels of |u(z_tea) - u(phi(z_stu))|,  u(z) = z / |z|
    """

    def __init__(self, config: DMAEConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=config.encoder.pixels_per_token)
        self.teacher = FrozenTeacher(config.teacher.model.build())
        init_mae_weights(self.encoder, self.decoder)
        widths = config.encoder.dim, config.teacher.model.dim
        self.projections = nn.ModuleList(_build_projection(config.projection, *widths) for _ in config.layer_pairs)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of images or clips; the mask is drawn from the seeds where none is given."""
        config, grid = self.config, self.encoder.grid(clip)
        mask = mask or config.mask.draw(seed, grid)

        student = self.encoder(clip, mask.visible, layers=[ours for ours, _ in config.layer_pairs])
        rebuilt = self.decoder(student.tokens, mask.visible, mask.masked, grid, student.cls_token)
        target = compute_pixel_target(clip, config.encoder, mask.masked, config.target)
        reconstruction = regression_loss(rebuilt, target, "l2")

        alignment = torch.stack(self.compute_alignment_losses(student, self.forward_teacher(clip, mask))).sum()
        loss = reconstruction + config.alignment_weight * alignment
        return Output(loss, {"reconstruction": reconstruction, "alignment": alignment})

    def forward_teacher(self, clip: Float[Tensor, "b 3 t h w"], mask: Mask) -> Features:
        """The teacher's raw features at the tokens that the student sees; its last blocks do not run."""
        return self.teacher(clip, mask.visible, layers=[theirs for _, theirs in self.config.layer_pairs])

    def compute_alignment_losses(self, student: Features, teacher: Features) -> list[Float[Tensor, ""]]:
        """How far the student's projected features are from the teacher's, for each pair."""
        apart = []
        for (ours, theirs), projection in zip(self.config.layer_pairs, self.projections, strict=True):
            guess, target = projection(self._select_features(student, ours)), self._select_features(teacher, theirs)
            if self.config.uses_l2_norm:
                guess, target = (
                    F.normalize(upcast_to_float32(guess), dim=-1),
                    F.normalize(upcast_to_float32(target), dim=-1),
                )
            apart.append(regression_loss(guess, target, self.config.feature_loss))
        return apart

    def _select_features(self, features: Features, block: int) -> Float[Tensor, "b v d"]:
        """What a block gave, the class token first where it is aligned."""
        tokens = features.layers[block]
        return torch.cat([features.cls_layers[block], tokens], dim=1) if self.config.align_class_token else tokens


def _build_projection(kind: ProjectionKind, width: int, teacher_width: int) -> nn.Module:
    """With torch's own start: the authors make it after all else has started."""
    match kind:
        case "fc-1layer":
            return nn.Linear(width, teacher_width)
        case "mlp-1layer":
            return _build_mlp(width, teacher_width)
        case "mlp-2layer":  # as it was meant: the released code stops here with an undefined name
            return nn.Sequential(_build_mlp(width, teacher_width), _build_mlp(teacher_width, teacher_width))
        case "none":
            return nn.Identity()


def _build_mlp(width: int, out: int) -> nn.Module:
    return nn.Sequential(OrderedDict(fc1=nn.Linear(width, out), act=nn.GELU(), fc2=nn.Linear(out, out)))


def _check_config(config: DMAEConfig) -> None:
    """Raises an InputError where student and teacher cannot be aligned."""
    student, teacher = config.encoder, config.teacher.model
    check_range(0, math.inf, alignment_weight=config.alignment_weight)
    check_layer_pairs("DMAE's pairs", config.layer_pairs, student, teacher)
    if config.align_class_token and student.class_token != teacher.class_token:
        has, lacks = ("student", "teacher") if student.class_token else ("teacher", "student")
        raise InputError(
            f"the {has} has a class token and the {lacks} has none; "
            "give --method.no-align-class-token to align the others"
        )
    if not config.layer_pairs:
        raise InputError("DMAE has no blocks to align; give --method.pairs, e.g. 9 18")
    if config.projection == "none" and student.dim != teacher.dim:
        raise InputError(
            f"a student of width {student.dim} needs a projection to its teacher's {teacher.dim}; "
            "take --method.projection fc-1layer"
        )
