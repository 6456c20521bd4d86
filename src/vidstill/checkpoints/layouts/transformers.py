"""VideoMAE of `transformers`: a layer each for queries, keys and values; config.json says what the tensors do not."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, InferredEncoder, infer_block_stack, infer_num_heads
from vidstill.checkpoints.layouts.layout import CheckpointKind, LayoutMatch, ModuleBuilders, build_classifier_modules
from vidstill.checkpoints.layouts.rename import (
    FIXED_TABLE_REASON,
    RenameRule,
    build_patch_embed_rules,
    build_token_rule,
    rename_tensors,
)
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_sinusoid_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError, Tubelet

FINAL_NORM_EPS = 1e-5
"""Of the decoder's and of a classifier's final norm in transformers, which config.json cannot change."""
VIDSTILL_KEY = "vidstill"
"""In the config.json of our exports: what transformers has no key for."""
TRANSFORMERS_PREFIX = "videomae."  # of the encoder's names, except in a file of VideoMAEModel

_PATCH_EMBED = "embeddings.patch_embeddings.projection."
_BLOCK_NAMES = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_BLOCK_EPS = 1e-12  # transformers' default of layer_norm_eps
_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}  # of the family's decoders, by their width
_SSV2_CLASSES = 174
_ARCHITECTURES = {"encoder": "Model", "pretraining": "ForPreTraining", "classifier": "ForVideoClassification"}
_ADVICE = "they are of two models; take the config.json that was saved with the file"


def match_transformers(file: ForeignFile) -> LayoutMatch | None:
    """Match a VideoMAEModel, VideoMAEForPreTraining or VideoMAEForVideoClassification.

    Args:
        file: Its metadata is what config.json holds; `preprocessor` in it is what preprocessor_config.json holds.
    """
    prefix = TRANSFORMERS_PREFIX if f"{TRANSFORMERS_PREFIX}{_PATCH_EMBED}weight" in file.tensors else ""
    kernel = file.tensors.get(f"{prefix}{_PATCH_EMBED}weight")
    is_other = file.metadata.get("model_type", "videomae") != "videomae"
    if kernel is None or kernel.ndim != 5 or is_other or f"{prefix}embeddings.cls_token" in file.tensors:
        return None
    return _TransformersReader(file, prefix, kernel.shape).read()


class _TransformersReader:
    """Reads one file's tensors, under our names, and its config.json."""

    def __init__(self, file: ForeignFile, prefix: str, kernel_shape: torch.Size):
        self.dim, channels, *tubelet = kernel_shape
        if channels != 3:
            raise InputError(f"the model takes {channels} channels; only 3 are supported")
        self.tubelet: Tubelet = (tubelet[0], tubelet[1], tubelet[2])
        self.file, self.prefix, self.hint = file, prefix, file.hint
        self.config: Mapping[str, Any] = file.metadata if "model_type" in file.metadata else {}
        self.preprocessor: Mapping[str, Any] = file.metadata.get("preprocessor") or {}
        native = self.config.get(VIDSTILL_KEY)
        self.vidstill_config: Mapping[str, Any] = native if isinstance(native, dict) else {}
        eps = self.vidstill_config.get("last_norm_eps")  # our own exports say what it was here
        self.final_norm_eps = eps if isinstance(eps, float) else FINAL_NORM_EPS
        self.rules = build_transformers_rules(self.tubelet, prefix=prefix)
        self.tensors, _ = rename_tensors(file.tensors, self.rules)
        self.notes = [] if self.config else ["there is no config.json; the family's usual values are assumed"]

    def read(self) -> LayoutMatch:
        kind: CheckpointKind = "encoder"
        encoder, decoder = self._read_encoder(), self._read_decoder()
        num_classes = len(self.tensors["head.weight"]) if "head.weight" in self.tensors else 0
        self._check_config(encoder, decoder, is_classifier=num_classes > 0)
        rules, modules = self.rules, ModuleBuilders()
        passed_on = {key: self.vidstill_config.get(key) for key in ("licence", "provenance")}
        metadata: dict[str, Any] = {key: value for key, value in passed_on.items() if value is not None}
        metadata["views"] = to_dict(self._read_views(num_classes))
        if num_classes:
            kind = "classifier"
            classifier, classes = self._read_classifier(encoder, num_classes)
            metadata |= {"classifier": classifier, "classes": classes}
            modules = build_classifier_modules(encoder, num_classes, classifier["pooling"])
        elif decoder is not None and "encoder.norm.weight" not in self.tensors:
            reason = "its decoder takes tokens that went through no final norm, as no method here does"
            unused = ("decoder.", "encoder_to_decoder.", "mask_token")
            rules = (*(RenameRule(name, None, reason=reason) for name in unused), *rules)
        elif decoder is not None:
            kind = "pretraining"
            target = "per_channel" if self.config.get("norm_pix_loss", True) else "raw"
            method = {"encoder": to_dict(encoder), "decoder": to_dict(decoder), "target": target}
            metadata |= {"decoder": to_dict(decoder), "method": method}
            modules["decoder."] = partial(decoder.build, encoder.dim, out_dim=encoder.pixels_per_token)
        inferred = InferredEncoder(encoder, tuple(self.notes), None)
        description = f"transformers' VideoMAE{_ARCHITECTURES[kind]}"
        return LayoutMatch(kind, description, inferred, rules, metadata=metadata, modules=modules)

    def _read_encoder(self) -> ViTConfig:
        if self.config:
            heads = self._read_number("num_attention_heads", 12)
        else:
            heads, note = infer_num_heads(self.dim, self.hint)
            self.notes.append(note)
        if (self.dim, heads) == (384, 16):
            self.notes.append("16 heads, as config.json says; VideoMAE's authors trained their ViT-S with 6")
        if not self.preprocessor:
            self.notes.append("there is no preprocessor_config.json; the colour mean and std are ImageNet's")
        mean, std = (self.preprocessor.get(f"image_{name}") for name in ("mean", "std"))
        return ViTConfig(
            dim=self.dim,
            heads=heads,
            tubelet=self.tubelet,
            norm_eps=float(self._read_number("layer_norm_eps", _BLOCK_EPS)),
            mean=IMAGENET_MEAN if mean is None else (float(mean[0]), float(mean[1]), float(mean[2])),
            std=IMAGENET_STD if std is None else (float(std[0]), float(std[1]), float(std[2])),
            **infer_block_stack(self.tensors, "encoder.blocks.", self.dim),
        )

    def _read_decoder(self) -> DecoderConfig | None:
        if "decoder.embed.weight" not in self.tensors:
            return None
        dim = len(self.tensors["decoder.embed.weight"])
        heads = self._read_number("decoder_num_attention_heads", 6) if self.config else _DECODER_HEADS.get(dim)
        if heads is None:
            raise InputError(f"a decoder of width {dim} does not say its heads; put the file's config.json beside it")
        return DecoderConfig(
            dim=dim,
            heads=heads,
            norm_eps=float(self._read_number("layer_norm_eps", _BLOCK_EPS)),
            final_norm_eps=self.final_norm_eps,
            **infer_block_stack(self.tensors, "decoder.trunk.blocks.", dim),
        )

    def _read_classifier(self, encoder: ViTConfig, num_classes: int) -> tuple[dict[str, Any], list[str]]:
        """Return the ClassifierConfig as a dict, and the names of the classes."""
        names = self.config.get("id2label") or {}
        if names and len(names) != num_classes:
            raise InputError(f"config.json names {len(names)} classes and the file scores {num_classes}: {_ADVICE}")
        classifier = {
            "encoder": to_dict(encoder),
            "num_classes": num_classes,
            "pooling": "mean" if "norm.weight" in self.tensors else "first",
            "norm_eps": self.final_norm_eps,
            "multi_label": self.config.get("problem_type") == "multi_label_classification",
        }
        return classifier, [str(names.get(str(index), f"LABEL_{index}")) for index in range(num_classes)]

    def _read_views(self, num_classes: int) -> ViewsConfig:
        """Return the views of VideoMAE's authors for Kinetics and SSv2; config.json says them in part."""
        frames, size = int(self._read_number("num_frames", 16)), _to_pair(self.config.get("image_size", 224))
        is_ssv2 = num_classes == _SSV2_CLASSES
        how = f"in {frames} segments" if is_ssv2 else "with a stride of 4"
        self.notes.append(f"frames are sampled {how}, as VideoMAE's authors do; config.json does not say")
        return ViewsConfig(
            sampling=SegmentSampling(num_frames=frames) if is_ssv2 else DenseSampling(num_frames=frames, stride=4),
            temporal_clips=(2 if is_ssv2 else 5) if num_classes else 1,
            spatial_crops=3 if num_classes else 1,
            short_side=(self.preprocessor.get("size") or {}).get("shortest_edge", min(size)),
            size=size,
        )

    def _check_config(self, encoder: ViTConfig, decoder: DecoderConfig | None, *, is_classifier: bool) -> None:
        """Raises an InputError where config.json is another model's, or of a model that vidstill does not have."""
        if (activation := self.config.get("hidden_act", "gelu")) not in ("gelu", "gelu_python"):
            raise InputError(f"config.json says hidden_act {activation!r}; only 'gelu' is supported")
        values: dict[str, Any] = {"tubelet_size": self.tubelet[0], "patch_size": self.tubelet[1:]}
        values |= dict.fromkeys(("qv_bias", "qkv_bias"), encoder.attention_bias == "qv")
        for key, part in (("", encoder), ("decoder_", decoder)):
            if part is not None:
                values |= {f"{key}hidden_size": part.dim, f"{key}num_hidden_layers": part.depth}
                values[f"{key}intermediate_size"] = int(part.dim * part.mlp_ratio)
        for key, value in values.items():
            config_value = self.config.get(key)
            if config_value not in (None, value) and (key != "patch_size" or _to_pair(config_value) != value):
                raise InputError(f"config.json says {key} {config_value} and the tensors have {value}: {_ADVICE}")
        if (mean := self.config.get("use_mean_pooling")) is not None:  # transformers would only warn
            norms = {"encoder.norm.weight": (f"{self.prefix}layernorm.", not mean)}
            norms["norm.weight"] = ("fc_norm.", bool(mean) and is_classifier)
            for name, (foreign_name, is_expected) in norms.items():
                if (name in self.tensors) != is_expected:
                    raise InputError(
                        f"config.json says use_mean_pooling {str(bool(mean)).lower()}, and the file "
                        f"{'lacks' if is_expected else 'has'} {foreign_name}weight: {_ADVICE}"
                    )
        for name in (f"{self.prefix}embeddings.position_embeddings", "position_embeddings"):
            if (table := self.file.tensors.get(name)) is not None:
                fixed = build_sinusoid_table(*table.shape[-2:]).to(torch.float32)
                if not torch.allclose(table.float().reshape(fixed.shape), fixed, atol=1e-3):
                    raise InputError(f"{name!r} is not VideoMAE's fixed table, which is the only one of this layout")

    def _read_number(self, key: str, default: int | float) -> Any:
        """Return what config.json says, or transformers' default."""
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | (float if isinstance(default, float) else int)):
            raise InputError(f"config.json says {key} {value!r}, which is no number of that kind; fetch it again")
        return value


def _to_pair(size: Any) -> tuple[int, int]:
    """Rows and columns; one number stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def build_transformers_rules(tubelet: Tubelet, *, prefix: str = TRANSFORMERS_PREFIX) -> tuple[RenameRule, ...]:
    """Return the rules; biases are written as `q_bias` and `v_bias`, as in published files; both namings are read.

    Args:
        tubelet: Of the encoder.
        prefix: Of the encoder's names.
    """
    return (
        *build_patch_embed_rules(tubelet, f"{prefix}{_PATCH_EMBED}", "encoder.patch_embed."),
        RenameRule(f"{prefix}embeddings.position_embeddings", None, reason=FIXED_TABLE_REASON),
        RenameRule("position_embeddings", None, reason=FIXED_TABLE_REASON),
        *_build_block_rules(f"{prefix}encoder.layer.*.", "encoder.blocks.*."),
        *_build_block_rules("decoder.decoder_layers.*.", "decoder.trunk.blocks.*."),
        RenameRule(f"{prefix}layernorm.", "encoder.norm."),
        RenameRule("encoder_to_decoder.", "decoder.embed."),
        build_token_rule("mask_token", "decoder.trunk.mask_token"),
        RenameRule("decoder.norm.", "decoder.norm."),
        RenameRule("decoder.head.", "decoder.head."),
        RenameRule("fc_norm.", "norm."),
        RenameRule("classifier.", "head."),
    )


def _build_block_rules(foreign_prefix: str, native_prefix: str) -> Iterator[RenameRule]:
    attention = f"{foreign_prefix}attention.attention."
    for part, name in enumerate(("query", "key", "value")):
        yield RenameRule(f"{attention}{name}.weight", f"{native_prefix}attn.qkv.weight", part=part)
    for letter, name in (("q", "query"), ("v", "value")):
        yield RenameRule(f"{attention}{letter}_bias", f"{native_prefix}attn.{letter}_bias")
        yield RenameRule(f"{attention}{name}.bias", f"{native_prefix}attn.{letter}_bias")
    for foreign, native in _BLOCK_NAMES.items():
        yield RenameRule(f"{foreign_prefix}{foreign}.", f"{native_prefix}{native}.")
