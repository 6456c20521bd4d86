"""MVD gives the numbers that its authors' code gave: every tensor, loss and gradient of every case that is found."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import reference_mae
import torch
from einops import rearrange
from reference_cases import Case, cases
from reference_models import (
    colours,
    encoder_config,
    hold_classifier,
    hold_encoder,
    hold_gradients,
    list_tokens,
    run_trunk,
    with_cls_token,
)
from torch import Tensor

from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.methods.common.losses import RegressionLoss
from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.common.teacher import extract_features
from vidstill.methods.mvd import MVD, MVDConfig, TeacherBranch
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference

LOSSES: dict[str, RegressionLoss] = {"L1": "l1", "L2": "l2", "SmoothL1": "smooth_l1"}
SHORT = {"image": "img", "video": "vid"}  # in the names of tensors
MASKS = {"tube": TubeMask, "random": partial(RandomMask, round_down="masked")}


def finetuned_encoder_config(args: dict[str, Any]) -> ViTConfig:
    encoder = replace(encoder_config(args, args["all_frames"]), class_token=args.get("use_cls_token", False))
    return encoder if encoder.learned_grid else replace(encoder, positions="sincos3d")


def mvd_config(config: dict[str, Any]) -> MVDConfig:
    student, frames = config["student"]["args"], config["num_frames"]
    encoder = replace(
        encoder_config(student, frames, "encoder_"),
        positions="sincos3d",
        class_token=student.get("use_cls_token", False),
    )
    models = {
        "image": lambda args: reference_mae.encoder_config(args),
        "video": lambda args: encoder_config(args, frames, "encoder_"),
    }
    branches = {
        name: TeacherBranch(
            model=build(config[f"teacher_{name}"]["args"]),
            loss=LOSSES[config[f"{name}_loss"]],
            weight=config[f"{name}_loss_weight"],
        )
        if config.get(f"teacher_{name}")
        else None
        for name, build in models.items()
    }
    return MVDConfig(
        encoder=encoder,
        decoder=DecoderConfig(
            dim=student["feat_decoder_embed_dim"] or encoder.dim,
            depth=student["decoder_depth"],
            heads=student["feat_decoder_num_heads"] or encoder.heads,
            mlp_ratio=student["mlp_ratio"],
            positions="sincos3d",
            class_token="encoder" if encoder.class_token else "none",
            embed_bias=True,
            layer_scale=student["init_values"],
            attention_bias=encoder.attention_bias,
        ),
        **branches,
        mask=MASKS[config["mask_type"]](ratio=config["mask_ratio"]),
        image_frames="all" if config.get("image_teacher_frames", "").startswith("every frame") else "first",
        normalize_targets=config.get("normalize_teacher_features", False),
    )


def mvd(case: Case) -> MVD:
    method = mvd_config(case.json["config"]).build()
    case.load(method, build_mvd_rules(method.config.encoder), "student")
    for name, teacher in method.teachers.items():
        rules = build_vit_rules(teacher.model.config, {"image": "", "video": "encoder."}[name], "")
        case.load(teacher.model, rules, f"teacher_{name}")
    return method


def hold_tables(case: Case, method: MVD, grid: Grid) -> None:
    """The codes that the authors store, and the one of their video teacher, are ours."""
    config, device = method.config, torch.device("cpu")
    decoder = build_position_table("sincos3d", grid, config.decoder.dim, device)[None]
    case.hold_table(build_position_table("sincos3d", grid, config.encoder.dim, device)[None], "student/pos_embed")
    if config.video:
        case.hold_table(decoder, "student/pos_embed_vid")
        video = build_position_table("sinusoid", grid, config.video.model.dim, device)[None]
        case.hold_table(video, "const/video_teacher_pos_embed")
    if config.image:
        case.hold_table(decoder, "student/pos_embed_img")
        image = reference_mae.table(Grid(1, grid.h, grid.w), config.image.model.dim)
        case.hold_table(image, "teacher_image/pos_embed")


def hold_student(case: Case, method: MVD, clip: Tensor, mask: Mask) -> None:
    """What goes through the student, as far as its decoders' first blocks; the class token first."""
    encoded = method.encoder(clip, mask.visible)
    hold_encoder(case, method.encoder, clip, encoded, "block")
    case.hold(with_cls_token(encoded.tokens, encoded.cls_token), "out/encoder")
    for name, decoder in method.decoders.items():
        tokens, cls_token = decoder.embed(encoded.tokens), decoder.embed(encoded.cls_token)
        case.hold(with_cls_token(tokens, cls_token), f"out/down_{SHORT[name]}")
        joined, _ = run_trunk(decoder.trunk, tokens, mask.visible, mask.masked, method.encoder.grid(clip), cls_token)
        case.hold(joined, f"out/decoder_{SHORT[name]}_input")


@pytest.mark.parametrize("case", cases(method="mvd", kind="distill"))
def test_a_distillation_agrees_with_mvds_authors(case: Case) -> None:
    method = mvd(case)
    config = method.config
    clip, hidden = colours(case.tensors["input/video"]), case.tensors["input/mask"]
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))
    grid = method.encoder.grid(clip)
    assert config.mask.draw(torch.arange(len(clip)), grid).masked.shape == mask.masked.shape
    hold_tables(case, method, grid)
    hold_student(case, method, clip, mask)

    features = method.forward_teachers(clip, grid)
    named = {"image": "input/video_for_teacher", "video": case.json["config"].get("video_teacher_input", "input/video")}
    own = {name: video for name, video in named.items() if video in case.tensors and video != "input/video"}
    for name, video in own.items():  # a second crop of the source, which is not ours resized
        frames = config.image_frames if name == "image" else "first"
        features[name] = extract_features(method.teachers[name], colours(case.tensors[video]), grid, frames)
    for name, feature in features.items():
        num_frames = config.encoder.tubelet[0] if config.image_frames == "all" else 1
        by_frame = rearrange(feature, "b (t s) (r d) -> (b t r) s d", t=grid.t, r=num_frames if name == "image" else 1)
        case.hold(by_frame if name == "image" else feature, f"out/teacher_{name}_features")

    predictions, targets = method.forward_student(clip, mask), method.select_targets(features, mask)
    output = method.forward_loss(predictions, targets)
    output.loss.backward()
    for name in features:
        case.hold(predictions[name], f"out/prediction_{name}")
        case.hold(targets[name], f"target/{name}")
        case.hold_loss(output.parts[name], name)
    case.hold_loss(output.loss, "total")
    hold_gradients(case, method, build_mvd_rules(config.encoder))
    norm = torch.stack([parameter.grad.norm() for parameter in method.parameters()]).norm()
    case.hold_number(norm, "grad_norm_all_parameters", kind="gradients")
    if not own:
        assert torch.equal(method(clip, mask=mask).loss, output.loss)


@pytest.mark.parametrize("case", cases(method="mvd", kind="finetune"))
def test_the_classifier_agrees_with_mvds_authors(case: Case) -> None:
    args = case.json["config"]["args"]
    encoder = finetuned_encoder_config(args)
    config = ClassifierConfig(
        encoder=encoder,
        num_classes=args["num_classes"],
        pooling="mean" if args.get("use_mean_pooling", True) else "first",
        head_init_scale=args.get("init_scale", 1.0),
    )
    model, names = config.build(), build_classifier_rules(encoder)
    case.load(model, names, "weights")
    clip, label = colours(case.tensors["input/video"]), case.tensors["input/label"]
    hold_encoder(case, model.encoder, clip, model.encoder(clip, layers=range(1, encoder.depth + 1)), "block")
    table = model.encoder.positions(model.encoder.grid(clip), clip.device).detach()
    if "const/pos_embed" in case.tensors and case.tensors["const/pos_embed"].shape[1] > len(table):
        table = torch.cat([torch.zeros_like(table[:1]), table])  # the class token's
    case.hold_table(table[None], "const/pos_embed")
    hold_classifier(case, model, clip, label, names)
