"""MVD's pre-trainings: a student without a prefix, and a decoder for each of its teachers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    FIXED_TABLE_REASON,
    ShapeDict,
    build_pretraining_metadata,
    compute_decoder_shapes,
    count_rows,
    infer_heads_of_64,
    list_top_modules,
)
from vidstill.checkpoints.layouts.infer_config import PATCH_EMBED_WEIGHT, infer_decoder, infer_encoder, infer_positions
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_token_rule, build_vit_rules
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_TEACHER_DECODERS = {"img": "decoders.image.", "vid": "decoders.video."}


class MVDPretrainingLayout:
    key = "mvd"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        found_words = list_top_modules(tensors)
        if PATCH_EMBED_WEIGHT not in tensors or not found_words & {"down_img", "down_vid"}:
            return None
        found = infer_encoder(tensors, hint, default_positions="sincos3d")
        wanted: ShapeDict = {}
        decoders, notes = {}, list(found.notes)
        for teacher, ours in _TEACHER_DECODERS.items():
            if f"down_{teacher}" not in found_words:
                continue
            dim = count_rows(tensors, f"down_{teacher}.weight")
            codes = infer_positions(
                tensors,
                f"pos_embed_{teacher}",
                dim,
                found.config.tubelet[0],
                expected_kind="sincos3d",
                hint_grid=found.stored_grid,
                class_token=found.config.class_token,
                default_positions="sincos3d",
            )
            decoder = infer_decoder(
                tensors,
                f"decoder_{teacher}.blocks.",
                dim,
                heads=infer_heads_of_64(dim),
                positions=replace(codes, learned_grid=None),
                class_token="encoder" if found.config.class_token else "none",
                project_bias=True,
            )
            wanted |= compute_decoder_shapes(
                decoder, found.config.dim, count_rows(tensors, f"decoder_{teacher}.head.weight"), ours
            )
            decoders[ours.removesuffix(".")] = to_dict(decoder)
            notes += codes.notes
        return LayoutMatch(
            "a pre-training of MVD (a student without a prefix, down_img and down_vid)",
            build_pretraining_metadata(self.key, found, decoders=decoders, decoder=next(iter(decoders.values()))),
            build_mvd_rules(found.config),
            ignored_prefixes={f"pos_embed_{teacher}": FIXED_TABLE_REASON for teacher in _TEACHER_DECODERS},
            notes=tuple(notes),
            expected_shapes=wanted,
        )


def build_mvd_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of MVD: a student, and a decoder for each of its teachers."""
    return (
        *(
            name
            for theirs, ours in _TEACHER_DECODERS.items()
            for name in (
                RenameRule(f"pos_embed_{theirs}", None),  # computed: MVD's 3-D code
                RenameRule(f"down_{theirs}.", f"{ours}embed."),
                _build_token_rule(f"mask_token_{theirs}", f"{ours}trunk.mask_token"),
                RenameRule(f"decoder_{theirs}.blocks.", f"{ours}trunk.blocks."),
                RenameRule(f"decoder_{theirs}.norm.", f"{ours}norm."),
                RenameRule(f"decoder_{theirs}.head.", f"{ours}head."),
            )
        ),
        *build_vit_rules(config, "", "encoder."),
    )
