"""VideoMAE's files and VideoMAE V2's: pre-trainings, encoders alone, and the classifiers of AMD, MVD and MaskAgain."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.config import to_plain
from vidstill.models.vit import ViTConfig
from vidstill.weights.layouts.layout import Reading
from vidstill.weights.layouts.parts import (
    Shapes,
    classifier,
    decoder_shapes,
    encoder_alone,
    of_64,
    pretraining,
    rows,
    under,
    words,
)
from vidstill.weights.layouts.sizes import KERNEL, Found, decoder_of, encoder_of
from vidstill.weights.layouts.tables import Codes
from vidstill.weights.names import classifier_names, videomae_names, vit_names

_GIANT = 1408
_K710 = 710  # classes of VideoMAE V2's distilled models


def version(dim: int, classes: int = 0) -> str:
    return "VideoMAE V2" if dim == _GIANT or classes == _K710 else "VideoMAE"


class Pretraining:
    key = "videomae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if f"encoder.{KERNEL}" not in tensors or not words(tensors) & {"encoder_to_decoder", "decoder"}:
            return None
        found = encoder_of(under(tensors, "encoder."), hint, computed="sinusoid")
        about, wanted = with_decoder(self.key, tensors, found)
        return Reading(
            f"a pre-training of {version(found.config.dim)} (tensors of encoder, encoder_to_decoder and decoder)",
            about,
            videomae_names(found.config),
            notes=found.notes,
            wanted=wanted,
        )


class Encoder:
    """The encoder of a pre-training, with its prefix or without, and of a classifier without its head."""

    key = "videomae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        prefix = "encoder." if f"encoder.{KERNEL}" in tensors else ""
        bare = under(tensors, prefix)
        if KERNEL not in bare or bare[KERNEL].ndim != 5 or "head.weight" in bare:
            return None
        found = encoder_of(bare, hint, computed="sinusoid")
        return Reading(
            f"an encoder of {version(found.config.dim)} alone (its blocks, and neither decoder nor head)",
            encoder_alone(self.key, found),
            vit_names(found.config, prefix, "encoder."),
            may_lack={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


class Classifier:
    key = "videomae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        first = "norm.weight" in tensors
        if KERNEL not in tensors or tensors[KERNEL].ndim != 5 or not words(tensors) & {"head", "fc_norm"}:
            return None
        classes = rows(tensors, "head.weight")
        found = encoder_of(tensors, hint, computed="sinusoid")
        names = classifier_names(found.config)
        sign = "norm and head: the first token is classified" if first else "fc_norm and head"
        whose = version(found.config.dim, classes)
        whose = "VideoMAE, MVD, AMD or MaskAgain" if whose == "VideoMAE" else whose
        return Reading(
            f"a classifier of {whose} ({sign}, {classes} classes)",
            classifier(self.key, found, classes, "first" if first else "mean"),
            names,
            notes=found.notes,
        )


def with_decoder(key: str, tensors: Mapping[str, Tensor], found: Found) -> tuple[dict[str, Any], Shapes]:
    """What a pre-training of VideoMAE's kind says of itself with its decoder, and the decoder's names and shapes."""
    dim = rows(tensors, "encoder_to_decoder.weight")
    codes = Codes(found.config.positions if found.config.learned_grid is None else "sinusoid")
    decoder = decoder_of(
        tensors,
        "decoder.blocks.",
        dim,
        heads=of_64(dim),
        codes=codes,
        project_bias="encoder_to_decoder.bias" in tensors,
    )
    wanted = decoder_shapes(decoder, found.config.dim, found.config.pixels_per_token)
    return pretraining(key, found, decoder=to_plain(decoder)), wanted
