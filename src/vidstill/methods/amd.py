"""AMD: a student that sees few tokens learns from a teacher that sees more, while it reconstructs pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.methods.common.losses import RegressionLoss, regression_loss
from vidstill.methods.common.masked_autoencoder import MaskedAutoencoder
from vidstill.methods.common.masking import Mask, NestedTubeMask
from vidstill.methods.common.method import Clips
from vidstill.methods.common.targets import PixelTarget
from vidstill.methods.common.teacher import FrozenTeacher, LayerPairs, TeacherConfig, check_layer_pairs
from vidstill.models.decoder import DecoderConfig, DecoderTrunk
from vidstill.models.layers import choose_num_heads, init_xavier_weights
from vidstill.models.vit import LARGE, SMALL, Features, ViTConfig
from vidstill.utils.types import Grid, InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class AMDQuirks:
    """Where the released code differs from the paper. Defaults: the paper."""

    constant_mask_tokens: bool = False  # the generators' mask tokens are random constants; paper: learned
    # Serial alignment: generated pair i continues from the projection of direct pair i; paper: from its own layer's.
    projection_by_index: bool = False


@dataclass(frozen=True, kw_only=True)
class AMDConfig:
    """AMD on clips; on images (section 4.4) it has MAE's sizes and target."""

    encoder: ViTConfig = SMALL
    decoder: DecoderConfig = DecoderConfig(dim=192, depth=4, heads=3)
    teacher: TeacherConfig = TeacherConfig(model=LARGE)
    mask: NestedTubeMask = NestedTubeMask(student_ratio=0.90, teacher_ratio=0.75)
    target: PixelTarget = "per_channel"  # normalized per tubelet and colour channel; "raw": colours in [0, 1]
    layer_pairs: LayerPairs = ((6, 12), (12, 24))  # student's and teacher's blocks, from 1: the middle and the last
    generation_layer_pairs: LayerPairs | None = None  # pairs to generate, if others than those aligned directly
    alignment: Literal["serial", "parallel", "direct", "generation"] = "serial"  # parallel: two projections per layer
    feature_loss: RegressionLoss = "l2"  # between student's and teacher's features; smooth_l1: l2 below 1, else l1
    generator_depth: int = 2  # blocks of a generator
    reconstruction_weight: float = 1.0  # weight of the pixel loss
    direct_weight: float = 1.0  # weight of the loss at tokens that student and teacher see
    generation_weight: float = 1.0  # weight of the loss at tokens that only the teacher sees
    released: AMDQuirks = AMDQuirks()

    def build(self) -> "AMD":
        return AMD(self)

    @property
    def direct_pairs(self) -> LayerPairs:
        """The layers aligned at the tokens that both see."""
        return () if self.alignment == "generation" else self.layer_pairs

    @property
    def generator_pairs(self) -> LayerPairs:
        """The layers aligned at the tokens that only the teacher sees."""
        if self.alignment == "direct":
            return ()
        return self.layer_pairs if self.generation_layer_pairs is None else self.generation_layer_pairs

    @property
    def generation_projection_layers(self) -> tuple[int, ...]:
        """The student layer of the projection that each generated pair continues from."""
        by_index = self.alignment == "serial" and self.released.projection_by_index
        pairs = self.direct_pairs[: len(self.generator_pairs)] if by_index else self.generator_pairs
        return tuple(layer for layer, _ in pairs)

    @property
    def generator_config(self) -> DecoderConfig:
        """A decoder-like structure of the teacher's width (section 3.4); 64 channels per head if the width divides."""
        dim = self.teacher.model.dim
        return DecoderConfig(
            dim=dim,
            depth=self.generator_depth,
            heads=choose_num_heads(dim),
            mlp_ratio=self.encoder.mlp_ratio,
            positions="sinusoid" if self.encoder.learned_grid else self.encoder.positions,
            layer_scale=self.encoder.layer_scale,
            drop_path=self.encoder.drop_path,
            attention_bias=self.encoder.attention_bias,
        )


class AMD(MaskedAutoencoder):
    """Asymmetric Masked Distillation (Zhao et al., CVPR 2024, arXiv:2311.03149).

    P_stu ⊂ P_tea                                                              eq. (2)
    L_dir = sum over layers l, mean over P_stu  of |z_tea - phi_l(z_stu)|^2        eq. (7)
    L_gen = sum over layers l, mean over P_diff of |z_tea - G_l(phi_l(z_stu))|^2   eq. (8)
    L     = L_recon + L_dir + L_gen                                            eq. (9)

    Layers and channels are averaged, not summed, as in the code that the published numbers were made with.
    """

    config: AMDConfig

    def __init__(self, config: AMDConfig):
        _check_config(config)
        super().__init__(config)
        self.teacher = FrozenTeacher(config.teacher.model.build())
        direct, generation = [layer for layer, _ in config.direct_pairs], config.generation_projection_layers
        is_serial = config.alignment == "serial"  # then generation continues from phi_l, and has no phi_g
        self.projections = self._build_projections({*direct, *generation} if is_serial else {*direct})
        self.generation_projections = self._build_projections(set() if is_serial else {*generation})
        self.generators = nn.ModuleList(DecoderTrunk(config.generator_config) for _ in config.generator_pairs)
        for generator in self.generators:
            generator.mask_token.requires_grad_(not config.released.constant_mask_tokens)

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        config, grid = self.config, self.encoder.grid(clip)
        pairs = (*config.direct_pairs, *config.generator_pairs)
        student = self.forward_encoder(clip, mask, layers=[layer for layer, _ in pairs])
        reconstruction = self.forward_loss(clip, self.forward_decoder(clip, student, mask), mask)  # eq. (1)

        both, teacher_only = self.forward_teacher(clip, mask)
        projected, generated = self.project_student(student), self.generate_features(student, mask, grid)
        direct = self._mean_loss(projected, [both[layer] for _, layer in config.direct_pairs])  # eq. (7)
        generation = self._mean_loss(generated, [teacher_only[layer] for _, layer in config.generator_pairs])  # eq. (8)
        loss = (  # eq. (9)
            config.reconstruction_weight * reconstruction
            + config.direct_weight * direct
            + config.generation_weight * generation
        )
        return Output(loss, {"reconstruction": reconstruction, "direct": direct, "generation": generation})

    def forward_teacher(
        self, clip: Clips, mask: Mask
    ) -> tuple[Mapping[int, Float[Tensor, "b v d"]], Mapping[int, Float[Tensor, "b e d"]]]:
        """Return the teacher's features before any norm, by layer: at tokens both see, and at those only it sees."""
        layers = {layer for _, layer in (*self.config.direct_pairs, *self.config.generator_pairs)}
        features = self.teacher(clip, mask.teacher_visible, layers=layers).layers
        cut = mask.visible.shape[1]
        return {n: z[:, :cut] for n, z in features.items()}, {n: z[:, cut:] for n, z in features.items()}

    def project_student(self, student: Features) -> list[Float[Tensor, "b v d_teacher"]]:
        """Return phi_l(z_stu), the student's features projected to the teacher's width, for each direct pair."""
        return [self.projections[str(layer)](student.layers[layer]) for layer, _ in self.config.direct_pairs]

    def generate_features(self, student: Features, mask: Mask, grid: Grid) -> list[Float[Tensor, "b e d_teacher"]]:
        """Return G_l(phi(z_stu)) at the tokens that only the teacher sees, for each generated pair (eq. 4, 5)."""
        if mask.teacher_only is None:
            raise ValueError("the mask has no tokens that only the teacher sees; draw it with NestedTubeMask")
        projections = self.projections if self.config.alignment == "serial" else self.generation_projections
        phis = (projections[str(layer)] for layer in self.config.generation_projection_layers)
        projected = (
            phi(student.layers[layer]) for phi, (layer, _) in zip(phis, self.config.generator_pairs, strict=True)
        )
        pairs = zip(self.generators, projected, strict=True)
        return [generator(tokens, mask.visible, mask.teacher_only, grid) for generator, tokens in pairs]

    def _build_projections(self, layers: set[int]) -> nn.ModuleDict:
        dim, teacher_dim = self.config.encoder.dim, self.config.teacher.model.dim
        projections = nn.ModuleDict({str(layer): nn.Linear(dim, teacher_dim, bias=False) for layer in sorted(layers)})
        init_xavier_weights(projections)
        return projections

    def _mean_loss(self, predictions: list[Tensor], targets: list[Tensor]) -> Float[Tensor, ""]:
        """Return the mean loss over the layers; 0 without layers."""
        losses = [regression_loss(p, t, self.config.feature_loss) for p, t in zip(predictions, targets, strict=True)]
        return torch.stack(losses).mean() if losses else next(self.encoder.parameters()).new_zeros(())


def _check_config(config: AMDConfig) -> None:
    """Raise an InputError if student and teacher cannot be aligned."""
    check_range(0, math.inf, reconstruction_weight=config.reconstruction_weight, direct_weight=config.direct_weight)
    check_range(0, math.inf, generation_weight=config.generation_weight)
    pairs = (*config.direct_pairs, *config.generator_pairs)
    check_layer_pairs("AMD's layer pairs", pairs, config.encoder, config.teacher.model)
    if not pairs:
        raise InputError("AMD has no layers to align; give --method.layer-pairs, e.g. 6 12 12 24")
    by_index = config.alignment == "serial" and config.released.projection_by_index
    if by_index and len(config.generator_pairs) > len(config.direct_pairs):
        raise InputError(
            "--method.released.projection-by-index needs a direct pair for every generated one; give as many in both"
        )
