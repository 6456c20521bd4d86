"""The data rules hold every row of the tables made with the authors' code: frames, crops, mixing."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
import torch
from authors_draws import Mixing, build_mixup, build_weights, replay_mixing, shape_of
from reference_cases import Case, cases
from torch import Tensor

from vidstill.data.transforms import crop as augment
from vidstill.data.transforms.crop import MultiScaleCrop
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.data.transforms.mixup import mix_pairs, smooth_labels

pytestmark = pytest.mark.reference

FRAMES = cases(kind="table", name="frame_sampling")
DENSE = ("kinetics_finetune_train_and_validation", "pretrain_ssv2_raw_frames")
SPAN = ("pretrain", "pretrain_video_files")
KNOWN = {*DENSE, *SPAN, "kinetics_finetune_test", "pretrain_repeated_sampling"}
KNOWN |= {"ssv2_finetune_test", "ssv2_finetune_train_and_validation"}


def rows(case: Case, *tables: str) -> list[dict]:
    return [row for table in tables for row in case.json["tables"].get(table, [])]


def length(row: dict) -> dict[str, int]:
    return {"num_frames": row["num_frames"], "stride": row["stride"]}


def joined(clips: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(clips))


@pytest.mark.parametrize("case", FRAMES)
def test_no_table_of_frames_is_left_unread(case: Case) -> None:
    assert set(case.json["tables"]) <= KNOWN


@pytest.mark.parametrize("case", FRAMES)
def test_dense_test_views_are_the_authors(case: Case) -> None:
    for row in rows(case, "kinetics_finetune_test"):
        views = DenseSampling(**length(row)).list_view_indices(row["video_length"], row["temporal_views"])
        assert views == row["frames_per_temporal_view"]


@pytest.mark.parametrize("case", FRAMES)
def test_segment_test_views_are_the_authors(case: Case) -> None:
    for row in rows(case, "ssv2_finetune_test"):
        sampling = SegmentSampling(num_frames=row["num_frames"], rule=case.method)
        assert sampling.list_view_indices(row["video_length"], row["temporal_views"]) == row["frames_per_temporal_view"]


@pytest.mark.parametrize("case", FRAMES)
def test_test_crops_are_cut_where_the_authors_cut_them(case: Case) -> None:
    for row in rows(case, "kinetics_finetune_test", "ssv2_finetune_test"):
        boxes = augment.list_view_boxes(*row["resized_frame_hw"], (row["short_side"],) * 2, row["spatial_views"])
        assert [[box.top, box.left] for box in boxes] == row["crop_top_left_per_spatial_view"]
        assert {(box.height, box.width) for box in boxes} == {tuple(row["crop_hw"])}


@pytest.mark.parametrize("case", FRAMES)
def test_dense_clips_have_the_authors_draws_and_frames(case: Case) -> None:
    for row in rows(case, *DENSE):
        sampling, total = DenseSampling(**length(row)), row["video_length"]
        if not row["random_draws"]:
            assert sampling.draw_indices(total, np.random.default_rng(0)) == row["frames"]
            continue
        (draws,) = row["random_draws"]
        ends = sampling.get_end_range(total)
        assert (ends.start, ends.stop) == (draws["low"], draws["high_exclusive"])
        assert sampling.list_indices_until(ends[0]) == row["frames_if_lowest_draw"]
        assert sampling.list_indices_until(ends[-1]) == row["frames_if_highest_draw"]
        assert sampling.list_indices_until(row["middle_draw"]) == row["frames_if_middle_draw"]


@pytest.mark.parametrize("case", FRAMES)
def test_spans_have_the_authors_draws_and_frames(case: Case) -> None:
    for row in rows(case, *SPAN):
        sampling, total = SpanSampling(**length(row)), row["video_length"]
        if not row["random_draws"]:
            assert sampling.draw_indices(total, np.random.default_rng(0)) == row["frames"]
            continue
        (draws,) = row["random_draws"]
        assert sampling.list_start_ranges(total) == [range(draws["low"], draws["high_exclusive"])]
        assert sampling.list_indices_from(draws["low"], total) == row["frames_if_lowest_draw"]
        assert sampling.list_indices_from(draws["high_exclusive"] - 1, total) == row["frames_if_highest_draw"]
        assert sampling.list_indices_from(row["middle_draw"], total) == row["frames_if_middle_draw"]


@pytest.mark.parametrize("case", FRAMES)
def test_repeated_clips_come_from_the_authors_parts_of_the_video(case: Case) -> None:
    for row in rows(case, "pretrain_repeated_sampling"):
        sampling, total, clips = SpanSampling(**length(row)), row["video_length"], row["clips_per_video"]
        if not row["random_draws"]:
            assert joined(sampling.draw_repeat_indices(total, clips, np.random.default_rng(0))) == row["frames"]
            continue
        (draws,) = row["random_draws"]
        parts = sampling.list_start_ranges(total, clips)
        assert {len(part) for part in parts} == {draws["high_exclusive"] - draws["low"]}
        assert joined(sampling.list_indices_from(part[0], total) for part in parts) == row["frames_if_lowest_draw"]
        assert joined(sampling.list_indices_from(part[-1], total) for part in parts) == row["frames_if_highest_draw"]


@pytest.mark.parametrize("case", FRAMES)
def test_segments_have_the_authors_draws(case: Case) -> None:
    for row in rows(case, "ssv2_finetune_train_and_validation"):
        sampling, total = SegmentSampling(num_frames=row["num_frames"], rule=case.method), row["video_length"]
        segments = sampling.list_segments(total)
        if not row["random_draws"]:
            assert sampling.draw_indices(total, np.random.default_rng(0)) == row["frames"]
            continue
        sizes = [d["high_exclusive"] - d["low"] for d in row["random_draws"] for _ in range(d.get("count", 1))]
        assert [len(segment) for segment in segments] == sizes
        assert [segment[0] for segment in segments] == row["lowest_frame_per_segment"]
        assert [segment[-1] for segment in segments] == row["highest_frame_per_segment"]


@pytest.mark.parametrize("case", cases(kind="table", name="multi_scale_crop"))
def test_multi_scale_crops_have_the_authors_sizes_and_places(case: Case) -> None:
    for row in case.json["rows"]:
        width, height = row["image_wh"]
        boxes = MultiScaleCrop().list_boxes(height, width, (row["output"],) * 2)
        result = {(indices[0].width, indices[0].height): [[b.left, b.top] for b in indices] for indices in boxes}
        expected = row["top_left_xy_drawn_uniformly_from"]
        assert sorted(result) == sorted(tuple(wh) for wh in row["crop_sizes_wh_drawn_uniformly_from"])
        for (w, h), indices in result.items():
            assert sorted(indices) == sorted(expected[f"{w}x{h}"])


@pytest.mark.parametrize("case", cases(kind="mixup"))
def test_clips_and_labels_are_mixed_as_the_authors_mix_them(case: Case) -> None:
    for draw in mixes(case):
        target = smooth_labels(draw.label, draw.classes, draw.smoothing)
        for result, name in zip(
            mix_pairs(draw.clip, target, *build_draw_weights(draw)), (draw.mixed, draw.target), strict=True
        ):
            whole = "outputs" in case.json["tolerance"]
            shaped = result.reshape(case.tensors[name].shape) if name in case.tensors else result  # an image is a clip
            (case.hold if whole else case.hold_each)(shaped, name, "outputs" if whole else "out")
        if draw.loss is not None:
            soft = mix_pairs(draw.clip, target, *build_draw_weights(draw))[1]
            loss = torch.sum(-soft * case.tensors["input/logits"].log_softmax(dim=1), dim=1).mean()
            case.hold_number(loss, "config", "variants", draw.name, "soft_target_cross_entropy", kind="losses")


class Mix(NamedTuple):
    """One stored draw: what went in, the shares and the boxes, and the names of what came out."""

    name: str
    clip: Tensor
    label: Tensor
    classes: int
    smoothing: float
    mixing: Mixing
    mode: str
    mixed: str
    target: str
    loss: float | None = None


def mixes(case: Case) -> Iterator[Mix]:
    """The draws of a case in either of its two forms: variants of one batch, or runs with a batch each."""
    config, tensors = case.json["config"], case.tensors
    for name, variant in config.get("variants", {}).items():
        yield Mix(
            name,
            *(tensors["input/video"], tensors["input/label"], config["classes"]),
            variant["settings"]["label_smoothing"],
            *(to_mixing(variant["lambda"], variant["box_y0_y1_x0_x1"]), "batch"),
            *(f"out/{name}.video", f"out/{name}.target", variant.get("soft_target_cross_entropy")),
        )
    for run in case.json.get("runs", []):
        seed = run["numpy_seed"]
        clip = "video" if f"input/video_{seed}" in tensors else "image"
        box, mode = (run.get("boxes") or [run])[0], config.get("mode", "batch")
        if mode == "batch":
            mixing = to_mixing(box.get("lam_corrected", run["lam_drawn"]), box.get("bbox_yl_yh_xl_xh"))
        else:  # several shares and boxes, which the seed gives
            mixing = replay_mixing(build_mixup(config), np.random.RandomState(seed), *shape_of(config))
        yield Mix(
            f"seed {seed}",
            *(as_clip(tensors[f"input/{clip}_{seed}"]), tensors[f"input/labels_{seed}"], config["num_classes"]),
            *(config["label_smoothing"], mixing, mode),
            *(f"out/{clip}_{seed}", f"out/targets_{seed}"),
        )


def as_clip(images: Tensor) -> Tensor:
    return images if images.ndim == 5 else images[:, :, None]


def to_mixing(lam: float, box: list[int] | None) -> Mixing:
    return Mixing([lam], [None if box is None else torch.tensor(box)])


def build_draw_weights(draw: Mix) -> tuple[Tensor, Tensor]:
    weights, share = build_weights(draw.mixing, draw.mode, *draw.clip.shape[-2:])
    assert draw.mode != "batch" or share.tolist() == pytest.approx(draw.mixing.lam)
    return weights, share
