"""Boxes, alone and with their frames, are resized, cut and mirrored as the authors' code does it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference_cases import Case, cases

from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.ava.transforms import (
    ResizeCropFlip,
    clip_boxes,
    compute_resized_size,
    hflip_boxes,
    resize_boxes,
    to_pixel_boxes,
    translate_boxes,
)

pytestmark = pytest.mark.reference

FUNCTIONS = cases(kind="box_functions", method="ava")
PIPELINES = cases(kind="image_box_pipeline", method="ava")
INDEX = cases(kind="annotation_index", method="ava")


def changed(boxes: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    size = entry.get("height"), entry.get("width")
    match entry["op"]:
        case "clip":
            return clip_boxes(boxes, size)
        case "flip":
            return hflip_boxes(boxes, entry["width"])
        case "crop":
            return translate_boxes(boxes, entry["y_offset"], entry["x_offset"])
        case "scale_short_side":
            return resize_boxes(boxes, size, compute_resized_size(size, entry["size"], "slowfast"), "slowfast")
        case "revert_scale":
            return boxes * (min(size) / entry["size"])
    raise AssertionError(f"no function of ours is {entry['op']}")


@pytest.mark.parametrize("case", FUNCTIONS)
def test_every_function_of_boxes_gives_what_is_stored(case: Case) -> None:
    boxes, limits = np.array(case.json["boxes_x1_y1_x2_y2"], np.float64), case.json["tolerance"]
    for entry in case.json["entries"]:
        np.testing.assert_allclose(changed(boxes, entry), entry["out"], **limits, err_msg=str(entry["op"]))


class Stored:
    """In place of a generator: the stored draws in their order, each of them asked for as it was drawn."""

    def __init__(self, draws: list[dict[str, Any]]):
        self.draws = list(draws)

    def __call__(self, word: str) -> "Stored":
        return self

    def _next(self, kind: str, *ends: float) -> float:
        stored = self.draws.pop(0)
        assert stored[kind] == pytest.approx(list(ends), abs=1e-12)
        return stored["value"]

    def uniform(self, low: float, high: float) -> float:
        return self._next("uniform", low, high)

    def integers(self, low: int, high: int) -> float:
        return self._next("randint", low, high)

    def random(self) -> float:
        return self._next("uniform")


def look_of(entry: dict[str, Any], draws: Stored) -> ResizeCropFlip:
    size, crop = (entry["H"], entry["W"]), (entry["crop"], entry["crop"])
    if entry["split"] == "train":
        clips = BoxClipsConfig(
            dataset="",
            sampling=KeyframeSampling(),
            short_side=tuple(entry["jitter"]),
            short_side_sampling="inverse_uniform" if entry["backend"] == "cv2" else "uniform",
            size=crop,
            rule="slowfast",
        )
        return clips.draw_transform(size, draws)
    views = BoxViewsConfig(
        sampling=KeyframeSampling(),
        short_side=entry["crop"],
        crop_size=crop if entry["split"] == "val" else None,
        rule="slowfast",
    )
    return replace(views.build_transform(size), hflip=entry.get("flip", False))


@pytest.mark.parametrize("case", PIPELINES)
def test_frames_and_their_boxes_become_the_stored_input_by_the_stored_draws(case: Case) -> None:
    for entry in case.json["entries"]:
        number, backend = entry["index"], entry["backend"]
        frames = case.tensors[f"input/frames_{number}"].numpy()[..., ::-1]  # BGR
        fractions = case.tensors[f"input/boxes_{number}"].numpy().astype(np.float64)
        draws = Stored(entry["draws"])
        look = look_of(entry, draws)
        assert not draws.draws or entry["split"] != "train", f"entry {number}: not all draws were asked for"
        asked = frames if backend == "cv2" else frames.astype(np.float32)
        pixel_boxes = to_pixel_boxes(fractions, (entry["H"], entry["W"]), "slowfast")
        seen, boxes = look.apply(np.ascontiguousarray(asked), pixel_boxes)
        if backend == "torch" and entry["split"] == "test":  # it cuts boxes off at the crop that it does not make
            boxes = np.clip(boxes, 0, entry["crop"] - 1)
        assert list(seen.shape[1:3]) == entry["out_H_W"]
        limits = case.json["tolerance"]
        case.hold_value(
            torch.from_numpy(boxes).float(), case.tensors[f"out/boxes_{number}"], f"boxes {number}", "out/boxes"
        )
        clip = (torch.from_numpy(seen).permute(3, 0, 1, 2).float() / 255 - 0.45) / 0.225
        theirs = case.tensors[f"out/video_{number}"]
        if backend == "torch":
            case.hold_value(clip, theirs, f"clip {number}", "out/video (float resize)")
        else:
            apart = (clip - theirs).abs()
            assert apart.max() <= limits["out/video (cv2)"]["atol"]
            assert apart.mean() <= limits["out/video (cv2)"]["mean_abs"]


@pytest.mark.parametrize("case", INDEX)
def test_a_clip_has_the_stored_frames_around_its_key_frame(case: Case) -> None:
    for row in case.json["frame_sequences"]:
        sampling = KeyframeSampling(
            frames=row["num_frames"], stride=row["sampling_rate"], frame_rate=30.0, rule="slowfast"
        )
        offsets = sampling.compute_video_offsets(row["centre"], row["frames_available"] - row["centre"])
        assert [row["centre"] + offset for offset in offsets] == row["frames"]
