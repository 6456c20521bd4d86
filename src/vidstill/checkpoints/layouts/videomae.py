"""VideoMAE's files and VideoMAE V2's: pre-trainings, encoders alone, and the classifiers of AMD, MVD and MaskAgain."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
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
from vidstill.checkpoints.layouts.infer_config import KERNEL, Codes, Found, decoder_of, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _token, vit_names
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain

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


def videomae_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of VideoMAE."""
    return (
        *vit_names(config, "encoder.", "encoder."),
        Name("encoder_to_decoder.", "decoder.project."),
        _token("mask_token", "decoder.infill.mask_token"),
        Name("decoder.blocks.", "decoder.infill.blocks."),
        Name("decoder.norm.", "decoder.norm."),
        Name("decoder.head.", "decoder.head."),
    )


def classifier_names(config: ViTConfig, *, image: bool = False) -> tuple[Name, ...]:
    """A fine-tuned model of VideoMAE, MVD, AMD and MaskAgain; of image MAE and DMAE."""
    return (
        *vit_names(config, "", "encoder.", image=image),
        Name("fc_norm.", "norm."),
        Name("head.", "head."),
    )
