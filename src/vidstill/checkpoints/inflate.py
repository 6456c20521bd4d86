"""Weights of an encoder of images, so that they fill one of clips."""

from collections.abc import Mapping

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from vidstill.models.position_embeddings import build_position_table, resize_position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import Grid


def needs_inflation(source_config: ViTConfig, target_config: ViTConfig) -> bool:
    """Whether an encoder of images is to become one of clips."""
    return source_config.tubelet[0] == 1 < target_config.tubelet[0]


def needs_learned_positions(source_config: ViTConfig, target_config: ViTConfig) -> bool:
    """Whether codes that were computed are to be learned from now on (MAE's fine-tuning)."""
    return target_config.positions == "learned" and source_config.positions not in ("learned", "separable")


def inflate_encoder(
    tensors: Mapping[str, Tensor], image_config: ViTConfig, video_config: ViTConfig
) -> dict[str, Tensor]:
    """An encoder of images as one of clips, under the names of `ViT` (I3D, arXiv:1705.07750; ST-MAE, appendix A).

    The kernel is repeated over a tubelet's frames and divided by their number, so that a picture that stands still is
    embedded as before. Codes of places are the image's, those of slots zero: at the beginning, time is not known. What
    the encoder of clips has not is left out: learned codes where its own are computed, the class token, and the biases
    of keys, which move no attention.
    """
    frames = video_config.tubelet[0]
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith("positions.")}
    ours["patch_embed.weight"] = repeat(ours["patch_embed.weight"], "d (c p) -> d (c t p)", c=3, t=frames) / frames
    ours |= init_learned_positions(tensors, image_config, video_config)
    if not video_config.class_token:
        ours.pop("cls_token", None)
    if video_config.attention_bias == "qv":
        for name in [name for name in ours if name.endswith(".qkv.bias")]:
            query, _, value = ours.pop(name).chunk(3)
            block = name.removesuffix("qkv.bias")
            ours |= {f"{block}q_bias": query, f"{block}v_bias": value}
    return ours


def init_learned_positions(
    tensors: Mapping[str, Tensor], source_config: ViTConfig, target_config: ViTConfig
) -> dict[str, Tensor]:
    """The codes of a file's encoder as learned ones to begin with; nothing where the wanted ones are computed.

    Args:
        source_config: of images, or its codes are computed and the wanted ones are joint.
    """
    if target_config.learned_grid is None or target_config.positions not in ("learned", "separable"):
        return {}
    grid = Grid(*target_config.learned_grid)
    frame = Grid(1, grid.h, grid.w)
    if target_config.positions == "separable":
        space = _build_position_table(tensors, source_config, frame)
        codes = {"positions.space": space, "positions.time": space.new_zeros(grid.t, target_config.dim)}
    elif needs_inflation(source_config, target_config):
        codes = {
            "positions.joint": repeat(_build_position_table(tensors, source_config, frame), "s d -> (t s) d", t=grid.t)
        }
    else:
        codes = {"positions.joint": _build_position_table(tensors, source_config, grid)}
    if target_config.class_token:  # of computed codes, it has none
        codes["positions.cls_embedding"] = tensors.get("positions.cls_embedding", torch.zeros(1, target_config.dim))
    return codes


def _build_position_table(tensors: Mapping[str, Tensor], source_config: ViTConfig, grid: Grid) -> Float[Tensor, "n d"]:
    """The codes that a file's encoder, of images where they are separable, gives the tokens of a grid."""
    old = Grid(*source_config.learned_grid) if source_config.learned_grid else grid
    match source_config.positions:
        case "learned":
            return resize_position_table(tensors["positions.joint"], old, grid)
        case "separable":
            time = resize_position_table(tensors["positions.time"], Grid(old.t, 1, 1), Grid(1, 1, 1))
            return time + resize_position_table(tensors["positions.space"], Grid(1, old.h, old.w), grid)
        case computed:
            return build_position_table(computed, grid, source_config.dim, torch.device("cpu"))
