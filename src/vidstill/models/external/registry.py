"""External teachers by their source: `transformers:FOLDER_OR_NAME`, `timm:NAME`, `timm:NAME@FILE`."""

from collections.abc import Mapping

from torch import Tensor

from vidstill.models.external.base import ExternalEncoder, InputResolution
from vidstill.models.external.timm import load_timm_encoder
from vidstill.models.external.transformers import load_transformers_encoder


def is_external_encoder(source: str) -> bool:
    """Return whether a teacher's checkpoint is another library's."""
    return source.startswith(("transformers:", "timm:"))


def parse_weights_file(source: str) -> str:
    """Return the weights file in an external teacher's source, or an empty string."""
    return source.partition("@")[2] if source.startswith("timm:") else ""


def load_external_encoder(
    source: str, tensors: Mapping[str, Tensor] | None = None, *, input_resolution: InputResolution = "match_student"
) -> ExternalEncoder:
    """Load an external encoder with its weights, on the CPU.

    Args:
        source: Library and name.
        tensors: Content of the weights file, if the source names one.
        input_resolution: Frame size that the teacher sees.

    Raises:
        InputError: The library is missing or cannot read it, or the model is of an unknown kind.
    """
    if source.startswith("transformers:"):
        return load_transformers_encoder(source, input_resolution=input_resolution)
    return load_timm_encoder(source, tensors, input_resolution=input_resolution)
