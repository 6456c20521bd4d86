"""Foreign tensors under our names, and weights put into a model so that each of them is accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from vidstill.config import from_plain
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL, TINY, ViTConfig
from vidstill.types import InputError
from vidstill.weights.files import Weights
from vidstill.weights.inflate import inflated, is_inflation, learned_codes, makes_learned
from vidstill.weights.names import (
    Name,
    classifier_names,
    mae_names,
    mvd_names,
    slowfast_names,
    stmae_classifier_names,
    stmae_names,
    videomae_names,
)

_KERNEL = "patch_embed.proj.weight"  # the authors embed by a convolution
_ANY_DECODER = DecoderConfig(dim=0, depth=0, heads=0)  # of what is not taken over, the settings do not matter


def translated(theirs: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    """Their tensors under our names and in our shapes.

    Raises:
        InputError: tensors that the layout does not know, or a part of one of ours without the others.
    """
    ours: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor | None]] = {}
    unknown = []
    for name, tensor in theirs.items():
        first = next((rule for rule in names if name.startswith(rule.theirs)), None)
        if first is None:
            unknown.append(name)
            continue
        for rule in names:
            if rule.theirs != first.theirs or rule.ours is None:
                continue
            shaped = rearrange(tensor, rule.to_ours) if rule.to_ours else tensor
            shaped = shaped if rule.rows is None else shaped[slice(*rule.rows)]
            ours_name = rule.ours + name.removeprefix(rule.theirs)
            if rule.part is None:
                ours[ours_name] = shaped
            else:
                parts.setdefault(ours_name, dict.fromkeys(range(rule.part[1])))[rule.part[0]] = shaped
    if unknown:
        raise InputError(f"{len(unknown)} tensors belong to no layout that is known here, first {unknown[0]!r}")
    for name, found in parts.items():
        there = [tensor for tensor in found.values() if tensor is not None]
        if len(there) < len(found):
            raise InputError(f"the file has {len(there)} of the {len(found)} parts of {name!r}: it is incomplete")
        ours[name] = torch.cat(there)
    return ours


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Puts the tensors into the module; every one has its place, and every place its tensor.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; the module is unchanged then.
    """
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - wanted.keys())
    shapes = [n for n in sorted(wanted.keys() & tensors.keys()) if wanted[n].shape != tensors[n].shape]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} tensors of this model, first {missing[0]!r}: it is of another kind"
        )
    if left_over:
        raise InputError(
            f"{source} has {len(left_over)} tensors too many, first {left_over[0]!r}: it is of another kind"
        )
    if shapes:
        name = shapes[0]
        raise InputError(
            f"{source}: {name!r} is {tuple(tensors[name].shape)}, this model's is {tuple(wanted[name].shape)}; "
            "take the size that the file was made with"
        )
    module.load_state_dict(dict(tensors))


def encoder_config(weights: Weights, otherwise: ViTConfig) -> ViTConfig:
    """The encoder that the file holds, as it says; `otherwise` for foreign files, which say nothing.

    Of these, the kernel tells images from clips: where `otherwise` is of clips and the file of images, it is one of
    images of the same size, with the class token and the codes that are in the file.
    """
    if weights.about.get("encoder"):
        return from_plain(ViTConfig, weights.about["encoder"])
    kernel, codes = weights.tensors.get(_KERNEL), weights.tensors.get("pos_embed")
    if kernel is None or kernel.ndim != 4 or otherwise.tubelet[0] == 1:
        return otherwise
    class_token = "cls_token" in weights.tensors
    side = round((codes.shape[1] - class_token) ** 0.5) if codes is not None else 0
    return replace(
        otherwise,
        tubelet=(1, kernel.shape[2], kernel.shape[3]),
        positions="learned" if side else "sincos2d",
        learned_grid=(1, side, side) if side else None,
        class_token=class_token,
        attention_bias="qkv" if "blocks.0.attn.qkv.bias" in weights.tensors else otherwise.attention_bias,
    )


def named_size(weights: Weights) -> ViTConfig:
    """The family's size that is as wide as a foreign file's encoder; of clips, which `encoder_config` takes as a guess.

    Raises:
        InputError: none is.
    """
    kernel = next((tensor for name, tensor in weights.tensors.items() if name.endswith(_KERNEL)), None)
    if weights.about or kernel is None:
        return BASE
    for size in (TINY, SMALL, BASE, LARGE, HUGE):
        if size.dim == len(kernel):
            return size
    raise InputError(f"{weights.source} holds an encoder of width {len(kernel)}, which no size of the family has")


def continued(weights: Weights, asked: ViTConfig) -> ViTConfig:
    """The encoder of a model that goes on from a file's: as the file says, but for what its own recipe decides.

    That is how many branches are dropped, whether relative positions come in, what becomes of clips that do not divide
    into tubelets, and the length of tubelets and the codes of positions where the file's encoder is of images; or
    learned codes where the file's are computed, which they start as (MAE's fine-tuning).
    """
    found = encoder_config(weights, asked)
    relative = found.relative_positions or asked.relative_positions
    ours = replace(
        found,
        drop_path=asked.drop_path,
        drop_remainder=asked.drop_remainder,
        relative_positions=relative,
        learned_grid=found.learned_grid or (asked.learned_grid if relative else None),
    )
    if is_inflation(found, asked):
        ours = replace(ours, tubelet=(asked.tubelet[0], *found.tubelet[1:]))
    if is_inflation(found, asked) or makes_learned(found, asked):
        ours = replace(ours, positions=asked.positions, learned_grid=asked.learned_grid)
    return ours


def encoder_tensors(weights: Weights, config: ViTConfig) -> dict[str, Tensor]:
    """The encoder's tensors, under the names of `ViT`, of our files and of the authors'.

    Raises:
        InputError: the file holds no encoder that is known here.
    """
    ours = _under_our_names(weights, config)
    return {name.removeprefix("encoder."): t for name, t in ours.items() if name.startswith("encoder.")}


def start_encoder(encoder: nn.Module, weights: Weights, config: ViTConfig, *, norm: nn.Module | None = None) -> None:
    """Puts a file's encoder into a model that goes on from it; one of images becomes one of clips (`inflated`).

    A final norm that the model does not have is left behind, as most authors do: a classifier starts its own.
    One that the model has and the file has not (it was fine-tuned) keeps its start, as do relative positions.

    Args:
        norm: a classifier's own, that goes on from the file's last norm: the encoder's, or its classifier's (ST-MAE).
    """
    found = encoder_config(weights, config)
    tensors = encoder_tensors(weights, found)
    final = {name: tensor for name, tensor in tensors.items() if name.startswith("norm.")}
    if is_inflation(found, config):
        tensors = inflated(tensors, found, config)
    elif makes_learned(found, config):
        tensors |= learned_codes(tensors, found, config)
    own = encoder.state_dict()
    start = {name: tensor for name, tensor in own.items() if name.startswith("norm.") or ".relative." in name}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.") or name in start}
    load_exactly(encoder, start | kept, weights.source)
    if norm is not None:
        every = _under_our_names(weights, found)
        final = final or {name: tensor for name, tensor in every.items() if name.startswith("norm.")}
        if not final:  # a student of MaskAgain
            raise InputError(f"{weights.source} has no last norm that a classifier could go on from; take --norm fresh")
        load_exactly(norm, {name.removeprefix("norm."): tensor for name, tensor in final.items()}, weights.source)


def _under_our_names(weights: Weights, config: ViTConfig) -> dict[str, Tensor]:
    """All of our file's tensors; of a foreign one the encoder's, and others under names that do not matter."""
    tensors = weights.tensors
    if weights.about:
        return dict(tensors)
    if f"encoder.{_KERNEL}" in tensors:
        encoder = {n: t for n, t in tensors.items() if n.startswith("encoder.") and "projection_heads" not in n}
        return translated(encoder, videomae_names(config))
    if _KERNEL in tensors:
        return translated(tensors, _layout(tensors, config))
    raise InputError(
        f"{weights.source} is neither vidstill's nor in a layout known here (VideoMAE, AMD, MVD, MAE, DMAE, ST-MAE); "
        f"its first tensor is {next(iter(tensors), 'missing')!r}"
    )


def _layout(tensors: Mapping[str, Tensor], config: ViTConfig) -> tuple[Name, ...]:
    """The names of a file whose encoder stands without a prefix; each layout has words that no other has."""
    words = {name.partition(".")[0] for name in tensors}
    pretraining = "decoder_embed" in words
    if tensors[_KERNEL].ndim == 4:
        return mae_names(config) if pretraining else classifier_names(config, image=True)
    if words & {"down_img", "down_vid"}:
        return mvd_names(config)
    separate = "blocks.0.attn.q.weight" in tensors
    if "pred_head" in words:
        return slowfast_names(config, _ANY_DECODER, separate_qkv=separate)
    if pretraining:
        return stmae_names(config, _ANY_DECODER, separate_qkv=separate)
    if separate or "head.projection.weight" in tensors:
        return stmae_classifier_names(config, separate_qkv=separate)
    return classifier_names(config)
