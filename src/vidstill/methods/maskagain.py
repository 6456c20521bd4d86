"""MaskAgain: of what is visible, a student follows its teacher's most telling tokens and attention; no decoder."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask, TubeMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.methods.common.teacher import FrozenTeacher, TeacherConfig, check_layer_pairs
from vidstill.methods.maskagain_losses import (
    AttentionLoss,
    AttentionNormalization,
    FeatureProjection,
    HintTokens,
    KeySelection,
    LocalSoftmax,
    RelationSoftmax,
    ValueOrder,
    attention_loss,
    drop_class_token,
    freeze_after_attention,
    global_loss,
    hint_loss,
    identity_projection,
    local_loss,
    relation_loss,
    select_salient_tokens,
    value_loss,
)
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.layers import AttentionMap
from vidstill.models.vit import BASE, Features, ViTConfig
from vidstill.utils.types import InputError, Output, check_range, gather_tokens

_HIDDEN_TERMS = ("global", "local", "attention", "value")  # terms of section 3.2, and table 4's
_OUTPUT_TERMS = ("hint", "relation")  # terms of section 3.3


@dataclass(frozen=True, kw_only=True)
class MaskAgainConfig:
    """A term whose factor is 0 is not computed, and nothing is built for it."""

    encoder: ViTConfig = BASE
    teacher: TeacherConfig = TeacherConfig(model=BASE)
    mask: TubeMask = TubeMask(ratio=0.90)

    # Hidden level (section 3.2): the attention of one block of the student and of one of the teacher
    attention_layers: tuple[int, int] | None = (
        None  # which, counted from 1; None: the last ones (released: 12, by number)
    )
    global_weight: float = 3.0  # alpha, of MAGlobal
    global_top_k: int | None = 10  # that each query keeps; None: all, which is "weighted value transfer" (table 4)
    local_weight: float = 1.0  # beta, of MALocal
    local_top_k: int | None = 10  # that each query keeps in each slot of time; None: all
    attention_temperature: float = 1.0
    key_selection: KeySelection = "own"  # whose attention chooses the student's keys (table 5)
    attention_normalization: AttentionNormalization = (
        "renormalised"  # the kept attention sums to 1 again (released), or is left as it was: plain (paper)
    )
    local_softmax: LocalSoftmax = (
        "slot"  # of a plain attention: among the keys of a slot (released), or of the clip (paper)
    )
    local_value_order: ValueOrder = (
        "released"  # attention meets the values of other tokens, or its own: aligned (paper)
    )
    attention_weight: float = 0.0  # of attention transfer (table 4)
    attention_loss: AttentionLoss = "kl"
    value_weight: float = 0.0  # of value transfer (table 4)
    hidden_weight: float = 1.0  # of all these terms together (released)

    # Output level (section 3.3): what the last blocks give, before any final norm
    hint_weight: float = 0.2  # gamma, of MAHint
    relation_weight: float = 0.1  # lambda, of MARel
    salient_tokens: int | None = 10  # tokens of each clip that both are about; None: all ("Hint", table 3)
    hint_tokens: HintTokens = "zeroed"  # the others: zeroed before they are mapped (released), or left out (paper)
    relation_softmax: RelationSoftmax = "rows"  # softmax over each row (released), or over all pairs (paper)
    student_temperature: float = 0.1  # of MARel
    teacher_temperature: float = 0.05

    # phi: student and teacher are mapped to the teacher's width where the student's is another, or always (run_kd)
    projections: Literal["where_needed", "always"] = "where_needed"

    # Pixels are rebuilt beside all this where there is a decoder (table 4); then the encoder has a final norm
    decoder: DecoderConfig | None = None
    target: PixelTarget = "per_channel"
    reconstruction_weight: float = 1.0

    def build(self) -> "MaskAgain":
        return MaskAgain(self)

    @property
    def loss_weights(self) -> dict[str, float]:
        """What each term that is computed counts."""
        every = {
            "global": self.hidden_weight * self.global_weight,
            "local": self.hidden_weight * self.local_weight,
            "attention": self.hidden_weight * self.attention_weight,
            "value": self.hidden_weight * self.value_weight,
            "hint": self.hint_weight,
            "relation": self.relation_weight,
            "reconstruction": self.reconstruction_weight if self.decoder is not None else 0.0,
        }
        return {term: factor for term, factor in every.items() if factor}

    @property
    def attention_layer_pair(self) -> tuple[int, int]:
        """The student's and the teacher's block whose attention is matched."""
        return self.attention_layers or (self.encoder.depth, self.teacher.model.depth)

    @property
    def has_projections(self) -> bool:
        return self.projections == "always" or self.encoder.dim != self.teacher.model.dim


class MaskAgain(nn.Module):
    """Mask Again (Li et al., ACM MM 2023, doi:10.1145/3581783.3612129).

    L_global   = mean of |phi_s((M_s * A_s) V_s) - phi_t((M_t * A_t) V_t)|^2           eq. (4)
    L_local    = the same in each slot of time, each with its own selection            eq. (8)
    L_hint     = mean over the telling tokens of |phi''_s(z_s) - z_t|^2                eq. (14)
    L_relation = KL(P_t || P_s), P = softmax(cosines of these tokens / tau)            eq. (17)
    L          = alpha L_global + beta L_local + lambda L_relation + gamma L_hint      eq. (9), (18), (19)

    A is a block's attention, V its values, M where A is largest; z is the last block's output.
    """

    def __init__(self, config: MaskAgainConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        student, teacher, terms = config.encoder, config.teacher.model, config.loss_weights
        self.encoder = student.build(final_norm="reconstruction" in terms)
        self.teacher = FrozenTeacher(teacher.build())
        self.projections = nn.ModuleDict()  # they keep torch's own start; those of the teacher's side are trained too
        for term in ("global", "local"):
            if config.has_projections and term in terms:
                self.projections[f"{term}_student"] = nn.Linear(student.dim, teacher.dim)
                self.projections[f"{term}_teacher"] = nn.Linear(teacher.dim, teacher.dim)
        if config.has_projections and "hint" in terms:
            self.projections["hint"] = nn.Sequential(
                nn.Linear(student.dim, 2 * student.dim), nn.ReLU(), nn.Linear(2 * student.dim, teacher.dim)
            )
        self.decoder: Decoder | None = None
        if config.decoder is not None and "reconstruction" in terms:
            self.decoder = config.decoder.build(student.dim, out_dim=student.pixels_per_token)
        if terms.keys().isdisjoint((*_OUTPUT_TERMS, "reconstruction")):
            freeze_after_attention(self.encoder, config.attention_layer_pair[0])

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of clips of colours in [0, 1]; the mask is drawn from the seeds where none is given."""
        config, grid = self.config, self.encoder.grid(clip)
        mask = mask or config.mask.draw(seed, grid)
        last, (block, teacher_block) = config.encoder.depth, config.attention_layer_pair
        student = self.encoder(
            clip, mask.visible, layers=(last,), attention=(block,) if self._has_terms(_HIDDEN_TERMS) else ()
        )
        teacher = self.forward_teacher(clip, mask)

        parts: dict[str, Float[Tensor, ""]] = {}
        if self._has_terms(_HIDDEN_TERMS):
            ours = drop_class_token(student.attention[block], mask.visible.shape[1])
            theirs = drop_class_token(teacher.attention[teacher_block], mask.visible.shape[1])
            parts |= self.compute_hidden_losses(ours, theirs, slots=grid.t)
        if self._has_terms(_OUTPUT_TERMS):
            parts |= self.compute_output_losses(student.layers[last], teacher.layers[config.teacher.model.depth])
        if self.decoder is not None:
            rebuilt = self.decoder(student.tokens, mask.visible, mask.masked, grid, student.cls_token)
            target = compute_pixel_target(clip, config.encoder, mask.masked, config.target)
            parts["reconstruction"] = regression_loss(rebuilt, target, "l2")
        loss = torch.stack([config.loss_weights[term] * part for term, part in parts.items()]).sum()  # eq. (19)
        return Output(loss, parts)

    def forward_teacher(self, clip: Float[Tensor, "b 3 t h w"], mask: Mask) -> Features:
        """What the teacher makes of the tokens that the student sees: as far as a term asks for it."""
        layers = (self.config.teacher.model.depth,) if self._has_terms(_OUTPUT_TERMS) else ()
        attention = (self.config.attention_layer_pair[1],) if self._has_terms(_HIDDEN_TERMS) else ()
        return self.teacher(clip, mask.visible, layers=layers, attention=attention)

    def compute_hidden_losses(
        self, student: AttentionMap, teacher: AttentionMap, *, slots: int
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of L_hidden (eq. 9), from what one block of each attends with; the tokens are of so many slots."""
        config, terms, parts = self.config, self.config.loss_weights, {}
        temperature, selection, mass = (
            config.attention_temperature,
            config.key_selection,
            config.attention_normalization,
        )
        if "global" in terms:
            parts["global"] = global_loss(
                student,
                teacher,
                top_k=config.global_top_k,
                temperature=temperature,
                key_selection=selection,
                attention_normalization=mass,
                projections=self.get_projections("global"),
            )
        if "local" in terms:
            parts["local"] = local_loss(
                student,
                teacher,
                slots=slots,
                top_k=config.local_top_k,
                temperature=temperature,
                key_selection=selection,
                attention_normalization=mass,
                softmax=config.local_softmax,
                value_order=config.local_value_order,
                projections=self.get_projections("local"),
            )
        if "attention" in terms:
            parts["attention"] = attention_loss(student, teacher, loss=config.attention_loss, temperature=temperature)
        if "value" in terms:
            parts["value"] = value_loss(student, teacher)
        return parts

    def compute_output_losses(
        self, student: Float[Tensor, "b v d"], teacher: Float[Tensor, "b v d_teacher"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of L_output (eq. 18), from what the last block of each gives."""
        config, terms, parts = self.config, self.config.loss_weights, {}
        telling = select_salient_tokens(teacher, config.salient_tokens)
        if "hint" in terms:
            mapped = self.projections["hint"] if config.has_projections else identity_projection
            parts["hint"] = hint_loss(student, teacher, telling, tokens=config.hint_tokens, projection=mapped)
        if "relation" in terms:
            parts["relation"] = relation_loss(
                gather_tokens(student, telling),
                gather_tokens(teacher, telling),
                student_temperature=config.student_temperature,
                teacher_temperature=config.teacher_temperature,
                softmax=config.relation_softmax,
            )
        return parts

    def get_projections(self, term: str) -> tuple[FeatureProjection, FeatureProjection]:
        """The student's and the teacher's mapping to a common width, for the global or the local term."""
        if not self.config.has_projections:
            return identity_projection, identity_projection
        return self.projections[f"{term}_student"], self.projections[f"{term}_teacher"]

    def _has_terms(self, terms: tuple[str, ...]) -> bool:
        return not self.config.loss_weights.keys().isdisjoint(terms)


def _check_config(config: MaskAgainConfig) -> None:
    """Raises an InputError where there is nothing to learn, or student and teacher cannot be compared."""
    student, teacher, terms = config.encoder, config.teacher.model, config.loss_weights
    check_range(0, math.inf, global_weight=config.global_weight, local_weight=config.local_weight)
    check_range(0, math.inf, attention_weight=config.attention_weight, value_weight=config.value_weight)
    check_range(0, math.inf, hidden_weight=config.hidden_weight, reconstruction_weight=config.reconstruction_weight)
    check_range(0, math.inf, hint_weight=config.hint_weight, relation_weight=config.relation_weight)
    check_range(
        1,
        math.inf,
        global_top_k=config.global_top_k,
        local_top_k=config.local_top_k,
        salient_tokens=config.salient_tokens,
    )
    check_range(1e-6, math.inf, attention_temperature=config.attention_temperature)
    check_range(1e-6, math.inf, student_temperature=config.student_temperature)
    check_range(1e-6, math.inf, teacher_temperature=config.teacher_temperature)
    if terms.keys().isdisjoint((*_HIDDEN_TERMS, *_OUTPUT_TERMS)):
        raise InputError(
            "MaskAgain learns nothing from its teacher: all its factors are 0; raise one, or take VideoMAE"
        )
    check_layer_pairs("MaskAgain's layers", (config.attention_layer_pair,), student, teacher)
    joined = (
        config.has_projections and config.key_selection == "own"
    )  # then global and local compare joined heads, mapped
    if terms.keys() & ({"attention", "value"} if joined else {*_HIDDEN_TERMS}) and student.heads != teacher.heads:
        raise InputError(
            f"MaskAgain compares head with head: the student's {student.heads} heads have to be the teacher's "
            f"{teacher.heads}; global and local can do without by --method.projections always --method.selection own"
        )
    if "value" in terms and student.dim != teacher.dim:
        raise InputError(
            f"value transfer has no projection: the student's width {student.dim} has to be the teacher's {teacher.dim}"
        )
