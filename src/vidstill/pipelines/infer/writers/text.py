"""Predictions as CSV, as JSON, and as lines for a terminal."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from vidstill.data.ava.box_table import BoxScores
from vidstill.data.ava.label_map import LabelMap
from vidstill.figures.timeline import Timeline, format_clock
from vidstill.pipelines.infer.detect import VideoDetections
from vidstill.pipelines.infer.predict import Predictions, VideoPrediction
from vidstill.utils.text import format_one_line, pluralize

_MAX_LINES = 40  # of a timeline in a terminal; more are merged where the same class is first, then cut
_BAR_WIDTH = 20  # letters
_MAX_RUNNERS_UP = 2  # classes that are named behind the first in a terminal
_MAX_CLASS_CHARS = 48  # letters of a class's name in a terminal
_EIGHTHS = " ▏▎▍▌▋▊▉"


def format_predictions_csv(predictions: Predictions, topk: int, *, timeline: bool) -> bytes:
    """A line for each video, or for each window of each video, with a header.

    Columns: `video`, over time `start` and `end` in seconds, then for the first class `label` (its number from 0),
    `class`, `probability`, for the second `label_2` and so on. In UTF-8; what of a file's name is no letter stands
    there as `\\udcff`.
    """
    topk = min(topk, len(predictions.classes))
    file = io.StringIO(newline="")
    table = csv.writer(file, lineterminator="\n")
    ranks = ["" if rank == 1 else f"_{rank}" for rank in range(1, topk + 1)]
    spans = ["start", "end"] if timeline else []
    table.writerow(
        ["video", *spans, *(f"{name}{rank}" for rank in ranks for name in ("label", "class", "probability"))]
    )
    for video in predictions.videos:
        for span, probabilities in _iter_rows(video, timeline):
            best = _select_topk(probabilities, topk)
            cells = [cell for n in best for cell in (n, predictions.classes[n], f"{probabilities[n]:.6g}")]
            table.writerow([video.video, *(f"{seconds:.3f}" for seconds in span), *cells])
    return file.getvalue().encode("utf-8", "backslashreplace")


def _iter_rows(prediction: VideoPrediction, timeline: bool) -> Iterator[tuple[tuple[float, ...], Sequence[float]]]:
    if not timeline:
        yield (), prediction.probabilities.tolist()
    elif prediction.timeline is not None:
        line = prediction.timeline
        for start, end, probabilities in zip(line.starts, line.ends, line.probabilities, strict=True):
            yield (float(start), float(end)), probabilities.tolist()


def _select_topk(probabilities: Sequence[float], k: int) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda label: (-probabilities[label], label))[:k]


def predictions_to_dict(predictions: Predictions, topk: int) -> dict[str, Any]:
    """As JSON has it: `docs/prediction.md` says what is what."""
    return {
        "model": predictions.model,
        "classes": list(predictions.classes),
        "several": predictions.multi_label,
        "videos": [prediction_to_dict(predictions, video, topk) for video in predictions.videos],
        "left_out": [{"video": video, "why": why} for video, why in predictions.skipped.items()],
    }


def prediction_to_dict(predictions: Predictions, prediction: VideoPrediction, topk: int) -> dict[str, Any]:
    probabilities = prediction.probabilities.tolist()
    plain: dict[str, Any] = {
        "video": prediction.video,
        "top": _topk_to_list(predictions.classes, probabilities, topk),
        "probabilities": probabilities,
    }
    if prediction.timeline is not None:
        plain["windows"] = [
            {
                "start": round(span[0], 3),
                "end": round(span[1], 3),
                "top": _topk_to_list(predictions.classes, each, topk),
            }
            for span, each in _iter_rows(prediction, timeline=True)
        ]
    if prediction.error:
        plain["wrong"] = prediction.error
    return plain


def _topk_to_list(classes: Sequence[str], probabilities: Sequence[float], topk: int) -> list[dict[str, Any]]:
    best = _select_topk(probabilities, topk)
    return [{"label": n, "class": classes[n], "probability": round(probabilities[n], 6)} for n in best]


def dump_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1)


def format_predictions(predictions: Predictions, topk: int) -> str:
    """A line for each video with its classes; where it is known when they are seen, that below it."""
    if all(video.timeline is None for video in predictions.videos):
        return "\n".join(_format_table(predictions, topk))
    blocks = [
        [f"{format_one_line(video.video)}: {', '.join(format_top_classes(predictions, video, topk))}"]
        for video in predictions.videos
    ]
    for block, video in zip(blocks, predictions.videos, strict=True):
        if video.timeline is not None:
            block += ["", *_format_timeline(video.timeline, predictions.classes)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _format_table(predictions: Predictions, topk: int) -> Iterator[str]:
    names = [format_one_line(video.video) for video in predictions.videos]
    firsts = [format_one_line(predictions.classes[video.topk(1)[0]], _MAX_CLASS_CHARS) for video in predictions.videos]
    wide, first_wide = max(map(len, names)), max(map(len, firsts))
    for name, first, video in zip(names, firsts, predictions.videos, strict=True):
        others = ", ".join(format_top_classes(predictions, video, min(topk, 1 + _MAX_RUNNERS_UP))[1:])
        share = 100 * video.probabilities.max().item()
        yield f"{name:{wide}}  {first:{first_wide}}  {share:5.1f} %   {others}".rstrip()


def format_top_classes(predictions: Predictions, prediction: VideoPrediction, topk: int) -> list[str]:
    """The most probable classes with their probabilities."""
    best = prediction.topk(topk)
    return [
        f"{format_one_line(predictions.classes[label], _MAX_CLASS_CHARS)} {100 * prediction.probabilities[label].item():.1f} %"
        for label in best
    ]


def _format_timeline(timeline: Timeline, classes: Sequence[str]) -> Iterator[str]:
    """A line for each window; of many, a line for each stretch of time with the same class first."""
    columns = timeline.starts, timeline.ends, timeline.top_classes, timeline.probabilities.max(axis=1)
    lines = [(float(start), float(end), int(label), float(p)) for start, end, label, p in zip(*columns, strict=True)]
    merged = len(lines) > _MAX_LINES
    lines = timeline.find_segments() if merged else lines
    digits = 0 if merged and timeline.ends[-1] > 60 else 1
    last = format_clock(timeline.ends[-1], digits)
    wide = max(len(format_one_line(classes[label], _MAX_CLASS_CHARS)) for _, _, label, _ in lines)
    for start, end, label, share in lines[:_MAX_LINES]:
        span = f"{format_clock(start, digits):>{len(last)}} – {format_clock(end, digits):>{len(last)}}"
        yield f"  {span}  {format_one_line(classes[label], _MAX_CLASS_CHARS):{wide}}  {_format_bar(share)}  {100 * share:5.1f} %"
    if len(lines) > _MAX_LINES:
        yield f"  … and {pluralize(len(lines) - _MAX_LINES, 'line')} more, which --out writes"


def _format_bar(fraction: float) -> str:
    eighths = round(8 * _BAR_WIDTH * fraction)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip().ljust(_BAR_WIDTH)


_MAX_ACTION_CHARS = 40  # letters of an action's name there


@dataclass(frozen=True)
class DetectionFormatter:
    """What is told of each box.

    Args:
        model: whose answers they are.
        topk: so many actions at most.
        min_score: those with this score or more.
    """

    model: str
    actions: LabelMap
    topk: int
    min_score: float

    @property
    def action_names(self) -> list[str]:
        """By place."""
        return list(self.actions.names.values())

    def select_actions(self, scores: Float32[np.ndarray, "a"]) -> list[int]:
        """The places of the actions that are told, the likeliest first."""
        order = np.argsort(-scores, kind="stable")[: self.topk]
        return [int(place) for place in order if scores[place] >= self.min_score]

    def build_header(self) -> dict[str, Any]:
        """What is the same for all videos."""
        actions = [{"action": number, "name": name} for number, name in self.actions.names.items()]
        return {"model": self.model, "actions": actions}

    def video_to_dict(self, detections: VideoDetections) -> dict[str, Any]:
        """As JSON has it: `docs/detection.md` says what is what."""
        height, width = detections.frame_size
        moments = [
            {"seconds": round(moment.seconds, 3), "boxes": list(self._iter_boxes(detections, place))}
            for place, moment in enumerate(detections.tracks.keyframes)
        ]
        plain = {
            "video": detections.video,
            "width": width,
            "height": height,
            "rate": detections.frame_rate,
            "moments": moments,
        }
        return plain | ({"wrong": detections.error} if detections.error else {})

    def _iter_boxes(self, detections: VideoDetections, index: int) -> Iterator[dict[str, Any]]:
        height, width = detections.frame_size
        moment, tracks = detections.tracks.keyframes[index], detections.tracks.track_ids[index].tolist()
        for track, box, person, scores in zip(
            tracks, moment.boxes, moment.person_scores, moment.action_scores, strict=True
        ):
            yield {
                "track": track,
                "box": box.round(5).tolist(),
                "pixels": (box * [width, height, width, height]).round(1).tolist(),
                "person": round(float(person), 6),
                "top": [
                    {
                        "action": self.actions.action_ids[best],
                        "name": self.action_names[best],
                        "score": round(float(scores[best]), 6),
                    }
                    for best in self.select_actions(scores)
                ],
                "scores": [round(score, 6) for score in scores.tolist()],
            }

    def format_video(self, detections: VideoDetections) -> str:
        """A line for each box of each moment."""
        moments = detections.tracks.keyframes
        boxes = sum(len(moment.boxes) for moment in moments)
        people = pluralize(len({int(track) for numbers in detections.tracks.track_ids for track in numbers}), "track")
        head = f"{format_one_line(detections.video)}: {pluralize(len(moments), 'moment')}, {pluralize(boxes, 'box')}, {people}"
        lines = list(self._iter_lines(detections))
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [f"  … and {pluralize(len(lines) - _MAX_LINES, 'line')} more, which --out writes"]
        return "\n".join([head, *lines])

    def _iter_lines(self, detections: VideoDetections) -> Iterator[str]:
        digits = (
            0
            if all(abs(moment.seconds - round(moment.seconds)) < 0.05 for moment in detections.tracks.keyframes)
            else 1
        )
        last = format_clock(detections.tracks.keyframes[-1].seconds, digits)
        for moment, tracks in zip(detections.tracks.keyframes, detections.tracks.track_ids, strict=True):
            for track, scores in sorted(
                zip(tracks.tolist(), moment.action_scores, strict=True), key=lambda pair: pair[0]
            ):
                told = ", ".join(
                    f"{format_one_line(self.action_names[n], _MAX_ACTION_CHARS)} {100 * scores[n]:.0f} %"
                    for n in self.select_actions(scores)
                )
                yield f"  {format_clock(moment.seconds, digits):>{len(last)}}  {track:3}  {told or '–'}"


def build_box_scores(
    detections: Sequence[VideoDetections], names: Sequence[str], actions: LabelMap, *, interval: int, start_second: int
) -> BoxScores:
    """All scores of all boxes, as `rows.write_box_csv` writes them.

    Args:
        names: of the videos, as the rows have them.
        interval: seconds from one moment to the next.
        start_second: the rows' second at which the videos begin.
    """
    moments = [
        (video, start_second + place * interval, moment)
        for video, each in enumerate(detections)
        for place, moment in enumerate(each.tracks.keyframes)
    ]
    counts = [len(moment.boxes) for _, _, moment in moments]
    return BoxScores(
        tuple(names),
        np.repeat(np.array([video for video, _, _ in moments], np.int32), counts),
        np.repeat(np.array([second for _, second, _ in moments], np.int32), counts),
        np.concatenate([np.zeros((0, 4)), *(moment.boxes for _, _, moment in moments)]),
        actions.action_ids,
        np.concatenate([np.zeros((0, len(actions)), np.float32), *(moment.action_scores for _, _, moment in moments)]),
    )
