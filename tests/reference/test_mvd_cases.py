"""MVD gives the numbers that its authors' code gave: every tensor, loss and gradient of every case that is found."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import reference_mae
import torch
import torch.nn.functional as F
from einops import rearrange
from reference_cases import Case, cases
from reference_models import colours, encoder_config, hold_gradients, hold_table, list_tokens, run_trunk
from torch import Tensor

from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.methods.common.losses import RegressionLoss
from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.common.teacher import extract_features
from vidstill.methods.mvd import MVD, MVDConfig, TeacherBranch
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference

LOSSES: dict[str, RegressionLoss] = {"L1": "l1", "L2": "l2", "SmoothL1": "smooth_l1"}
MASKS = {"tube": TubeMask, "random": partial(RandomMask, round_down="masked")}


def mvd_config(config: dict[str, Any]) -> MVDConfig:
    student, frames = config["student"]["args"], config["num_frames"]
    encoder = replace(
        encoder_config(student, frames, "encoder_"), positions="sincos3d", class_token=student["use_cls_token"]
    )
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
        image=TeacherBranch(
            model=reference_mae.encoder_config(config["teacher_image"]["args"]),
            loss=LOSSES[config["image_loss"]],
            weight=config["image_loss_weight"],
        ),
        video=TeacherBranch(
            model=encoder_config(config["teacher_video"]["args"], frames, "encoder_"),
            loss=LOSSES[config["video_loss"]],
            weight=config["video_loss_weight"],
        ),
        mask=MASKS[config["mask_type"]](ratio=config["mask_ratio"]),
        image_frames="all" if config["image_teacher_frames"].startswith("every frame") else "first",
        normalize_targets=config["normalize_teacher_features"],
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
    student = build_position_table("sincos3d", grid, config.encoder.dim, device)[None]
    decoder = build_position_table("sincos3d", grid, config.decoder.dim, device)[None]
    video = build_position_table("sinusoid", grid, method.teachers["video"].model.config.dim, device)[None]
    image = reference_mae.table(Grid(1, grid.h, grid.w), method.teachers["image"].model.config.dim)
    for name, result in {
        "student/pos_embed": student,
        "student/pos_embed_img": decoder,
        "student/pos_embed_vid": decoder,
        "const/video_teacher_pos_embed": video,
        "teacher_image/pos_embed": image,
    }.items():
        hold_table(case, result, name)


def hold_student(case: Case, method: MVD, clip: Tensor, mask: Mask) -> None:
    """What goes through the student, as far as its decoders' first blocks; the class token first."""
    grid = method.encoder.grid(clip)
    encoded = method.encoder(clip, mask.visible)
    case.hold(method.encoder.embed_tokens(clip) - method.encoder.positions(grid, clip.device), "out/patch_embed")
    case.hold(torch.cat([encoded.cls_token, encoded.tokens], dim=1), "out/encoder")
    for name, decoder in (("img", method.decoders["image"]), ("vid", method.decoders["video"])):
        tokens, classes = decoder.embed(encoded.tokens), decoder.embed(encoded.cls_token)
        case.hold(torch.cat([classes, tokens], dim=1), f"out/down_{name}")
        joined, _ = run_trunk(decoder.trunk, tokens, mask.visible, mask.masked, grid, classes)
        case.hold(joined, f"out/decoder_{name}_input")


@pytest.mark.parametrize("case", cases(method="mvd", kind="distill"))
def test_a_distillation_agrees_with_mvds_authors(case: Case) -> None:
    method = mvd(case)
    config = method.config
    clip, hidden = colours(case.tensors["input/video"]), case.tensors["input/mask"]
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))
    grid = method.encoder.grid(clip)
    assert mask.masked.shape[1] == case.json["config"]["masked_tokens"]
    assert config.mask.draw(torch.arange(len(clip)), grid).masked.shape == mask.masked.shape
    hold_tables(case, method, grid)
    hold_student(case, method, clip, mask)

    features = method.forward_teachers(clip, grid)
    own = case.tensors.get("input/video_for_teacher")  # a second crop of the source, which is not ours resized
    if own is not None:
        features["image"] = extract_features(method.teachers["image"], colours(own), grid, config.image_frames)
    if case.json["config"]["video_teacher_input"] != "input/video":
        own = case.tensors[case.json["config"]["video_teacher_input"]]
        features["video"] = extract_features(method.teachers["video"], colours(own), grid)
    num_frames = config.encoder.tubelet[0] if config.image_frames == "all" else 1
    by_frame = rearrange(features["image"], "b (t s) (r d) -> (b t r) s d", t=grid.t, r=num_frames)
    case.hold(by_frame, "out/teacher_image_features")
    case.hold(features["video"], "out/teacher_video_features")

    predictions, targets = method.forward_student(clip, mask), method.select_targets(features, mask)
    output = method.forward_loss(predictions, targets)
    output.loss.backward()
    for name in ("image", "video"):
        case.hold(predictions[name], f"out/prediction_{name}")
        case.hold(targets[name], f"target/{name}")
        case.hold(output.parts[name].detach(), f"loss/{name}", "losses")
    case.hold(output.loss.detach(), "loss/total", "losses")
    hold_gradients(case, method, build_mvd_rules(config.encoder))
    norms = [parameter.grad.norm() for parameter in method.parameters()]
    case.hold_number(torch.stack(norms).norm().item(), case.json["grad_norm_all_parameters"], "norm", "gradients")
    if own is None:
        assert torch.equal(method(clip, mask=mask).loss, output.loss)
    assert set(case.tensors) == set(held(case))


def held(case: Case) -> list[str]:
    """The tensors that the test above looks at; whatever stands beside them would have been left out."""
    kinds = ("student/", "teacher_image/", "teacher_video/", "grad/", "input/", "loss/", "target/")
    outputs = {
        "const/video_teacher_pos_embed", "out/patch_embed", "out/encoder",
        "out/teacher_image_features", "out/teacher_video_features", "out/prediction_image", "out/prediction_video",
        "out/down_img", "out/down_vid", "out/decoder_img_input", "out/decoder_vid_input",
    }  # fmt: skip
    return [name for name in case.tensors if name.startswith(kinds) or name in outputs]


@pytest.mark.parametrize("case", cases(method="mvd", kind="finetune"))
def test_the_classifier_agrees_with_mvds_authors(case: Case) -> None:
    args = case.json["config"]["args"]
    encoder = replace(encoder_config(args, args["all_frames"]), positions="sincos3d", class_token=args["use_cls_token"])
    config = ClassifierConfig(
        encoder=encoder,
        num_classes=args["num_classes"],
        pooling="mean" if args["use_mean_pooling"] else "first",
        head_init_scale=args["init_scale"],
    )
    model, names = config.build(), build_classifier_rules(encoder)
    case.load(model, names, "weights")
    clip, label = colours(case.tensors["input/video"]), case.tensors["input/label"]
    table = build_position_table("sincos3d", model.encoder.grid(clip), encoder.dim, clip.device)
    hold_table(case, table[None], "const/pos_embed")
    encoded = model.encoder(clip, layers=range(1, encoder.depth + 1))
    case.hold(model.encoder.embed_tokens(clip), "out/tokens_with_position")
    for block, tokens in encoded.layers.items():
        case.hold(torch.cat([encoded.cls_layers[block], tokens], dim=1), f"out/block.{block - 1}")
    case.hold(model.forward_features(clip), "out/features")
    logits = model(clip)
    case.hold(logits, "out/logits")
    loss = F.cross_entropy(logits, label)
    case.hold(loss.detach(), "loss/cross_entropy", "losses")
    loss.backward()
    hold_gradients(case, model, names)
