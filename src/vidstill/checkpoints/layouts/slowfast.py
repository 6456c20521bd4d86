"""ST-MAE's pre-trainings in the words of PySlowFast, as published; `stmae.Classifier` reads its fine-tuned ones."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import decoder_shapes, numbers, of_64, pretraining, rows, words
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _mae_decoder_names, _qkv_names, vit_names
from vidstill.checkpoints.layouts.stmae import of_clips, out_dim, st_decoder, st_encoder
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain

_BLOCKS = "pred_head.transforms.0."


class Pretraining:
    key = "slowfast"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not of_clips(tensors) or "pred_head" not in words(tensors):
            return None
        found = st_encoder(tensors, hint)
        last = max(numbers(tensors, _BLOCKS), default=0)
        norm = f"{_BLOCKS}{last}."  # the decoder's norm comes after its blocks, and is counted with them
        blocks = {name: tensor for name, tensor in tensors.items() if not name.startswith(norm)}
        decoder = st_decoder(
            blocks,
            _BLOCKS,
            found,
            heads=of_64(rows(tensors, "decoder_embed.weight")),
            class_token="encoder" if found.config.class_token else "none",
        )
        separate = "blocks.0.attn.q.weight" in tensors
        return Reading(
            f"a pre-training of ST-MAE in the words of PySlowFast (pred_head, {'separate' if separate else 'fused'} "
            "queries, keys and values)",
            pretraining(self.key, found, decoder=to_plain(decoder)),
            slowfast_names(found.config, decoder, separate_qkv=separate),
            notes=found.notes,
            wanted=decoder_shapes(decoder, found.config.dim, out_dim(tensors, "pred_head.projections.0.weight", found)),
        )


def slowfast_names(config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True) -> tuple[Name, ...]:
    """A pre-training of ST-MAE in the layout of PySlowFast, which the published files have."""
    blocks = "pred_head.transforms.0."
    return (
        Name(f"{blocks}{decoder.depth}.", "decoder.norm."),
        *(_qkv_names(blocks, "decoder.infill.blocks.", decoder.depth) if separate_qkv else ()),
        Name(blocks, "decoder.infill.blocks."),
        Name("pred_head.projections.0.", "decoder.head."),
        *_mae_decoder_names(decoder, separate_qkv=False),  # whose blocks have the words above
        *vit_names(config, "", "encoder.", separate_qkv=separate_qkv),
    )
