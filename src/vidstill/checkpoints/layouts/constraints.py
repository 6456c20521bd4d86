"""What the models of each layout's authors are, which their files do not say: ours has to be one, or is refused."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidstill.checkpoints.io import Weights
from vidstill.models.layers import NORM_EPS, AttentionBias
from vidstill.models.position_embeddings import Positions
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import InputError

_KINDS = ("pretraining", "encoder", "classifier")
_OF_MAE = (*_KINDS, "probe")
_Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
_IMAGENET: _Colours = (IMAGENET_MEAN, IMAGENET_STD)
_GREY: _Colours = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))


@dataclass(frozen=True)
class Code:
    """The models of a layout's authors: any other would load there, and be wrong.

    Args:
        positions: how they tell tokens apart; the computed ones, if any, come first.
        stores: the kinds of files that hold the codes that are computed.
        wrapping: the word under which their trainer writes the tensors.
        kinds: of files that there are.
    """

    whose: str
    positions: tuple[Positions, ...]
    biases: tuple[AttentionBias, ...] = ("qv", "none")
    class_token: tuple[bool, ...] = (False,)
    images: bool = False
    layer_scale: bool = True
    colours: _Colours = _IMAGENET
    stores: tuple[str, ...] = ()
    wrapping: str = "model"
    kinds: tuple[str, ...] = _KINDS


_VIDEOMAE: tuple[Positions, ...] = ("sinusoid", "learned")
_MAE: tuple[Positions, ...] = ("sincos2d", "learned")
_OF_TABLES: tuple[Positions, ...] = ("separable", "learned")

LAYOUTS: Mapping[str, Code] = {
    "videomae": Code("VideoMAE", _VIDEOMAE),
    "mvd": Code("MVD", ("sincos3d", "learned"), class_token=(False, True), stores=("pretraining",)),
    "amd": Code("AMD", _VIDEOMAE),
    "maskagain": Code("MaskAgain", _VIDEOMAE),
    "mae": Code("MAE", _MAE, ("qkv", "none"), (True,), images=True, layer_scale=False, stores=_OF_MAE, kinds=_OF_MAE),
    "dmae": Code("DMAE", _MAE, ("qkv", "none"), (True,), images=True, layer_scale=False, stores=_OF_MAE, kinds=_OF_MAE),
    "stmae": Code("mae_st", _OF_TABLES, ("qkv", "none"), (True, False), layer_scale=False, colours=_GREY),
    "slowfast": Code(
        "PySlowFast",
        _OF_TABLES,
        ("qkv", "none"),
        (True, False),
        layer_scale=False,
        colours=_GREY,
        wrapping="model_state",
    ),
    "mmaction": Code("mmaction2", _VIDEOMAE, stores=_KINDS, wrapping="state_dict", kinds=_KINDS[1:]),
}
"""The authors' layouts that are written, by their words on the command line."""


def check(weights: Weights, code: Code) -> ViTConfig:
    """The encoder of a file of ours, where it is one of theirs too.

    Raises:
        InputError: they have no such model, or their code would take these tensors for another.
    """
    kind = weights.about.get("kind")
    if kind not in code.kinds:
        what = f"is a {kind}" if kind else "does not say what it is"
        raise InputError(f"{weights.source} {what}; of {code.whose}'s files there are {', '.join(code.kinds)}")
    if "encoder" not in weights.about:
        raise InputError(f"{weights.source} holds a {kind} without its encoder, which files of {code.whose} have")
    config = from_plain(ViTConfig, weights.about["encoder"])
    if wrong := next(_differences(weights.about, config, code), None):
        raise InputError(f"{weights.source} cannot be written for {code.whose}'s code: {wrong}")
    return config


def unsaid(weights: Weights, layout: str) -> list[str]:
    """What such a file does not say, in sentences, and who takes it has to know."""
    about, config = weights.about, from_plain(ViTConfig, weights.about["encoder"])
    sentences = []
    if config.dim != 64 * config.heads:
        sentences.append(f"it has {config.heads} heads, which {LAYOUTS[layout].whose}'s code has to be told")
    if config.norm_eps != NORM_EPS:
        sentences.append(f"its LayerNorms add {config.norm_eps:g} to the variance, and the code {NORM_EPS:g}")
    if classes := about.get("classes"):
        sentences.append(f"the names of its {len(classes)} classes are left out")
    if licence := about.get("licence"):
        sentences.append(f"its licence, {licence}, is left out; it holds all the same")
    return sentences


def _differences(about: Mapping[str, Any], config: ViTConfig, code: Code) -> Iterator[str]:
    if (config.tubelet[0] == 1) != code.images:
        yield f"its tubelets have {config.tubelet[0]} frames, and the code is of {'images' if code.images else 'clips'}"
    if config.class_token not in code.class_token:
        yield "it has a class token, and the code none" if config.class_token else "it lacks the code's class token"
    if config.positions not in code.positions:
        yield f"its positions are {config.positions}, and the code knows {' and '.join(code.positions)}"
    decoder = stated_decoder(about).get("positions", config.positions)
    if decoder not in code.positions:
        yield f"its decoder's positions are {decoder}, and the code knows {' and '.join(code.positions)}"
    if config.attention_bias not in code.biases:
        yield f"its attention's biases are {config.attention_bias!r}, and the code's {_either(code.biases)}"
    if config.relative_positions:
        yield "it has relative positions"
    if config.layer_scale and not code.layer_scale:
        yield "its branches are scaled (layer_scale)"
    if (config.mean, config.std) != code.colours:
        yield f"it takes a mean of {config.mean} off the colours, and the code one of {code.colours[0]}"
    pooling = about.get("classifier", {}).get("pooling")
    if pooling and pooling not in (pools := _pools(config, code)):
        yield f"it pools its tokens by {pooling!r}, and the code by {_either(pools)}"


def _either(words: Iterable[str]) -> str:
    return " or ".join(map(repr, words))


def _pools(config: ViTConfig, code: Code) -> tuple[str, ...]:
    """How their classifiers make one vector of the tokens (`ClassifierConfig.pooling`)."""
    if code.positions != _OF_TABLES:
        return ("mean", "first")
    return ("mean",) if config.class_token else ("mean_after_first",)  # released: the first token is left out


def stated_decoder(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """What our file says of its pre-training's decoder; nothing where it does not."""
    method = about.get("recipe", {}).get("method", {})
    return about.get("decoder") or method.get("decoder") or {}
