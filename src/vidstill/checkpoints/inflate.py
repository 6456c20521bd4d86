"""Inflate an image encoder to a video encoder."""

from collections.abc import Mapping

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from vidstill.models.position_embeddings import build_position_table, resize_position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import Grid


def needs_inflation(source: ViTConfig, target: ViTConfig) -> bool:
    """Return whether an image encoder is to become a video encoder."""
    return source.tubelet[0] == 1 < target.tubelet[0]


def needs_learned_positions(source: ViTConfig, target: ViTConfig) -> bool:
    """Return whether fixed positions are to become learned ones (MAE's fine-tuning)."""
    return target.positions == "learned" and source.positions not in ("learned", "separable")


def inflate_encoder(tensors: Mapping[str, Tensor], source: ViTConfig, target: ViTConfig) -> dict[str, Tensor]:
    """Inflate an image encoder to a video encoder (I3D, arXiv:1705.07750; ST-MAE, appendix A).

    The kernel is repeated over a tubelet's frames and divided by their number, so that a still clip gives the image's
    tokens. Spatial positions are the image's, temporal ones zero. What the video encoder lacks is left out: learned
    positions where its own are fixed, the class token, and the biases of keys, which do not change the attention.

    Args:
        tensors: With the names of `ViT`.
        source: The image encoder.
        target: The video encoder.
    """
    frames = target.tubelet[0]
    inflated = {name: tensor for name, tensor in tensors.items() if not name.startswith("positions.")}
    inflated["patch_embed.weight"] = (
        repeat(inflated["patch_embed.weight"], "d (c p) -> d (c t p)", c=3, t=frames) / frames
    )
    inflated |= init_learned_positions(tensors, source, target)
    if not target.class_token:
        inflated.pop("cls_token", None)
    if target.attention_bias == "qv":
        for name in [name for name in inflated if name.endswith(".qkv.bias")]:
            query, _, value = inflated.pop(name).chunk(3)
            block = name.removesuffix("qkv.bias")
            inflated |= {f"{block}q_bias": query, f"{block}v_bias": value}
    return inflated


def init_learned_positions(tensors: Mapping[str, Tensor], source: ViTConfig, target: ViTConfig) -> dict[str, Tensor]:
    """Return the initial values of learned positions, from another encoder's; nothing if they are to be fixed.

    Args:
        tensors: Of the other encoder, with the names of `ViT`.
        source: An image encoder, or one with fixed positions where the target's are joint.
        target: The encoder that is to have them.
    """
    if target.learned_grid is None or target.positions not in ("learned", "separable"):
        return {}
    t, h, w = target.learned_grid
    is_image = target.positions == "separable" or needs_inflation(source, target)
    table = _build_source_table(tensors, source, Grid(1 if is_image else t, h, w))
    if target.positions == "separable":
        positions = {"positions.space": table, "positions.time": table.new_zeros(t, target.dim)}
    else:
        positions = {"positions.joint": repeat(table, "n d -> (t n) d", t=t if is_image else 1)}
    if target.class_token:  # fixed tables have none
        zeros = torch.zeros(1, target.dim)
        positions["positions.cls_embedding"] = tensors.get("positions.cls_embedding", zeros)
    return positions


def _build_source_table(tensors: Mapping[str, Tensor], source: ViTConfig, grid: Grid) -> Float[Tensor, "n d"]:
    """Return the positions that an encoder (of images, where they are separable) gives the tokens of a grid."""
    old = Grid(*source.learned_grid) if source.learned_grid else grid
    match source.positions:
        case "learned":
            return resize_position_table(tensors["positions.joint"], old, grid)
        case "separable":
            time = resize_position_table(tensors["positions.time"], Grid(old.t, 1, 1), Grid(1, 1, 1))
            return time + resize_position_table(tensors["positions.space"], Grid(1, old.h, old.w), grid)
        case fixed:
            return build_position_table(fixed, grid, source.dim, torch.device("cpu"))
