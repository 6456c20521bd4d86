"""DMAE: student and teacher see the same few tokens; one block of each is aligned while pixels are reconstructed."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.methods.common.losses import RegressionLoss, regression_loss, upcast_to_float32
from vidstill.methods.common.masked_autoencoder import MaskedAutoencoder
from vidstill.methods.common.masking import Mask, RandomMask
from vidstill.methods.common.method import AnyMask, Clips
from vidstill.methods.common.targets import PixelTarget
from vidstill.methods.common.teacher import FrozenTeacher, LayerPairs, TeacherConfig, check_layer_pairs
from vidstill.models.decoder import MAE_DECODER, DecoderConfig
from vidstill.models.vit import IMAGE_BASE, IMAGE_LARGE, Features, ViTConfig
from vidstill.utils.types import InputError, Output, check_range

ProjectionKind = Literal["fc-1layer", "mlp-1layer", "mlp-2layer", "none"]
"""From the student's width to the teacher's, per pair: a linear layer, an MLP with one hidden layer, two such MLPs, or
nothing if the widths are equal."""


@dataclass(frozen=True, kw_only=True)
class DMAEConfig:
    """DMAE on images; on clips, as AMD's authors compare with it, it has VideoMAE's sizes, target and tube mask."""

    encoder: ViTConfig = IMAGE_BASE
    decoder: DecoderConfig = MAE_DECODER
    teacher: TeacherConfig = TeacherConfig(model=IMAGE_LARGE)
    mask: AnyMask = RandomMask(ratio=0.75)  # the same for student and teacher
    target: PixelTarget = "input"  # pixels as they enter the encoder; MAE and VideoMAE normalize them
    layer_pairs: LayerPairs = ((9, 18),)  # student's and teacher's blocks, from 1: at three quarters of the depth
    projection: ProjectionKind = "fc-1layer"  # from the student's width to the teacher's: linear, MLPs, or none
    feature_loss: RegressionLoss = "l1"  # between student's and teacher's features; smooth_l1: l2 below 1, else l1
    l2_normalize: Literal["if_projected", "always", "never"] = "if_projected"  # features, per token; as released
    align_class_token: bool = True  # like the other tokens, if there is one
    alignment_weight: float = 1.0  # weight of the feature loss

    def build(self) -> "DMAE":
        return DMAE(self)

    @property
    def uses_l2_norm(self) -> bool:
        return self.l2_normalize == "always" or (self.l2_normalize == "if_projected" and self.projection != "none")


class DMAE(MaskedAutoencoder):
    """Masked Autoencoders Enable Efficient Knowledge Distillers (Bai et al., CVPR 2023, arXiv:2208.12256).

    L = mean over masked patches p of |I(p) - reconstruction(p)|^2
      + sum over pairs of blocks, mean over visible tokens and channels of |u(z_tea) - u(phi(z_stu))|,  u(z) = z / |z|
    """

    config: DMAEConfig

    def __init__(self, config: DMAEConfig):
        _check_config(config)
        super().__init__(config)
        self.teacher = FrozenTeacher(config.teacher.model.build())
        self.init_mae_weights()
        dims = config.encoder.dim, config.teacher.model.dim
        self.projections = nn.ModuleList(_build_projection(config.projection, *dims) for _ in config.layer_pairs)

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        student = self.forward_encoder(clip, mask, layers=[layer for layer, _ in self.config.layer_pairs])
        reconstruction = self.forward_loss(clip, self.forward_decoder(clip, student, mask), mask)
        alignment = torch.stack(self.compute_alignment_losses(student, self.forward_teacher(clip, mask))).sum()
        loss = reconstruction + self.config.alignment_weight * alignment
        return Output(loss, {"reconstruction": reconstruction, "alignment": alignment})

    def forward_teacher(self, clip: Clips, mask: Mask) -> Features:
        """Return the teacher's features, before any norm, at the tokens that the student sees."""
        return self.teacher(clip, mask.visible, layers=[layer for _, layer in self.config.layer_pairs])

    def compute_alignment_losses(self, student: Features, teacher: Features) -> list[Float[Tensor, ""]]:
        """Return the distance of the student's projected features to the teacher's, for each pair."""
        losses = []
        for (layer, teacher_layer), projection in zip(self.config.layer_pairs, self.projections, strict=True):
            prediction = projection(self._select_features(student, layer))
            target = self._select_features(teacher, teacher_layer)
            if self.config.uses_l2_norm:
                prediction, target = (F.normalize(upcast_to_float32(z), dim=-1) for z in (prediction, target))
            losses.append(regression_loss(prediction, target, self.config.feature_loss))
        return losses

    def _select_features(self, features: Features, block: int) -> Float[Tensor, "b v d"]:
        """Return a block's output, the class token first if it is aligned."""
        tokens = features.layers[block]
        return torch.cat([features.cls_layers[block], tokens], dim=1) if self.config.align_class_token else tokens


def _build_projection(kind: ProjectionKind, dim: int, teacher_dim: int) -> nn.Module:
    """Build a projection with torch's default weights: the authors add it after initialising all else."""
    match kind:
        case "fc-1layer":
            return nn.Linear(dim, teacher_dim)
        case "mlp-1layer":
            return _build_mlp(dim, teacher_dim)
        case "mlp-2layer":  # as intended: the released code fails here with an undefined name
            return nn.Sequential(_build_mlp(dim, teacher_dim), _build_mlp(teacher_dim, teacher_dim))
        case "none":
            return nn.Identity()


def _build_mlp(dim: int, out: int) -> nn.Module:
    return nn.Sequential(OrderedDict(fc1=nn.Linear(dim, out), act=nn.GELU(), fc2=nn.Linear(out, out)))


def _check_config(config: DMAEConfig) -> None:
    """Raise an InputError if student and teacher cannot be aligned."""
    student, teacher = config.encoder, config.teacher.model
    check_range(0, math.inf, alignment_weight=config.alignment_weight)
    check_layer_pairs("DMAE's layer pairs", config.layer_pairs, student, teacher)
    if config.align_class_token and student.class_token != teacher.class_token:
        has, lacks = ("student", "teacher") if student.class_token else ("teacher", "student")
        raise InputError(
            f"the {has} has a class token and the {lacks} has none; "
            "give --method.no-align-class-token to align the other tokens"
        )
    if not config.layer_pairs:
        raise InputError("DMAE has no blocks to align; give --method.layer-pairs, e.g. 9 18")
    if config.projection == "none" and student.dim != teacher.dim:
        raise InputError(
            f"a student of width {student.dim} needs a projection to its teacher's {teacher.dim}; "
            "take --method.projection fc-1layer"
        )
