"""RoIAlign and the detection head against the reference cases, and full-size numbers made with the authors' code."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from full_size import count_parameters, fill, hold, hold_numbers
from reference_cases import cases
from torch import Tensor
from torchvision.ops import roi_align

from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.models.vit import SMALL, ViTConfig
from vidstill.tasks.detection import DetectionTask, Detector, DetectorConfig, pool_box_features
from vidstill.utils.types import Grid


def by_clip(rows: Tensor, clips: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Rows (clip's number, box) as padded boxes of every clip, which of them are some, and where each row went."""
    numbers = [int(number) for number in rows[:, 0].tolist()]
    most = max(numbers.count(number) for number in range(clips))
    boxes, present, seats = torch.zeros(clips, most, 4), torch.zeros(clips, most, dtype=torch.bool), []
    for number, row in zip(numbers, rows, strict=True):
        seat = number, int(present[number].sum())
        boxes[seat], present[seat] = row[1:], True
        seats.append(seat)
    return boxes, present, seats


def in_rows(output: Tensor, seats: list[tuple[int, int]]) -> Tensor:
    return torch.stack([output[seat] for seat in seats])


@pytest.mark.parametrize("case", cases(kind="roi_align", method="ava"))
def test_torchvision_s_roi_align_is_the_definition_s(case) -> None:
    for entry in case.json["entries"]:
        k = entry["index"]
        features = case.tensors[f"input/features_{k}"].clone().requires_grad_()
        pooled = roi_align(
            features,
            case.tensors[f"input/rois_{k}"],
            entry["output_size"],
            spatial_scale=entry["spatial_scale"],
            sampling_ratio=entry["sampling_ratio"] or -1,
            aligned=entry["aligned"],
        )
        case.hold(pooled, f"out/pooled_{k}", "out")
        (pooled * case.tensors[f"input/weight_{k}"]).sum().backward()
        case.hold(features.grad, f"grad/features_{k}", "grad")


@pytest.mark.parametrize("case", cases(kind="roi_align", method="ava"))
def test_features_of_boxes_are_the_definition_s(case) -> None:
    """Of those entries that are of squares of bins, sampled as densely as the map is."""
    case.leave_to_others()
    result = [e for e in case.json["entries"] if len(set(e["output_size"])) == 1 and not e["sampling_ratio"]]
    if not result:
        pytest.skip("no entry is of what a detector asks")
    for entry in result:
        k = entry["index"]
        features = case.tensors[f"input/features_{k}"].clone().requires_grad_()
        boxes, _, seats = by_clip(case.tensors[f"input/rois_{k}"], len(features))
        output = pool_box_features(
            features, boxes, scale=entry["spatial_scale"], roi_size=entry["output_size"][0], aligned=entry["aligned"]
        )
        pooled = in_rows(output, seats)
        case.hold(pooled, f"out/pooled_{k}", "out")
        (pooled * case.tensors[f"input/weight_{k}"]).sum().backward()
        case.hold(features.grad, f"grad/features_{k}", "grad")


def head_of(config: dict) -> Detector:
    """The model whose head a case is of; its encoder is not asked."""
    encoder = ViTConfig(dim=config["channels"], depth=1, heads=1, tubelet=(2, config["stride"], config["stride"]))
    assert config["activation"] == "sigmoid"
    assert not config["sampling_ratio"]
    return DetectorConfig(
        encoder=encoder,
        num_actions=config["classes"],
        roi_size=config["resolution"],
        aligned=config["aligned"],
        dropout=0.5,
    ).build()


@pytest.mark.parametrize("case", cases(kind="detection_head", method="ava"))
def test_the_head_of_a_detector_is_the_reference_s(case) -> None:
    config = case.json["config"]
    model, grid = head_of(config).eval(), Grid(*config["grid_T_H_W"])
    weights = case.under("weights")
    model.head.load_state_dict({name: weights[f"projection.{name}"] for name in ("weight", "bias")})
    tokens, rows = case.tensors["input/tokens"].clone().requires_grad_(), case.tensors["input/boxes"]
    if "input/features" in case.tensors:  # the same, as a map
        maps = rearrange(tokens, "b (t h w) d -> b d t h w", t=grid.t, h=grid.h)
        assert torch.equal(maps, case.tensors["input/features"])
    boxes, present, seats = by_clip(rows, config["batch"])
    case.hold(in_rows(model.forward_box_features(tokens, grid, boxes), seats), "out/pooled", "out")
    logits = in_rows(model.forward_head(tokens, grid, boxes), seats)
    case.hold(logits, "out/logits", "out")
    case.hold(logits.sigmoid(), "out/scores", "out")

    model.forward = lambda clip, boxes: model.forward_head(tokens, grid, boxes)  # the encoder gave these tokens
    task = DetectionTask(model, jitter=None, loss_per="box", boxes_per_clip=len(rows) / config["batch"])
    labels = torch.zeros(*boxes.shape[:2], config["classes"])
    for seat, row in zip(seats, case.tensors["input/labels"], strict=True):
        labels[seat] = row
    clip, seed = torch.zeros(config["batch"], 3, 2, 1, 1), torch.zeros(config["batch"], dtype=torch.long)
    loss = task(clip, boxes, labels, present, seed).loss
    case.hold_loss(loss, "binary_cross_entropy")
    case.hold(loss[None], "loss", "loss")
    loss.backward()
    case.hold(tokens.grad, "grad/tokens", "grad")
    for name, parameter in model.head.named_parameters():
        case.hold(parameter.grad, f"grad/projection.{name}", "grad")


# ---- Full size: ViT-S of VideoMAE's detection code, eval mode, by the recipe of `full_size` --------------------------

ENCODER = replace(SMALL, learned_grid=(8, 14, 14), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # the clip is normal
EXTENDED = torch.tensor(
    [[[4.95, 15.475, 115.05, 204.525], [143.4375, 28.50625, 297.8125, 223.0], [3.2, 4.35, 41.8, 30.65]]]
)


def detector() -> Detector:
    model = DetectorConfig(encoder=ENCODER, num_actions=80).build().eval()
    fill(model, (*build_vit_rules(ENCODER, "", "encoder."), RenameRule("head.", "head.")))
    return model


def clip(columns: int) -> Tensor:
    numbers = np.random.RandomState(0).standard_normal((1, 3, 16, 224, columns))
    return torch.from_numpy(numbers.astype(np.float32))


@pytest.mark.slow
def test_a_small_detector_has_the_authors_numbers_at_another_shape() -> None:
    model = detector()
    with torch.no_grad():
        tokens = model.encoder(clip(304)).tokens
        features = model.forward_box_features(tokens, Grid(8, 14, 19), EXTENDED)
        logits = model(clip(304), EXTENDED)
    hold(features[0], (3, 384), ".3348955", ".405749", ".255695 -.076764 -.024639", "1.251023")
    hold(logits[0], (3, 80), "-1.226342e-2", ".211161", ".426718 .059813 -.016599", ".114614")
    hold_numbers(logits[0, :, 0], [".426718", ".378796", ".245404"], scale=0.2)


@pytest.mark.slow
def test_a_clip_s_loss_is_the_authors() -> None:
    """Theirs is the mean over boxes and actions, times the number of boxes."""
    task = DetectionTask(detector(), jitter=None, loss_per="clip", boxes_per_clip=3.0)
    labels = (torch.arange(240) % 7 == 0).float().view(1, 3, 80)
    with torch.no_grad():
        loss = task(clip(304), EXTENDED, labels, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1).long()).loss
    hold_numbers(loss[None], ["2.0922031"], scale=1.0)


@pytest.mark.slow
def test_a_small_detector_has_the_authors_numbers_at_its_training_s_shape() -> None:
    with torch.no_grad():
        logits = detector()(clip(224), EXTENDED[:, :1])
    hold(logits[0], (1, 80), "-1.435691e-2", ".227671", ".431513 .106871 -.073508", ".019675")


def test_a_small_detector_has_as_many_parameters_as_the_authors_count() -> None:
    assert count_parameters(DetectorConfig(encoder=ENCODER, num_actions=80)) == 21_910_736
