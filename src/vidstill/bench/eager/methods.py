"""The yardstick's losses: VideoMAE, MVD, AMD, MaskAgain and fine-tuning, in the order of their papers.

Each takes a normalized clip in float32 and boolean masks, as a plain training loop gives them, and returns the loss.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidstill.bench.eager.model import EagerDecoder, EagerHead, EagerViT, select
from vidstill.methods.amd import AMDConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.methods.mvd import MVDConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

_LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


class EagerVideoMAE(nn.Module):
    """VideoMAE (arXiv:2203.12602): the mean squared error of the masked tubelets' normalized pixels, eq. (1)."""

    def __init__(self, config: VideoMAEConfig | AMDConfig, grid: Grid):
        super().__init__()
        encoder, decoder = config.encoder, config.decoder
        self.encoder_config, self.encoder = encoder, EagerViT(encoder, grid)
        self.norm = nn.LayerNorm(encoder.dim, eps=encoder.norm_eps)
        self.embed = nn.Linear(encoder.dim, decoder.dim, bias=decoder.embed_bias)
        self.decoder = EagerDecoder(decoder, grid)
        self.head = EagerHead(decoder.dim, encoder.pixels_per_token, decoder.final_norm_eps)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], masked: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
        outputs, _, _ = self.encoder(clip, ~masked)
        return self.reconstruct(clip, outputs[-1], masked)

    def reconstruct(
        self, clip: Float[Tensor, "b 3 t h w"], tokens: Float[Tensor, "b v d"], masked: Bool[Tensor, "b n"]
    ) -> Float[Tensor, ""]:
        """Return the pixel loss from the last block's output at the visible tokens."""
        target = select(compute_target(clip, self.encoder_config), masked)
        prediction = self.head(self.decoder(self.embed(self.norm(tokens)), ~masked, masked))
        return F.mse_loss(prediction.float(), target)


@torch.no_grad()
def compute_target(clip: Float[Tensor, "b 3 t h w"], model: ViTConfig) -> Float[Tensor, "b n p"]:
    """Return the pixels of all tubelets, normalized per tubelet and colour channel (VideoMAE, section 3.1)."""
    mean, std = (clip.new_tensor(values)[None, :, None, None, None] for values in (model.mean, model.std))
    t, h, w = model.tubelet
    pixels = clip * std + mean
    cubes = rearrange(pixels, "b c (gt t) (gh h) (gw w) -> b (gt gh gw) (t h w) c", t=t, h=h, w=w)
    center = cubes.mean(dim=-2, keepdim=True)
    scale = cubes.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
    return ((cubes - center) / scale).flatten(2)


class EagerMVD(nn.Module):
    """MVD (arXiv:2212.04500): the masked tokens' features of an image and a video teacher, each by its own decoder."""

    def __init__(self, config: MVDConfig, grid: Grid):
        super().__init__()
        encoder, decoder = config.encoder, config.decoder
        self.branches, self.encoder = config.branches, EagerViT(encoder, grid)
        self.norm = nn.LayerNorm(encoder.dim, eps=encoder.norm_eps)
        parts: list[dict[str, nn.Module]] = [{} for _ in range(4)]
        for name, branch in config.branches.items():
            own_grid = Grid(1, grid.h, grid.w) if branch.is_image_teacher else grid
            modules = (
                nn.Linear(encoder.dim, decoder.dim, bias=decoder.embed_bias),
                EagerDecoder(decoder, grid),
                EagerHead(decoder.dim, branch.model.dim, decoder.final_norm_eps),
                EagerViT(branch.model, own_grid).requires_grad_(False).eval(),  # type: ignore[arg-type]  # a ViT's
            )
            for part, module in zip(parts, modules, strict=True):
                part[name] = module
        self.embeds, self.decoders, self.heads, self.teachers = map(nn.ModuleDict, parts)

    def train(self, mode: bool = True) -> "EagerMVD":
        super().train(mode)
        self.teachers.eval()
        return self

    def forward(self, clip: Float[Tensor, "b 3 t h w"], masked: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
        outputs, _, _ = self.encoder(clip, ~masked)
        tokens, loss = self.norm(outputs[-1]), torch.zeros((), device=clip.device)
        for name, branch in self.branches.items():
            decoder = self.decoders[name]
            prediction = self.heads[name](decoder(self.embeds[name](tokens), ~masked, masked))
            target = select(self.extract_features(name, clip), masked)
            loss = loss + branch.weight * _LOSSES[branch.loss](prediction.float(), target.float())
        return loss

    @torch.no_grad()
    def extract_features(self, name: str, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        """Return a teacher's last block for all tokens; the image teacher sees the first frame of each tubelet."""
        if not self.branches[name].is_image_teacher:
            return self.teachers[name](clip)[0][-1]
        frames = rearrange(clip[:, :, ::2], "b c t h w -> (b t) c 1 h w")
        features = self.teachers[name](frames)[0][-1][:, 1:]  # without the class token
        return rearrange(features, "(b t) s d -> b (t s) d", b=len(clip))


class EagerAMD(EagerVideoMAE):
    """AMD (arXiv:2311.03149): VideoMAE, and a teacher's features at the tokens that both or only the teacher see."""

    def __init__(self, config: AMDConfig, grid: Grid):
        super().__init__(config, grid)
        self.config, teacher_dim = config, config.teacher.model.dim
        self.teacher = EagerViT(config.teacher.model, grid).requires_grad_(False).eval()  # type: ignore[arg-type]  # a ViT's
        pairs = config.layer_pairs
        self.projections = nn.ModuleList(nn.Linear(config.encoder.dim, teacher_dim, bias=False) for _ in pairs)
        self.generators = nn.ModuleList(EagerDecoder(config.generator_config, grid) for _ in pairs)

    def train(self, mode: bool = True) -> "EagerAMD":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(  # type: ignore[override]  # it has one mask more
        self, clip: Float[Tensor, "b 3 t h w"], masked: Bool[Tensor, "b n"], teacher_only: Bool[Tensor, "b n"]
    ) -> Float[Tensor, ""]:
        config = self.config
        outputs, _, _ = self.encoder(clip, ~masked)
        reconstruction = self.reconstruct(clip, outputs[-1], masked)  # eq. (1)
        with torch.no_grad():
            tokens = self.teacher.embed(clip)
            teacher, _, _ = self.teacher.run_blocks(
                torch.cat([select(tokens, ~masked), select(tokens, teacher_only)], dim=1)
            )
        cut, loss = outputs[0].shape[1], _LOSSES[config.feature_loss]
        direct = generation = torch.zeros((), device=clip.device)
        for (layer, teacher_layer), phi, generator in zip(
            config.layer_pairs, self.projections, self.generators, strict=True
        ):
            target, projected = teacher[teacher_layer - 1].float(), phi(outputs[layer - 1])
            generated = generator(projected, ~masked, teacher_only)
            direct = direct + loss(projected.float(), target[:, :cut]) / len(config.layer_pairs)  # eq. (7)
            generation = generation + loss(generated.float(), target[:, cut:]) / len(config.layer_pairs)  # eq. (8)
        return (  # eq. (9)
            config.reconstruction_weight * reconstruction
            + config.direct_weight * direct
            + config.generation_weight * generation
        )


class EagerMaskAgain(nn.Module):
    """MaskAgain (doi:10.1145/3581783.3612129): the strongest attention and activations of a teacher's last block."""

    def __init__(self, config: MaskAgainConfig, grid: Grid):
        super().__init__()
        self.config, self.steps = config, grid.t
        dim, teacher_dim = config.encoder.dim, config.teacher.model.dim
        self.encoder = EagerViT(config.encoder, grid)
        self.teacher = EagerViT(config.teacher.model, grid).requires_grad_(False).eval()  # type: ignore[arg-type]  # a ViT's
        self.projections = nn.ModuleDict()
        if config.has_projections:
            for term in ("global", "local"):
                self.projections[f"{term}_student"] = nn.Linear(dim, teacher_dim)
                self.projections[f"{term}_teacher"] = nn.Linear(teacher_dim, teacher_dim)
            layers = nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, teacher_dim)
            self.projections["hint"] = nn.Sequential(*layers)

    def train(self, mode: bool = True) -> "EagerMaskAgain":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, clip: Float[Tensor, "b 3 t h w"], masked: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
        hidden, output = self.config.hidden, self.config.output
        outputs, logits, values = self.encoder(clip, ~masked)
        with torch.no_grad():
            teacher_outputs, teacher_logits, teacher_values = self.teacher(clip, ~masked)
        losses = []
        for term, slots, top_k in (("global", 1, hidden.global_top_k), ("local", self.steps, hidden.local_top_k)):
            student = self._project(f"{term}_student", attend_strongest(logits, values, slots, top_k))
            teacher = self._project(f"{term}_teacher", attend_strongest(teacher_logits, teacher_values, slots, top_k))
            losses.append(F.mse_loss(student.float(), teacher.float()))  # eq. (4), (8)

        student, teacher = outputs[-1].float(), teacher_outputs[-1].float()
        activation, num_tokens = teacher.abs().sum(dim=-1), teacher.shape[1]
        count = min(output.salient_tokens or num_tokens, num_tokens)
        salient = activation >= activation.topk(count, dim=1).values[:, -1:]  # eq. (10) to (12)
        weights = salient[..., None].float()
        hint = F.mse_loss(self._project("hint", student * weights).float(), teacher * weights) * num_tokens / count
        relation = F.kl_div(
            compute_relations(student[salient], output.student_temperature).log_softmax(dim=1),
            compute_relations(teacher[salient], output.teacher_temperature).softmax(dim=1),
            reduction="batchmean",
        )  # eq. (15) to (17)
        return (  # eq. (19)
            hidden.global_weight * losses[0]
            + hidden.local_weight * losses[1]
            + output.hint_weight * hint
            + output.relation_weight * relation
        )

    def _project(self, name: str, tokens: Tensor) -> Tensor:
        return self.projections[name](tokens) if name in self.projections else tokens


def attend_strongest(
    logits: Float[Tensor, "b heads q v"], values: Float[Tensor, "b heads v d"], slots: int, top_k: int | None
) -> Float[Tensor, "b q t heads*d"]:
    """Return the values by the k largest attention weights of each slot, which sum to 1 again (eq. 1 to 3, 5 to 7).

    Values are numbered as in the released code (`MaskAgainQuirks.value_order`).
    """
    attention = rearrange(logits, "b heads q (t n) -> b heads q t n", t=slots).softmax(dim=-1)
    if top_k is not None and top_k < attention.shape[-1]:
        attention = attention * (attention >= attention.topk(top_k, dim=-1).values[..., -1:])
    attention = attention / attention.sum(dim=-1, keepdim=True)
    by_slot = rearrange(values, "b heads (n t) d -> b heads t n d", t=slots).type_as(attention)
    return rearrange(torch.einsum("bhqtn,bhtnd->bqthd", attention, by_slot), "b q t heads d -> b q t (heads d)")


def compute_relations(tokens: Float[Tensor, "k d"], temperature: float) -> Float[Tensor, "k k"]:
    """Return the cosines of all pairs but a token with itself, divided by the temperature (eq. 15)."""
    with torch.autocast(tokens.device.type, enabled=False):
        rows = F.normalize(tokens, dim=-1)
        cosines = rows @ rows.T
    return cosines.fill_diagonal_(-1000.0) / temperature


class EagerClassifier(nn.Module):
    """Fine-tuning: encode all tokens, take their mean, its norm and a linear layer; cross-entropy."""

    def __init__(self, config: ClassifierConfig, grid: Grid):
        super().__init__()
        self.encoder = EagerViT(config.encoder, grid)
        self.head = EagerHead(config.encoder.dim, config.num_classes, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], label: Tensor) -> Float[Tensor, ""]:
        return F.cross_entropy(self.classify(clip).float(), label)

    def classify(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits."""
        norm, linear = self.head
        return linear(self.dropout(norm(self.encoder(clip)[0][-1].mean(dim=1))))


# ---- Which settings it has ------------------------------------------------------------------------------------------

_METHODS: dict[type, type[nn.Module]] = {
    VideoMAEConfig: EagerVideoMAE,
    AMDConfig: EagerAMD,
    MVDConfig: EagerMVD,
    MaskAgainConfig: EagerMaskAgain,
    ClassifierConfig: EagerClassifier,
}


def build_eager(config: Any, grid: Grid) -> nn.Module:
    """Build the yardstick of a method, or of a classifier, for which `explain_missing_eager` returns nothing."""
    return _METHODS[type(config)](config, grid)


def explain_missing_eager(config: Any) -> str:
    """Return why there is no yardstick for these settings; an empty string: there is one."""
    if type(config) not in _METHODS:
        return f"it has no {type(config).__name__.removesuffix('Config')}"
    if config.encoder.class_token or config.encoder.layer_scale or config.encoder.relative_positions:
        return "it has no class token, layer scale or relative positions in the encoder"
    if config.encoder.positions in ("learned", "separable"):
        return "it has fixed position embeddings only"
    is_default = True
    match config:
        case VideoMAEConfig():
            is_default = config.target == "per_channel"
        case AMDConfig():
            is_default = config.target == "per_channel" and config.alignment == "serial"
            is_default &= config.generation_layer_pairs is None and config.released == AMDConfig().released
        case MVDConfig():
            is_default = config.distillation_tokens == "masked" and config.image_frames == "first"
            is_default &= not config.normalize_targets and not config.extra and config.encoder.tubelet[0] == 2
        case MaskAgainConfig():
            is_default = set(config.loss_weights) == {"global", "local", "hint", "relation"}
            is_default &= config.released == MaskAgainConfig().released and config.hidden.layers is None
            is_default &= config.hidden.key_selection == "own" and config.hidden.temperature == 1
        case ClassifierConfig():
            is_default = config.pooling == "mean" and not config.multi_label
    return "" if is_default else "it has the method's default settings only"
