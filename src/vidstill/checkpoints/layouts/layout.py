"""What a layout is: how a foreign file of it is recognized by names and shapes, and how one is written."""

import re
from collections.abc import Callable, Mapping, Sequence
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
    mean_std: tuple[tuple[float, float, float], tuple[float, float, float]] = (IMAGENET_MEAN, IMAGENET_STD)
    list_poolings: Callable[[ViTConfig], tuple[str, ...]] = lambda _: ("mean", "first")
    position_tables: Mapping[str, str] = field(default_factory=dict)
    kinds_with_position_table: tuple[str, ...] = ()
    state_dict_key: str = "model"
    checkpoint_kinds: tuple[str, ...] = CHECKPOINT_KINDS
    build_extra_tensors: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = lambda _: {}


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
