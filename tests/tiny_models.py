"""Models of width 24 and clips of 4 frames, for tests: every method, and its variants."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.methods.amd import AMDConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.pretext.masks import NestedTubeMask, TubeMask
from vidstill.pretext.teachers import TeacherConfig
from vidstill.types import Grid

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
    pairs=((1, 2), (2, 3)),
    generator_depth=1,
)

METHODS: dict[str, Any] = {
    "videomae": VIDEOMAE,
    "amd-serial": AMD,
    "amd-parallel": replace(AMD, alignment="parallel"),
    "amd-direct": replace(AMD, alignment="direct"),
    "amd-generation": replace(AMD, alignment="generation"),
    "amd-released": replace(AMD, generator_mask_tokens="released", shared_projection="released"),
}


def as_images(config: Any) -> Any:
    """The method's configuration for clips of one frame: flat tubelets and MAE's codes, in its models and teachers."""
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
