"""ST-MAE's pre-trainings in the words of PySlowFast, as published; `stmae.Classifier` reads its fine-tuned ones."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.config import to_plain
from vidstill.models.vit import ViTConfig
from vidstill.weights.layouts.layout import Reading
from vidstill.weights.layouts.parts import decoder_shapes, numbers, of_64, pretraining, rows, words
from vidstill.weights.layouts.stmae import of_clips, out_dim, st_decoder, st_encoder
from vidstill.weights.names import slowfast_names

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
