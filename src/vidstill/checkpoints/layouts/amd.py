"""AMD's pre-trainings: VideoMAE's tensors, projections of the student's layers, and generators of the teacher's."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import infill_shapes, numbers, of_64, rows, under, words
from vidstill.checkpoints.layouts.infer_config import KERNEL, Codes, decoder_of, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _token
from vidstill.checkpoints.layouts.videomae import videomae_names, with_decoder
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError

_HEADS = "encoder.projection_heads."


class Pretraining:
    key = "amd"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        heads, generators = numbers(tensors, _HEADS), numbers(tensors, "generators.")
        if f"encoder.{KERNEL}" not in tensors or not (heads or "generators" in words(tensors)):
            return None
        for what, there in (("projection", heads), ("generator", generators)):
            if there != list(range(len(there))):
                raise InputError(f"it has {what}s {there}, and one among them is missing: it is incomplete")
        found = encoder_of(under(tensors, "encoder."), hint, computed="sinusoid")
        about, wanted = with_decoder(self.key, tensors, found)
        depth = found.config.depth
        layers = [depth * (place + 1) // len(heads) for place in range(len(heads))]
        width = rows(tensors, f"{_HEADS}0.weight") if heads else rows(tensors, "generators.0.blocks.0.norm1.weight")
        for layer in layers:
            wanted[f"projections.{layer}.weight"] = (width, found.config.dim)
        for place in generators:
            config = decoder_of(
                tensors, f"generators.{place}.blocks.", width, heads=of_64(width), codes=Codes("sinusoid")
            )
            wanted |= infill_shapes(config, f"generators.{place}.")
        return Reading(
            f"a pre-training of AMD (VideoMAE's tensors, {len(heads)} projection_heads, {len(generators)} generators)",
            about | {"layers": layers},
            amd_names(found.config, layers, len(generators)),
            ignored={f"generators.{place}.norm.": "made by AMD's authors, but never used" for place in generators},
            may_lack={f"generators.{place}.mask_token": "AMD's authors do not save it" for place in generators},
            notes=(*found.notes, f"the student's layers {layers} are projected, evenly spread: the file does not say"),
            wanted=wanted,
        )


def amd_names(config: ViTConfig, direct: Sequence[int], generators: int) -> tuple[Name, ...]:
    """A pre-training of AMD: `direct` are the student layers that are projected, in their order."""
    return (
        *videomae_names(config),
        *(Name(f"encoder.projection_heads.{place}.", f"projections.{layer}.") for place, layer in enumerate(direct)),
        *(
            name
            for place in range(generators)
            for name in (
                Name(f"generators.{place}.blocks.", f"generators.{place}.blocks."),
                Name(f"generators.{place}.norm.", None),  # made, but never used
                # the authors do not save it; stored beside their weights in the reference cases
                _token(f"generator_mask_tokens.{place}", f"generators.{place}.mask_token"),
            )
        ),
    )
