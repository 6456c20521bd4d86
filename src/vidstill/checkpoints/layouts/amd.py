"""AMD's pre-trainings: VideoMAE's tensors, projections of the student, generators of the teacher's features."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.build_match import build_match, compute_trunk_shapes
from vidstill.checkpoints.layouts.infer_encoder import infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.infer_positions import InferredPositions
from vidstill.checkpoints.layouts.layout import ForeignFile, ForeignFormat, Layout, LayoutMatch, list_indices
from vidstill.checkpoints.layouts.rename import RenameRule, build_token_rule
from vidstill.checkpoints.layouts.videomae import (
    POSITION_KINDS,
    build_classifier_rules,
    build_videomae_rules,
    infer_videomae_decoder,
)
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError

_PROJECTION_HEADS_PREFIX = "encoder.projection_heads."


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    heads, generators = file.list_indices(_PROJECTION_HEADS_PREFIX), file.list_indices("generators.")
    if not file.has_patch_embed(5, "encoder.") or not (heads or "generators" in file.top_modules):
        return None
    for part, indices in (("projection", heads), ("generator", generators)):
        if indices != list(range(len(indices))):
            raise InputError(f"it has {part}s {indices}, and one between them is missing: it is incomplete")
    inferred = infer_encoder(file.select("encoder."), default_positions="sinusoid")
    metadata, shapes = infer_videomae_decoder(file, inferred)
    layers = [inferred.config.depth * (index + 1) // len(heads) for index in heads]
    dim = file.count_rows(f"{_PROJECTION_HEADS_PREFIX}0.weight" if heads else "generators.0.blocks.0.norm1.weight")
    shapes |= {f"projections.{layer}.weight": (dim, inferred.config.dim) for layer in layers}
    for index in generators:
        positions = InferredPositions("sinusoid")
        generator = infer_decoder(file.tensors, f"generators.{index}.blocks.", dim, positions=positions)
        shapes |= compute_trunk_shapes(generator, f"generators.{index}.")
    return build_match(
        "pretraining",
        f"a pre-training of AMD (VideoMAE's tensors, {len(heads)} projection_heads, {len(generators)} generators)",
        inferred,
        build_amd_rules(inferred.config, layers, len(generators)),
        extra_notes=[f"the student's layers {layers} are projected, evenly spread; the file does not say"],
        metadata=metadata | {"layers": layers},
        ignored_prefixes={f"generators.{i}.norm.": "created by AMD's code, but never used" for i in generators},
        optional_prefixes={f"generators.{i}.mask_token": "AMD's code does not save it" for i in generators},
        expected_shapes=shapes,
    )


def build_amd_rules(config: ViTConfig, projected_layers: Sequence[int], num_generators: int) -> tuple[RenameRule, ...]:
    """A pre-training of AMD.

    Args:
        config: The student's encoder.
        projected_layers: The student's layers that are projected, in the order of the recipe.
        num_generators: The number of generators.
    """
    return (
        *build_videomae_rules(config),
        *(
            RenameRule(f"{_PROJECTION_HEADS_PREFIX}{index}.", f"projections.{layer}.")
            for index, layer in enumerate(projected_layers)
        ),
        *(
            rule
            for index in range(num_generators)
            for rule in (
                RenameRule(f"generators.{index}.blocks.", f"generators.{index}.blocks."),
                RenameRule(f"generators.{index}.norm.", None),  # created, but never used
                # AMD's code does not save it; the reference cases store it beside their weights
                build_token_rule(f"generator_mask_tokens.{index}", f"generators.{index}.mask_token"),
            )
        ),
    )


def _build_rules(checkpoint: Checkpoint, config: ViTConfig) -> tuple[RenameRule, ...]:
    if checkpoint.metadata["kind"] == "classifier":
        return build_classifier_rules(config)
    layers = list_indices(checkpoint.tensors, "projections.")
    pairs = checkpoint.metadata.get("recipe", {}).get("method", {}).get("layer_pairs") or ()
    ordered = [layer for layer, _ in pairs if layer in layers]  # AMD numbers its projections in the recipe's order
    layers = ordered if len(ordered) == len(layers) else layers
    return build_amd_rules(config, layers, len(list_indices(checkpoint.tensors, "generators.")))


def _build_unused_norms(foreign_tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The norm that AMD's model has behind each generator, with its initial values."""
    norms = {}
    for index in list_indices(foreign_tensors, "generators."):
        like = foreign_tensors[f"generators.{index}.blocks.0.norm1.weight"]
        norms[f"generators.{index}.norm.weight"] = torch.ones_like(like)
        norms[f"generators.{index}.norm.bias"] = torch.zeros_like(like)
    return norms


LAYOUT = Layout(
    key="amd",
    name="AMD",
    format=ForeignFormat(
        project="AMD",
        build_extra_tensors=_build_unused_norms,
        build_rules=_build_rules,
        position_kinds=POSITION_KINDS,
    ),
    matchers=(_match_pretraining,),
)
