"""AVA's boxes, key frames and scores are those of the authors' code and of the published evaluation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_cases import Case, cases

from vidstill.data.ava.box_table import (
    BoxScores,
    BoxTable,
    format_box_csv,
    read_box_csv,
    read_excluded_timestamps,
    read_included_timestamps,
)
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.keyframes import KeyframeBuilder, Keyframes, PersonBoxesConfig
from vidstill.data.ava.label_map import LabelMap, read_label_map
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
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
from vidstill.data.ava.video_files import read_frame_list
from vidstill.tasks.metrics.ava_map import FrameMAP, compute_frame_map
from vidstill.utils.files import write_bytes

pytestmark = pytest.mark.reference


# ---- Boxes, alone and with their frames -----------------------------------------------------------------------------


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

    def __call__(self, purpose: str) -> "Stored":
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


def build_transform(entry: dict[str, Any], draws: Stored) -> ResizeCropFlip:
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
        transform = build_transform(entry, draws)
        assert not draws.draws or entry["split"] != "train", f"entry {number}: not all draws were asked for"
        source = frames if backend == "cv2" else frames.astype(np.float32)
        pixel_boxes = to_pixel_boxes(fractions, (entry["H"], entry["W"]), "slowfast")
        transformed, boxes = transform.apply(np.ascontiguousarray(source), pixel_boxes)
        if backend == "torch" and entry["split"] == "test":  # it cuts boxes off at the crop that it does not make
            boxes = np.clip(boxes, 0, entry["crop"] - 1)
        assert list(transformed.shape[1:3]) == entry["out_H_W"]
        limits = case.json["tolerance"]
        case.hold(torch.from_numpy(boxes).float(), f"out/boxes_{number}", "out/boxes")
        clip = (torch.from_numpy(transformed).permute(3, 0, 1, 2).float() / 255 - 0.45) / 0.225
        if backend == "torch":
            case.hold(clip, f"out/video_{number}", "out/video (float resize)")
        elif (name := f"out/video_{number}") in case.tensors:
            case.held.add(name)
            apart = (clip - case.tensors[name]).abs()
            assert apart.max() <= limits["out/video (cv2)"]["atol"]
            assert apart.mean() <= limits["out/video (cv2)"]["mean_abs"]


@pytest.mark.parametrize("case", INDEX)
def test_a_clip_has_the_stored_frames_around_its_key_frame(case: Case) -> None:
    for row in case.json["frame_sequences"]:
        sampling = KeyframeSampling(
            num_frames=row["num_frames"], stride=row["sampling_rate"], frame_rate=30.0, rule="slowfast"
        )
        offsets = sampling.compute_video_offsets(row["centre"], row["frames_available"] - row["centre"])
        assert [row["centre"] + offset for offset in offsets] == row["frames"]


# ---- Key frames -----------------------------------------------------------------------------------------------------


RATE, BEGINS = 30.0, 900.0  # of the frames that PySlowFast reads


def frames_of(case, mode: str) -> Keyframes:
    """The key frames that we make for one of a case's modes."""
    files = {name: case.path.parent / file for name, file in case.json["files"].items()}
    threshold = case.json["modes"][mode]["score_threshold"]
    films = [KeyframeVideo(name, Path(name), "frames", BEGINS, RATE) for name in case.json["video_names"]]
    actions = LabelMap({number: f"action {number}" for number in range(1, 81)}, frozenset(range(1, 81)))
    seconds = (
        read_included_timestamps(files["included_timestamps"]) if "included_timestamps" in files else range(902, 1799)
    )
    persons = read_person_boxes(files["person_boxes"])
    builder = KeyframeBuilder(actions, films, seconds)
    if not mode.startswith("train"):
        return builder.build_test(persons.select(persons.second % 4 == 0) if "fourth" in mode else persons, threshold)
    config = PersonBoxesConfig(min_score=threshold) if "person_boxes" in mode else None
    return builder.build_train(read_annotations(files["groundtruth"]), persons, config)


def to_foreign(frames: Keyframes) -> list[dict]:
    """Our key frames as the cases list them; a box's actions ascend, and one without any has -1."""
    output: list[dict] = []
    for index in range(len(frames)):
        frame, film = frames[index], int(frames.video_index[index])
        labels = [[frames.label_map.action_ids[a] for a in row.nonzero()[0]] or [-1] for row in frame.labels]
        output.append(
            {
                "video": frame.video.name,
                "video_index": film,
                "index_in_video": sum(each["video_index"] == film for each in output),
                "timestamp": frame.second,
                "centre_frame": (frame.second - frame.video.start_second) * frame.video.frame_rate,
                "boxes": frame.boxes.tolist(),
                "labels": labels,
            }
        )
    return output


@pytest.mark.parametrize("case", cases(kind="annotation_index", method="ava"))
def test_each_mode_s_key_frames_boxes_and_actions_are_those_of_pyslowfast(case):
    for mode, reference in case.json["modes"].items():
        frames = frames_of(case, mode)
        expected = [
            {**frame, "labels": [sorted({*row} - {-1}) or [-1] for row in frame["labels"]]}
            for frame in reference["keyframes"]
        ]
        assert to_foreign(frames) == expected, mode
        assert len(frames.boxes) == reference["boxes_used"], mode


@pytest.mark.parametrize("case", cases(kind="annotation_index", method="ava"))
def test_the_list_of_frames_names_the_videos_and_how_many_frames_each_has(case):
    listed = read_frame_list(case.path.parent / case.json["files"]["frame_list"])
    assert list(listed) == case.json["video_names"]
    assert [each.last_line - each.first_line + 1 for each in listed.values()] == case.json["frames_per_video"]


# ---- Scores ---------------------------------------------------------------------------------------------------------


RULES = ("file_order", "score_order", "score_order_top50")


def truth_of(case: Case) -> tuple[BoxTable, LabelMap, set[tuple[str, int]]]:
    files = {name: case.path.parent / file for name, file in case.json["files"].items()}
    excluded = read_excluded_timestamps(files["excluded"]) if "excluded" in files else set()
    return read_box_csv(files["groundtruth"], has_scores=False), read_label_map(files["labelmap"]), excluded


def hold(case: Case, output: FrameMAP, reference: dict[str, Any]) -> None:
    """Each action's counts are the same, its average precision too or within what equal scores leave open."""
    atol = case.json["tolerance"]["ap"]["atol"]
    result = {str(each.action_id): each for each in output.actions}
    assert result.keys() == reference["per_class"].keys()
    for number, their in reference["per_class"].items():
        one = result[number]
        counts = (one.num_ground_truth, one.num_detections, len(one.true_positives))
        assert counts == (their["num_groundtruth"], their["num_detections"], their["num_true_positives"]), number
        if their["ap"] is None:
            assert one.average_precision is None
            continue
        low, high = their.get("ap_lowest", their["ap"]), their.get("ap_highest", their["ap"])
        assert low - atol <= one.average_precision <= high + atol, number
    low, high = reference.get("mAP_range_over_ties") or (reference["mAP"], reference["mAP"])
    atol = case.json["tolerance"]["mAP"]["atol"]
    if low is None or np.isnan(low):
        assert output.mean is None
    else:
        assert low - atol <= output.mean <= high + atol
    assert output.to_dict()["PascalBoxes_Precision/mAP@0.5IOU"] == output.mean


@pytest.mark.parametrize("case", cases(kind="evaluation", method="ava"))
@pytest.mark.parametrize("rule", RULES)
def test_rows_of_a_file_are_scored_as_the_published_evaluation_does(case, rule):
    if rule not in case.json:
        pytest.skip(f"{case.name} has no numbers for {rule}")
    annotated, actions, excluded = truth_of(case)
    detected = read_box_csv(case.path.parent / case.json["files"]["detections"], has_scores=True)
    iou = case.json["config"]["iou_threshold"]
    output = compute_frame_map(annotated, detected, actions, excluded_keyframes=excluded, matching=rule, min_iou=iou)
    hold(case, output, case.json[rule])


def boxes_of(case: Case) -> BoxScores:
    scores, boxes, about = (case.tensors[f"input/{name}"].numpy() for name in ("scores", "boxes", "metadata"))
    video, second = about.astype(np.int32).T
    box = boxes[:, 1:].astype(np.float64)
    return BoxScores(tuple(case.json["video_names"]), video, second, box, range(1, scores.shape[1] + 1), scores)


@pytest.mark.parametrize("case", cases(kind="evaluation_from_arrays", method="ava"))
@pytest.mark.parametrize("rule", RULES)
def test_boxes_with_a_score_for_each_action_are_scored_as_the_published_evaluation_does(case, rule):
    if rule not in case.json:
        pytest.skip(f"{case.name} has no numbers for {rule}")
    annotated, actions, excluded = truth_of(case)
    for part, reference in case.json[rule].items():
        rows = annotated.second % 4 == 0 if part == "every_fourth_second" else np.ones(len(annotated), bool)
        some = replace(annotated, **{name: getattr(annotated, name)[rows] for name in PER_ROW})
        hold(
            case,
            compute_frame_map(some, boxes_of(case), actions, excluded_keyframes=excluded, matching=rule),
            reference,
        )


PER_ROW = ("video_index", "second", "box", "action_id", "score", "line_number")


@pytest.mark.parametrize("case", cases(kind="evaluation_from_arrays", method="ava"))
def test_what_a_model_gives_is_written_as_the_published_code_writes_it(case, tmp_path: Path):
    reference = (case.path.parent / case.json["files"]["written_detections"]).read_text().splitlines()
    _, actions, _ = truth_of(case)
    write_bytes(
        tmp_path / "written.csv", format_box_csv(boxes_of(case), action_ids=actions.evaluated_ids, decimals=(3, 4))
    )
    assert (tmp_path / "written.csv").read_text().splitlines() == reference
