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
from vidstill.data.ava.label_map import Actions
from vidstill.figures.timeline import Timeline, clock
from vidstill.pipelines.infer.detect import Detected
from vidstill.pipelines.infer.predict import Prediction, Predictions
from vidstill.utils.text import counted, one_line

_MOST_LINES = 40  # of a timeline in a terminal; more are merged where the same class is first, then cut
_BAR = 20  # letters
_NEXT = 2  # classes that are named behind the first in a terminal
_LONGEST = 48  # letters of a class's name in a terminal
_EIGHTHS = " ▏▎▍▌▋▊▉"


def as_csv(found: Predictions, top: int, *, over_time: bool) -> bytes:
    """A line for each video, or for each window of each video, with a header.

    Columns: `video`, over time `start` and `end` in seconds, then for the first class `label` (its number from 0),
    `class`, `probability`, for the second `label_2` and so on. In UTF-8; what of a file's name is no letter stands
    there as `\\udcff`.
    """
    top = min(top, len(found.classes))
    file = io.StringIO(newline="")
    table = csv.writer(file, lineterminator="\n")
    ranks = ["" if rank == 1 else f"_{rank}" for rank in range(1, top + 1)]
    spans = ["start", "end"] if over_time else []
    table.writerow(
        ["video", *spans, *(f"{name}{rank}" for rank in ranks for name in ("label", "class", "probability"))]
    )
    for video in found.videos:
        for span, probabilities in _lines(video, over_time):
            best = _top(probabilities, top)
            cells = [cell for n in best for cell in (n, found.classes[n], f"{probabilities[n]:.6g}")]
            table.writerow([video.video, *(f"{seconds:.3f}" for seconds in span), *cells])
    return file.getvalue().encode("utf-8", "backslashreplace")


def _lines(video: Prediction, over_time: bool) -> Iterator[tuple[tuple[float, ...], Sequence[float]]]:
    if not over_time:
        yield (), video.probabilities.tolist()
    elif video.timeline is not None:
        line = video.timeline
        for start, end, probabilities in zip(line.starts, line.ends, line.probabilities, strict=True):
            yield (float(start), float(end)), probabilities.tolist()


def _top(probabilities: Sequence[float], most: int) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda label: (-probabilities[label], label))[:most]


def as_plain(found: Predictions, top: int) -> dict[str, Any]:
    """As JSON has it: `docs/prediction.md` says what is what."""
    return {
        "model": found.model,
        "classes": list(found.classes),
        "several": found.several,
        "videos": [video_plain(found, video, top) for video in found.videos],
        "left_out": [{"video": video, "why": why} for video, why in found.left_out.items()],
    }


def video_plain(found: Predictions, video: Prediction, top: int) -> dict[str, Any]:
    probabilities = video.probabilities.tolist()
    plain: dict[str, Any] = {
        "video": video.video,
        "top": _named(found.classes, probabilities, top),
        "probabilities": probabilities,
    }
    if video.timeline is not None:
        plain["windows"] = [
            {"start": round(span[0], 3), "end": round(span[1], 3), "top": _named(found.classes, each, top)}
            for span, each in _lines(video, over_time=True)
        ]
    if video.wrong:
        plain["wrong"] = video.wrong
    return plain


def _named(classes: Sequence[str], probabilities: Sequence[float], top: int) -> list[dict[str, Any]]:
    best = _top(probabilities, top)
    return [{"label": n, "class": classes[n], "probability": round(probabilities[n], 6)} for n in best]


def as_json(plain: dict[str, Any]) -> str:
    return json.dumps(plain, indent=1)


def in_words(found: Predictions, top: int) -> str:
    """A line for each video with its classes; where it is known when they are seen, that below it."""
    if all(video.timeline is None for video in found.videos):
        return "\n".join(_table(found, top))
    blocks = [[f"{one_line(video.video)}: {', '.join(shares(found, video, top))}"] for video in found.videos]
    for block, video in zip(blocks, found.videos, strict=True):
        if video.timeline is not None:
            block += ["", *_timeline(video.timeline, found.classes)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _table(found: Predictions, top: int) -> Iterator[str]:
    names = [one_line(video.video) for video in found.videos]
    firsts = [_short(found.classes[video.top(1)[0]]) for video in found.videos]
    wide, first_wide = max(map(len, names)), max(map(len, firsts))
    for name, first, video in zip(names, firsts, found.videos, strict=True):
        others = ", ".join(shares(found, video, min(top, 1 + _NEXT))[1:])
        share = 100 * video.probabilities.max().item()
        yield f"{name:{wide}}  {first:{first_wide}}  {share:5.1f} %   {others}".rstrip()


def shares(found: Predictions, video: Prediction, top: int) -> list[str]:
    """The most probable classes with their probabilities."""
    best = video.top(top)
    return [f"{_short(found.classes[label])} {100 * video.probabilities[label].item():.1f} %" for label in best]


def _timeline(timeline: Timeline, classes: Sequence[str]) -> Iterator[str]:
    """A line for each window; of many, a line for each stretch of time with the same class first."""
    columns = timeline.starts, timeline.ends, timeline.top, timeline.probabilities.max(axis=1)
    lines = [(float(start), float(end), int(label), float(p)) for start, end, label, p in zip(*columns, strict=True)]
    merged = len(lines) > _MOST_LINES
    lines = timeline.runs() if merged else lines
    digits = 0 if merged and timeline.ends[-1] > 60 else 1
    last = clock(timeline.ends[-1], digits)
    wide = max(len(_short(classes[label])) for _, _, label, _ in lines)
    for start, end, label, share in lines[:_MOST_LINES]:
        span = f"{clock(start, digits):>{len(last)}} – {clock(end, digits):>{len(last)}}"
        yield f"  {span}  {_short(classes[label]):{wide}}  {_bar(share)}  {100 * share:5.1f} %"
    if len(lines) > _MOST_LINES:
        yield f"  … and {counted(len(lines) - _MOST_LINES, 'line')} more, which --out writes"


def _bar(share: float) -> str:
    eighths = round(8 * _BAR * share)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip().ljust(_BAR)


def _short(name: str) -> str:
    """A class's name on one line, its end cut off where it is too long."""
    name = one_line(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


_LONGEST_of_told = 40  # letters of an action's name there


@dataclass(frozen=True)
class Telling:
    """What is told of each box.

    Args:
        model: whose answers they are.
        top: so many actions at most.
        least: those with this score or more.
    """

    model: str
    actions: Actions
    top: int
    least: float

    @property
    def names(self) -> list[str]:
        """By place."""
        return list(self.actions.names.values())

    def best(self, scores: Float32[np.ndarray, "a"]) -> list[int]:
        """The places of the actions that are told, the likeliest first."""
        order = np.argsort(-scores, kind="stable")[: self.top]
        return [int(place) for place in order if scores[place] >= self.least]

    def head(self) -> dict[str, Any]:
        """What is the same for all videos."""
        actions = [{"action": number, "name": name} for number, name in self.actions.names.items()]
        return {"model": self.model, "actions": actions}

    def plain(self, found: Detected) -> dict[str, Any]:
        """As JSON has it: `docs/detection.md` says what is what."""
        height, width = found.size
        moments = [
            {"seconds": round(moment.seconds, 3), "boxes": list(self._boxes(found, place))}
            for place, moment in enumerate(found.tracks.moments)
        ]
        plain = {"video": found.video, "width": width, "height": height, "rate": found.rate, "moments": moments}
        return plain | ({"wrong": found.wrong} if found.wrong else {})

    def _boxes(self, found: Detected, place: int) -> Iterator[dict[str, Any]]:
        height, width = found.size
        moment, tracks = found.tracks.moments[place], found.tracks.numbers[place].tolist()
        for track, box, person, scores in zip(tracks, moment.boxes, moment.persons, moment.scores, strict=True):
            yield {
                "track": track,
                "box": box.round(5).tolist(),
                "pixels": (box * [width, height, width, height]).round(1).tolist(),
                "person": round(float(person), 6),
                "top": [
                    {
                        "action": self.actions.numbers[best],
                        "name": self.names[best],
                        "score": round(float(scores[best]), 6),
                    }
                    for best in self.best(scores)
                ],
                "scores": [round(score, 6) for score in scores.tolist()],
            }

    def in_words(self, found: Detected) -> str:
        """A line for each box of each moment."""
        moments = found.tracks.moments
        boxes = sum(len(moment.boxes) for moment in moments)
        people = counted(len({int(track) for numbers in found.tracks.numbers for track in numbers}), "track")
        head = f"{one_line(found.video)}: {counted(len(moments), 'moment')}, {counted(boxes, 'box')}, {people}"
        lines = list(self._lines(found))
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"  … and {counted(len(lines) - _MOST_LINES, 'line')} more, which --out writes"]
        return "\n".join([head, *lines])

    def _lines(self, found: Detected) -> Iterator[str]:
        digits = 0 if all(abs(moment.seconds - round(moment.seconds)) < 0.05 for moment in found.tracks.moments) else 1
        last = clock(found.tracks.moments[-1].seconds, digits)
        for moment, tracks in zip(found.tracks.moments, found.tracks.numbers, strict=True):
            for track, scores in sorted(zip(tracks.tolist(), moment.scores, strict=True), key=lambda pair: pair[0]):
                told = ", ".join(f"{_short_of_told(self.names[n])} {100 * scores[n]:.0f} %" for n in self.best(scores))
                yield f"  {clock(moment.seconds, digits):>{len(last)}}  {track:3}  {told or '–'}"


def ava_rows(found: Sequence[Detected], names: Sequence[str], actions: Actions, *, every: int, start: int) -> BoxScores:
    """All scores of all boxes, as `rows.write_rows` writes them.

    Args:
        names: of the videos, as the rows have them.
        every: seconds from one moment to the next.
        start: the rows' second at which the videos begin.
    """
    moments = [
        (video, start + place * every, moment)
        for video, each in enumerate(found)
        for place, moment in enumerate(each.tracks.moments)
    ]
    counts = [len(moment.boxes) for _, _, moment in moments]
    return BoxScores(
        tuple(names),
        np.repeat(np.array([video for video, _, _ in moments], np.int32), counts),
        np.repeat(np.array([second for _, second, _ in moments], np.int32), counts),
        np.concatenate([np.zeros((0, 4)), *(moment.boxes for _, _, moment in moments)]),
        actions.numbers,
        np.concatenate([np.zeros((0, len(actions)), np.float32), *(moment.scores for _, _, moment in moments)]),
    )


def _short_of_told(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _LONGEST_of_told else name[: _LONGEST_of_told - 1] + "…"
