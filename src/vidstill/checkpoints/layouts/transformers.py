"""VideoMAE as `transformers` has it: queries, keys and values have a layer each, and config.json says the rest."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vidstill.checkpoints.layouts.helpers import compute_decoder_shapes
from vidstill.checkpoints.layouts.infer_config import infer_num_heads
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_sinusoid_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

BLOCK_EPS = 1e-12
"""Of the LayerNorms in the blocks, and of VideoMAEModel's last one, where config.json does not say."""
FINAL_NORM_EPS = 1e-5
"""Of the decoder's last LayerNorm and of a classifier's: torch's, which config.json cannot change."""
VIDSTILL_KEY = "vidstill"
"""In the config.json of our exports: what transformers has no word for."""

_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}  # of the family's decoders, by their widths
_SSV2_CLASSES = 174  # classes
_FIXED_TABLE_REASON = "positions are computed here, by the same formula"


class TransformersLayout:
    """VideoMAEModel, VideoMAEForPreTraining and VideoMAEForVideoClassification."""

    key = "transformers"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        """As `Layout.read`.

        Args:
            foreign_metadata: what config.json holds, and under `preprocessor` what preprocessor_config.json does, where they are.
        """
        prefix = TRANSFORMERS_PREFIX if TRANSFORMERS_PREFIX + TRANSFORMERS_PATCH_EMBED_WEIGHT in tensors else ""
        kernel = tensors.get(prefix + TRANSFORMERS_PATCH_EMBED_WEIGHT)
        config = foreign_metadata if "model_type" in foreign_metadata else {}
        alien = config.get("model_type", "videomae") != "videomae" or f"{prefix}embeddings.cls_token" in tensors
        if kernel is None or kernel.ndim != 5 or alien:
            return None
        return _TransformersReader(
            tensors, prefix, config, foreign_metadata.get("preprocessor") or {}, hint
        ).read_layout()


class _TransformersReader:
    """One file's tensors, and what stands beside them."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        prefix: str,
        config: Mapping[str, Any],
        preprocessor: Mapping[str, Any],
        hint: ViTConfig | None,
    ):
        self.tensors, self.prefix, self.config, self.preprocessor = tensors, prefix, config, preprocessor
        self.hint = hint
        ours = config.get(VIDSTILL_KEY)
        self.vidstill_config: Mapping[str, Any] = ours if isinstance(ours, dict) else {}
        self.notes: list[str] = [] if config else ["there is no config.json: what it would say is the family's"]

    def read_layout(self) -> LayoutMatch:
        self._check_config()
        encoder = self._read_encoder()
        ignored = {f"{where}position_embeddings": _FIXED_TABLE_REASON for where in (f"{self.prefix}embeddings.", "")}
        self._check_position_tables(ignored)
        kind, decoder, lacks, wanted = "encoder", None, {}, {}
        about: dict[str, Any] = {"layout": TransformersLayout.key, "encoder": to_dict(encoder)}
        if "encoder_to_decoder.weight" in self.tensors:
            kind, decoder = "pretraining", self._read_decoder(encoder)
        if self._has_prefix("classifier."):
            kind = "classifier"
            about |= self._read_classifier(encoder)
        elif not self._has_prefix(f"{self.prefix}layernorm."):
            lacks = {"encoder.norm.": "use_mean_pooling: this encoder has no last norm"}
            if decoder is not None:
                kind = "encoder"
                words = ("decoder.", "encoder_to_decoder.", "mask_token")
                ignored |= dict.fromkeys(words, "it decodes what has gone through no last norm, as no method here does")
        if kind == "pretraining" and decoder is not None:
            about |= {"decoder": to_dict(decoder), "method": self._build_method(encoder, decoder)}
            wanted = compute_decoder_shapes(decoder, encoder.dim, encoder.pixels_per_token)
        about |= {"kind": kind, "views": to_dict(self._read_views())}
        about |= {
            word: self.vidstill_config[word]
            for word in ("licence", "provenance")
            if self.vidstill_config.get(word) is not None
        }
        which = {"encoder": "Model", "pretraining": "ForPreTraining", "classifier": "ForVideoClassification"}[kind]
        return LayoutMatch(
            layout_description=f"transformers' VideoMAE{which}",
            metadata=about,
            rules=build_transformers_rules(encoder, decoder, prefix=self.prefix),
            ignored_prefixes=ignored,
            optional_prefixes=lacks,
            notes=tuple(self.notes),
            expected_shapes=wanted,
        )

    def _read_encoder(self) -> ViTConfig:
        kernel = self.tensors[self.prefix + TRANSFORMERS_PATCH_EMBED_WEIGHT]
        dim, _, t, h, w = kernel.shape
        blocks = f"{self.prefix}encoder.layer."
        hidden = self._count_rows(f"{blocks}0.intermediate.dense.weight", 4 * dim)
        heads, said = (
            (self._read_number("num_attention_heads", 12), "") if self.config else infer_num_heads(dim, self.hint)
        )
        self.notes += [said] if said else []
        if (dim, heads) == (384, 16):
            self.notes.append("16 heads, as config.json has them; VideoMAE's authors trained their ViT-S with 6")
        if not self.preprocessor:
            self.notes.append("there is no preprocessor_config.json: mean and deviation of the colours are ImageNet's")
        return ViTConfig(
            dim=dim,
            depth=self._count_blocks(blocks),
            heads=heads,
            mlp_ratio=compute_mlp_ratio(hidden, dim),
            tubelet=(t, h, w),
            attention_bias=self._read_attention_bias(),
            norm_eps=float(self._read_number("layer_norm_eps", BLOCK_EPS)),
            mean=_read_mean_std(self.preprocessor, "image_mean", IMAGENET_MEAN),
            std=_read_mean_std(self.preprocessor, "image_std", IMAGENET_STD),
        )

    def _read_decoder(self, encoder: ViTConfig) -> DecoderConfig:
        blocks = "decoder.decoder_layers."
        dim = self._count_rows("encoder_to_decoder.weight", 0)
        heads = self._read_number("decoder_num_attention_heads", 6) if self.config else _DECODER_HEADS.get(dim)
        if heads is None:
            raise InputError(f"a decoder of width {dim} does not say its heads; put the file's config.json beside it")
        return DecoderConfig(
            dim=dim,
            depth=self._count_blocks(blocks),
            heads=heads,
            mlp_ratio=compute_mlp_ratio(self._count_rows(f"{blocks}0.intermediate.dense.weight", 4 * dim), dim),
            attention_bias=encoder.attention_bias,
            norm_eps=encoder.norm_eps,
            final_norm_eps=self._read_final_norm_eps(),
        )

    def _build_method(self, encoder: ViTConfig, decoder: DecoderConfig) -> dict[str, Any]:
        """The pre-training, as `to_dict` writes a VideoMAEConfig."""
        return {
            "is": "vidstill.methods.videomae:VideoMAEConfig",
            "encoder": to_dict(encoder),
            "decoder": to_dict(decoder),
            "target": "per_channel" if self.config.get("norm_pix_loss", True) else "raw",
        }

    def _read_classifier(self, encoder: ViTConfig) -> dict[str, Any]:
        """The classifier, as `to_dict` writes a ClassifierConfig, and its classes."""
        count = self._count_rows("classifier.weight", 0)
        names = self.config.get("id2label") or {}
        classes = [str(names.get(str(number), f"LABEL_{number}")) for number in range(count)]
        if names and len(names) != count:
            raise InputError(f"config.json names {len(names)} classes and the file scores {count}: {_MISMATCH_ADVICE}")
        return {
            "classifier": {
                "is": "vidstill.tasks.classification:ClassifierConfig",
                "encoder": to_dict(encoder),
                "num_classes": count,
                "pooling": "mean" if self._has_prefix("fc_norm.") else "first",
                "norm_eps": self._read_final_norm_eps(),
                "multi_label": self.config.get("problem_type") == "multi_label_classification",
            },
            "classes": classes,
        }

    def _read_views(self) -> ViewsConfig:
        """How videos are looked at: as VideoMAE's authors test on Kinetics and SSv2; config.json says it in part."""
        frames = int(self._read_number("num_frames", 16))
        rows, columns = _to_pair(self.config.get("image_size", 224))
        short = (self.preprocessor.get("size") or {}).get("shortest_edge", min(rows, columns))
        classes = self._count_rows("classifier.weight", 0)
        segments = classes == _SSV2_CLASSES
        how = f"in {frames} segments" if segments else "with a stride of 4"
        self.notes.append(f"frames are taken {how}, as VideoMAE's authors do; config.json does not say")
        return ViewsConfig(
            sampling=SegmentSampling(num_frames=frames) if segments else DenseSampling(num_frames=frames, stride=4),
            temporal_clips=(2 if segments else 5) if classes else 1,
            spatial_crops=3 if classes else 1,
            short_side=short,
            size=(rows, columns),
        )

    def _check_config(self) -> None:
        """Raises an InputError where config.json is of another model, or of one that is none of ours."""
        if (act := self.config.get("hidden_act", "gelu")) not in ("gelu", "gelu_python"):
            raise InputError(f"config.json says hidden_act {act!r}; the models here have 'gelu' alone")
        _, colours, t, h, w = self.tensors[self.prefix + TRANSFORMERS_PATCH_EMBED_WEIGHT].shape
        if colours != 3:
            raise InputError(f"the model takes {colours} channels; those here take the 3 of colours")
        found = {
            "hidden_size": len(self.tensors[self.prefix + TRANSFORMERS_PATCH_EMBED_WEIGHT]),
            "num_hidden_layers": self._count_blocks(f"{self.prefix}encoder.layer."),
            "intermediate_size": self._count_rows(f"{self.prefix}encoder.layer.0.intermediate.dense.weight", None),
            "tubelet_size": t,
        }
        if "encoder_to_decoder.weight" in self.tensors:
            found |= {
                "decoder_hidden_size": self._count_rows("encoder_to_decoder.weight", None),
                "decoder_num_hidden_layers": self._count_blocks("decoder.decoder_layers."),
                "decoder_intermediate_size": self._count_rows(
                    "decoder.decoder_layers.0.intermediate.dense.weight", None
                ),
            }
        wrong = {word: number for word, number in found.items() if self.config.get(word, number) not in (number, None)}
        if _to_pair(self.config.get("patch_size", [h, w])) != (h, w):
            wrong["patch_size"] = [h, w]
        for word, number in wrong.items():
            if number is not None:
                raise InputError(
                    f"config.json says {word} {self.config[word]} and the tensors have {number}: {_MISMATCH_ADVICE}"
                )
        self._check_pooling()

    def _check_pooling(self) -> None:
        """Raises an InputError where a norm is missing or left over, which transformers would only warn about."""
        if "use_mean_pooling" not in self.config:
            return
        pools, classifies = bool(self.config["use_mean_pooling"]), self._has_prefix("classifier.")
        wanted = {f"{self.prefix}layernorm.": not pools, "fc_norm.": pools and classifies}
        for name, should in wanted.items():
            if self._has_prefix(name) != should:
                raise InputError(
                    f"config.json says use_mean_pooling {format_json_bool(pools)}, and the file "
                    f"{'lacks' if should else 'has'} {name}weight: {_MISMATCH_ADVICE}"
                )

    def _check_position_tables(self, names: Collection[str]) -> None:
        """Raises an InputError where a file holds codes of positions that are not the computed ones."""
        for name in names:
            if (table := self.tensors.get(name)) is None:
                continue
            ours = build_sinusoid_table(*table.shape[-2:]).to(torch.float32)
            if not torch.allclose(table.float().reshape(ours.shape), ours, atol=1e-3):
                raise InputError(f"{name!r} is not VideoMAE's code of positions, which is the only one of this layout")

    def _has_prefix(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.tensors)

    def _count_rows(self, name: str, default: Any) -> Any:
        return len(self.tensors[name]) if name in self.tensors else default

    def _count_blocks(self, blocks: str) -> int:
        numbers = (name.removeprefix(blocks).partition(".")[0] for name in self.tensors if name.startswith(blocks))
        return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def _read_attention_bias(self) -> Any:
        if "qv_bias" in self.config or "qkv_bias" in self.config:
            return "qv" if self.config.get("qv_bias", self.config.get("qkv_bias")) else "none"
        return "qv" if self.config or self.hint is None else self.hint.attention_bias

    def _read_final_norm_eps(self) -> float:
        """Of the norm before the head; of an export of ours, what it was here."""
        found = self.vidstill_config.get("last_norm_eps")
        return found if isinstance(found, float) else FINAL_NORM_EPS

    def _read_number(self, key: str, default: int | float) -> Any:
        """What config.json says, or else transformers' default."""
        found = self.config.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | (float if isinstance(default, float) else int)):
            raise InputError(f"config.json says {key} {found!r}, which is no number of that kind; fetch it again")
        return found


_MISMATCH_ADVICE = "they are of two models; take the config.json that was saved with the file"


def format_json_bool(value: bool) -> str:
    return "true" if value else "false"


def compute_mlp_ratio(hidden: int, dim: int) -> float:
    """The factor by which a perceptron's hidden layer is wider; an MLP made with it has exactly so many rows."""
    found = hidden / dim
    return found if int(dim * found) == hidden else math.nextafter(found, math.inf)


def _to_pair(size: Any) -> tuple[int, int]:
    """Rows and columns: one number stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _read_mean_std(preprocessor: Mapping[str, Any], key: str, default: tuple[float, float, float]) -> Any:
    found = preprocessor.get(key)
    return default if found is None else tuple(map(float, found))


TRANSFORMERS_PREFIX = "videomae."  # of the encoder's names, but in a file of VideoMAEModel


TRANSFORMERS_PATCH_EMBED_WEIGHT = "embeddings.patch_embeddings.projection.weight"


def build_transformers_rules(
    config: ViTConfig, decoder: DecoderConfig | None, *, prefix: str = TRANSFORMERS_PREFIX
) -> tuple[RenameRule, ...]:
    """Their names, written as published files have them: biases as `q_bias` and `v_bias`; read are both namings.

    Args:
        decoder: of a pre-training.
    """
    t, h, w = config.tubelet
    kernel = ("d c t h w -> d (c t h w)", "d (c t h w) -> d c t h w")
    stacks = [(f"{prefix}encoder.layer.", "encoder.blocks.", config.depth)]
    if decoder is not None:
        stacks.append(("decoder.decoder_layers.", "decoder.trunk.blocks.", decoder.depth))
    return (
        RenameRule(
            f"{prefix}{TRANSFORMERS_PATCH_EMBED_WEIGHT}",
            "encoder.patch_embed.weight",
            *kernel,
            {"c": 3, "t": t, "h": h, "w": w},
        ),
        RenameRule(f"{prefix}embeddings.patch_embeddings.projection.bias", "encoder.patch_embed.bias"),
        *(
            name
            for theirs, ours, depth in stacks
            for block in range(depth)
            for name in _build_block_rules(f"{theirs}{block}.", f"{ours}{block}.")
        ),
        RenameRule(f"{prefix}layernorm.", "encoder.norm."),
        RenameRule("encoder_to_decoder.", "decoder.embed."),
        RenameRule("mask_token", "decoder.trunk.mask_token", "1 1 d -> 1 d", "1 d -> 1 1 d"),
        RenameRule("decoder.norm.", "decoder.norm."),
        RenameRule("decoder.head.", "decoder.head."),
        RenameRule("fc_norm.", "norm."),
        RenameRule("classifier.", "head."),
    )


def _build_block_rules(foreign_prefix: str, native_prefix: str) -> Iterator[RenameRule]:
    attention = f"{foreign_prefix}attention.attention."
    for place, word in enumerate(("query", "key", "value")):
        yield RenameRule(f"{attention}{word}.weight", f"{native_prefix}attn.qkv.weight", chunk=(place, 3))
    for letter, word in (("q", "query"), ("v", "value")):
        yield RenameRule(f"{attention}{letter}_bias", f"{native_prefix}attn.{letter}_bias")
        yield RenameRule(f"{attention}{word}.bias", f"{native_prefix}attn.{letter}_bias")
    yield RenameRule(f"{foreign_prefix}attention.output.dense.", f"{native_prefix}attn.proj.")
    yield RenameRule(f"{foreign_prefix}layernorm_before.", f"{native_prefix}norm1.")
    yield RenameRule(f"{foreign_prefix}layernorm_after.", f"{native_prefix}norm2.")
    yield RenameRule(f"{foreign_prefix}intermediate.dense.", f"{native_prefix}mlp.fc1.")
    yield RenameRule(f"{foreign_prefix}output.dense.", f"{native_prefix}mlp.fc2.")
