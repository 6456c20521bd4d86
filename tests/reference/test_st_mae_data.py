"""The data rules hold ST-MAE's frames, crops, erasing, mixing and merging, with the authors' draws fed in."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from authors_draws import Mixing, build_mixup, build_weights, replay_erasing, replay_mixing, shape_of
from einops import rearrange
from reference_cases import Case, cases
from torch import Tensor

from vidstill.data.transforms.crop import (
    CropBox,
    RandomResizedCrop,
    crop_views,
    flip_horizontal,
    list_view_boxes,
    resize_frames,
)
from vidstill.data.transforms.frame_sampling import TimedSampling
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.tasks.metrics.accuracy import compute_accuracy, merge_views

pytestmark = pytest.mark.reference

MEAN, STD = 0.45, 0.225
BOX = "crop_top_left_height_width"
KNOWN_DRAWS = {"start", "end", BOX, "flipped"}
ROUNDED = 0.5 / 255 / STD  # a byte is at most half a level from the real number that it stands for
PIPELINES = cases(kind="clip_pipeline")
SAMPLING = cases(kind="temporal_sampling")


def pipelines(mode: str) -> list:
    """The cases of one mode, or the one that says that there are none."""
    selected = [each for each in PIPELINES if (case := each.values[0]) is None or case.json["config"]["mode"] == mode]
    skipped = pytest.mark.skip(reason=f"no case of the reference folder is a pipeline of the mode {mode!r}")
    return selected or [pytest.param(None, id=f"{mode} is not here", marks=skipped)]


class Replayed(np.random.Generator):
    """Python's generator, from which the authors draw, in the place of NumPy's."""

    def __init__(self, seed: int):
        super().__init__(np.random.PCG64())
        self.python_rng = random.Random(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:  # type: ignore[override]
        return self.python_rng.uniform(low, high)

    def integers(self, stop: int) -> int:  # type: ignore[override]
        return self.python_rng.randint(0, stop - 1)


def of_mode(case: Case, mode: str) -> list[dict]:
    return [entry for entry in case.json["entries"] if entry["mode"] == mode]


def sampling_of(row: dict, **options) -> TimedSampling:
    stride, rate = float(row["sampling_rate"]), float(row.get("target_fps", 30))
    return TimedSampling(num_frames=row["num_frames"], stride=stride, frame_rate=rate, **options).adapt_to_frame_rate(
        row["fps"]
    )


@pytest.mark.parametrize("case", SAMPLING)
def test_no_mode_of_sampling_is_left_unread(case: Case) -> None:
    assert {entry["mode"] for entry in case.json["entries"]} <= {"pretrain", "finetune", "test"}


@pytest.mark.parametrize("case", SAMPLING)
def test_spans_have_the_authors_length_and_room(case: Case) -> None:
    limits = case.json["tolerance"]["start_end"]
    for row in case.json["entries"]:
        sampling = sampling_of(row)
        assert sampling.span_frames == pytest.approx(row["clip_span_in_frames"], rel=limits["rtol"], abs=limits["atol"])
        room = sampling.get_last_start(row["video_frames"])
        for sampled in row["uniform_draws"]:
            assert (0, room) == pytest.approx((sampled["low"], sampled["high"]), rel=limits["rtol"], abs=limits["atol"])


@pytest.mark.parametrize("case", SAMPLING)
def test_every_repeated_clip_of_pre_training_has_the_authors_frames(case: Case) -> None:
    for row in of_mode(case, "pretrain"):
        sampling, total = sampling_of(row), row["video_frames"]
        clips = [clip["source_frames"] for clip in row["clips"]]
        assert sampling.draw_repeat_indices(total, row["repeat_aug"], Replayed(row["seed"])) == clips
        assert [sampling.list_indices_from(sampled["value"], total) for sampled in row["uniform_draws"]] == clips


@pytest.mark.parametrize("case", SAMPLING)
def test_a_clip_of_fine_tuning_has_the_authors_frames(case: Case) -> None:
    for row in of_mode(case, "finetune"):
        sampling, total = sampling_of(row, start_mode="frame"), row["video_frames"]
        (clip,) = row["clips"]
        assert sampling.draw_indices(total, Replayed(row["seed"])) == clip["source_frames"]
        assert sampling.list_indices_from(row["uniform_draws"][0]["value"], total) == clip["source_frames"]


@pytest.mark.parametrize("case", SAMPLING)
def test_test_views_have_the_authors_frames(case: Case) -> None:
    for row in of_mode(case, "test"):
        sampling, total = sampling_of(row, start_mode="frame"), row["video_frames"]
        count = row.get("num_views", 10)  # ten where a row does not say
        (clip,) = row["clips"]
        if row["use_offset"]:
            assert sampling.list_view_indices(total, count)[row["view"]] == clip["source_frames"]
        else:  # the code's other setting, which starts at fractions and never reaches the video's end
            start = sampling.get_last_start(total) * row["view"] / count
            assert sampling.list_indices_from(start, total) == clip["source_frames"]


@pytest.mark.parametrize("case", cases(kind="spatial_crops"))
def test_test_crops_are_the_authors(case: Case) -> None:
    for row in case.json["entries"]:
        frames = rearrange(case.tensors[f"input/video_{row['index']}"], "c t h w -> t h w c").numpy()
        size, scaled = (row["crop"],) * 2, tuple(row["scaled_H_W"])
        boxes = list_view_boxes(*scaled, size, 3, "stmae")
        crops = crop_views(frames, row["short_side"], size, 3, crop_rule="stmae")
        assert list_view_boxes(*scaled, size, 1, "stmae") == [boxes[1]]
        for index, (box, crop) in enumerate(zip(boxes, crops, strict=True)):
            assert [box.top, box.left] == row[f"offset_y_x_{index}"]
            case.hold_each(as_clip(crop), f"out/crop_{row['index']}_{index}", "out")


@pytest.mark.parametrize("case", PIPELINES)
def test_no_kind_of_pipeline_is_left_unread(case: Case) -> None:
    case.leave_to_others()
    assert case.json["config"]["mode"] in ("pretrain", "finetune", "val", "test")


@pytest.mark.parametrize("case", [*pipelines("pretrain"), *pipelines("finetune")])
def test_from_frames_to_training_clips_every_step_is_the_authors(case: Case) -> None:
    config = case.json["config"]
    start_mode = "between" if config["mode"] == "pretrain" else "frame"
    for run in case.json["runs"]:
        sampling, frames = sampling_of(config, start_mode=start_mode), case.tensors["input/frames_uint8"].numpy()
        crop = RandomResizedCrop(
            scale=tuple(config["jitter_scales_relative"]), ratio=tuple(config["jitter_aspect_relative"])
        )
        size, draws, rng = (config["crop"],) * 2, run["draws"], Replayed(run["seed"])
        name, clips = f"out/clips_{run['index']}", []
        assert all(draw.keys() < KNOWN_DRAWS for draw in draws), (
            "such as RandAugment: of this pipeline nothing is built"
        )
        spans, boxes, mirrors = ([draw for draw in draws if key in draw] for key in ("start", BOX, "flipped"))
        for span, box, mirror in zip(spans, boxes, mirrors, strict=True):
            indices = sampling.draw_indices(len(frames), rng)
            first, last = run["reader_frames"]  # which were decoded; the span starts within
            read = replace(sampling, start_mode="between").list_indices_from(span["start"], last - first + 1)
            assert indices == [first + index for index in read]
            clip_frames = frames[indices]
            sampled = crop.draw_box(*clip_frames.shape[1:3], size, rng)
            assert list(sampled) == box[BOX]
            turned = flip_horizontal if mirror["flipped"] else np.array
            cut = [sampled.crop_frames(each) for each in (normalize(clip_frames), clip_frames)]
            real, rounded = (turned(resize_frames(each, size, crop.interpolation)) for each in cut)
            hold_bytes(case, rounded, as_clip(real))
            clips.append(as_clip(real))
        case.hold_each(torch.stack(clips), name, "out")


@pytest.mark.parametrize("case", pipelines("val"))
def test_from_frames_to_validation_clips_every_step_is_the_authors(case: Case) -> None:
    """Theirs are drawn at random, ours are not: what both are made of is the same."""
    config = case.json["config"]
    sampling, frames = sampling_of(config, start_mode="frame"), case.tensors["input/frames_uint8"].numpy()
    for run in case.json["runs"]:
        rng, sampled = Replayed(run["seed"]), (draw["value"] for draw in run["numpy_draws"])
        clips: list[Tensor] = []
        for _ in run["labels"]:
            clip_frames = normalize(frames[sampling.draw_indices(len(frames), rng)])
            sides, short = clip_frames.shape[1:3], round(next(sampled))
            scaled = tuple(int(short * side / min(sides)) for side in sides)
            offsets = [int(next(sampled)) if side > config["crop"] else 0 for side in scaled]
            cut = CropBox(*offsets, config["crop"], config["crop"]).crop_frames(
                resize_frames(clip_frames, scaled, "bilinear")
            )
            clips.append(as_clip(flip_horizontal(cut) if next(sampled) < 0.5 else np.array(cut)))
        case.hold_each(torch.stack(clips), f"out/clips_{run['index']}", "out")


@pytest.mark.parametrize("case", pipelines("test"))
def test_from_frames_to_test_views_every_step_is_the_authors(case: Case) -> None:
    config = case.json["config"]
    sampling, frames = sampling_of(config), case.tensors["input/frames_uint8"].numpy()
    views, crops = config["test_num_ensemble_views"], config["test_num_spatial_crops"]
    size = (config["crop"],) * 2
    short = config["crop"] if crops > 1 else config["train_jitter_scales"][0]
    result = [
        as_clip(crop)
        for indices in sampling.list_view_indices(len(frames), views)
        for crop in crop_views(normalize(frames[indices]), short, size, crops, crop_rule="stmae")
    ]
    assert len(result) == len(case.json["runs"])
    for run, clip in zip(case.json["runs"], result, strict=True):
        case.hold_each(clip[None], f"out/clips_{run['index']}", "out")


@pytest.mark.parametrize("case", cases(kind="random_erasing"))
def test_rectangles_are_erased_as_the_authors_erase_them(case: Case) -> None:
    config = case.json["config"]
    mode, count = config.get("mode", "pixel"), config.get("max_count", 1)
    erasing = RandomErasing(probability=config["probability"], mode=mode, max_count=count)
    for run in case.json["runs"]:
        clip = rearrange(case.tensors[f"input/frames_{run['seed']}"], "t c h w -> c t h w")
        result, boxes = replay_erasing(erasing, clip, run["seed"])
        stored = run["top_left_height_width"] or []
        assert boxes == ([stored] if stored and isinstance(stored[0], int) else stored)
        assert run["erased"] == bool(boxes)
        calls = [[3, *box[2:]] for box in boxes for _ in range(clip.shape[1])]
        assert run.get("calls_for_pixels") in (calls, [], None)  # where the mode asks for any
        case.hold_each(rearrange(result, "c t h w -> t c h w"), f"out/frames_{run['seed']}", "out")


@pytest.mark.parametrize("case", [*cases(kind="mixup", method="st_mae"), *cases(kind="mixup", method="image_mae")])
def test_cutmix_boxes_follow_from_the_authors_draws(case: Case) -> None:
    case.leave_to_others()
    config = case.json["config"]
    for run in case.json["runs"]:
        draws = replay_mixing(build_mixup(config), np.random.RandomState(run["numpy_seed"]), *shape_of(config))
        stored = run.get("boxes", [run] if "bbox_yl_yh_xl_xh" in run else [])
        boxes = [box for box in draws.boxes if box is not None]
        assert [box.tolist() for box in boxes] == [each["bbox_yl_yh_xl_xh"] for each in stored]
        for box, each in zip(boxes, stored, strict=True):
            weights, _ = build_weights(Mixing([0.0], [box]), "batch", *config["shape"][-2:])
            assert weights.double().mean().item() == pytest.approx(each["lam_corrected"], rel=1e-12)
        if config.get("mode", "batch") == "batch":
            assert draws.lam == [run["lam_drawn"]]
            assert bool(boxes) == run["use_cutmix"]
        elif isinstance(run["lam_drawn"], list):  # rounded to float32 there
            assert draws.lam == pytest.approx(run["lam_drawn"], rel=1e-6)


@pytest.mark.parametrize("case", cases(kind="multi_view_ensemble"))
def test_views_are_merged_by_either_of_the_authors_rules(case: Case) -> None:
    videos, views = case.json["config"]["videos"], case.json["config"]["views_times_crops"]
    logits = case.tensors["input/logits"].view(videos, views, -1)
    assert sorted(case.tensors["input/order"].tolist()) == list(range(videos * views))
    for rule, name, scale in (("mean", "sum", views), ("max", "max", 1)):
        scores = torch.stack([merge_views(each, rule) for each in logits])
        case.hold_each(scale * scores, f"out/video_scores_{name}", "out")
        output = compute_accuracy(scores, case.tensors["input/labels"])
        shares = {f"{name}_top1_acc": round(output.top1, 2), f"{name}_top5_acc": round(output.top5, 2)}
        assert {**shares, **case.json["losses"]} == {**case.json["losses"], **shares}


def as_clip(frames: np.ndarray) -> Tensor:
    return rearrange(torch.from_numpy(frames), "t h w c -> c t h w")


def normalize(frames: np.ndarray) -> np.ndarray:
    """Bytes behind the model's door: what the authors crop and resize."""
    return ((frames.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def hold_bytes(case: Case, frames: np.ndarray, expected: Tensor) -> None:
    """Bytes that were resized as such are no further away than their rounding explains."""
    limits = case.json["tolerance"]["out"]
    apart = (as_clip(normalize(frames)) - expected).abs()
    assert (apart <= ROUNDED + limits["atol"] + limits["rtol"] * expected.abs()).all()
