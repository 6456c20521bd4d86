"""MaskAgain: at the visible tokens, a student follows its teacher's strongest attention and activations; no decoder."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods import maskagain_losses as losses
from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask, SlotMask, TubeMask, build_mask, count_visible
from vidstill.methods.common.method import AnyMask, Clips, Method
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.methods.common.teacher import FrozenTeacher, TeacherConfig, check_layer_pairs
from vidstill.methods.maskagain_losses import MaskAgainQuirks
from vidstill.models.attention import AttentionMap
from vidstill.models.decoder import Decoder, DecoderConfig
from vidstill.models.vit import BASE, ViT, ViTConfig
from vidstill.utils.rng import draw_permutation
from vidstill.utils.types import Grid, InputError, Output, check_range, gather_tokens

_HIDDEN_TERMS = ("global", "local", "attention", "value")  # section 3.2, and table 4
_OUTPUT_TERMS = ("hint", "relation")  # section 3.3


@dataclass(frozen=True, kw_only=True)
class HiddenConfig:
    """Hidden level (section 3.2): attention and values of one block of the student and one of the teacher."""

    layers: tuple[int, int] | None = None  # which blocks, from 1; None: the last ones (released: 12, by number)
    global_weight: float = 3.0  # alpha, of MAGlobal
    global_top_k: int | None = 10  # keys per query; None: all, which is "weighted value transfer" (table 4)
    local_weight: float = 1.0  # beta, of MALocal
    local_top_k: int | None = 10  # keys per query and time step; None: all
    attention_weight: float = 0.0  # of attention transfer (table 4)
    # KL divergence from the teacher's attention, averaged over queries, or the mean squared difference of all entries
    attention_loss: Literal["kl", "l2"] = "kl"
    value_weight: float = 0.0  # of value transfer (table 4)
    temperature: float = 1.0  # of attention
    key_selection: Literal["own", "teacher"] = "own"  # whose largest attention selects the student's keys (table 5)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output level (section 3.3): the last blocks' outputs, before any final norm, at the salient tokens."""

    hint_weight: float = 0.2  # gamma, of MAHint
    relation_weight: float = 0.1  # lambda, of MARel
    salient_tokens: int | None = 10  # per clip, by the teacher's activations; None: all ("Hint", table 3)
    # Clips whose tokens MARel relates to one another, consecutive in the global batch (released: a GPU's batch of 64);
    # a smaller batch is one group. A device's batch must hold whole groups.
    relation_clips: int = 64
    student_temperature: float = 0.1  # of the student's relations (MARel)
    teacher_temperature: float = 0.05  # of the teacher's relations; a lower one makes them sharper


@dataclass(frozen=True, kw_only=True)
class MaskAgainConfig:
    """MaskAgain on clips. A term with weight 0 is not computed, and nothing is built for it."""

    encoder: ViTConfig = BASE
    teacher: TeacherConfig = TeacherConfig(model=BASE)
    mask: AnyMask = TubeMask(ratio=0.90)
    hidden: HiddenConfig = HiddenConfig()
    output: OutputConfig = OutputConfig()
    # phi: maps student and teacher to the teacher's width, if the student's differs, or always (run_kd)
    projections: Literal["where_needed", "always"] = "where_needed"
    decoder: DecoderConfig | None = None  # reconstructs VideoMAE's target as well (table 4); adds a final norm
    released: MaskAgainQuirks = MaskAgainQuirks()

    def build(self) -> "MaskAgain":
        return MaskAgain(self)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each term that is computed."""
        hidden, overall = self.hidden, self.released.hidden_weight
        weights = {
            "global": overall * hidden.global_weight,
            "local": overall * hidden.local_weight,
            "attention": overall * hidden.attention_weight,
            "value": overall * hidden.value_weight,
            "hint": self.output.hint_weight,
            "relation": self.output.relation_weight,
            "reconstruction": float(self.decoder is not None),
        }
        return {term: weight for term, weight in weights.items() if weight}

    @property
    def group_clips(self) -> int:
        """Clips that a device must hold together."""
        return self.output.relation_clips if "relation" in self.loss_weights else 1

    @property
    def target(self) -> PixelTarget:
        """What the decoder reconstructs: VideoMAE's target."""
        return "per_channel"

    @property
    def attention_layers(self) -> tuple[int, int]:
        """The student's and the teacher's block whose attention is compared."""
        return self.hidden.layers or (self.encoder.depth, self.teacher.model.depth)

    @property
    def has_projections(self) -> bool:
        return self.projections == "always" or self.encoder.dim != self.teacher.model.dim


class MaskAgain(Method):
    """Mask Again (Li et al., ACM MM 2023, doi:10.1145/3581783.3612129).

    L_global   = mean of |phi_s((M_s * A_s) V_s) - phi_t((M_t * A_t) V_t)|^2           eq. (4)
    L_local    = the same in each time step, each with its own selection               eq. (8)
    L_hint     = mean over the salient tokens of |phi''_s(z_s) - z_t|^2                eq. (14)
    L_relation = KL(P_t || P_s), P = softmax(cosines of these tokens / tau)            eq. (17)
    L          = alpha L_global + beta L_local + lambda L_relation + gamma L_hint      eq. (9), (18), (19)

    A is a block's attention, V its values, M selects where A is largest; z is the last block's output.
    """

    config: MaskAgainConfig

    def __init__(self, config: MaskAgainConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        student, teacher, terms = config.encoder, config.teacher.model, config.loss_weights
        self.encoder = student.build(final_norm=config.decoder is not None)
        self.teacher = FrozenTeacher(teacher.build())
        self.projections = nn.ModuleDict()  # with torch's default weights; the teacher's side is trained too
        for term in ("global", "local"):
            if config.has_projections and term in terms:
                self.projections[f"{term}_student"] = nn.Linear(student.dim, teacher.dim)
                self.projections[f"{term}_teacher"] = nn.Linear(teacher.dim, teacher.dim)
        if config.has_projections and "hint" in terms:
            self.projections["hint"] = nn.Sequential(
                nn.Linear(student.dim, 2 * student.dim), nn.ReLU(), nn.Linear(2 * student.dim, teacher.dim)
            )
        self.decoder: Decoder | None = None
        if config.decoder is not None:
            self.decoder = config.decoder.build(student.dim, out_dim=student.pixels_per_token)
        if terms.keys().isdisjoint((*_OUTPUT_TERMS, "reconstruction")):
            _freeze_after_attention(self.encoder, config.attention_layers[0])

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        config, grid = self.config, self.encoder.grid(clip)
        last, teacher_last = config.encoder.depth, config.teacher.model.depth
        (block, teacher_block), terms = config.attention_layers, set(config.loss_weights)
        has_hidden, has_output = not terms.isdisjoint(_HIDDEN_TERMS), not terms.isdisjoint(_OUTPUT_TERMS)
        student = self.encoder(clip, mask.visible, layers=(last,), attention=(block,) if has_hidden else ())
        layers, attention = (teacher_last,) if has_output else (), (teacher_block,) if has_hidden else ()
        teacher = self.teacher(clip, mask.visible, layers=layers, attention=attention)

        parts: dict[str, Float[Tensor, ""]] = {}
        if has_hidden:
            num_tokens = mask.visible.shape[1]
            student_map = losses.drop_class_token(student.attention[block], num_tokens)
            teacher_map = losses.drop_class_token(teacher.attention[teacher_block], num_tokens)
            parts |= self.compute_hidden_losses(student_map, teacher_map, slots=grid.t)
        if has_output:
            parts |= self.compute_output_losses(student.layers[last], teacher.layers[teacher_last])
        if self.decoder is not None:
            reconstruction = self.decoder(student, mask.visible, mask.masked, grid)
            target = compute_pixel_target(clip, config.encoder, mask.masked, config.target)
            parts["reconstruction"] = regression_loss(reconstruction, target, "l2")
        loss = torch.stack([config.loss_weights[term] * part for term, part in parts.items()]).sum()  # eq. (19)
        return Output(loss, parts)

    def compute_hidden_losses(
        self, student: AttentionMap, teacher: AttentionMap, *, slots: int
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the terms of L_hidden (eq. 9).

        Args:
            student: Attention of one block, without class token.
            teacher: As `student`.
            slots: Time steps of the clip.
        """
        hidden, terms, parts = self.config.hidden, self.config.loss_weights, {}
        compare = partial(
            losses.selected_value_loss,
            student,
            teacher,
            temperature=hidden.temperature,
            key_selection=hidden.key_selection,
            quirks=self.config.released,
        )
        if "global" in terms:
            parts["global"] = compare(slots=1, top_k=hidden.global_top_k, projections=self.get_projections("global"))
        if "local" in terms:
            parts["local"] = compare(slots=slots, top_k=hidden.local_top_k, projections=self.get_projections("local"))
        if "attention" in terms:
            parts["attention"] = losses.attention_loss(
                student, teacher, loss=hidden.attention_loss, temperature=hidden.temperature
            )
        if "value" in terms:
            parts["value"] = losses.value_loss(student, teacher)
        return parts

    def compute_output_losses(
        self, student: Float[Tensor, "b v d"], teacher: Float[Tensor, "b v d_teacher"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the terms of L_output (eq. 18), of the last blocks' outputs."""
        output, released, terms, parts = self.config.output, self.config.released, self.config.loss_weights, {}
        salient = losses.select_salient_tokens(teacher, output.salient_tokens)
        if "hint" in terms:
            phi = self.projections["hint"] if self.config.has_projections else nn.Identity()
            parts["hint"] = losses.hint_loss(student, teacher, salient, quirks=released, projection=phi)
        if "relation" in terms:
            group = min(output.relation_clips, len(student))
            if len(student) % group:
                raise InputError(
                    f"{len(student)} clips do not divide into groups of {group} for the relation loss; take a multiple "
                    "as --device-batch, or another --method.output.relation-clips"
                )
            compare = partial(
                losses.relation_loss,
                student_temperature=output.student_temperature,
                teacher_temperature=output.teacher_temperature,
                softmax=released.relation_softmax,
            )
            groups = (gather_tokens(side, salient).split(group) for side in (student, teacher))
            parts["relation"] = torch.stack(list(map(compare, *groups))).mean()
        return parts

    def get_projections(self, term: str) -> tuple[losses.Projection, losses.Projection]:
        """Return the student's and the teacher's projection to a common width, for the global or the local term."""
        if not self.config.has_projections:
            return nn.Identity(), nn.Identity()
        return self.projections[f"{term}_student"], self.projections[f"{term}_teacher"]


@dataclass(frozen=True, kw_only=True)
class ContextMask:
    """The released mask `time`, used by no script: the clip's beginning is visible, the rest masked at random."""

    ratio: float = 0.85  # share of the tokens after the beginning that is masked; rounded down
    context_ratio: float = 0.25  # share of the clip's tokens that is its beginning; rounded down

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        check_range(0, 1, exclusive=True, context_ratio=self.context_ratio)
        beginning = int(grid.t * self.context_ratio * (grid.h * grid.w))
        num_visible = beginning + count_visible(self.ratio, grid.num_tokens - beginning, "masked", "tokens")
        permutations = draw_permutation(seeds, "mask", grid.num_tokens)
        order = permutations.gather(1, (permutations >= beginning).int().argsort(dim=1, stable=True))
        return build_mask(order, num_visible)


def _freeze_after_attention(encoder: ViT, block_number: int) -> None:
    """Freeze what no term reaches, everything after this block's attention: DDP would wait for its gradients."""
    block = encoder.blocks[block_number - 1]
    unreached = [block.attn.proj, block.norm2, block.mlp, block.gamma_1, block.gamma_2]  # type: ignore[union-attr]  # torch forgets what a list holds
    for part in (*unreached, *encoder.blocks[block_number:]):
        if part is not None:
            part.requires_grad_(False)


def _check_config(config: MaskAgainConfig) -> None:
    """Raise an InputError if there is nothing to learn, or student and teacher cannot be compared."""
    student, teacher, terms = config.encoder, config.teacher.model, config.loss_weights
    hidden, output = config.hidden, config.output
    check_range(0, math.inf, global_weight=hidden.global_weight, local_weight=hidden.local_weight)
    check_range(0, math.inf, attention_weight=hidden.attention_weight, value_weight=hidden.value_weight)
    check_range(0, math.inf, hint_weight=output.hint_weight, relation_weight=output.relation_weight)
    check_range(0, math.inf, hidden_weight=config.released.hidden_weight)
    check_range(1, math.inf, global_top_k=hidden.global_top_k, local_top_k=hidden.local_top_k)
    check_range(1, math.inf, salient_tokens=output.salient_tokens, relation_clips=output.relation_clips)
    check_range(1e-6, math.inf, temperature=hidden.temperature)
    check_range(1e-6, math.inf, student_temperature=output.student_temperature)
    check_range(1e-6, math.inf, teacher_temperature=output.teacher_temperature)
    if terms.keys().isdisjoint((*_HIDDEN_TERMS, *_OUTPUT_TERMS)):
        raise InputError("MaskAgain learns nothing from its teacher: all its weights are 0; raise one, or use VideoMAE")
    if "local" in terms and not isinstance(config.mask, TubeMask | SlotMask):
        raise InputError(
            "MaskAgain's local loss compares equally many visible tokens of every time step; take --method.mask tube "
            "or slot, or --method.hidden.local-weight 0"
        )
    check_layer_pairs("MaskAgain's layers", (config.attention_layers,), student, teacher)
    # With projections and own keys, global and local compare joined heads
    by_head = {"attention", "value"} if config.has_projections and hidden.key_selection == "own" else {*_HIDDEN_TERMS}
    if terms.keys() & by_head and student.heads != teacher.heads:
        raise InputError(
            f"MaskAgain compares head with head: the student's {student.heads} heads must be the teacher's "
            f"{teacher.heads}, unless global and local are compared by --method.projections always "
            "--method.hidden.key-selection own"
        )
    if "value" in terms and student.dim != teacher.dim:
        raise InputError(
            f"value transfer has no projection: the student's width {student.dim} must be the teacher's {teacher.dim}"
        )
