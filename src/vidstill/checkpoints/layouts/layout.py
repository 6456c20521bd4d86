"""What a layout is: how a foreign file of it is recognized by names and shapes, and how one is written."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.models.layers import AttentionBias
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.types import InputError

ShapeDict = dict[str, tuple[int, ...]]
PATCH_EMBED_WEIGHT = "patch_embed.proj.weight"  # the authors embed patches by a convolution
CHECKPOINT_KINDS = ("pretraining", "encoder", "classifier")


@dataclass(frozen=True)
class ForeignFile:
    """A file to be recognized.

    Args:
        metadata: What stands beside the tensors: `config.json` of transformers, or a trainer's options.
        hint: The encoder the caller expects. It decides what the file does not say (heads, the kind of fixed
            positions); None: the usual values of the family.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hint: ViTConfig | None = None

    @cached_property
    def top_modules(self) -> set[str]:
        """The names up to their first dot."""
        return {name.partition(".")[0] for name in self.tensors}

    def select(self, prefix: str) -> "ForeignFile":
        """The tensors under a prefix, without it."""
        tensors = {name.removeprefix(prefix): each for name, each in self.tensors.items() if name.startswith(prefix)}
        return replace(self, tensors=tensors)

    def count_rows(self, name: str) -> int:
        """The number of outputs of a layer.

        Raises:
            InputError: There is no tensor of this name.
        """
        if name not in self.tensors or not self.tensors[name].ndim:
            raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
        return len(self.tensors[name])

    def list_indices(self, prefix: str) -> list[int]:
        return list_indices(self.tensors, prefix)

    def has_patch_embed(self, ndim: int, prefix: str = "") -> bool:
        """Whether there is a patch embedding of videos (a kernel of 5 dimensions) or of images (4)."""
        weight = self.tensors.get(prefix + PATCH_EMBED_WEIGHT)
        return weight is not None and weight.ndim == ndim


def list_indices(names: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The numbers that follow a prefix in names, ascending."""
    matches = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


@dataclass(frozen=True)
class LayoutMatch:
    """What a foreign file was recognized as.

    Args:
        description: For people, such as "a pre-training of VideoMAE".
        metadata: What a native file of it would say: `kind` ("pretraining", "encoder", "classifier", "probe"),
            `encoder` (a ViTConfig as a dict), and by its kind `classifier`, `decoder`, `method`.
        rules: Turn the foreign names into ours.
        ignored_prefixes: Foreign names that are not needed, and why.
        optional_prefixes: Our names that such a file may lack, and why.
        notes: What the file does not say and was assumed or taken from the hint.
        expected_shapes: Our names and shapes that it must hold beside the encoder's and a classifier's norm and head.
    """

    description: str
    metadata: Mapping[str, Any]
    rules: Sequence[RenameRule]
    ignored_prefixes: Mapping[str, str] = field(default_factory=dict)
    optional_prefixes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expected_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ForeignFormat:
    """The models that a project's code has, which its files do not say: any other would load there and be wrong.

    Args:
        build_rules: The rename rules for one of our checkpoints.
        position_kinds: How its models embed positions; the fixed kind comes first.
        position_tables: Names of stored fixed tables, each with a foreign tensor whose length is the table's width.
        mean_std: Its colour normalization; None: any.
        kinds_with_position_table: The kinds of checkpoints that store them.
        state_dict_key: The key under which the project's trainer saves the tensors.
        checkpoint_kinds: The kinds of checkpoints that exist.
        build_extra_tensors: What else its files hold, from the foreign tensors; it has no counterpart here.
    """

    project: str
    build_rules: Callable[[Checkpoint, ViTConfig], Sequence[RenameRule]]
    position_kinds: tuple[PositionKind, ...]
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
        decoder = get_decoder_metadata(metadata)
        pooling, poolings = metadata.get("classifier", {}).get("pooling"), self.list_poolings(config)
        parts = [("its", config.positions, config.attention_bias, config.layer_scale)]
        if decoder:
            scale = decoder.get("layer_scale", 0.0)
            parts.append(("its decoder's", decoder["positions"], decoder.get("attention_bias", "none"), scale))
        if (config.tubelet[0] == 1) != self.is_image:
            modality = "images" if self.is_image else "clips"
            yield f"its tubelets have {config.tubelet[0]} frames, and the code is for {modality}"
        if config.class_token not in self.class_token_options:
            yield "it has a class token, and the code none" if config.class_token else "it lacks the code's class token"
        if config.relative_positions:
            yield "it has relative positions"
        for owner, positions, bias, layer_scale in parts:
            if positions not in self.position_kinds:
                yield f"{owner} positions are {positions}, and the code knows {' and '.join(self.position_kinds)}"
            if bias not in self.attention_biases:
                yield f"{owner} attention bias is {bias!r}, and the code's {_format_choices(self.attention_biases)}"
            if layer_scale and not self.supports_layer_scale:
                yield f"{owner} blocks have layer scale"
        if self.mean_std and (config.mean, config.std) != self.mean_std:
            yield f"its colour mean is {config.mean}, and the code's {self.mean_std[0]}"
        if pooling and pooling not in poolings:
            yield f"its pooling is {pooling!r}, and the code's {_format_choices(poolings)}"


def _format_choices(choices: Sequence[str]) -> str:
    return " or ".join(map(repr, choices))


def get_decoder_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The DecoderConfig of a pre-training as a dict; empty if its metadata say none."""
    method = metadata.get("method") or metadata.get("recipe", {}).get("method") or {}
    return metadata.get("decoder") or method.get("decoder") or {}


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
        """What the file holds, if it is of this layout."""
        return next((match for matcher in self.matchers if (match := matcher(file)) is not None), None)
