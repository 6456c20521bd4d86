"""How a pre-training starts where an encoder's and a decoder's own start, VideoMAE's, is not its authors'."""

from torch import nn

from vidstill.models.decoder import Decoder
from vidstill.models.init import init_xavier_weights
from vidstill.models.vit import ViT


def init_mae_weights(encoder: ViT, decoder: Decoder) -> None:
    """MAE's start (released): Xavier weights of every linear layer, and a mask token of deviation 0.02.

    The embedding counts as a linear layer, but for its bias, which keeps torch's own start as a convolution has it.
    """
    nn.init.xavier_uniform_(encoder.patch_embed.weight)
    init_xavier_weights(decoder.embed)
    nn.init.normal_(decoder.trunk.mask_token, std=0.02)
