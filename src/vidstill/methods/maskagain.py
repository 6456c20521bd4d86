"""MaskAgain: of what is visible, a student follows its teacher's most telling tokens and attention; no decoder."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import distance
from vidstill.methods.common.masking import Mask, TubeMask
from vidstill.methods.common.targets import PixelTarget, pixel_target
from vidstill.methods.common.teacher import Frozen, TeacherConfig, check_pairs
from vidstill.methods.maskagain_losses import (
    AttentionDistance,
    HintTokens,
    Mapped,
    Mass,
    RelationShares,
    Selection,
    Shares,
    ValuePairs,
    among_tokens,
    as_it_is,
    attention_loss,
    freeze_after_attention,
    global_loss,
    hint_loss,
    local_loss,
    relation_loss,
    telling_tokens,
    value_loss,
)
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.layers import AttentionMap
from vidstill.models.vit import BASE, Looked, ViTConfig
from vidstill.utils.types import InputError, Output, take, within

_HIDDEN = ("global", "local", "attention", "value")  # terms of section 3.2, and table 4's
_OUTPUT = ("hint", "relation")  # terms of section 3.3


@dataclass(frozen=True, kw_only=True)
class MaskAgainConfig:
    """A term whose factor is 0 is not computed, and nothing is built for it."""

    encoder: ViTConfig = BASE
    teacher: TeacherConfig = TeacherConfig(model=BASE)
    mask: TubeMask = TubeMask(ratio=0.90)

    # Hidden level (section 3.2): the attention of one block of the student and of one of the teacher
    layers: tuple[int, int] | None = None  # which, counted from 1; None: the last ones (released: 12, by number)
    global_factor: float = 3.0  # alpha, of MAGlobal
    global_keys: int | None = 10  # that each query keeps; None: all, which is "weighted value transfer" (table 4)
    local_factor: float = 1.0  # beta, of MALocal
    local_keys: int | None = 10  # that each query keeps in each slot of time; None: all
    attention_temperature: float = 1.0
    selection: Selection = "own"  # whose attention chooses the student's keys (table 5)
    mass: Mass = "renormalised"  # the kept attention sums to 1 again (released), or is left as it was: plain (paper)
    local_shares: Shares = "slot"  # of a plain attention: among the keys of a slot (released), or of the clip (paper)
    local_pairs: ValuePairs = "released"  # attention meets the values of other tokens, or its own: aligned (paper)
    attention_factor: float = 0.0  # of attention transfer (table 4)
    attention_distance: AttentionDistance = "kl"
    value_factor: float = 0.0  # of value transfer (table 4)
    hidden_factor: float = 1.0  # of all these terms together (released)

    # Output level (section 3.3): what the last blocks give, before any final norm
    hint_factor: float = 0.2  # gamma, of MAHint
    relation_factor: float = 0.1  # lambda, of MARel
    telling: int | None = 10  # tokens of each clip that both are about; None: all ("Hint", table 3)
    hint_tokens: HintTokens = "zeroed"  # the others: zeroed before they are mapped (released), or left out (paper)
    relation_shares: RelationShares = "rows"  # softmax over each row (released), or over all pairs (paper)
    student_temperature: float = 0.1  # of MARel
    teacher_temperature: float = 0.05

    # phi: student and teacher are mapped to the teacher's width where the student's is another, or always (run_kd)
    projections: Literal["where_needed", "always"] = "where_needed"

    # Pixels are rebuilt beside all this where there is a decoder (table 4); then the encoder has a final norm
    decoder: DecoderConfig | None = None
    target: PixelTarget = "per_channel"
    reconstruction_factor: float = 1.0

    def build(self) -> "MaskAgain":
        return MaskAgain(self)

    @property
    def factors(self) -> dict[str, float]:
        """What each term that is computed counts."""
        every = {
            "global": self.hidden_factor * self.global_factor,
            "local": self.hidden_factor * self.local_factor,
            "attention": self.hidden_factor * self.attention_factor,
            "value": self.hidden_factor * self.value_factor,
            "hint": self.hint_factor,
            "relation": self.relation_factor,
            "reconstruction": self.reconstruction_factor if self.decoder is not None else 0.0,
        }
        return {term: factor for term, factor in every.items() if factor}

    @property
    def attending(self) -> tuple[int, int]:
        """The student's and the teacher's block whose attention is matched."""
        return self.layers or (self.encoder.depth, self.teacher.model.depth)

    @property
    def projected(self) -> bool:
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
        _check(config)
        self.config = config
        student, teacher, terms = config.encoder, config.teacher.model, config.factors
        self.encoder = student.build(final_norm="reconstruction" in terms)
        self.teacher = Frozen(teacher.build())
        self.projections = nn.ModuleDict()  # they keep torch's own start; those of the teacher's side are trained too
        for term in ("global", "local"):
            if config.projected and term in terms:
                self.projections[f"{term}_student"] = nn.Linear(student.dim, teacher.dim)
                self.projections[f"{term}_teacher"] = nn.Linear(teacher.dim, teacher.dim)
        if config.projected and "hint" in terms:
            self.projections["hint"] = nn.Sequential(
                nn.Linear(student.dim, 2 * student.dim), nn.ReLU(), nn.Linear(2 * student.dim, teacher.dim)
            )
        self.decoder: Decoder | None = None
        if config.decoder is not None and "reconstruction" in terms:
            self.decoder = config.decoder.build(student.dim, out_dim=student.pixels_per_token)
        if terms.keys().isdisjoint((*_OUTPUT, "reconstruction")):
            freeze_after_attention(self.encoder, config.attending[0])

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
        last, (block, teacher_block) = config.encoder.depth, config.attending
        student = self.encoder(clip, mask.visible, layers=(last,), attention=(block,) if self._asks(_HIDDEN) else ())
        teacher = self.look(clip, mask)

        parts: dict[str, Float[Tensor, ""]] = {}
        if self._asks(_HIDDEN):
            ours = among_tokens(student.attention[block], mask.visible.shape[1])
            theirs = among_tokens(teacher.attention[teacher_block], mask.visible.shape[1])
            parts |= self.hidden(ours, theirs, slots=grid.t)
        if self._asks(_OUTPUT):
            parts |= self.output(student.layers[last], teacher.layers[config.teacher.model.depth])
        if self.decoder is not None:
            rebuilt = self.decoder(student.tokens, mask.visible, mask.masked, grid, student.classes)
            target = pixel_target(clip, config.encoder, mask.masked, config.target)
            parts["reconstruction"] = distance(rebuilt, target, "l2")
        loss = torch.stack([config.factors[term] * part for term, part in parts.items()]).sum()  # eq. (19)
        return Output(loss, parts)

    def look(self, clip: Float[Tensor, "b 3 t h w"], mask: Mask) -> Looked:
        """What the teacher makes of the tokens that the student sees: as far as a term asks for it."""
        layers = (self.config.teacher.model.depth,) if self._asks(_OUTPUT) else ()
        attention = (self.config.attending[1],) if self._asks(_HIDDEN) else ()
        return self.teacher.look(clip, mask.visible, layers=layers, attention=attention)

    def hidden(self, student: AttentionMap, teacher: AttentionMap, *, slots: int) -> dict[str, Float[Tensor, ""]]:
        """The terms of L_hidden (eq. 9), from what one block of each attends with; the tokens are of so many slots."""
        config, terms, parts = self.config, self.config.factors, {}
        temperature, selection, mass = config.attention_temperature, config.selection, config.mass
        if "global" in terms:
            parts["global"] = global_loss(
                student,
                teacher,
                keys=config.global_keys,
                temperature=temperature,
                selection=selection,
                mass=mass,
                mapped=self.phi("global"),
            )
        if "local" in terms:
            parts["local"] = local_loss(
                student,
                teacher,
                slots=slots,
                keys=config.local_keys,
                temperature=temperature,
                selection=selection,
                mass=mass,
                shares=config.local_shares,
                pairs=config.local_pairs,
                mapped=self.phi("local"),
            )
        if "attention" in terms:
            parts["attention"] = attention_loss(
                student, teacher, kind=config.attention_distance, temperature=temperature
            )
        if "value" in terms:
            parts["value"] = value_loss(student, teacher)
        return parts

    def output(
        self, student: Float[Tensor, "b v d"], teacher: Float[Tensor, "b v d_teacher"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of L_output (eq. 18), from what the last block of each gives."""
        config, terms, parts = self.config, self.config.factors, {}
        telling = telling_tokens(teacher, config.telling)
        if "hint" in terms:
            mapped = self.projections["hint"] if config.projected else as_it_is
            parts["hint"] = hint_loss(student, teacher, telling, tokens=config.hint_tokens, mapped=mapped)
        if "relation" in terms:
            parts["relation"] = relation_loss(
                take(student, telling),
                take(teacher, telling),
                student_temperature=config.student_temperature,
                teacher_temperature=config.teacher_temperature,
                shares=config.relation_shares,
            )
        return parts

    def phi(self, term: str) -> tuple[Mapped, Mapped]:
        """The student's and the teacher's mapping to a common width, for the global or the local term."""
        if not self.config.projected:
            return as_it_is, as_it_is
        return self.projections[f"{term}_student"], self.projections[f"{term}_teacher"]

    def _asks(self, terms: tuple[str, ...]) -> bool:
        return not self.config.factors.keys().isdisjoint(terms)


def _check(config: MaskAgainConfig) -> None:
    """Raises an InputError where there is nothing to learn, or student and teacher cannot be compared."""
    student, teacher, terms = config.encoder, config.teacher.model, config.factors
    within(0, math.inf, global_factor=config.global_factor, local_factor=config.local_factor)
    within(0, math.inf, attention_factor=config.attention_factor, value_factor=config.value_factor)
    within(0, math.inf, hidden_factor=config.hidden_factor, reconstruction_factor=config.reconstruction_factor)
    within(0, math.inf, hint_factor=config.hint_factor, relation_factor=config.relation_factor)
    within(1, math.inf, global_keys=config.global_keys, local_keys=config.local_keys, telling=config.telling)
    within(1e-6, math.inf, attention_temperature=config.attention_temperature)
    within(1e-6, math.inf, student_temperature=config.student_temperature)
    within(1e-6, math.inf, teacher_temperature=config.teacher_temperature)
    if terms.keys().isdisjoint((*_HIDDEN, *_OUTPUT)):
        raise InputError(
            "MaskAgain learns nothing from its teacher: all its factors are 0; raise one, or take VideoMAE"
        )
    check_pairs("MaskAgain's layers", (config.attending,), student, teacher)
    joined = config.projected and config.selection == "own"  # then global and local compare joined heads, mapped
    if terms.keys() & ({"attention", "value"} if joined else {*_HIDDEN}) and student.heads != teacher.heads:
        raise InputError(
            f"MaskAgain compares head with head: the student's {student.heads} heads have to be the teacher's "
            f"{teacher.heads}; global and local can do without by --method.projections always --method.selection own"
        )
    if "value" in terms and student.dim != teacher.dim:
        raise InputError(
            f"value transfer has no projection: the student's width {student.dim} has to be the teacher's {teacher.dim}"
        )
