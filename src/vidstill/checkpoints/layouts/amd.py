"""AMD's pre-trainings: VideoMAE's tensors, projections of the student's layers, and generators of the teacher's."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    compute_infill_shapes,
    count_rows,
    infer_heads_of_64,
    list_indices,
    list_top_modules,
    select_prefix,
)
from vidstill.checkpoints.layouts.infer_config import (
    PATCH_EMBED_WEIGHT,
    InferredPositions,
    infer_decoder,
    infer_encoder,
)
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_token_rule
from vidstill.checkpoints.layouts.videomae import build_videomae_rules, infer_pretraining
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError

_PROJECTION_HEADS_PREFIX = "encoder.projection_heads."


class AMDPretrainingLayout:
    key = "amd"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        heads, generators = list_indices(tensors, _PROJECTION_HEADS_PREFIX), list_indices(tensors, "generators.")
        if f"encoder.{PATCH_EMBED_WEIGHT}" not in tensors or not (heads or "generators" in list_top_modules(tensors)):
            return None
        for what, there in (("projection", heads), ("generator", generators)):
            if there != list(range(len(there))):
                raise InputError(f"it has {what}s {there}, and one among them is missing: it is incomplete")
        found = infer_encoder(select_prefix(tensors, "encoder."), hint, default_positions="sinusoid")
        about, wanted = infer_pretraining(self.key, tensors, found)
        depth = found.config.depth
        layers = [depth * (place + 1) // len(heads) for place in range(len(heads))]
        width = (
            count_rows(tensors, f"{_PROJECTION_HEADS_PREFIX}0.weight")
            if heads
            else count_rows(tensors, "generators.0.blocks.0.norm1.weight")
        )
        for layer in layers:
            wanted[f"projections.{layer}.weight"] = (width, found.config.dim)
        for place in generators:
            config = infer_decoder(
                tensors,
                f"generators.{place}.blocks.",
                width,
                heads=infer_heads_of_64(width),
                positions=InferredPositions("sinusoid"),
            )
            wanted |= compute_infill_shapes(config, f"generators.{place}.")
        return LayoutMatch(
            f"a pre-training of AMD (VideoMAE's tensors, {len(heads)} projection_heads, {len(generators)} generators)",
            about | {"layers": layers},
            build_amd_rules(found.config, layers, len(generators)),
            ignored_prefixes={
                f"generators.{place}.norm.": "made by AMD's authors, but never used" for place in generators
            },
            optional_prefixes={
                f"generators.{place}.mask_token": "AMD's authors do not save it" for place in generators
            },
            notes=(*found.notes, f"the student's layers {layers} are projected, evenly spread: the file does not say"),
            expected_shapes=wanted,
        )


def build_amd_rules(config: ViTConfig, projected_layers: Sequence[int], num_generators: int) -> tuple[RenameRule, ...]:
    """A pre-training of AMD: `direct` are the student layers that are projected, in their order."""
    return (
        *build_videomae_rules(config),
        *(
            RenameRule(f"encoder.projection_heads.{place}.", f"projections.{layer}.")
            for place, layer in enumerate(projected_layers)
        ),
        *(
            name
            for place in range(num_generators)
            for name in (
                RenameRule(f"generators.{place}.blocks.", f"generators.{place}.blocks."),
                RenameRule(f"generators.{place}.norm.", None),  # made, but never used
                # the authors do not save it; stored beside their weights in the reference cases
                _build_token_rule(f"generator_mask_tokens.{place}", f"generators.{place}.mask_token"),
            )
        ),
    )
