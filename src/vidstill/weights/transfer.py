"""Foreign tensors under our names, and weights put into a model so that each of them is accounted for."""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from vidstill.config import from_plain
from vidstill.models.vit import ViTConfig
from vidstill.types import InputError
from vidstill.weights.files import Weights
from vidstill.weights.names import Name, classifier_names, videomae_names


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
    """The encoder that the file says it holds; `otherwise` for foreign files, which say nothing."""
    return from_plain(ViTConfig, weights.about["encoder"]) if "encoder" in weights.about else otherwise


def encoder_tensors(weights: Weights, config: ViTConfig) -> dict[str, Tensor]:
    """The encoder's tensors, under the names of `ViT`, of our files and of VideoMAE's and AMD's.

    Raises:
        InputError: the file holds no encoder that is known here.
    """
    tensors = weights.tensors
    if not weights.about:
        if "encoder.patch_embed.proj.weight" in tensors:
            encoder = {n: t for n, t in tensors.items() if n.startswith("encoder.") and "projection_heads" not in n}
            tensors = translated(encoder, videomae_names(config))
        elif "patch_embed.proj.weight" in tensors:
            tensors = translated(tensors, classifier_names(config))
        else:
            raise InputError(
                f"{weights.source} is neither vidstill's nor in a layout known here (VideoMAE, AMD); "
                f"its first tensor is {next(iter(tensors), 'missing')!r}"
            )
    return {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}


def start_encoder(encoder: nn.Module, weights: Weights, config: ViTConfig) -> None:
    """Puts a file's encoder into a model that goes on from it.

    A final norm that the model does not have is left behind, as the authors do: a classifier starts its own.
    One that the model has and the file has not (it was fine-tuned) keeps its start.
    """
    tensors = encoder_tensors(weights, config)
    own = encoder.state_dict()
    norm = {name: tensor for name, tensor in own.items() if name.startswith("norm.")}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.") or name in norm}
    load_exactly(encoder, norm | kept, weights.source)
