"""Weights of an encoder of images, so that they fill one of clips."""

from collections.abc import Mapping

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from vidstill.models.position_embeddings import position_table, resize_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import Grid


def is_inflation(found: ViTConfig, wanted: ViTConfig) -> bool:
    """Whether an encoder of images is to become one of clips."""
    return found.tubelet[0] == 1 < wanted.tubelet[0]


def makes_learned(found: ViTConfig, wanted: ViTConfig) -> bool:
    """Whether codes that were computed are to be learned from now on (MAE's fine-tuning)."""
    return wanted.positions == "learned" and found.positions not in ("learned", "separable")


def inflated(tensors: Mapping[str, Tensor], image: ViTConfig, clips: ViTConfig) -> dict[str, Tensor]:
    """An encoder of images as one of clips, under the names of `ViT` (I3D, arXiv:1705.07750; ST-MAE, appendix A).

    The kernel is repeated over a tubelet's frames and divided by their number, so that a picture that stands still is
    embedded as before. Codes of places are the image's, those of slots zero: at the beginning, time is not known. What
    the encoder of clips has not is left out: learned codes where its own are computed, the class token, and the biases
    of keys, which move no attention.
    """
    frames = clips.tubelet[0]
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith("positions.")}
    ours["embed.weight"] = repeat(ours["embed.weight"], "d (c p) -> d (c t p)", c=3, t=frames) / frames
    ours |= learned_codes(tensors, image, clips)
    if not clips.class_token:
        ours.pop("class_token", None)
    if clips.attention_bias == "qv":
        for name in [name for name in ours if name.endswith(".qkv.bias")]:
            query, _, value = ours.pop(name).chunk(3)
            block = name.removesuffix("qkv.bias")
            ours |= {f"{block}q_bias": query, f"{block}v_bias": value}
    return ours


def learned_codes(tensors: Mapping[str, Tensor], found: ViTConfig, wanted: ViTConfig) -> dict[str, Tensor]:
    """The codes of a file's encoder as learned ones to begin with; nothing where the wanted ones are computed.

    Args:
        found: of images, or its codes are computed and the wanted ones are joint.
    """
    if wanted.learned_grid is None or wanted.positions not in ("learned", "separable"):
        return {}
    grid = Grid(*wanted.learned_grid)
    frame = Grid(1, grid.h, grid.w)
    if wanted.positions == "separable":
        space = _table(tensors, found, frame)
        codes = {"positions.space": space, "positions.time": space.new_zeros(grid.t, wanted.dim)}
    elif is_inflation(found, wanted):
        codes = {"positions.joint": repeat(_table(tensors, found, frame), "s d -> (t s) d", t=grid.t)}
    else:
        codes = {"positions.joint": _table(tensors, found, grid)}
    if wanted.class_token:  # of computed codes, it has none
        codes["positions.of_class"] = tensors.get("positions.of_class", torch.zeros(1, wanted.dim))
    return codes


def _table(tensors: Mapping[str, Tensor], found: ViTConfig, grid: Grid) -> Float[Tensor, "n d"]:
    """The codes that a file's encoder, of images where they are separable, gives the tokens of a grid."""
    old = Grid(*found.learned_grid) if found.learned_grid else grid
    match found.positions:
        case "learned":
            return resize_table(tensors["positions.joint"], old, grid)
        case "separable":
            time = resize_table(tensors["positions.time"], Grid(old.t, 1, 1), Grid(1, 1, 1))
            return time + resize_table(tensors["positions.space"], Grid(1, old.h, old.w), grid)
        case computed:
            return position_table(computed, grid, found.dim, torch.device("cpu"))
