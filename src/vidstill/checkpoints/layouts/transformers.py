"""VideoMAE as `transformers` has it: queries, keys and values have a layer each, and config.json says the rest."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vidstill.checkpoints.layouts.helpers import decoder_shapes
from vidstill.checkpoints.layouts.infer_config import heads_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import sinusoid
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import InputError

BLOCK_EPS = 1e-12
"""Of the LayerNorms in the blocks, and of VideoMAEModel's last one, where config.json does not say."""
LAST_EPS = 1e-5
"""Of the decoder's last LayerNorm and of a classifier's: torch's, which config.json cannot change."""
OURS = "vidstill"
"""In the config.json of our exports: what transformers has no word for."""

_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}  # of the family's decoders, by their widths
_SSV2 = 174  # classes
_CODES = "positions are computed here, by the same formula"


class Transformers:
    """VideoMAEModel, VideoMAEForPreTraining and VideoMAEForVideoClassification."""

    key = "transformers"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        """As `Layout.read`.

        Args:
            said: what config.json holds, and under `preprocessor` what preprocessor_config.json does, where they are.
        """
        prefix = PREFIX if PREFIX + KERNEL in tensors else ""
        kernel = tensors.get(prefix + KERNEL)
        config = said if "model_type" in said else {}
        alien = config.get("model_type", "videomae") != "videomae" or f"{prefix}embeddings.cls_token" in tensors
        if kernel is None or kernel.ndim != 5 or alien:
            return None
        return _Read(tensors, prefix, config, said.get("preprocessor") or {}, hint).reading()


class _Read:
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
        ours = config.get(OURS)
        self.ours: Mapping[str, Any] = ours if isinstance(ours, dict) else {}
        self.notes: list[str] = [] if config else ["there is no config.json: what it would say is the family's"]

    def reading(self) -> Reading:
        self._check()
        encoder = self._encoder()
        ignored = {f"{where}position_embeddings": _CODES for where in (f"{self.prefix}embeddings.", "")}
        self._check_codes(ignored)
        kind, decoder, lacks, wanted = "encoder", None, {}, {}
        about: dict[str, Any] = {"layout": Transformers.key, "encoder": to_plain(encoder)}
        if "encoder_to_decoder.weight" in self.tensors:
            kind, decoder = "pretraining", self._decoder(encoder)
        if self._has("classifier."):
            kind = "classifier"
            about |= self._classifier(encoder)
        elif not self._has(f"{self.prefix}layernorm."):
            lacks = {"encoder.norm.": "use_mean_pooling: this encoder has no last norm"}
            if decoder is not None:
                kind = "encoder"
                words = ("decoder.", "encoder_to_decoder.", "mask_token")
                ignored |= dict.fromkeys(words, "it decodes what has gone through no last norm, as no method here does")
        if kind == "pretraining" and decoder is not None:
            about |= {"decoder": to_plain(decoder), "method": self._method(encoder, decoder)}
            wanted = decoder_shapes(decoder, encoder.dim, encoder.pixels_per_token)
        about |= {"kind": kind, "views": to_plain(self._views())}
        about |= {word: self.ours[word] for word in ("licence", "provenance") if self.ours.get(word) is not None}
        which = {"encoder": "Model", "pretraining": "ForPreTraining", "classifier": "ForVideoClassification"}[kind]
        return Reading(
            layout=f"transformers' VideoMAE{which}",
            about=about,
            names=transformers_names(encoder, decoder, prefix=self.prefix),
            ignored=ignored,
            may_lack=lacks,
            notes=tuple(self.notes),
            wanted=wanted,
        )

    def _encoder(self) -> ViTConfig:
        kernel = self.tensors[self.prefix + KERNEL]
        dim, _, t, h, w = kernel.shape
        blocks = f"{self.prefix}encoder.layer."
        hidden = self._width(f"{blocks}0.intermediate.dense.weight", 4 * dim)
        heads, said = (self._number("num_attention_heads", 12), "") if self.config else heads_of(dim, self.hint)
        self.notes += [said] if said else []
        if (dim, heads) == (384, 16):
            self.notes.append("16 heads, as config.json has them; VideoMAE's authors trained their ViT-S with 6")
        if not self.preprocessor:
            self.notes.append("there is no preprocessor_config.json: mean and deviation of the colours are ImageNet's")
        return ViTConfig(
            dim=dim,
            depth=self._depth(blocks),
            heads=heads,
            mlp_ratio=ratio(hidden, dim),
            tubelet=(t, h, w),
            attention_bias=self._bias(),
            norm_eps=float(self._number("layer_norm_eps", BLOCK_EPS)),
            mean=_colours(self.preprocessor, "image_mean", IMAGENET_MEAN),
            std=_colours(self.preprocessor, "image_std", IMAGENET_STD),
        )

    def _decoder(self, encoder: ViTConfig) -> DecoderConfig:
        blocks = "decoder.decoder_layers."
        dim = self._width("encoder_to_decoder.weight", 0)
        heads = self._number("decoder_num_attention_heads", 6) if self.config else _DECODER_HEADS.get(dim)
        if heads is None:
            raise InputError(f"a decoder of width {dim} does not say its heads; put the file's config.json beside it")
        return DecoderConfig(
            dim=dim,
            depth=self._depth(blocks),
            heads=heads,
            mlp_ratio=ratio(self._width(f"{blocks}0.intermediate.dense.weight", 4 * dim), dim),
            attention_bias=encoder.attention_bias,
            norm_eps=encoder.norm_eps,
            final_norm_eps=self._last_eps(),
        )

    def _method(self, encoder: ViTConfig, decoder: DecoderConfig) -> dict[str, Any]:
        """The pre-training, as `to_plain` writes a VideoMAEConfig."""
        return {
            "is": "vidstill.methods.videomae:VideoMAEConfig",
            "encoder": to_plain(encoder),
            "decoder": to_plain(decoder),
            "target": "per_channel" if self.config.get("norm_pix_loss", True) else "raw",
        }

    def _classifier(self, encoder: ViTConfig) -> dict[str, Any]:
        """The classifier, as `to_plain` writes a ClassifierConfig, and its classes."""
        count = self._width("classifier.weight", 0)
        names = self.config.get("id2label") or {}
        classes = [str(names.get(str(number), f"LABEL_{number}")) for number in range(count)]
        if names and len(names) != count:
            raise InputError(f"config.json names {len(names)} classes and the file scores {count}: {_OF_TWO}")
        return {
            "classifier": {
                "is": "vidstill.tasks.classification:ClassifierConfig",
                "encoder": to_plain(encoder),
                "classes": count,
                "pooling": "mean" if self._has("fc_norm.") else "first",
                "norm_eps": self._last_eps(),
                "several": self.config.get("problem_type") == "multi_label_classification",
            },
            "classes": classes,
        }

    def _views(self) -> ViewsConfig:
        """How videos are looked at: as VideoMAE's authors test on Kinetics and SSv2; config.json says it in part."""
        frames = int(self._number("num_frames", 16))
        rows, columns = _pair(self.config.get("image_size", 224))
        short = (self.preprocessor.get("size") or {}).get("shortest_edge", min(rows, columns))
        classes = self._width("classifier.weight", 0)
        segments = classes == _SSV2
        how = f"in {frames} segments" if segments else "with a stride of 4"
        self.notes.append(f"frames are taken {how}, as VideoMAE's authors do; config.json does not say")
        return ViewsConfig(
            sampling=SegmentSampling(frames=frames) if segments else DenseSampling(frames=frames, stride=4),
            views=(2 if segments else 5) if classes else 1,
            crops=3 if classes else 1,
            short_side=short,
            size=(rows, columns),
        )

    def _check(self) -> None:
        """Raises an InputError where config.json is of another model, or of one that is none of ours."""
        if (act := self.config.get("hidden_act", "gelu")) not in ("gelu", "gelu_python"):
            raise InputError(f"config.json says hidden_act {act!r}; the models here have 'gelu' alone")
        _, colours, t, h, w = self.tensors[self.prefix + KERNEL].shape
        if colours != 3:
            raise InputError(f"the model takes {colours} channels; those here take the 3 of colours")
        found = {
            "hidden_size": len(self.tensors[self.prefix + KERNEL]),
            "num_hidden_layers": self._depth(f"{self.prefix}encoder.layer."),
            "intermediate_size": self._width(f"{self.prefix}encoder.layer.0.intermediate.dense.weight", None),
            "tubelet_size": t,
        }
        if "encoder_to_decoder.weight" in self.tensors:
            found |= {
                "decoder_hidden_size": self._width("encoder_to_decoder.weight", None),
                "decoder_num_hidden_layers": self._depth("decoder.decoder_layers."),
                "decoder_intermediate_size": self._width("decoder.decoder_layers.0.intermediate.dense.weight", None),
            }
        wrong = {word: number for word, number in found.items() if self.config.get(word, number) not in (number, None)}
        if _pair(self.config.get("patch_size", [h, w])) != (h, w):
            wrong["patch_size"] = [h, w]
        for word, number in wrong.items():
            if number is not None:
                raise InputError(
                    f"config.json says {word} {self.config[word]} and the tensors have {number}: {_OF_TWO}"
                )
        self._check_pooling()

    def _check_pooling(self) -> None:
        """Raises an InputError where a norm is missing or left over, which transformers would only warn about."""
        if "use_mean_pooling" not in self.config:
            return
        pools, classifies = bool(self.config["use_mean_pooling"]), self._has("classifier.")
        wanted = {f"{self.prefix}layernorm.": not pools, "fc_norm.": pools and classifies}
        for name, should in wanted.items():
            if self._has(name) != should:
                raise InputError(
                    f"config.json says use_mean_pooling {json_word(pools)}, and the file "
                    f"{'lacks' if should else 'has'} {name}weight: {_OF_TWO}"
                )

    def _check_codes(self, stored: Collection[str]) -> None:
        """Raises an InputError where a file holds codes of positions that are not the computed ones."""
        for name in stored:
            if (table := self.tensors.get(name)) is None:
                continue
            ours = sinusoid(*table.shape[-2:]).to(torch.float32)
            if not torch.allclose(table.float().reshape(ours.shape), ours, atol=1e-3):
                raise InputError(f"{name!r} is not VideoMAE's code of positions, which is the only one of this layout")

    def _has(self, beginning: str) -> bool:
        return any(name.startswith(beginning) for name in self.tensors)

    def _width(self, name: str, otherwise: Any) -> Any:
        return len(self.tensors[name]) if name in self.tensors else otherwise

    def _depth(self, blocks: str) -> int:
        numbers = (name.removeprefix(blocks).partition(".")[0] for name in self.tensors if name.startswith(blocks))
        return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def _bias(self) -> Any:
        if "qv_bias" in self.config or "qkv_bias" in self.config:
            return "qv" if self.config.get("qv_bias", self.config.get("qkv_bias")) else "none"
        return "qv" if self.config or self.hint is None else self.hint.attention_bias

    def _last_eps(self) -> float:
        """Of the norm before the head; of an export of ours, what it was here."""
        found = self.ours.get("last_norm_eps")
        return found if isinstance(found, float) else LAST_EPS

    def _number(self, word: str, otherwise: int | float) -> Any:
        """What config.json says, or else transformers' default."""
        found = self.config.get(word, otherwise)
        if isinstance(found, bool) or not isinstance(found, int | (float if isinstance(otherwise, float) else int)):
            raise InputError(f"config.json says {word} {found!r}, which is no number of that kind; fetch it again")
        return found


_OF_TWO = "they are of two models; take the config.json that was saved with the file"


def json_word(value: bool) -> str:
    return "true" if value else "false"


def ratio(hidden: int, dim: int) -> float:
    """The factor by which a perceptron's hidden layer is wider; an MLP made with it has exactly so many rows."""
    found = hidden / dim
    return found if int(dim * found) == hidden else math.nextafter(found, math.inf)


def _pair(size: Any) -> tuple[int, int]:
    """Rows and columns: one number stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _colours(preprocessor: Mapping[str, Any], word: str, otherwise: tuple[float, float, float]) -> Any:
    found = preprocessor.get(word)
    return otherwise if found is None else tuple(map(float, found))


PREFIX = "videomae."  # of the encoder's names, but in a file of VideoMAEModel


KERNEL = "embeddings.patch_embeddings.projection.weight"


def transformers_names(config: ViTConfig, decoder: DecoderConfig | None, *, prefix: str = PREFIX) -> tuple[Name, ...]:
    """Their names, written as published files have them: biases as `q_bias` and `v_bias`; read are both namings.

    Args:
        decoder: of a pre-training.
    """
    t, h, w = config.tubelet
    kernel = ("d c t h w -> d (c t h w)", "d (c t h w) -> d c t h w")
    stacks = [(f"{prefix}encoder.layer.", "encoder.blocks.", config.depth)]
    if decoder is not None:
        stacks.append(("decoder.decoder_layers.", "decoder.infill.blocks.", decoder.depth))
    return (
        Name(f"{prefix}{KERNEL}", "encoder.embed.weight", *kernel, {"c": 3, "t": t, "h": h, "w": w}),
        Name(f"{prefix}embeddings.patch_embeddings.projection.bias", "encoder.embed.bias"),
        *(
            name
            for theirs, ours, depth in stacks
            for block in range(depth)
            for name in _block_names(f"{theirs}{block}.", f"{ours}{block}.")
        ),
        Name(f"{prefix}layernorm.", "encoder.norm."),
        Name("encoder_to_decoder.", "decoder.project."),
        Name("mask_token", "decoder.infill.mask_token", "1 1 d -> 1 d", "1 d -> 1 1 d"),
        Name("decoder.norm.", "decoder.norm."),
        Name("decoder.head.", "decoder.head."),
        Name("fc_norm.", "norm."),
        Name("classifier.", "head."),
    )


def _block_names(theirs: str, ours: str) -> Iterator[Name]:
    attention = f"{theirs}attention.attention."
    for place, word in enumerate(("query", "key", "value")):
        yield Name(f"{attention}{word}.weight", f"{ours}attn.qkv.weight", part=(place, 3))
    for letter, word in (("q", "query"), ("v", "value")):
        yield Name(f"{attention}{letter}_bias", f"{ours}attn.{letter}_bias")
        yield Name(f"{attention}{word}.bias", f"{ours}attn.{letter}_bias")
    yield Name(f"{theirs}attention.output.dense.", f"{ours}attn.proj.")
    yield Name(f"{theirs}layernorm_before.", f"{ours}norm1.")
    yield Name(f"{theirs}layernorm_after.", f"{ours}norm2.")
    yield Name(f"{theirs}intermediate.dense.", f"{ours}mlp.fc1.")
    yield Name(f"{theirs}output.dense.", f"{ours}mlp.fc2.")
