"""A checkpoint of ours for every foreign layout, tiny and with random weights, and the file that it becomes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from tiny_models import AMD, CLASSES, ENCODER, MASKAGAIN, METHODS, STMAE, VIDEOMAE, as_images, built
from torch import Tensor, nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict

CLIPS = {"sampling": {"num_frames": 4}, "size": [16, 12]}
IMAGES = {"sampling": {"num_frames": 1}, "size": [16, 16]}
MAE, DMAE = as_images(METHODS["imagemae"]), as_images(METHODS["dmae"])
MVD, MAE_ST = METHODS["mvd"], METHODS["stmae-mae_st"]
LEARNED = replace(ENCODER, positions="learned", learned_grid=(2, 4, 3), layer_scale=0.1)
LEARNED_IMAGE = replace(MAE.encoder, positions="learned", learned_grid=(1, 4, 4))
GIANT = replace(ENCODER, tubelet=(2, 14, 14), mlp_ratio=48 / 11)


def classifier(encoder: ViTConfig, *, num_classes: int = CLASSES, **fields: Any) -> ClassifierConfig:
    return ClassifierConfig(encoder=encoder, num_classes=num_classes, **fields)


def make_checkpoint(config: Any, *, dtype: torch.dtype = torch.float32, **metadata: Any) -> Checkpoint:
    """Return what a run of this configuration leaves, or a file of an encoder alone."""
    is_encoder, module = isinstance(config, ViTConfig), built(config)
    encoder = config if is_encoder else config.encoder
    state = (nn.ModuleDict({"encoder": module}) if is_encoder else module).state_dict()
    recipe: dict[str, Any] = {"clips": IMAGES if encoder.tubelet[0] == 1 else CLIPS}
    native: dict[str, Any] = {"kind": "encoder" if is_encoder else "pretraining", "encoder": to_dict(encoder)}
    if isinstance(config, ClassifierConfig):
        native |= {"kind": "classifier", "classifier": to_dict(config)}
    elif not is_encoder:
        recipe["method"] = to_dict(config)
    tensors = {name: tensor.to(dtype) for name, tensor in state.items()}
    return Checkpoint(tensors, native | {"recipe": recipe} | metadata, "runs/ours")


@dataclass(frozen=True)
class ForeignCase:
    """
    Args:
        layout: Of the file.
        config: What is built of ours.
        description: A part of what the file is recognized as.
        separate_qkv: It has a layer each for queries, keys and values, where the layout has both.
        change: What distinguishes the authors' file from the one that we write.
    """

    layout: str
    config: Any
    description: str
    separate_qkv: bool = True
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    @property
    def encoder(self) -> ViTConfig:
        return self.config if isinstance(self.config, ViTConfig) else self.config.encoder

    @property
    def checkpoint(self) -> Checkpoint:
        return make_checkpoint(self.config, separate_qkv=self.separate_qkv)

    def tensors(self) -> dict[str, Tensor]:
        return self.change(export_state_dict(self.checkpoint, self.layout))


def remove_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}


def add_action_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return remove_prefix(tensors) | {"head.weight": torch.ones(80, 24), "head.bias": torch.ones(80)}


_TUNED = classifier(STMAE.encoder, norm="pretrained")
_NO_CLASS_TOKEN = replace(STMAE.encoder, class_token=False)
_JOINT = replace(
    MAE_ST, encoder=replace(MAE_ST.encoder, positions="learned"), decoder=replace(MAE_ST.decoder, positions="learned")
)
_WITHOUT_CLASS_TOKEN = replace(
    MAE_ST, encoder=replace(_NO_CLASS_TOKEN, attention_bias="none"), decoder=replace(MAE_ST.decoder, class_token="none")
)
_NO_BIASES = replace(VIDEOMAE, encoder=replace(ENCODER, attention_bias="none"))
_STMAE_NAMES, _SLOWFAST_NAMES = "with the names of mae_st", "with the names of PySlowFast (pred_head"

FILES = {
    "videomae": ForeignCase("videomae", VIDEOMAE, "a pre-training of VideoMAE"),
    "videomae, learned": ForeignCase("videomae", replace(VIDEOMAE, encoder=LEARNED), "a pre-training of VideoMAE"),
    "videomae, no biases": ForeignCase("videomae", _NO_BIASES, "a pre-training of VideoMAE"),
    "videomae, encoder": ForeignCase("videomae", ENCODER, "an encoder of VideoMAE"),
    "videomae, bare": ForeignCase("videomae", ENCODER, "an encoder of VideoMAE alone", change=remove_prefix),
    "videomae v2": ForeignCase("videomae", replace(VIDEOMAE, encoder=GIANT), "a pre-training of VideoMAE"),
    "videomae v2, distilled": ForeignCase(
        "videomae", classifier(ENCODER, num_classes=710), "a classifier of VideoMAE V2"
    ),
    "classifier": ForeignCase("videomae", classifier(ENCODER), "a classifier of VideoMAE"),
    "classifier, first token": ForeignCase(
        "videomae", classifier(ENCODER, pooling="first"), "the first token is classified"
    ),
    "classifier, learned": ForeignCase("amd", classifier(LEARNED), "a classifier of VideoMAE"),
    "mvd": ForeignCase("mvd", MVD, "a pre-training of MVD"),
    "mvd, class token": ForeignCase("mvd", METHODS["mvd-class-token"], "a pre-training of MVD"),
    "mvd, one teacher": ForeignCase("mvd", METHODS["mvd-image-only"], "a pre-training of MVD"),
    "mvd, classifier": ForeignCase("mvd", classifier(MVD.encoder), "a classifier of VideoMAE, MVD"),
    "amd": ForeignCase("amd", AMD, "a pre-training of AMD"),
    "amd, direct": ForeignCase("amd", METHODS["amd-direct"], "a pre-training of AMD"),
    "maskagain": ForeignCase("maskagain", MASKAGAIN, "a pre-training of MaskAgain"),
    "maskagain, projections": ForeignCase(
        "maskagain", METHODS["maskagain-projected"], "a pre-training of MaskAgain (with Align_"
    ),
    "maskagain, decoder": ForeignCase("maskagain", METHODS["maskagain-transfer"], "a pre-training of"),
    "maskagain, classifier": ForeignCase("maskagain", classifier(ENCODER), "AMD or MaskAgain"),
    "mae": ForeignCase("mae", MAE, "a pre-training of image MAE"),
    "mae, encoder": ForeignCase("mae", MAE.encoder, "an encoder of image MAE alone"),
    "mae, classifier": ForeignCase("mae", classifier(LEARNED_IMAGE), "a classifier of image MAE"),
    "mae, class token": ForeignCase("dmae", classifier(MAE.encoder, pooling="first"), "the class token"),
    "dmae": ForeignCase("dmae", DMAE, "a pre-training of DMAE"),
    "dmae, MLPs": ForeignCase("dmae", as_images(METHODS["dmae-perceptrons"]), "a pre-training of DMAE"),
    "mae_st": ForeignCase("stmae", MAE_ST, _STMAE_NAMES),
    "mae_st, fused": ForeignCase("stmae", MAE_ST, "fused queries, keys and values", separate_qkv=False),
    "mae_st, no class token": ForeignCase("stmae", _WITHOUT_CLASS_TOKEN, _STMAE_NAMES),
    "mae_st, joint": ForeignCase("stmae", _JOINT, _STMAE_NAMES),
    "mae_st, encoder": ForeignCase("stmae", MAE_ST.encoder, "an encoder of ST-MAE alone"),
    "mae_st, classifier": ForeignCase("stmae", _TUNED, f"a classifier of ST-MAE {_STMAE_NAMES}"),
    "mae_st, classifier without class token": ForeignCase(
        "stmae",
        classifier(_NO_CLASS_TOKEN, pooling="mean_after_first", norm="pretrained"),
        f"a classifier of ST-MAE {_STMAE_NAMES}",
    ),
    "slowfast": ForeignCase("slowfast", STMAE, _SLOWFAST_NAMES),
    "slowfast, fused": ForeignCase("slowfast", STMAE, "fused queries, keys and values", separate_qkv=False),
    "slowfast, classifier": ForeignCase(
        "slowfast", _TUNED, "with the names of PySlowFast (norm and head.projection", separate_qkv=False
    ),
    "mmaction": ForeignCase(
        "mmaction",
        classifier(ENCODER),
        "with the names of mmaction2",
        change=lambda tensors: tensors | {"data_preprocessor.mean": torch.ones(3, 1, 1, 1)},
    ),
    "mmaction, learned": ForeignCase("mmaction", classifier(LEARNED, pooling="first"), "with the names of mmaction2"),
    "detector": ForeignCase("videomae", ENCODER, "a detector of VideoMAE", change=add_action_head),
}
