"""Weight initialisation of the papers' released codes."""

import torch
from torch import nn

from vidstill.models.layers import Attention


def init_xavier_weights(module: nn.Module, *, separate_qkv: bool = False) -> None:
    """Initialise for pre-training: Xavier uniform weights, zero biases, default LayerNorms.

    Args:
        separate_qkv: Queries, keys and values are three matrices (ST-MAE), not one that is three times as high.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    if separate_qkv:
        with torch.no_grad():
            for part in module.modules():
                if isinstance(part, Attention):
                    for matrix in part.qkv.weight.chunk(3):
                        nn.init.xavier_uniform_(matrix)


def init_normal_weights(module: nn.Module, *, bias: float = 0.0) -> None:
    """Initialise for fine-tuning: normal weights of std 0.02; all biases, those of norms too, constant."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-2.0, b=2.0)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.constant_(part.bias, bias)
