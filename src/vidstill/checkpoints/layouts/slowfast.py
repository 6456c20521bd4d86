"""ST-MAE's pre-trainings in the words of PySlowFast, as published; `stmae.Classifier` reads its fine-tuned ones."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    build_pretraining_metadata,
    compute_decoder_shapes,
    count_rows,
    infer_heads_of_64,
    list_indices,
    list_top_modules,
)
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_mae_decoder_rules, _build_qkv_rules, build_vit_rules
from vidstill.checkpoints.layouts.stmae import infer_out_dim, infer_stmae_decoder, infer_stmae_encoder, is_video_encoder
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_BLOCKS_PREFIX = "pred_head.transforms.0."


class SlowFastPretrainingLayout:
    key = "slowfast"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not is_video_encoder(tensors) or "pred_head" not in list_top_modules(tensors):
            return None
        found = infer_stmae_encoder(tensors, hint)
        last = max(list_indices(tensors, _BLOCKS_PREFIX), default=0)
        norm = f"{_BLOCKS_PREFIX}{last}."  # the decoder's norm comes after its blocks, and is counted with them
        blocks = {name: tensor for name, tensor in tensors.items() if not name.startswith(norm)}
        decoder = infer_stmae_decoder(
            blocks,
            _BLOCKS_PREFIX,
            found,
            heads=infer_heads_of_64(count_rows(tensors, "decoder_embed.weight")),
            class_token="encoder" if found.config.class_token else "none",
        )
        separate = "blocks.0.attn.q.weight" in tensors
        return LayoutMatch(
            f"a pre-training of ST-MAE in the words of PySlowFast (pred_head, {'separate' if separate else 'fused'} "
            "queries, keys and values)",
            build_pretraining_metadata(self.key, found, decoder=to_dict(decoder)),
            build_slowfast_rules(found.config, decoder, separate_qkv=separate),
            notes=found.notes,
            expected_shapes=compute_decoder_shapes(
                decoder, found.config.dim, infer_out_dim(tensors, "pred_head.projections.0.weight", found)
            ),
        )


def build_slowfast_rules(
    config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """A pre-training of ST-MAE in the layout of PySlowFast, which the published files have."""
    blocks = "pred_head.transforms.0."
    return (
        RenameRule(f"{blocks}{decoder.depth}.", "decoder.norm."),
        *(_build_qkv_rules(blocks, "decoder.trunk.blocks.", decoder.depth) if separate_qkv else ()),
        RenameRule(blocks, "decoder.trunk.blocks."),
        RenameRule("pred_head.projections.0.", "decoder.head."),
        *_build_mae_decoder_rules(decoder, separate_qkv=False),  # whose blocks have the words above
        *build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv),
    )
