"""Predictions and detections as CSV, as JSON values, and as lines for a terminal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from vidstill.data.ava.box_table import BoxScores, format_box_csv
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.figures.annotate import ClassPainter, PaintFn
from vidstill.figures.boxes import BoxPainter
from vidstill.figures.timeline import Timeline, format_clock
from vidstill.pipelines.infer.detect import VideoDetections
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.predict import VideoPrediction
from vidstill.pipelines.trained_models import LoadedDetector
from vidstill.tasks.results import format_csv
from vidstill.utils.terminal import align_columns
from vidstill.utils.text import format_one_line, pluralize

MAX_DRAWN_CLASSES = 3
"""Over a video, and above a plot."""

_MAX_LINES = 40  # of a timeline in a terminal; more windows are merged to segments, then cut
_BAR_WIDTH = 20  # characters
_MAX_RUNNERS_UP = 2  # classes named behind the first in a table of videos
_MAX_CLASS_CHARS, _MAX_ACTION_CHARS = 48, 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DECIMALS = 5, 5  # of coordinates and scores


def select_best(scores: Float[np.ndarray, "n"], k: int, min_score: float = 0.0) -> list[int]:
    """Return the indices of the k highest scores, the best first, without those below `min_score`."""
    order = np.argsort(-scores, kind="stable")[:k].tolist()
    return [index for index in order if scores[index] >= min_score]


@dataclass(frozen=True)
class PredictionFormatter:
    """What is written of each video's classes.

    Args:
        encoder: The fine-tuned model that predicts.
        views: Those over which a video's probabilities are merged.
        topk: Classes that are named at most.
        timeline: The CSV has a line per window instead of one per video.
    """

    encoder: VideoEncoder
    views: ViewsConfig
    topk: int
    timeline: bool = False

    @property
    def header(self) -> dict[str, Any]:
        """What is the same for all videos, as JSON values."""
        encoder, views = self.encoder, self.views
        return {
            "model": encoder.source,
            "classes": list(encoder.classes),
            "multi_label": encoder.multi_label,
            "views": {"temporal_clips": views.temporal_clips, "spatial_crops": views.spatial_crops},
        }

    def format_csv(self, videos: Sequence[VideoPrediction]) -> Iterable[bytes]:
        """Return a CSV with a header and one line per video, or per window of each video.

        The columns are `video`; with a timeline `start` and `end` in seconds; then `label` (counted from 0), `class`
        and `probability` of the best class, `label_2` and so on of the second. In UTF-8; other bytes of a file's name
        are written as `\\udcff`.
        """
        suffixes = ["", *(f"_{rank}" for rank in range(2, min(self.topk, len(self.encoder.classes)) + 1))]
        names = [f"{name}{suffix}" for suffix in suffixes for name in ("label", "class", "probability")]
        rows: list[list[object]] = [["video", *(["start", "end"] if self.timeline else []), *names]]
        for video in videos:
            windows = [((), video.probabilities.numpy())] if not self.timeline else _iter_windows(video)
            for span, probabilities in windows:
                rows.append([video.video, *(f"{each:.3f}" for each in span)])
                for n in select_best(probabilities, self.topk):
                    rows[-1] += [n, self.encoder.classes[n], f"{probabilities[n]:.6g}"]
        return format_csv(rows)

    def video_to_dict(self, video: VideoPrediction) -> dict[str, Any]:
        """Return one video's result as JSON values."""
        probabilities = video.probabilities.numpy()
        values = {"video": video.video, "top": self._list_topk(probabilities), "probabilities": probabilities.tolist()}
        if video.timeline is not None:
            values["windows"] = [
                {"start": round(start, 3), "end": round(end, 3), "top": self._list_topk(each)}
                for (start, end), each in _iter_windows(video)
            ]
        return values | ({"error": video.error} if video.error else {})

    def _list_topk(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"label": n, "class": self.encoder.classes[n], "probability": round(float(probabilities[n]), 6)}
            for n in select_best(probabilities, self.topk)
        ]

    def build_painter(self, video: VideoPrediction) -> Callable[[int, int], PaintFn] | None:
        """Return what paints over the frames of a video; None without a timeline."""
        if video.timeline is None:
            return None
        return partial(ClassPainter, video.timeline, self.encoder.classes, min(self.topk, MAX_DRAWN_CLASSES))

    def format_text(self, videos: Sequence[VideoPrediction]) -> str:
        """Return one line per video with its classes, and its timeline below if there is one."""
        if all(video.timeline is None for video in videos):
            return "\n".join(self._format_table(videos))
        blocks = []
        for video in videos:
            lines = [f"{format_one_line(video.video)}: {', '.join(self.format_top_classes(video, self.topk))}"]
            if video.timeline is not None:
                lines += ["", *self._format_timeline(video.timeline)]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)

    def _format_table(self, videos: Sequence[VideoPrediction]) -> list[str]:
        rows = []
        for video in videos:
            (best,) = select_best(video.probabilities.numpy(), 1)
            others = ", ".join(self.format_top_classes(video, min(self.topk, 1 + _MAX_RUNNERS_UP))[1:])
            percent = f"{100 * video.probabilities[best].item():5.1f} % "
            rows.append((format_one_line(video.video), self._format_class(best), percent, others))
        return align_columns(rows)

    def format_top_classes(self, video: VideoPrediction, k: int) -> list[str]:
        """Return the k most probable classes with their probabilities."""
        best = [(n, video.probabilities[n].item()) for n in select_best(video.probabilities.numpy(), k)]
        return [f"{self._format_class(n)} {100 * probability:.1f} %" for n, probability in best]

    def _format_class(self, label: int) -> str:
        return format_one_line(self.encoder.classes[label], _MAX_CLASS_CHARS)

    def _format_timeline(self, timeline: Timeline) -> Iterator[str]:
        """Yield a line per window; if there are many, a line per segment with the same best class."""
        columns = timeline.starts, timeline.ends, timeline.top_classes, timeline.probabilities.max(axis=1)
        lines = list(zip(*(column.tolist() for column in columns), strict=True))
        by_segment = len(lines) > _MAX_LINES
        lines = timeline.find_segments() if by_segment else lines
        digits = 0 if by_segment and timeline.ends[-1] > 60 else 1
        clock_width = len(format_clock(timeline.ends[-1], digits))
        width = max(len(self._format_class(label)) for _, _, label, _ in lines)
        for start, end, label, probability in lines[:_MAX_LINES]:
            span = f"{format_clock(start, digits):>{clock_width}} – {format_clock(end, digits):>{clock_width}}"
            eighths = round(8 * _BAR_WIDTH * probability)
            bar = ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip().ljust(_BAR_WIDTH)
            yield f"  {span}  {self._format_class(label):{width}}  {bar}  {100 * probability:5.1f} %"
        yield from _format_remaining(len(lines))


def _iter_windows(video: VideoPrediction) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
    """Yield start and end of each window, and its probabilities."""
    if (line := video.timeline) is not None:
        yield from zip(zip(line.starts.tolist(), line.ends.tolist(), strict=True), line.probabilities, strict=True)


def _format_remaining(num_lines: int) -> Iterator[str]:
    if num_lines > _MAX_LINES:
        yield f"  … and {pluralize(num_lines - _MAX_LINES, 'line')} more, which --out writes"


@dataclass(frozen=True)
class DetectionFormatter:
    """What is written of each box.

    Args:
        topk: Actions that are named at most.
        min_score: Actions with this score or more are named.
        interval: Seconds from one key frame to the next.
        stems: What AVA's rows call each video: as its files in a folder.
        start_second: The second of AVA's rows at which the videos begin.
    """

    detector: LoadedDetector
    topk: int
    min_score: float
    stems: Mapping[str, str]
    interval: float = 1.0
    start_second: int = 0

    @property
    def action_names(self) -> list[str]:
        return list(self.detector.actions.names.values())

    @property
    def header(self) -> dict[str, Any]:
        actions = [{"action_id": number, "name": name} for number, name in self.detector.actions.names.items()]
        return {"model": self.detector.source, "actions": actions}

    def video_to_dict(self, video: VideoDetections) -> dict[str, Any]:
        height, width = video.frame_size
        keyframes = [
            {"seconds": round(keyframe.seconds, 3), "boxes": list(self._iter_boxes(video, index))}
            for index, keyframe in enumerate(video.tracks.keyframes)
        ]
        values = {"video": video.video, "width": width, "height": height, "fps": video.frame_rate}
        return {**values, "keyframes": keyframes, **({"error": video.error} if video.error else {})}

    def _iter_boxes(self, video: VideoDetections, index: int) -> Iterator[dict[str, Any]]:
        height, width = video.frame_size
        keyframe, tracks = video.tracks.keyframes[index], video.tracks.track_ids[index].tolist()
        action_ids, names = self.detector.actions.action_ids, self.action_names
        columns = tracks, keyframe.boxes, keyframe.person_scores, keyframe.action_scores
        for track, box, person_score, scores in zip(*columns, strict=True):
            rounded = [round(score, 6) for score in scores.tolist()]
            best = select_best(scores, self.topk, self.min_score)
            yield {
                "track": track,
                "box": box.round(5).tolist(),
                "pixels": (box * [width, height, width, height]).round(1).tolist(),
                "person_score": round(float(person_score), 6),
                "top": [{"action_id": action_ids[n], "name": names[n], "score": rounded[n]} for n in best],
                "scores": rounded,
            }

    def format_csv(self, videos: Sequence[VideoDetections]) -> Iterable[bytes]:
        """Return AVA's rows: every action of every box."""
        keyframes = [
            (video, self.start_second + number * int(self.interval), keyframe)
            for video, each in enumerate(videos)
            for number, keyframe in enumerate(each.tracks.keyframes)
        ]
        counts = [len(keyframe.boxes) for _, _, keyframe in keyframes]
        no_scores = np.zeros((0, len(self.detector.actions)), np.float32)
        scores = BoxScores(
            tuple(self.stems[each.video] for each in videos),
            np.repeat(np.array([video for video, _, _ in keyframes], np.int32), counts),
            np.repeat(np.array([second for _, second, _ in keyframes], np.int32), counts),
            np.concatenate([np.zeros((0, 4)), *(keyframe.boxes for _, _, keyframe in keyframes)]),
            self.detector.actions.action_ids,
            np.concatenate([no_scores, *(keyframe.action_scores for _, _, keyframe in keyframes)]),
        )
        return format_box_csv(scores, decimals=_DECIMALS)

    def build_painter(self, video: VideoDetections) -> Callable[[int, int], PaintFn]:
        """Return what paints over the frames of a video."""
        return partial(BoxPainter, video.tracks, self.action_names, self.topk, self.min_score)

    def format_text(self, videos: Sequence[VideoDetections]) -> str:
        """Return for each video a line per box and key frame."""
        return "\n\n".join(map(self._format_video, videos))

    def _format_video(self, video: VideoDetections) -> str:
        keyframes = video.tracks.keyframes
        boxes = sum(len(keyframe.boxes) for keyframe in keyframes)
        tracks = len({int(track) for numbers in video.tracks.track_ids for track in numbers})
        counts = ((len(keyframes), "key frame"), (boxes, "box"), (tracks, "track"))
        head = f"{format_one_line(video.video)}: {', '.join(pluralize(*each) for each in counts)}"
        digits = 0 if all(abs(each.seconds - round(each.seconds)) < 0.05 for each in keyframes) else 1
        clock_width = len(format_clock(keyframes[-1].seconds, digits))
        lines, names = [], self.action_names
        for keyframe, track_ids in zip(keyframes, video.tracks.track_ids, strict=True):
            pairs = zip(track_ids.tolist(), keyframe.action_scores, strict=True)
            for track, scores in sorted(pairs, key=lambda pair: pair[0]):
                actions = ", ".join(
                    f"{format_one_line(names[n], _MAX_ACTION_CHARS)} {100 * scores[n]:.0f} %"
                    for n in select_best(scores, self.topk, self.min_score)
                )
                lines.append(f"  {format_clock(keyframe.seconds, digits):>{clock_width}}  {track:3}  {actions or '–'}")
        return "\n".join([head, *lines[:_MAX_LINES], *_format_remaining(len(lines))])


Formatter = PredictionFormatter | DetectionFormatter


def describe_videos(formatter: Formatter, videos: Sequence[Any], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Return the results of all videos as JSON values; `docs/prediction.md` and `docs/detection.md` describe them.

    Args:
        videos: `VideoPrediction`s or `VideoDetections`, as the formatter needs.
        skipped: The reason for each video without a result.
    """
    reasons = [{"video": video, "reason": reason} for video, reason in skipped.items()]
    return {**formatter.header, "videos": [formatter.video_to_dict(each) for each in videos], "skipped": reasons}
