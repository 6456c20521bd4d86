"""The names that `transformers` has for VideoMAE's tensors."""

from collections.abc import Iterator

from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.weights.names import Name

PREFIX = "videomae."  # of the encoder's names, but in a file of VideoMAEModel
KERNEL = "embeddings.patch_embeddings.projection.weight"


def transformers_names(config: ViTConfig, decoder: DecoderConfig | None, *, prefix: str = PREFIX) -> tuple[Name, ...]:
    """Their names, written as published files have them: biases as `q_bias` and `v_bias`; read are both namings.

    Args:
        decoder: of a pre-training.
    """
    t, h, w = config.tubelet
    kernel = ("d c t h w -> d (c t h w)", "d (c t h w) -> d c t h w")
    stacks = [(f"{prefix}encoder.layer.", "encoder.blocks.", config.depth)]
    if decoder is not None:
        stacks.append(("decoder.decoder_layers.", "decoder.infill.blocks.", decoder.depth))
    return (
        Name(f"{prefix}{KERNEL}", "encoder.embed.weight", *kernel, {"c": 3, "t": t, "h": h, "w": w}),
        Name(f"{prefix}embeddings.patch_embeddings.projection.bias", "encoder.embed.bias"),
        *(
            name
            for theirs, ours, depth in stacks
            for block in range(depth)
            for name in _block_names(f"{theirs}{block}.", f"{ours}{block}.")
        ),
        Name(f"{prefix}layernorm.", "encoder.norm."),
        Name("encoder_to_decoder.", "decoder.project."),
        Name("mask_token", "decoder.infill.mask_token", "1 1 d -> 1 d", "1 d -> 1 1 d"),
        Name("decoder.norm.", "decoder.norm."),
        Name("decoder.head.", "decoder.head."),
        Name("fc_norm.", "norm."),
        Name("classifier.", "head."),
    )


def _block_names(theirs: str, ours: str) -> Iterator[Name]:
    attention = f"{theirs}attention.attention."
    for place, word in enumerate(("query", "key", "value")):
        yield Name(f"{attention}{word}.weight", f"{ours}attn.qkv.weight", part=(place, 3))
    for letter, word in (("q", "query"), ("v", "value")):
        yield Name(f"{attention}{letter}_bias", f"{ours}attn.{letter}_bias")
        yield Name(f"{attention}{word}.bias", f"{ours}attn.{letter}_bias")
    yield Name(f"{theirs}attention.output.dense.", f"{ours}attn.proj.")
    yield Name(f"{theirs}layernorm_before.", f"{ours}norm1.")
    yield Name(f"{theirs}layernorm_after.", f"{ours}norm2.")
    yield Name(f"{theirs}intermediate.dense.", f"{ours}mlp.fc1.")
    yield Name(f"{theirs}output.dense.", f"{ours}mlp.fc2.")
