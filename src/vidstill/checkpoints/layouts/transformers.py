"""VideoMAE of `transformers`: a layer each for queries, keys and values; config.json says what the tensors do not."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vidstill.checkpoints.layouts.build_match import compute_decoder_shapes
from vidstill.checkpoints.layouts.infer_encoder import infer_num_heads
from vidstill.checkpoints.layouts.layout import ForeignFile, LayoutMatch, ShapeDict
from vidstill.checkpoints.layouts.rename import RenameRule, build_token_rule
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_sinusoid_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

FINAL_NORM_EPS = 1e-5
"""Of the decoder's and of a classifier's final norm in transformers, which config.json cannot change."""
VIDSTILL_KEY = "vidstill"
"""In the config.json of our exports: what transformers has no key for."""
TRANSFORMERS_PREFIX = "videomae."  # of the encoder's names, except in a file of VideoMAEModel

_PATCH_EMBED_WEIGHT = "embeddings.patch_embeddings.projection.weight"
_BLOCK_EPS = 1e-12  # transformers' default of layer_norm_eps
_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}  # of the family's decoders, by their width
_SSV2_CLASSES = 174
_ARCHITECTURES = {"encoder": "Model", "pretraining": "ForPreTraining", "classifier": "ForVideoClassification"}
_ADVICE = "they are of two models; take the config.json that was saved with the file"


def match_transformers(file: ForeignFile) -> LayoutMatch | None:
    """A VideoMAEModel, VideoMAEForPreTraining or VideoMAEForVideoClassification.

    Args:
        file: Its metadata is what config.json holds; `preprocessor` in it is what preprocessor_config.json holds.
    """
    prefix = TRANSFORMERS_PREFIX if TRANSFORMERS_PREFIX + _PATCH_EMBED_WEIGHT in file.tensors else ""
    kernel = file.tensors.get(prefix + _PATCH_EMBED_WEIGHT)
    is_other = (
        file.metadata.get("model_type", "videomae") != "videomae" or f"{prefix}embeddings.cls_token" in file.tensors
    )
    if kernel is None or kernel.ndim != 5 or is_other:
        return None
    return _TransformersReader(file, prefix).read()


class _TransformersReader:
    """Reads one file's tensors and config.json."""

    def __init__(self, file: ForeignFile, prefix: str):
        self.tensors, self.hint, self.prefix = file.tensors, file.hint, prefix
        self.config: Mapping[str, Any] = file.metadata if "model_type" in file.metadata else {}
        self.preprocessor: Mapping[str, Any] = file.metadata.get("preprocessor") or {}
        native = self.config.get(VIDSTILL_KEY)
        self.vidstill_config: Mapping[str, Any] = native if isinstance(native, dict) else {}
        self.notes = [] if self.config else ["there is no config.json; the family's usual values are assumed"]
        self.kernel_shape = file.tensors[prefix + _PATCH_EMBED_WEIGHT].shape
        self.has_decoder = "encoder_to_decoder.weight" in file.tensors
        self.is_classifier = self._has_prefix("classifier.")

    def read(self) -> LayoutMatch:
        self._check_config()
        encoder = self._read_encoder()
        decoder = self._read_decoder(encoder) if self.has_decoder else None
        ignored = {f"{self.prefix}embeddings.position_embeddings": "a fixed position table, computed here"}
        ignored |= {"position_embeddings": "a fixed position table, computed here"}
        self._check_position_tables(ignored)
        metadata: dict[str, Any] = {"encoder": to_dict(encoder), "views": to_dict(self._read_views())}
        passed_on = {key: self.vidstill_config.get(key) for key in ("licence", "provenance")}
        metadata |= {key: value for key, value in passed_on.items() if value is not None}
        optional, shapes, kind = {}, ShapeDict(), "pretraining" if decoder else "encoder"
        if self.is_classifier:
            kind = "classifier"
            metadata |= self._read_classifier(encoder)
        elif not self._has_prefix(f"{self.prefix}layernorm."):
            kind = "encoder"
            optional = {"encoder.norm.": "use_mean_pooling: this encoder has no final norm"}
            reason = "its decoder takes tokens that went through no final norm, as no method here does"
            ignored |= dict.fromkeys(("decoder.", "encoder_to_decoder.", "mask_token"), reason) if decoder else {}
        if kind == "pretraining" and decoder is not None:
            target = "per_channel" if self.config.get("norm_pix_loss", True) else "raw"
            method = {"encoder": to_dict(encoder), "decoder": to_dict(decoder), "target": target}
            metadata |= {"decoder": to_dict(decoder), "method": method}
            shapes = compute_decoder_shapes(decoder, encoder.dim, encoder.pixels_per_token)
        return LayoutMatch(
            f"transformers' VideoMAE{_ARCHITECTURES[kind]}",
            metadata | {"kind": kind},
            build_transformers_rules(encoder, decoder, prefix=self.prefix),
            ignored,
            optional,
            tuple(self.notes),
            shapes,
        )

    def _read_encoder(self) -> ViTConfig:
        dim, _, t, h, w = self.kernel_shape
        blocks = f"{self.prefix}encoder.layer."
        if self.config:
            heads = self._read_number("num_attention_heads", 12)
        else:
            heads, note = infer_num_heads(dim, self.hint)
            self.notes.append(note)
        if (dim, heads) == (384, 16):
            self.notes.append("16 heads, as config.json says; VideoMAE's authors trained their ViT-S with 6")
        if not self.preprocessor:
            self.notes.append("there is no preprocessor_config.json; the colour mean and std are ImageNet's")
        return ViTConfig(
            dim=dim,
            depth=self._count_blocks(blocks),
            heads=heads,
            mlp_ratio=_compute_mlp_ratio(self._count_rows(f"{blocks}0.intermediate.dense.weight") or 4 * dim, dim),
            tubelet=(t, h, w),
            attention_bias=self._read_attention_bias(),
            norm_eps=float(self._read_number("layer_norm_eps", _BLOCK_EPS)),
            mean=self._read_colour("image_mean", IMAGENET_MEAN),
            std=self._read_colour("image_std", IMAGENET_STD),
        )

    def _read_decoder(self, encoder: ViTConfig) -> DecoderConfig:
        blocks = "decoder.decoder_layers."
        dim = len(self.tensors["encoder_to_decoder.weight"])
        heads = self._read_number("decoder_num_attention_heads", 6) if self.config else _DECODER_HEADS.get(dim)
        if heads is None:
            raise InputError(f"a decoder of width {dim} does not say its heads; put the file's config.json beside it")
        return DecoderConfig(
            dim=dim,
            depth=self._count_blocks(blocks),
            heads=heads,
            mlp_ratio=_compute_mlp_ratio(self._count_rows(f"{blocks}0.intermediate.dense.weight") or 4 * dim, dim),
            attention_bias=encoder.attention_bias,
            norm_eps=encoder.norm_eps,
            final_norm_eps=self._read_final_norm_eps(),
        )

    def _read_classifier(self, encoder: ViTConfig) -> dict[str, Any]:
        """The ClassifierConfig as a dict, and the names of the classes."""
        count = self._count_rows("classifier.weight") or 0
        names = self.config.get("id2label") or {}
        if names and len(names) != count:
            raise InputError(f"config.json names {len(names)} classes and the file scores {count}: {_ADVICE}")
        classifier = {
            "encoder": to_dict(encoder),
            "num_classes": count,
            "pooling": "mean" if self._has_prefix("fc_norm.") else "first",
            "norm_eps": self._read_final_norm_eps(),
            "multi_label": self.config.get("problem_type") == "multi_label_classification",
        }
        classes = [str(names.get(str(index), f"LABEL_{index}")) for index in range(count)]
        return {"classifier": classifier, "classes": classes}

    def _read_views(self) -> ViewsConfig:
        """The views of VideoMAE's authors for Kinetics and SSv2; config.json says them in part."""
        frames, size = int(self._read_number("num_frames", 16)), _to_pair(self.config.get("image_size", 224))
        num_classes = self._count_rows("classifier.weight")
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

    def _check_config(self) -> None:
        """Raises an InputError where config.json is another model's, or of a model that vidstill does not have."""
        if (activation := self.config.get("hidden_act", "gelu")) not in ("gelu", "gelu_python"):
            raise InputError(f"config.json says hidden_act {activation!r}; only 'gelu' is supported")
        dim, channels, t, h, w = self.kernel_shape
        if channels != 3:
            raise InputError(f"the model takes {channels} channels; only 3 are supported")
        actual: dict[str, int | None] = {"hidden_size": dim, "tubelet_size": t}
        for key, blocks in (("", f"{self.prefix}encoder.layer."), ("decoder_", "decoder.decoder_layers.")):
            if not key or self.has_decoder:
                actual[f"{key}num_hidden_layers"] = self._count_blocks(blocks)
                actual[f"{key}intermediate_size"] = self._count_rows(f"{blocks}0.intermediate.dense.weight")
        if self.has_decoder:
            actual["decoder_hidden_size"] = len(self.tensors["encoder_to_decoder.weight"])
        wrong: dict[str, Any] = {
            key: value for key, value in actual.items() if value and self.config.get(key, value) not in (value, None)
        }
        if _to_pair(self.config.get("patch_size", [h, w])) != (h, w):
            wrong["patch_size"] = [h, w]
        for key, value in wrong.items():
            raise InputError(f"config.json says {key} {self.config[key]} and the tensors have {value}: {_ADVICE}")
        if "use_mean_pooling" in self.config:
            self._check_pooling(mean=bool(self.config["use_mean_pooling"]))

    def _check_pooling(self, *, mean: bool) -> None:
        """Raises an InputError where a norm is missing or left over, which transformers would only warn about."""
        expected = {f"{self.prefix}layernorm.": not mean, "fc_norm.": mean and self.is_classifier}
        for name, is_expected in expected.items():
            if self._has_prefix(name) != is_expected:
                raise InputError(
                    f"config.json says use_mean_pooling {str(mean).lower()}, and the file "
                    f"{'lacks' if is_expected else 'has'} {name}weight: {_ADVICE}"
                )

    def _check_position_tables(self, names: Mapping[str, str]) -> None:
        """Raises an InputError where a stored position table is not the fixed one."""
        for name in names.keys() & self.tensors.keys():
            table = self.tensors[name]
            fixed = build_sinusoid_table(*table.shape[-2:]).to(torch.float32)
            if not torch.allclose(table.float().reshape(fixed.shape), fixed, atol=1e-3):
                raise InputError(f"{name!r} is not VideoMAE's fixed table, which is the only one of this layout")

    def _has_prefix(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.tensors)

    def _count_rows(self, name: str) -> int | None:
        return len(self.tensors[name]) if name in self.tensors else None

    def _count_blocks(self, blocks: str) -> int:
        numbers = (name.removeprefix(blocks).partition(".")[0] for name in self.tensors if name.startswith(blocks))
        return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def _read_attention_bias(self) -> Any:
        if "qv_bias" in self.config or "qkv_bias" in self.config:
            return "qv" if self.config.get("qv_bias", self.config.get("qkv_bias")) else "none"
        return "qv" if self.config or self.hint is None else self.hint.attention_bias

    def _read_colour(self, key: str, default: tuple[float, float, float]) -> Any:
        values = self.preprocessor.get(key)
        return default if values is None else tuple(map(float, values))

    def _read_final_norm_eps(self) -> float:
        """Of the norm before the head; our own exports say what it was here."""
        eps = self.vidstill_config.get("last_norm_eps")
        return eps if isinstance(eps, float) else FINAL_NORM_EPS

    def _read_number(self, key: str, default: int | float) -> Any:
        """What config.json says, or transformers' default."""
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | (float if isinstance(default, float) else int)):
            raise InputError(f"config.json says {key} {value!r}, which is no number of that kind; fetch it again")
        return value


def _compute_mlp_ratio(hidden: int, dim: int) -> float:
    """The ratio that gives an MLP of exactly this hidden size."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _to_pair(size: Any) -> tuple[int, int]:
    """Rows and columns; one number stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def build_transformers_rules(
    config: ViTConfig, decoder: DecoderConfig | None, *, prefix: str = TRANSFORMERS_PREFIX
) -> tuple[RenameRule, ...]:
    """The rules, with biases written as `q_bias` and `v_bias`, as published files have them; both namings are read.

    Args:
        config: The encoder.
        decoder: Of a pre-training.
        prefix: Of the encoder's names.
    """
    t, h, w = config.tubelet
    stacks = [(f"{prefix}encoder.layer.", "encoder.blocks.", config.depth)]
    stacks += [("decoder.decoder_layers.", "decoder.trunk.blocks.", decoder.depth)] if decoder is not None else []
    return (
        RenameRule(
            f"{prefix}{_PATCH_EMBED_WEIGHT}",
            "encoder.patch_embed.weight",
            "d c t h w -> d (c t h w)",
            "d (c t h w) -> d c t h w",
            {"c": 3, "t": t, "h": h, "w": w},
        ),
        RenameRule(f"{prefix}embeddings.patch_embeddings.projection.bias", "encoder.patch_embed.bias"),
        *(
            rule
            for foreign, native, depth in stacks
            for block in range(depth)
            for rule in _build_block_rules(f"{foreign}{block}.", f"{native}{block}.")
        ),
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
    for index, name in enumerate(("query", "key", "value")):
        yield RenameRule(f"{attention}{name}.weight", f"{native_prefix}attn.qkv.weight", chunk=(index, 3))
    for letter, name in (("q", "query"), ("v", "value")):
        yield RenameRule(f"{attention}{letter}_bias", f"{native_prefix}attn.{letter}_bias")
        yield RenameRule(f"{attention}{name}.bias", f"{native_prefix}attn.{letter}_bias")
    for foreign, native in (
        ("attention.output.dense", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ):
        yield RenameRule(f"{foreign_prefix}{foreign}.", f"{native_prefix}{native}.")
