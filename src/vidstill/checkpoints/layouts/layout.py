"""What a layout of foreign files is: recognised by names and shapes, never by a file's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.models.vit import ViTConfig


@dataclass(frozen=True)
class LayoutMatch:
    """What a foreign file was taken for.

    Args:
        layout_description: in words, such as "a pre-training of VideoMAE".
        metadata: what our own file of it would say of itself: `kind` ("pretraining", "classifier", "encoder"), `encoder`
            (a plain ViTConfig), and what its kind has beside that: `build_classifier_metadata`, `decoder`, `method`.
        rules: the table that turns its names into ours.
        ignored_prefixes: beginnings of names that are of no use here, and why.
        optional_prefixes: beginnings of our names that such a file need not have, and why.
        notes: what it does not say and was assumed or taken from the hint.
        expected_shapes: our names, and their shapes, that it has to hold beside the encoder's and a classifier's norm and head.
    """

    layout_description: str
    metadata: Mapping[str, Any]
    rules: Sequence[RenameRule]
    ignored_prefixes: Mapping[str, str] = field(default_factory=dict)
    optional_prefixes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expected_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@runtime_checkable
class Layout(Protocol):
    """One of the layouts of foreign files."""

    key: str
    """The word for it on the command line: `weights convert --to KEY`."""

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        """What a file of this layout holds; None: it is of another.

        Args:
            foreign_metadata: what stands beside the tensors: `config.json` of transformers, or a trainer's options.
            hint: the encoder that was asked for, which decides what the file does not say (heads, the kind of computed
                positions); None: the family's, as the tensors' shapes have it.

        Raises:
            InputError: it is of this layout, and contradicts itself.
        """
