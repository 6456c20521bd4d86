"""AMD's pre-trainings: VideoMAE's tensors, projections of the student, generators of the teacher's features."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, infer_decoder, infer_encoder, list_indices
from vidstill.checkpoints.layouts.layout import ForeignFormat, Layout, LayoutMatch, get_method_metadata
from vidstill.checkpoints.layouts.rename import RenameRule, build_token_rule
from vidstill.checkpoints.layouts.videomae import POSITION_KINDS, build_videomae_rules, infer_videomae_decoder
from vidstill.models.decoder import DecoderTrunk
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError

_HEADS_PREFIX = "encoder.projection_heads."


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    heads, generators = list_indices(file.tensors, _HEADS_PREFIX), list_indices(file.tensors, "generators.")
    if not file.has_patch_embed(5, "encoder.") or not (heads or "generators" in file.top_modules):
        return None
    for part, indices in (("projection", heads), ("generator", generators)):
        if indices != list(range(len(indices))):
            raise InputError(f"it has {part}s {indices}, and one between them is missing: it is incomplete")
    inferred = infer_encoder(file.select("encoder."), default_positions="sinusoid")
    encoder, decoder = inferred.config, infer_videomae_decoder(file, inferred)
    layers = [encoder.depth * (index + 1) // len(heads) for index in heads]
    dim = file.count_rows(f"{_HEADS_PREFIX}0.weight" if heads else "generators.0.blocks.0.norm1.weight")
    modules = decoder["modules"]
    modules |= {f"projections.{layer}.": partial(nn.Linear, encoder.dim, dim, bias=False) for layer in layers}
    for index in generators:
        prefix = f"generators.{index}."
        generator, _ = infer_decoder(file, f"{prefix}blocks.", dim, inferred, kind="sinusoid", class_token="none")
        modules[prefix] = partial(DecoderTrunk, generator)
    return LayoutMatch(
        "pretraining",
        f"a pre-training of AMD (VideoMAE's tensors, {len(heads)} projection_heads, {len(generators)} generators)",
        inferred,
        build_amd_rules(encoder, layers),
        notes=[f"the student's layers {layers} are projected, evenly spread; the file does not say"],
        metadata=decoder["metadata"] | {"layers": layers},
        modules=modules,
        optional_prefixes={f"generators.{index}.mask_token": "AMD's code does not save it" for index in generators},
    )


def build_amd_rules(config: ViTConfig, projected_layers: Sequence[int]) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training of AMD, whose student's layers are projected in the order of the recipe."""
    layers = enumerate(projected_layers)
    return (
        *build_videomae_rules(config),
        *(RenameRule(f"{_HEADS_PREFIX}{index}.", f"projections.{layer}.") for index, layer in layers),
        RenameRule("generators.*.blocks.", "generators.*.blocks."),
        RenameRule("generators.*.norm.", None, reason="created by AMD's code, but never used"),
        # AMD's code does not save it; the reference cases store it beside their weights
        build_token_rule("generator_mask_tokens.*", "generators.*.mask_token"),
    )


def _build_rules(config: ViTConfig, checkpoint: Checkpoint) -> tuple[RenameRule, ...]:
    layers = list_indices(checkpoint.tensors, "projections.")
    pairs = get_method_metadata(checkpoint.metadata).get("layer_pairs") or ()
    ordered = [layer for layer, _ in pairs if layer in layers]  # AMD numbers its projections in the recipe's order
    return build_amd_rules(config, ordered if len(ordered) == len(layers) else layers)


def _build_unused_norms(foreign_tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the norm that AMD's model has behind each generator, with its initial values."""
    norms: dict[str, Tensor] = {}
    for index in list_indices(foreign_tensors, "generators."):
        like = foreign_tensors[f"generators.{index}.blocks.0.norm1.weight"]
        norms |= {f"generators.{index}.norm.weight": torch.ones_like(like)}
        norms |= {f"generators.{index}.norm.bias": torch.zeros_like(like)}
    return norms


AMD = Layout(
    key="amd",
    name="AMD",
    matchers=(_match_pretraining,),
    format=ForeignFormat(
        project="AMD", build_rules=_build_rules, position_kinds=POSITION_KINDS, build_extra_tensors=_build_unused_norms
    ),
)
