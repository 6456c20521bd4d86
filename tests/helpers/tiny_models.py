"""Models of width 24 and clips of 4 frames, for tests: every method, and its variants."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.methods.amd import AMDConfig, AMDQuirks
from vidstill.methods.common.masking import NestedTubeMask, RandomMask, TubeMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.methods.maskagain import HiddenConfig, MaskAgainConfig, MaskAgainQuirks, OutputConfig
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.methods.stmae import STMAEConfig, STMAEQuirks, build_stmae_vit_config
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import Grid

ENCODER = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))
TEACHER = ViTConfig(dim=32, depth=3, heads=2, tubelet=(2, 4, 4))
DECODER = DecoderConfig(dim=16, depth=1, heads=2)
GRID = Grid(2, 4, 3)  # not square
CLASSES = 5

VIDEOMAE = VideoMAEConfig(encoder=ENCODER, decoder=DECODER, mask=TubeMask(ratio=0.75))
AMD = AMDConfig(
    encoder=ENCODER,
    decoder=DECODER,
    teacher=TeacherConfig(model=TEACHER),
    mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.5),
    layer_pairs=((1, 2), (2, 3)),
    generator_depth=1,
)
MASKAGAIN = MaskAgainConfig(
    encoder=ENCODER,
    teacher=TeacherConfig(model=replace(TEACHER, dim=24)),  # as wide as the student
    mask=TubeMask(ratio=0.5),
    hidden=HiddenConfig(global_top_k=4, local_top_k=3),
    output=OutputConfig(salient_tokens=5),
)
IMAGEMAE = ImageMAEConfig(
    encoder=replace(ENCODER, positions="sincos2d", class_token=True, attention_bias="qkv"),
    decoder=replace(DECODER, positions="sincos2d", class_token="encoder", embed_bias=True, attention_bias="qkv"),
    mask=RandomMask(ratio=0.75, round_down="masked"),  # so that something is seen of a single token
)
DMAE = DMAEConfig(
    encoder=IMAGEMAE.encoder,
    decoder=IMAGEMAE.decoder,
    teacher=TeacherConfig(model=replace(TEACHER, positions="sincos2d", class_token=True, attention_bias="qkv")),
    mask=IMAGEMAE.mask,
    layer_pairs=((1, 2),),
)
STMAE = STMAEConfig(
    encoder=replace(build_stmae_vit_config(ENCODER), learned_grid=(2, 4, 3)),
    decoder=replace(IMAGEMAE.decoder, positions="learned", learned_grid=(2, 4, 3)),
    mask=IMAGEMAE.mask,
)
MVD = MVDConfig(
    encoder=replace(ENCODER, dim=32, positions="sincos3d"),  # the code needs a multiple of 16
    decoder=replace(DECODER, positions="sincos3d", embed_bias=True),
    image=TeacherBranch(model=replace(DMAE.teacher.model, tubelet=(1, 4, 4), dim=16, depth=2)),
    video=TeacherBranch(model=TEACHER),
    mask=TubeMask(ratio=0.75),
)


def only(config: MaskAgainConfig, **weights: float) -> MaskAgainConfig:
    """MaskAgain with these terms alone: `global`, `local`, `attention`, `value`, `hint`, `relation`."""
    hidden, output = (
        {f"{term}_weight": weights.get(term, 0.0) for term in terms}
        for terms in (("global", "local", "attention", "value"), ("hint", "relation"))
    )
    return replace(config, hidden=replace(config.hidden, **hidden), output=replace(config.output, **output))


METHODS: dict[str, Any] = {
    "videomae": VIDEOMAE,
    "amd-serial": AMD,
    "amd-parallel": replace(AMD, alignment="parallel"),
    "amd-direct": replace(AMD, alignment="direct"),
    "amd-generation": replace(AMD, alignment="generation"),
    "amd-released": replace(AMD, released=AMDQuirks(constant_mask_tokens=True, projection_by_index=True)),
    "maskagain": MASKAGAIN,
    "maskagain-paper": replace(
        MASKAGAIN,
        released=MaskAgainQuirks(
            attention_normalization="unchanged",
            local_softmax="clip",
            value_order="aligned",
            hint_tokens="gathered",
            relation_softmax="pairs",
        ),
    ),
    "maskagain-projected": replace(MASKAGAIN, teacher=TeacherConfig(model=TEACHER)),
    "maskagain-transfer": only(
        replace(MASKAGAIN, decoder=DECODER, hidden=HiddenConfig(layers=(1, 2), temperature=4.0)),
        attention=1.0,
        value=1.0,
    ),
    "stmae": STMAE,
    "stmae-mae_st": replace(
        STMAE,
        decoder=replace(STMAE.decoder, positions="separable", class_token="own"),
        released=STMAEQuirks(frame_selection="linspace", weight_init="xavier"),
    ),
    "imagemae": IMAGEMAE,
    "dmae": DMAE,
    "dmae-video": replace(
        DMAE,
        encoder=ENCODER,
        decoder=DECODER,
        teacher=TeacherConfig(model=TEACHER),
        mask=TubeMask(ratio=0.75),
        target="per_channel",
    ),
    "dmae-perceptrons": replace(DMAE, layer_pairs=((1, 2), (2, 3)), projection="mlp-2layer", feature_loss="l2"),
    "dmae-raw": replace(
        DMAE,
        teacher=TeacherConfig(model=replace(DMAE.teacher.model, dim=24)),
        projection="none",
        align_class_token=False,
    ),
    "mvd": MVD,
    "mvd-image-only": replace(MVD, image=replace(MVD.image, loss="l1"), video=None, image_frames="all"),
    "mvd-video-only": replace(MVD, image=None, video=replace(MVD.video, loss="l2"), normalize_targets=True),
    "mvd-other-patches": replace(MVD, image=TeacherBranch(model=replace(MVD.image.model, tubelet=(1, 3, 5)))),
    "mvd-class-token": replace(
        MVD,
        encoder=replace(MVD.encoder, class_token=True),
        decoder=replace(MVD.decoder, class_token="encoder"),
        image=replace(MVD.image, weight=0.7),
        video=replace(MVD.video, weight=1.5),
    ),
    "mvd-per-token": replace(MVD, distillation_tokens="visible"),
}


def as_images(config: Any) -> Any:
    """The method's config for clips of one frame: flat tubelets and MAE's positions, in its models and teachers."""
    if isinstance(config, ViTConfig):
        return replace(config, tubelet=(1, *config.tubelet[1:]), positions="sincos2d")
    if isinstance(config, DecoderConfig):
        return replace(config, positions="sincos2d")
    parts = {field.name: getattr(config, field.name) for field in fields(config)}
    kinds = (ViTConfig, DecoderConfig, TeacherConfig)
    return replace(config, **{name: as_images(part) for name, part in parts.items() if isinstance(part, kinds)})


def clips(count: int = 2, *, frames: int = 4, rows: int = 16, columns: int = 12, seed: int = 0) -> Tensor:
    """Colours in [0, 1]."""
    return torch.rand(count, 3, frames, rows, columns, generator=torch.Generator().manual_seed(seed))


def built(config: Any, *, seed: int = 0) -> nn.Module:
    """The configured module; zero biases and factors are moved, so that nothing is hidden behind a zero."""
    torch.manual_seed(seed)
    module = config.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module
