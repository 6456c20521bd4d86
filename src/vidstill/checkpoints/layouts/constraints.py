"""What the models of each layout's authors are, which their files do not say: ours has to be one, or is refused."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidstill.checkpoints.io import Checkpoint
from vidstill.models.layers import NORM_EPS, AttentionBias
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

_CHECKPOINT_KINDS = ("pretraining", "encoder", "classifier")
_MAE_CHECKPOINT_KINDS = (*_CHECKPOINT_KINDS, "probe")
_MeanStd = tuple[tuple[float, float, float], tuple[float, float, float]]
_IMAGENET_MEAN_STD: _MeanStd = (IMAGENET_MEAN, IMAGENET_STD)
_GREY_MEAN_STD: _MeanStd = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))


@dataclass(frozen=True)
class LayoutConstraints:
    """The models of a layout's authors: any other would load there, and be wrong.

    Args:
        position_kinds: how they tell tokens apart; the computed ones, if any, come first.
        kinds_with_position_table: the kinds of files that hold the codes that are computed.
        state_dict_key: the word under which their trainer writes the tensors.
        checkpoint_kinds: of files that there are.
    """

    project: str
    position_kinds: tuple[PositionKind, ...]
    attention_biases: tuple[AttentionBias, ...] = ("qv", "none")
    class_token_options: tuple[bool, ...] = (False,)
    is_image: bool = False
    supports_layer_scale: bool = True
    mean_std: _MeanStd = _IMAGENET_MEAN_STD
    kinds_with_position_table: tuple[str, ...] = ()
    state_dict_key: str = "model"
    checkpoint_kinds: tuple[str, ...] = _CHECKPOINT_KINDS


_VIDEOMAE_POSITIONS: tuple[PositionKind, ...] = ("sinusoid", "learned")
_MAE_POSITIONS: tuple[PositionKind, ...] = ("sincos2d", "learned")
_STMAE_POSITIONS: tuple[PositionKind, ...] = ("separable", "learned")

LAYOUT_CONSTRAINTS: Mapping[str, LayoutConstraints] = {
    "videomae": LayoutConstraints("VideoMAE", _VIDEOMAE_POSITIONS),
    "mvd": LayoutConstraints(
        "MVD", ("sincos3d", "learned"), class_token_options=(False, True), kinds_with_position_table=("pretraining",)
    ),
    "amd": LayoutConstraints("AMD", _VIDEOMAE_POSITIONS),
    "maskagain": LayoutConstraints("MaskAgain", _VIDEOMAE_POSITIONS),
    "mae": LayoutConstraints(
        "MAE",
        _MAE_POSITIONS,
        ("qkv", "none"),
        (True,),
        is_image=True,
        supports_layer_scale=False,
        kinds_with_position_table=_MAE_CHECKPOINT_KINDS,
        checkpoint_kinds=_MAE_CHECKPOINT_KINDS,
    ),
    "dmae": LayoutConstraints(
        "DMAE",
        _MAE_POSITIONS,
        ("qkv", "none"),
        (True,),
        is_image=True,
        supports_layer_scale=False,
        kinds_with_position_table=_MAE_CHECKPOINT_KINDS,
        checkpoint_kinds=_MAE_CHECKPOINT_KINDS,
    ),
    "stmae": LayoutConstraints(
        "mae_st", _STMAE_POSITIONS, ("qkv", "none"), (True, False), supports_layer_scale=False, mean_std=_GREY_MEAN_STD
    ),
    "slowfast": LayoutConstraints(
        "PySlowFast",
        _STMAE_POSITIONS,
        ("qkv", "none"),
        (True, False),
        supports_layer_scale=False,
        mean_std=_GREY_MEAN_STD,
        state_dict_key="model_state",
    ),
    "mmaction": LayoutConstraints(
        "mmaction2",
        _VIDEOMAE_POSITIONS,
        kinds_with_position_table=_CHECKPOINT_KINDS,
        state_dict_key="state_dict",
        checkpoint_kinds=_CHECKPOINT_KINDS[1:],
    ),
}
"""The authors' layouts that are written, by their words on the command line."""


def check_layout_constraints(checkpoint: Checkpoint, constraints: LayoutConstraints) -> ViTConfig:
    """The encoder of a file of ours, where it is one of theirs too.

    Raises:
        InputError: they have no such model, or their code would take these tensors for another.
    """
    kind = checkpoint.metadata.get("kind")
    if kind not in constraints.checkpoint_kinds:
        what = f"is a {kind}" if kind else "does not say what it is"
        raise InputError(
            f"{checkpoint.source} {what}; of {constraints.project}'s files there are {', '.join(constraints.checkpoint_kinds)}"
        )
    if "encoder" not in checkpoint.metadata:
        raise InputError(
            f"{checkpoint.source} holds a {kind} without its encoder, which files of {constraints.project} have"
        )
    config = from_dict(ViTConfig, checkpoint.metadata["encoder"])
    if wrong := next(_find_differences(checkpoint.metadata, config, constraints), None):
        raise InputError(f"{checkpoint.source} cannot be written for {constraints.project}'s code: {wrong}")
    return config


def describe_omissions(checkpoint: Checkpoint, layout: str) -> list[str]:
    """What such a file does not say, in sentences, and who takes it has to know."""
    about, config = checkpoint.metadata, from_dict(ViTConfig, checkpoint.metadata["encoder"])
    sentences = []
    if config.dim != 64 * config.heads:
        sentences.append(
            f"it has {config.heads} heads, which {LAYOUT_CONSTRAINTS[layout].project}'s code has to be told"
        )
    if config.norm_eps != NORM_EPS:
        sentences.append(f"its LayerNorms add {config.norm_eps:g} to the variance, and the code {NORM_EPS:g}")
    if classes := about.get("classes"):
        sentences.append(f"the names of its {len(classes)} classes are left out")
    if licence := about.get("licence"):
        sentences.append(f"its licence, {licence}, is left out; it holds all the same")
    return sentences


def _find_differences(metadata: Mapping[str, Any], config: ViTConfig, constraints: LayoutConstraints) -> Iterator[str]:
    if (config.tubelet[0] == 1) != constraints.is_image:
        yield f"its tubelets have {config.tubelet[0]} frames, and the code is of {'images' if constraints.is_image else 'clips'}"
    if config.class_token not in constraints.class_token_options:
        yield "it has a class token, and the code none" if config.class_token else "it lacks the code's class token"
    if config.positions not in constraints.position_kinds:
        yield f"its positions are {config.positions}, and the code knows {' and '.join(constraints.position_kinds)}"
    decoder = get_decoder_metadata(metadata).get("positions", config.positions)
    if decoder not in constraints.position_kinds:
        yield f"its decoder's positions are {decoder}, and the code knows {' and '.join(constraints.position_kinds)}"
    if config.attention_bias not in constraints.attention_biases:
        yield f"its attention's biases are {config.attention_bias!r}, and the code's {_format_choices(constraints.attention_biases)}"
    if config.relative_positions:
        yield "it has relative positions"
    if config.layer_scale and not constraints.supports_layer_scale:
        yield "its branches are scaled (layer_scale)"
    if (config.mean, config.std) != constraints.mean_std:
        yield f"it takes a mean of {config.mean} off the colours, and the code one of {constraints.mean_std[0]}"
    pooling = metadata.get("classifier", {}).get("pooling")
    if pooling and pooling not in (pools := _list_poolings(config, constraints)):
        yield f"it pools its tokens by {pooling!r}, and the code by {_format_choices(pools)}"


def _format_choices(choices: Iterable[str]) -> str:
    return " or ".join(map(repr, choices))


def _list_poolings(config: ViTConfig, constraints: LayoutConstraints) -> tuple[str, ...]:
    """How their classifiers make one vector of the tokens (`ClassifierConfig.pooling`)."""
    if constraints.position_kinds != _STMAE_POSITIONS:
        return ("mean", "first")
    return ("mean",) if config.class_token else ("mean_after_first",)  # released: the first token is left out


def get_decoder_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What our file says of its pre-training's decoder; nothing where it does not."""
    method = metadata.get("recipe", {}).get("method", {})
    return metadata.get("decoder") or method.get("decoder") or {}
