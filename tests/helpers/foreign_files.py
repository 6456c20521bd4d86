"""A foreign file of every layout, tiny and with random weights, and the encoder that it was made with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from foreign_layout import to_foreign
from tiny_models import AMD, CLASSES, ENCODER, MASKAGAIN, METHODS, STMAE, VIDEOMAE, as_images, built
from torch import Tensor, nn

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.mmaction import build_mmaction_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules, build_vit_rules
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.models.position_embeddings import FixedPositionKind, build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

LEARNED = replace(ENCODER, positions="learned", learned_grid=(2, 4, 3), layer_scale=0.1)
MAE, DMAE, MVD = as_images(METHODS["imagemae"]), as_images(METHODS["dmae"]), METHODS["mvd"]
IMAGE = replace(MAE.encoder, positions="learned", learned_grid=(1, 4, 3))
MAE_ST = METHODS["stmae-mae_st"]
GIANT = replace(ENCODER, tubelet=(2, 14, 14), mlp_ratio=48 / 11)
ALIGNED = METHODS["maskagain-projected"]


@dataclass(frozen=True)
class Foreign:
    """
    Args:
        config: what is built of ours.
        names: of its tensors.
        said: what the layout's sentence has to say.
        tables: computed ones that the authors store: their names, kinds and widths.
        beside: what else is in the authors' file, to be left out.
    """

    config: Any
    names: tuple[RenameRule, ...]
    description: str
    kind: str = "pretraining"
    tables: tuple[tuple[str, FixedPositionKind, int], ...] = ()
    beside: Callable[[], dict[str, Tensor]] = dict

    @property
    def encoder(self) -> ViTConfig:
        return self.config if isinstance(self.config, ViTConfig) else self.config.encoder

    @property
    def module(self) -> nn.Module:
        """Ours; of an encoder alone, it stands under `encoder`, as in every file."""
        module = built(self.config)
        return nn.ModuleDict({"encoder": module}) if isinstance(self.config, ViTConfig) else module

    def tensors(self) -> dict[str, Tensor]:
        tensors = to_foreign(self.module.state_dict(), self.names)
        frames = self.encoder.tubelet[0]
        for name, kind, dim in self.tables:
            table = build_position_table(kind, Grid(4 // frames if frames > 1 else 1, 4, 3), dim, torch.device("cpu"))
            row = torch.zeros(1 if kind == "sincos2d" else 0, dim)
            tensors[name] = torch.cat([row, table])[None]
        return tensors | self.beside()


def _classifier(encoder: ViTConfig, **options: Any) -> ClassifierConfig:
    return ClassifierConfig(encoder=encoder, num_classes=options.pop("classes", CLASSES), **options)


def _mae_tables(config: Any) -> tuple[tuple[str, FixedPositionKind, int], ...]:
    return (("pos_embed", "sincos2d", config.encoder.dim), ("decoder_pos_embed", "sincos2d", config.decoder.dim))


_TUNED = _classifier(STMAE.encoder, norm="pretrained")
_NORMLESS = {f"generators.{n}.norm.{kind}": torch.ones(32) for n in (0, 1) for kind in ("weight", "bias")}
_DETECTOR = (*build_vit_rules(ENCODER, "", "encoder."), RenameRule("head.", None))

FILES = {
    "videomae": Foreign(VIDEOMAE, build_videomae_rules(ENCODER), "a pre-training of VideoMAE"),
    "videomae, encoder": Foreign(
        ENCODER, build_vit_rules(ENCODER, "encoder.", "encoder."), "an encoder of VideoMAE", "encoder"
    ),
    "videomae, bare": Foreign(
        ENCODER, build_vit_rules(ENCODER, "", "encoder."), "an encoder of VideoMAE alone", "encoder"
    ),
    "videomae v2": Foreign(replace(VIDEOMAE, encoder=GIANT), build_videomae_rules(GIANT), "a pre-training of VideoMAE"),
    "videomae v2, distilled": Foreign(
        _classifier(ENCODER, classes=710), build_classifier_rules(ENCODER), "a classifier of VideoMAE V2", "classifier"
    ),
    "classifier": Foreign(
        _classifier(ENCODER), build_classifier_rules(ENCODER), "a classifier of VideoMAE", "classifier"
    ),
    "classifier, first token": Foreign(
        _classifier(ENCODER, pooling="first"),
        build_classifier_rules(ENCODER),
        "the first token is classified",
        "classifier",
    ),
    "classifier, learned": Foreign(
        _classifier(LEARNED), build_classifier_rules(LEARNED), "a classifier of VideoMAE", "classifier"
    ),
    "mvd": Foreign(
        MVD,
        build_mvd_rules(MVD.encoder),
        "a pre-training of MVD",
        tables=(
            ("pos_embed", "sincos3d", MVD.encoder.dim),
            ("pos_embed_img", "sincos3d", MVD.decoder.dim),
            ("pos_embed_vid", "sincos3d", MVD.decoder.dim),
        ),
    ),
    "amd": Foreign(AMD, build_amd_rules(ENCODER, [1, 2]), "a pre-training of AMD", beside=lambda: dict(_NORMLESS)),
    "maskagain": Foreign(MASKAGAIN, build_maskagain_rules(ENCODER), "a pre-training of MaskAgain"),
    "maskagain, aligned": Foreign(ALIGNED, build_maskagain_rules(ENCODER), "a pre-training of MaskAgain (with Align_"),
    "mae": Foreign(MAE, build_mae_rules(MAE.encoder), "a pre-training of image MAE", tables=_mae_tables(MAE)),
    "mae, encoder": Foreign(
        MAE.encoder,
        build_vit_rules(MAE.encoder, "", "encoder."),
        "an encoder of image MAE alone",
        "encoder",
        tables=_mae_tables(MAE)[:1],
    ),
    "mae, classifier": Foreign(
        _classifier(IMAGE), build_classifier_rules(IMAGE), "a classifier of image MAE", "classifier"
    ),
    "mae, class token": Foreign(
        _classifier(IMAGE, pooling="first"),
        build_classifier_rules(IMAGE),
        "the class token",
        "classifier",
    ),
    "dmae": Foreign(DMAE, build_mae_rules(DMAE.encoder), "a pre-training of DMAE", tables=_mae_tables(DMAE)),
    "mae_st": Foreign(MAE_ST, build_stmae_rules(MAE_ST.encoder, MAE_ST.decoder), "with the names of mae_st"),
    "mae_st, fused": Foreign(
        MAE_ST, build_stmae_rules(MAE_ST.encoder, MAE_ST.decoder, separate_qkv=False), "fused queries, keys and values"
    ),
    "mae_st, classifier": Foreign(
        _TUNED,
        build_stmae_classifier_rules(STMAE.encoder),
        "a classifier of ST-MAE with the names of mae_st",
        "classifier",
    ),
    "slowfast": Foreign(
        STMAE, build_slowfast_rules(STMAE.encoder, STMAE.decoder), "with the names of PySlowFast (pred_head"
    ),
    "slowfast, fused": Foreign(
        STMAE, build_slowfast_rules(STMAE.encoder, STMAE.decoder, separate_qkv=False), "fused queries, keys and values"
    ),
    "slowfast, classifier": Foreign(
        _TUNED,
        build_stmae_classifier_rules(STMAE.encoder, separate_qkv=False, slowfast=True),
        "with the names of PySlowFast (norm and head.projection",
        "classifier",
    ),
    "mmaction": Foreign(
        _classifier(ENCODER),
        build_mmaction_rules(ENCODER),
        "with the names of mmaction2",
        "classifier",
        tables=(("backbone.pos_embed", "sinusoid", ENCODER.dim),),
        beside=lambda: {"data_preprocessor.mean": torch.ones(3, 1, 1, 1)},
    ),
    "detector": Foreign(
        ENCODER,
        _DETECTOR,
        "a detector of VideoMAE",
        "encoder",
        beside=lambda: {"head.weight": torch.ones(80, 24), "head.bias": torch.ones(80)},
    ),
}
