"""AMD: a student that sees little learns from a teacher that sees more, while it rebuilds pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import RegressionLoss, regression_loss
from vidstill.methods.common.masking import Mask, NestedTubeMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.methods.common.teacher import FrozenTeacher, LayerPairs, TeacherConfig, check_layer_pairs
from vidstill.models.decoder import DecoderConfig, DecoderTrunk
from vidstill.models.init import init_xavier_weights
from vidstill.models.vit import LARGE, SMALL, Features, ViTConfig
from vidstill.utils.types import Grid, InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class AMDConfig:
    encoder: ViTConfig = SMALL
    decoder: DecoderConfig = DecoderConfig(dim=192, depth=4, heads=3)
    teacher: TeacherConfig = TeacherConfig(model=LARGE)
    mask: NestedTubeMask = NestedTubeMask(student_ratio=0.90, teacher_ratio=0.75)
    target: PixelTarget = "per_channel"  # pixels normalised colour by colour, patch by patch, or as they are
    layer_pairs: LayerPairs = (
        (6, 12),
        (12, 24),
    )  # student's and teacher's blocks, from 1; here the middle and the last
    generation_layer_pairs: LayerPairs | None = None  # where other layers are generated than are aligned directly
    alignment: Literal["serial", "parallel", "direct", "generation"] = "serial"  # parallel: two projections a layer
    feature_loss: RegressionLoss = "l2"  # between features
    generator_depth: int = 2  # blocks
    reconstruction_weight: float = 1.0  # of the pixels' loss
    direct_weight: float = 1.0  # of the loss at tokens that both see
    generation_weight: float = 1.0  # of the loss at tokens that the teacher alone sees
    # Released: random constants that are never trained; the paper has a learned token, as a decoder's.
    generator_mask_tokens: Literal["trained", "released"] = "trained"
    # Serial: which projection a generated layer continues from; released: the one at its place in the list of pairs.
    shared_projection: Literal["layer", "released"] = "layer"

    def build(self) -> "AMD":
        return AMD(self)

    @property
    def direct_pairs(self) -> LayerPairs:
        """The layers aligned at the tokens that both see."""
        return () if self.alignment == "generation" else self.layer_pairs

    @property
    def generator_pairs(self) -> LayerPairs:
        """The layers aligned at the tokens that the teacher alone sees."""
        if self.alignment == "direct":
            return ()
        return self.layer_pairs if self.generation_layer_pairs is None else self.generation_layer_pairs

    @property
    def generator_config(self) -> DecoderConfig:
        """A decoder-like structure of the teacher's width (section 3.4); 64 channels a head where they divide so."""
        width = self.teacher.model.dim
        return DecoderConfig(
            dim=width,
            depth=self.generator_depth,
            heads=next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0),
            mlp_ratio=self.encoder.mlp_ratio,
            positions="sinusoid" if self.encoder.learned_grid else self.encoder.positions,
            layer_scale=self.encoder.layer_scale,
            drop_path=self.encoder.drop_path,
            attention_bias=self.encoder.attention_bias,
        )


class AMD(nn.Module):
    """Asymmetric Masked Distillation (Zhao et al., CVPR 2024, arXiv:2311.03149).

    P_stu ⊂ P_tea                                                              eq. (2)
    L_dir = sum over layers l, mean over P_stu  of |z_tea - phi_l(z_stu)|^2        eq. (7)
    L_gen = sum over layers l, mean over P_diff of |z_tea - G_l(phi_l(z_stu))|^2   eq. (8)
    L     = L_recon + L_dir + L_gen                                            eq. (9)

    Layers and channels are averaged, not summed, as in the code that the published numbers were made with.
    """

    def __init__(self, config: AMDConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=config.encoder.pixels_per_token)
        self.teacher = FrozenTeacher(config.teacher.model.build())
        shared = {layer for layer, _ in config.direct_pairs}  # phi_l
        separate: set[int] = set()  # phi_g, where generation does not continue from phi_l
        for place in range(len(config.generator_pairs)):
            (shared if config.alignment == "serial" else separate).add(self._find_projection_layer(place))
        self.projections = self._build_projections(shared)
        self.generation_projections = self._build_projections(separate)
        self.generators = nn.ModuleList(DecoderTrunk(config.generator_config) for _ in config.generator_pairs)
        for generator in self.generators:
            generator.mask_token.requires_grad_(config.generator_mask_tokens == "trained")

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of clips of colours in [0, 1]; masks are drawn from the seeds where none are given."""
        config, grid = self.config, self.encoder.grid(clip)
        mask = mask or config.mask.draw(seed, grid)

        student = self.encoder(
            clip, mask.visible, layers=_student_layers((*config.direct_pairs, *config.generator_pairs))
        )
        rebuilt = self.decoder(student.tokens, mask.visible, mask.masked, grid, student.cls_token)
        target = compute_pixel_target(clip, config.encoder, mask.masked, config.target)
        reconstruction = regression_loss(rebuilt, target, "l2")  # eq. (1)

        both, teacher_only = self.forward_teacher(clip, mask)
        direct = self._mean_loss(
            self.project_student(student), [both[layer] for _, layer in config.direct_pairs]
        )  # eq. (7)
        generation = self._mean_loss(  # eq. (8)
            self.generate_features(student, mask, grid), [teacher_only[layer] for _, layer in config.generator_pairs]
        )

        loss = (  # eq. (9)
            config.reconstruction_weight * reconstruction
            + config.direct_weight * direct
            + config.generation_weight * generation
        )
        return Output(loss, {"reconstruction": reconstruction, "direct": direct, "generation": generation})

    def forward_teacher(
        self, clip: Float[Tensor, "b 3 t h w"], mask: Mask
    ) -> tuple[Mapping[int, Float[Tensor, "b v d"]], Mapping[int, Float[Tensor, "b e d"]]]:
        """The teacher's raw features by layer: at the tokens that both see, and at those that it alone sees."""
        wanted = {layer for _, layer in (*self.config.direct_pairs, *self.config.generator_pairs)}
        seen = self.teacher(clip, mask.teacher_visible, layers=wanted).layers
        cut = mask.visible.shape[1]
        return {n: z[:, :cut] for n, z in seen.items()}, {n: z[:, cut:] for n, z in seen.items()}

    def project_student(self, student: Features) -> list[Float[Tensor, "b v d_teacher"]]:
        """phi_l(z_stu): the student's features in the teacher's width, a tensor for each direct pair."""
        return [self.projections[str(layer)](student.layers[layer]) for layer, _ in self.config.direct_pairs]

    def generate_features(self, student: Features, mask: Mask, grid: Grid) -> list[Float[Tensor, "b e d_teacher"]]:
        """G_l(phi(z_stu)): features at the tokens that the teacher alone sees, for each generated pair (eq. 4, 5)."""
        if mask.teacher_only is None:
            raise ValueError("the mask names no tokens that the teacher alone sees; draw it with NestedTubeMask")
        projections = self.projections if self.config.alignment == "serial" else self.generation_projections
        return [
            generator(
                projections[str(self._find_projection_layer(place))](student.layers[layer]),
                mask.visible,
                mask.teacher_only,
                grid,
            )
            for place, ((layer, _), generator) in enumerate(
                zip(self.config.generator_pairs, self.generators, strict=True)
            )
        ]

    def _find_projection_layer(self, index: int) -> int:
        """The student layer whose projection the generated pair at this place in the list goes through."""
        if self.config.alignment == "serial" and self.config.shared_projection == "released":
            return self.config.direct_pairs[index][0]
        return self.config.generator_pairs[index][0]

    def _build_projections(self, layers: set[int]) -> nn.ModuleDict:
        width, teacher_width = self.config.encoder.dim, self.config.teacher.model.dim
        linear = nn.ModuleDict({str(layer): nn.Linear(width, teacher_width, bias=False) for layer in sorted(layers)})
        init_xavier_weights(linear)
        return linear

    def _mean_loss(self, predictions: list[Tensor], targets: list[Tensor]) -> Float[Tensor, ""]:
        """The mean distance over the layers; 0 where none are aligned."""
        apart = [regression_loss(g, t, self.config.feature_loss) for g, t in zip(predictions, targets, strict=True)]
        return torch.stack(apart).mean() if apart else next(self.encoder.parameters()).new_zeros(())


def _student_layers(layer_pairs: LayerPairs) -> tuple[int, ...]:
    return tuple(layer for layer, _ in layer_pairs)


def _check_config(config: AMDConfig) -> None:
    """Raises an InputError where student and teacher cannot be aligned."""
    check_range(0, math.inf, reconstruction_weight=config.reconstruction_weight, direct_weight=config.direct_weight)
    check_range(0, math.inf, generation_weight=config.generation_weight)
    check_layer_pairs(
        "AMD's pairs", (*config.direct_pairs, *config.generator_pairs), config.encoder, config.teacher.model
    )
    if not (*config.direct_pairs, *config.generator_pairs):
        raise InputError("AMD has no layers to align; give --method.pairs, e.g. 6 12 12 24")
    if (
        config.alignment == "serial"
        and config.shared_projection == "released"
        and len(config.generator_pairs) > len(config.direct_pairs)
    ):
        raise InputError("the released pairing needs a direct pair for every generated one; give as many in both lists")
