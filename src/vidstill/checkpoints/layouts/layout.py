"""What a layout is: how a foreign file of it is recognized by names and shapes, and how one is written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, InferredEncoder
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules
from vidstill.checkpoints.meta_build import build_on_meta
from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import AttentionBias
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_dict, to_dict

CheckpointKind = Literal["pretraining", "encoder", "classifier", "probe"]
CHECKPOINT_KINDS: tuple[CheckpointKind, ...] = ("pretraining", "encoder", "classifier")
ModuleBuilders = dict[str, Callable[[], nn.Module]]
"""Each builds what stands under its prefix in our names."""
Pooling = Literal["mean", "first", "mean_after_first"]


@dataclass(frozen=True)
class LayoutMatch:
    """What a foreign file was recognized as.

    Args:
        kind: Of the checkpoint; an encoder may lack its final norm.
        description: For people, such as "a pre-training of VideoMAE".
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        metadata: What a native file of it would say beside its kind and encoder: `classifier`, `decoder`, `method`.
        modules: What the file must hold; its encoder, if it is not among them.
        optional_prefixes: Our names that such a file may lack, and why.
        notes: What is not in the file and was assumed or taken from the hint, beside the encoder.
    """

    kind: CheckpointKind
    description: str
    inferred: InferredEncoder
    rules: Sequence[RenameRule]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    modules: ModuleBuilders = field(default_factory=dict)
    optional_prefixes: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def build_metadata(self) -> dict[str, Any]:
        """Return the metadata of the native file."""
        inferred = self.inferred
        grid = {"grid": list(inferred.stored_grid)} if inferred.stored_grid else {}
        encoder = to_dict(replace(inferred.config, drop_path=0.0))
        return {"kind": self.kind, "encoder": encoder, **grid, **self.metadata}

    def find_reason(self, name: str) -> str | None:
        """Why the file may lack one of our names; None: it may not."""
        optional = {"encoder.norm.": "an encoder may be saved without its final norm"} if self.kind == "encoder" else {}
        reasons = {**optional, **self.optional_prefixes}
        return next((reason for prefix, reason in reasons.items() if name.startswith(prefix)), None)

    def compute_shapes(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Return our names and shapes that a file of these tensors must hold; no memory is taken.

        Raises:
            InputError: What the file says of the model describes a larger one.
        """
        modules = {"encoder.": self.inferred.config.build, **self.modules}
        states = {prefix: build_on_meta(build, tensors.values()).state_dict() for prefix, build in modules.items()}
        return {prefix + name: tuple(each.shape) for prefix, state in states.items() for name, each in state.items()}


def build_classifier_match(
    description: str,
    inferred: InferredEncoder,
    rules: Sequence[RenameRule],
    num_classes: int,
    pooling: Pooling,
    *,
    norm: Literal["fresh", "pretrained"] = "fresh",
) -> LayoutMatch:
    """Build the match of a classifier, whose metadata hold a ClassifierConfig as a dict.

    Args:
        description: For people.
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        num_classes: The outputs of its head.
        pooling: How it makes one vector of the tokens.
        norm: Where the norm before its head started from.
    """
    config = {"encoder": to_dict(inferred.config), "num_classes": num_classes, "pooling": pooling, "norm": norm}
    config |= {"norm_eps": inferred.config.norm_eps}
    modules = build_classifier_modules(inferred.config, num_classes, pooling)
    return LayoutMatch("classifier", description, inferred, rules, {"classifier": config}, modules)


def build_classifier_modules(encoder: ViTConfig, num_classes: int, pooling: Pooling) -> ModuleBuilders:
    """Return an encoder, a head, and a norm between them unless the first token is classified after the final norm."""
    norm = {} if pooling == "first" else {"norm.": partial(nn.LayerNorm, encoder.dim)}
    build_encoder = partial(encoder.build, final_norm=pooling == "first")
    return {"encoder.": build_encoder, "head.": partial(nn.Linear, encoder.dim, num_classes), **norm}


@dataclass(frozen=True, kw_only=True)
class ForeignFormat:
    """The models that a project's code has, which its files do not say: any other would load there and be wrong.

    Args:
        build_rules: The rename rules for the tensors of one of our checkpoints with this encoder.
        build_classifier_rules: Those of a classifier.
        position_kinds: How its models embed positions; the fixed kind comes first.
        position_tables: Names of stored fixed tables, each with a foreign tensor whose length is the table's width.
        mean_std: Its colour normalization; None: any.
        kinds_with_position_table: The kinds of checkpoints that store them.
        state_dict_key: The key under which the project's trainer saves the tensors.
        checkpoint_kinds: The kinds of checkpoints that exist.
        build_extra_tensors: What else its files hold, from the foreign tensors; it has no counterpart here.
    """

    project: str
    build_rules: Callable[[ViTConfig, Checkpoint], Sequence[RenameRule]]
    position_kinds: tuple[PositionKind, ...]
    build_classifier_rules: Callable[[ViTConfig, Checkpoint], Sequence[RenameRule]] = lambda config, _: (
        build_classifier_rules(config)
    )
    attention_biases: tuple[AttentionBias, ...] = ("qv", "none")
    class_token_options: tuple[bool, ...] = (False,)
    is_image: bool = False
    supports_layer_scale: bool = True
    mean_std: tuple[tuple[float, float, float], tuple[float, float, float]] | None = (IMAGENET_MEAN, IMAGENET_STD)
    list_poolings: Callable[[ViTConfig], tuple[str, ...]] = lambda _: ("mean", "first")
    position_tables: Mapping[str, str] = field(default_factory=dict)
    kinds_with_position_table: tuple[str, ...] = ()
    state_dict_key: str = "model"
    checkpoint_kinds: tuple[str, ...] = CHECKPOINT_KINDS
    build_extra_tensors: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = lambda _: {}

    def find_differences(self, config: ViTConfig, metadata: Mapping[str, Any]) -> Iterator[str]:
        """Yield the differences between a checkpoint, whose encoder is `config`, and the project's models."""
        pooling, poolings = metadata.get("classifier", {}).get("pooling"), self.list_poolings(config)
        parts: list[tuple[str, ViTConfig | DecoderConfig]] = [("its", config)]
        if decoder := read_decoder_config(metadata):
            parts.append(("its decoder's", decoder))
        if (config.tubelet[0] == 1) != self.is_image:
            modality = "images" if self.is_image else "clips"
            yield f"its tubelets have {config.tubelet[0]} frames, and the code is for {modality}"
        if config.class_token not in self.class_token_options:
            yield "it has a class token, and the code none" if config.class_token else "it lacks the code's class token"
        if config.relative_positions:
            yield "it has relative positions"
        for owner, part in parts:
            if part.positions not in self.position_kinds:
                yield f"{owner} positions are {part.positions}, and the code knows {' and '.join(self.position_kinds)}"
            if part.attention_bias not in self.attention_biases:
                choices = _format_choices(self.attention_biases)
                yield f"{owner} attention bias is {part.attention_bias!r}, and the code's {choices}"
            if part.layer_scale and not self.supports_layer_scale:
                yield f"{owner} blocks have layer scale"
        if self.mean_std and (config.mean, config.std) != self.mean_std:
            yield f"its colour mean is {config.mean}, and the code's {self.mean_std[0]}"
        if pooling and pooling not in poolings:
            yield f"its pooling is {pooling!r}, and the code's {_format_choices(poolings)}"


def _format_choices(choices: Sequence[str]) -> str:
    return " or ".join(map(repr, choices))


def get_method_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a pre-training's method as a dict; empty if its metadata say none."""
    return metadata.get("method") or metadata.get("recipe", {}).get("method") or {}


def read_decoder_config(metadata: Mapping[str, Any]) -> DecoderConfig | None:
    """Return the decoder of a pre-training; None if its metadata say none."""
    decoder = metadata.get("decoder") or get_method_metadata(metadata).get("decoder")
    return from_dict(DecoderConfig, decoder) if decoder else None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """
    Args:
        key: Its name on the command line: `weights convert --to KEY`.
        name: Its name in messages.
        matchers: Each recognizes one kind of file, or returns None; they are tried in order. An InputError says that
            the file is of this layout and contradicts itself.
        format: How files of it are written; None: they are not, or `write` does it.
        write: Writes a checkpoint and returns what the file does not say; None: `format` does it.
    """

    key: str
    name: str
    matchers: Sequence[Callable[[ForeignFile], LayoutMatch | None]]
    format: ForeignFormat | None = None
    write: Callable[[Checkpoint, Path], list[str]] | None = None

    def match(self, file: ForeignFile) -> LayoutMatch | None:
        """Return what the file holds, if it is of this layout."""
        return next((match for matcher in self.matchers if (match := matcher(file)) is not None), None)
