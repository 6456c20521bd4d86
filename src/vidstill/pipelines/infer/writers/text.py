"""Predictions and detections as CSV, as JSON values, and as lines for a terminal."""

import csv
import io
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

_MAX_LINES = 40  # of a timeline in a terminal; more windows are merged to segments, then cut
_BAR_WIDTH = 20  # characters
_MAX_RUNNERS_UP = 2  # classes named behind the first in a table of videos
_MAX_CLASS_CHARS, _MAX_ACTION_CHARS = 48, 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def format_predictions_csv(predictions: Predictions, topk: int, *, timeline: bool) -> bytes:
    """Return a CSV with a header and one line per video, or per window of each video.

    The columns are `video`; with a timeline `start` and `end` in seconds; then `label` (counted from 0), `class` and
    `probability` of the best class, `label_2` and so on of the second. In UTF-8; other bytes of a file's name are
    written as `\\udcff`.
    """
    topk = min(topk, len(predictions.classes))
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    suffixes = ["", *(f"_{rank}" for rank in range(2, topk + 1))]
    names = [f"{name}{suffix}" for suffix in suffixes for name in ("label", "class", "probability")]
    writer.writerow(["video", *(["start", "end"] if timeline else []), *names])
    for video in predictions.videos:
        for span, probabilities in _iter_rows(video, timeline):
            best = _select_topk(probabilities, topk)
            cells = [cell for n in best for cell in (n, predictions.classes[n], f"{probabilities[n]:.6g}")]
            writer.writerow([video.video, *(f"{seconds:.3f}" for seconds in span), *cells])
    return file.getvalue().encode("utf-8", "backslashreplace")


def _iter_rows(prediction: VideoPrediction, timeline: bool) -> Iterator[tuple[tuple[float, ...], list[float]]]:
    """Yield the video's probabilities, or start, end and probabilities of each window."""
    if not timeline:
        yield (), prediction.probabilities.tolist()
    elif prediction.timeline is not None:
        line = prediction.timeline
        for start, end, probabilities in zip(line.starts, line.ends, line.probabilities, strict=True):
            yield (float(start), float(end)), probabilities.tolist()


def _select_topk(probabilities: Sequence[float], k: int) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda label: (-probabilities[label], label))[:k]


def predictions_to_dict(predictions: Predictions, topk: int) -> dict[str, Any]:
    """Return all predictions as JSON values; `docs/prediction.md` describes them."""
    return {
        "model": predictions.model,
        "classes": list(predictions.classes),
        "multi_label": predictions.multi_label,
        "videos": [prediction_to_dict(predictions, video, topk) for video in predictions.videos],
        "skipped": [{"video": video, "reason": reason} for video, reason in predictions.skipped.items()],
    }


def prediction_to_dict(predictions: Predictions, prediction: VideoPrediction, topk: int) -> dict[str, Any]:
    """Return one prediction as JSON values."""

    def list_topk(probabilities: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"label": label, "class": predictions.classes[label], "probability": round(probabilities[label], 6)}
            for label in _select_topk(probabilities, topk)
        ]

    probabilities = prediction.probabilities.tolist()
    values: dict[str, Any] = {
        "video": prediction.video,
        "top": list_topk(probabilities),
        "probabilities": probabilities,
    }
    if prediction.timeline is not None:
        values["windows"] = [
            {"start": round(span[0], 3), "end": round(span[1], 3), "top": list_topk(each)}
            for span, each in _iter_rows(prediction, timeline=True)
        ]
    return values | ({"error": prediction.error} if prediction.error else {})


def format_predictions(predictions: Predictions, topk: int) -> str:
    """Return one line per video with its classes, and its timeline below if there is one."""
    if all(video.timeline is None for video in predictions.videos):
        return "\n".join(_format_table(predictions, topk))
    blocks = []
    for video in predictions.videos:
        lines = [f"{format_one_line(video.video)}: {', '.join(format_top_classes(predictions, video, topk))}"]
        if video.timeline is not None:
            lines += ["", *_format_timeline(video.timeline, predictions.classes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _format_table(predictions: Predictions, topk: int) -> Iterator[str]:
    names = [format_one_line(video.video) for video in predictions.videos]
    best = [_shorten(predictions.classes[video.topk(1)[0]]) for video in predictions.videos]
    width, best_width = max(map(len, names)), max(map(len, best))
    for name, first, video in zip(names, best, predictions.videos, strict=True):
        others = ", ".join(format_top_classes(predictions, video, min(topk, 1 + _MAX_RUNNERS_UP))[1:])
        percent = 100 * video.probabilities.max().item()
        yield f"{name:{width}}  {first:{best_width}}  {percent:5.1f} %   {others}".rstrip()


def format_top_classes(predictions: Predictions, prediction: VideoPrediction, topk: int) -> list[str]:
    """Return the most probable classes with their probabilities."""
    return [
        f"{_shorten(predictions.classes[label])} {100 * prediction.probabilities[label].item():.1f} %"
        for label in prediction.topk(topk)
    ]


def _format_timeline(timeline: Timeline, classes: Sequence[str]) -> Iterator[str]:
    """Yield a line per window; if there are many, a line per segment with the same best class."""
    columns = timeline.starts, timeline.ends, timeline.top_classes, timeline.probabilities.max(axis=1)
    lines = [(float(start), float(end), int(label), float(p)) for start, end, label, p in zip(*columns, strict=True)]
    by_segment = len(lines) > _MAX_LINES
    lines = timeline.find_segments() if by_segment else lines
    digits = 0 if by_segment and timeline.ends[-1] > 60 else 1
    clock_width = len(format_clock(timeline.ends[-1], digits))
    width = max(len(_shorten(classes[label])) for _, _, label, _ in lines)
    for start, end, label, probability in lines[:_MAX_LINES]:
        span = f"{format_clock(start, digits):>{clock_width}} – {format_clock(end, digits):>{clock_width}}"
        bar = _format_bar(probability)
        yield f"  {span}  {_shorten(classes[label]):{width}}  {bar}  {100 * probability:5.1f} %"
    yield from _format_remaining(len(lines))


def _format_remaining(num_lines: int) -> Iterator[str]:
    if num_lines > _MAX_LINES:
        yield f"  … and {pluralize(num_lines - _MAX_LINES, 'line')} more, which --out writes"


def _format_bar(fraction: float) -> str:
    eighths = round(8 * _BAR_WIDTH * fraction)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip().ljust(_BAR_WIDTH)


def _shorten(name: str, max_chars: int = _MAX_CLASS_CHARS) -> str:
    """Return a name on one line, cut if it is too long."""
    name = format_one_line(name)
    return name if len(name) <= max_chars else name[: max_chars - 1] + "…"


@dataclass(frozen=True)
class DetectionFormatter:
    """What is written of each box.

    Args:
        model: The detector that was asked.
        topk: Actions that are named at most.
        min_score: Actions with this score or more are named.
    """

    model: str
    actions: LabelMap
    topk: int
    min_score: float

    @property
    def action_names(self) -> list[str]:
        """In the order of the scores."""
        return list(self.actions.names.values())

    def select_actions(self, scores: Float32[np.ndarray, "a"]) -> list[int]:
        """Return the indices of the actions that are named, the likeliest first."""
        order = np.argsort(-scores, kind="stable")[: self.topk]
        return [int(index) for index in order if scores[index] >= self.min_score]

    def build_header(self) -> dict[str, Any]:
        """Return what is the same for all videos."""
        actions = [{"action_id": number, "name": name} for number, name in self.actions.names.items()]
        return {"model": self.model, "actions": actions}

    def video_to_dict(self, detections: VideoDetections) -> dict[str, Any]:
        """Return a video's detections as JSON values; `docs/detection.md` describes them."""
        height, width = detections.frame_size
        keyframes = [
            {"seconds": round(keyframe.seconds, 3), "boxes": list(self._iter_boxes(detections, index))}
            for index, keyframe in enumerate(detections.tracks.keyframes)
        ]
        values = {"video": detections.video, "width": width, "height": height, "fps": detections.frame_rate}
        return {**values, "keyframes": keyframes, **({"error": detections.error} if detections.error else {})}

    def _iter_boxes(self, detections: VideoDetections, index: int) -> Iterator[dict[str, Any]]:
        height, width = detections.frame_size
        keyframe, tracks = detections.tracks.keyframes[index], detections.tracks.track_ids[index].tolist()
        columns = tracks, keyframe.boxes, keyframe.person_scores, keyframe.action_scores
        for track, box, person_score, scores in zip(*columns, strict=True):
            yield {
                "track": track,
                "box": box.round(5).tolist(),
                "pixels": (box * [width, height, width, height]).round(1).tolist(),
                "person_score": round(float(person_score), 6),
                "top": [
                    {
                        "action_id": self.actions.action_ids[best],
                        "name": self.action_names[best],
                        "score": round(float(scores[best]), 6),
                    }
                    for best in self.select_actions(scores)
                ],
                "scores": [round(score, 6) for score in scores.tolist()],
            }

    def format_video(self, detections: VideoDetections) -> str:
        """Return a line per box and key frame."""
        keyframes = detections.tracks.keyframes
        boxes = sum(len(keyframe.boxes) for keyframe in keyframes)
        tracks = len({int(track) for numbers in detections.tracks.track_ids for track in numbers})
        counts = ((len(keyframes), "key frame"), (boxes, "box"), (tracks, "track"))
        head = f"{format_one_line(detections.video)}: {', '.join(pluralize(*each) for each in counts)}"
        lines = list(self._iter_lines(detections))
        return "\n".join([head, *lines[:_MAX_LINES], *_format_remaining(len(lines))])

    def _iter_lines(self, detections: VideoDetections) -> Iterator[str]:
        keyframes = detections.tracks.keyframes
        digits = 0 if all(abs(each.seconds - round(each.seconds)) < 0.05 for each in keyframes) else 1
        clock_width = len(format_clock(keyframes[-1].seconds, digits))
        for keyframe, tracks in zip(keyframes, detections.tracks.track_ids, strict=True):
            pairs = zip(tracks.tolist(), keyframe.action_scores, strict=True)
            for track, scores in sorted(pairs, key=lambda pair: pair[0]):
                actions = ", ".join(
                    f"{_shorten(self.action_names[n], _MAX_ACTION_CHARS)} {100 * scores[n]:.0f} %"
                    for n in self.select_actions(scores)
                )
                yield f"  {format_clock(keyframe.seconds, digits):>{clock_width}}  {track:3}  {actions or '–'}"


def build_box_scores(
    detections: Sequence[VideoDetections], names: Sequence[str], actions: LabelMap, *, interval: int, start_second: int
) -> BoxScores:
    """Return all scores of all boxes for `format_box_csv`.

    Args:
        names: Of the videos, for the rows.
        actions: Of the scores.
        interval: Seconds from one key frame to the next.
        start_second: The second of the rows at which the videos begin.
    """
    keyframes = [
        (video, start_second + number * interval, keyframe)
        for video, each in enumerate(detections)
        for number, keyframe in enumerate(each.tracks.keyframes)
    ]
    counts = [len(keyframe.boxes) for _, _, keyframe in keyframes]
    scores = [np.zeros((0, len(actions)), np.float32), *(keyframe.action_scores for _, _, keyframe in keyframes)]
    return BoxScores(
        tuple(names),
        np.repeat(np.array([video for video, _, _ in keyframes], np.int32), counts),
        np.repeat(np.array([second for _, second, _ in keyframes], np.int32), counts),
        np.concatenate([np.zeros((0, 4)), *(keyframe.boxes for _, _, keyframe in keyframes)]),
        actions.action_ids,
        np.concatenate(scores),
    )
