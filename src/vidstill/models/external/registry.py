"""Which library a teacher's name speaks of: `transformers:FOLDER_OR_NAME`, `timm:NAME`, `timm:NAME@FILE`."""

from collections.abc import Mapping

from torch import Tensor

from vidstill.models.external import timm, transformers
from vidstill.models.external.base import Foreign, ForeignConfig, Input

_LIBRARIES = ("transformers", "timm")


def is_foreign(source: str) -> bool:
    """Whether a teacher's weights are named as another library's."""
    return source.partition(":")[0] in _LIBRARIES


def file_of(source: str) -> str:
    """The file of weights that a foreign teacher's name ends with, or nothing."""
    return source.partition("@")[2] if source.startswith("timm:") else ""


def read_foreign(source: str, tensors: Mapping[str, Tensor] | None = None, *, input: Input = "fitted") -> Foreign:
    """The model that is named, with its weights, on the CPU.

    Args:
        tensors: what is in the file that the name ends with, where it does.

    Raises:
        InputError: the library is missing, cannot read it, or it is of a kind that is not known here.
    """
    library, _, name = source.partition(":")
    if library == "transformers":
        return transformers.read(name, source=source, input=input)
    return timm.read(name.partition("@")[0], tensors, source=source, input=input)


def without_weights(config: ForeignConfig) -> Foreign:
    """The model that is described, on the "meta" device."""
    library, _, name = config.source.partition(":")
    if library == "transformers":
        return transformers.without_weights(name, config)
    return timm.without_weights(name.partition("@")[0], config)
