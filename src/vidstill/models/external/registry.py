"""Which library a teacher's name speaks of: `transformers:FOLDER_OR_NAME`, `timm:NAME`, `timm:NAME@FILE`."""

from collections.abc import Mapping

from torch import Tensor

from vidstill.models.external import timm, transformers
from vidstill.models.external.base import ExternalEncoder, ExternalEncoderConfig, InputResolution

_LIBRARIES = ("transformers", "timm")


def is_external_encoder(source: str) -> bool:
    """Whether a teacher's weights are named as another library's."""
    return source.partition(":")[0] in _LIBRARIES


def parse_weights_file(source: str) -> str:
    """The file of weights that a foreign teacher's name ends with, or nothing."""
    return source.partition("@")[2] if source.startswith("timm:") else ""


def load_external_encoder(
    source: str, tensors: Mapping[str, Tensor] | None = None, *, input_resolution: InputResolution = "match_student"
) -> ExternalEncoder:
    """The model that is named, with its weights, on the CPU.

    Args:
        tensors: what is in the file that the name ends with, where it does.

    Raises:
        InputError: the library is missing, cannot read it, or it is of a kind that is not known here.
    """
    library, _, name = source.partition(":")
    if library == "transformers":
        return transformers.load_transformers_encoder(name, source=source, input_resolution=input_resolution)
    return timm.load_timm_encoder(name.partition("@")[0], tensors, source=source, input_resolution=input_resolution)


def build_external_encoder(config: ExternalEncoderConfig) -> ExternalEncoder:
    """The model that is described, on the "meta" device."""
    library, _, name = config.source.partition(":")
    if library == "transformers":
        return transformers.build_transformers_encoder(name, config)
    return timm.build_timm_encoder(name.partition("@")[0], config)
