"""Other libraries' models of width 24 with random weights, saved as their libraries save them."""

from pathlib import Path
from typing import Any

import pytest
import torch

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4, "image_size": 16}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2", {}),
    "registers": ("Dinov2WithRegisters", {"num_register_tokens": 4}),
    "dinov3": ("DINOv3ViT", {"intermediate_size": 48, "num_register_tokens": 4}),
    "clip": ("CLIPVision", {"intermediate_size": 48}),
    "siglip": ("SiglipVision", {"intermediate_size": 48}),
    "videomae": ("VideoMAE", {"intermediate_size": 48, "num_frames": 4}),
    "vjepa2": (
        "VJEPA2",
        {"crop_size": 16, "frames_per_clip": 4, "pred_hidden_size": 24, "pred_num_attention_heads": 2}
        | {"pred_num_hidden_layers": 1},
    ),
}
PREFIX = {"dinov2": 1, "registers": 5, "dinov3": 5, "clip": 1, "siglip": 0, "vjepa2": 0, "videomae": 0}
"""Class and register tokens of each."""


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'vidstill[teachers]'")


def save(kind: str, folder: Path) -> Path:
    """A model of transformers in a folder of its own."""
    transformers = library("transformers")
    torch.manual_seed(1)
    name, options = KINDS[kind]
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**SIZES | options))
    with torch.no_grad():
        for parameter in model.parameters():  # so that nothing is hidden behind a zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def save_timm(path: Path) -> Path:
    """The tensors of timm's test_vit: width 64, depth 6, patches of 16 × 16."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    save_file(library("timm").create_model("test_vit").state_dict(), path)
    return path
