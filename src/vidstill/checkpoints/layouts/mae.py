"""Image MAE's files: pre-trainings, encoders alone, classifiers; DMAE's pre-trainings, which add projections."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    COMPUTED,
    Shapes,
    classifier,
    decoder_shapes,
    encoder_alone,
    linear_shapes,
    pretraining,
    rows,
    words,
)
from vidstill.checkpoints.layouts.infer_config import KERNEL, codes_of, decoder_of, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _mae_decoder_names, vit_names
from vidstill.checkpoints.layouts.videomae import classifier_names
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain

PROJECTIONS = "aligned_feature_projection_heads."
_HEADS = 16  # of MAE's decoder


class Pretraining:
    """Without DMAE's projections this is image MAE's."""

    key = "mae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not _of_images(tensors) or "decoder_embed" not in words(tensors):
            return None
        if (PROJECTIONS.rstrip(".") in words(tensors)) != (self.key == "dmae"):
            return None
        found = encoder_of(tensors, hint, computed="sincos2d")
        dim = rows(tensors, "decoder_embed.weight")
        codes = codes_of(
            tensors,
            "decoder_pos_embed",
            dim,
            1,
            asked="sincos2d",
            grid=None,
            class_token=found.config.class_token,
            computed="sincos2d",
        )
        decoder = decoder_of(
            tensors,
            "decoder_blocks.",
            dim,
            heads=_HEADS,
            codes=codes,
            class_token="encoder" if found.config.class_token else "none",
            project_bias=True,
        )
        wanted = decoder_shapes(decoder, found.config.dim, found.config.pixels_per_token)
        return Reading(
            f"a pre-training of {self.whose} (a kernel of images, decoder_embed and decoder_blocks{self.sign})",
            pretraining(self.key, found, decoder=to_plain(decoder)),
            mae_names(found.config),
            ignored={"decoder_pos_embed": COMPUTED},
            notes=(*found.notes, *codes.notes),
            wanted=wanted | self.beside(tensors),
        )

    whose, sign = "image MAE", ""

    def beside(self, tensors: Mapping[str, Tensor]) -> Shapes:
        """The names and shapes of what comes beside encoder and decoder."""
        return {}


class Encoder:
    key = "mae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not _of_images(tensors) or words(tensors) & {"head", "fc_norm", "decoder_embed"}:
            return None
        found = encoder_of(tensors, hint, computed="sincos2d")
        return Reading(
            "an encoder of image MAE alone (a kernel of images, and neither decoder nor head)",
            encoder_alone(self.key, found),
            vit_names(found.config, "", "encoder.", image=True),
            may_lack={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


class Classifier:
    key = "mae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not _of_images(tensors) or not words(tensors) & {"head", "fc_norm"}:
            return None
        if "head.1.weight" in tensors:
            return None  # a linear probe
        first = "fc_norm.weight" not in tensors
        classes = rows(tensors, "head.weight")
        found = encoder_of(tensors, hint, computed="sincos2d", stored=True)
        sign = "norm and head: the class token is classified" if first else "fc_norm and head"
        names = classifier_names(found.config, image=True)
        return Reading(
            f"a classifier of image MAE or DMAE (a kernel of images, {sign}, {classes} classes)",
            classifier(self.key, found, classes, "first" if first else "mean"),
            names,
            notes=found.notes,
        )


class LinearProbe:
    """A frozen encoder, a batch norm without factors and a linear layer."""

    key = "mae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not _of_images(tensors) or "head.1.weight" not in tensors:
            return None
        found = encoder_of(tensors, hint, computed="sincos2d", stored=True)
        dim, classes = found.config.dim, rows(tensors, "head.1.weight")
        moments: Shapes = {"norm.running_mean": (dim,), "norm.running_var": (dim,), "norm.num_batches_tracked": ()}
        return Reading(
            f"a linear probe of image MAE (a kernel of images, head.0 and head.1, {classes} classes)",
            {**encoder_alone(self.key, found), "kind": "probe"},
            (Name("head.0.", "norm."), Name("head.1.", "head."), *vit_names(found.config, "", "encoder.", image=True)),
            notes=found.notes,
            wanted=moments | {"head.weight": (classes, dim), "head.bias": (classes,)},
        )


def _of_images(tensors: Mapping[str, Tensor]) -> bool:
    return KERNEL in tensors and tensors[KERNEL].ndim == 4


def projections(tensors: Mapping[str, Tensor]) -> Shapes:
    """DMAE's: each a linear layer, or a perceptron of two."""
    shapes: Shapes = {}
    for name, tensor in tensors.items():
        if name.startswith(PROJECTIONS) and name.endswith(".weight"):
            shapes |= linear_shapes(f"projections.{name.removeprefix(PROJECTIONS).removesuffix('.weight')}", tensor)
    return shapes


def mae_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of image MAE, whole or its encoder alone; what DMAE adds to it."""
    return (
        *_mae_decoder_names(DecoderConfig(dim=0, depth=0, heads=0, positions="sincos2d"), separate_qkv=False),
        Name("aligned_feature_projection_heads.", "projections."),
        *vit_names(config, "", "encoder.", image=True),
    )
