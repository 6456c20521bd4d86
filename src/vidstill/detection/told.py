"""What the persons in videos do, as JSON, as AVA's rows, and as lines for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from vidstill.data.boxes.actions import Actions
from vidstill.data.boxes.rows import BoxScores
from vidstill.data.words import counted, one_line
from vidstill.detection.predict import Detected
from vidstill.figures.timeline import clock

_MOST_LINES = 40  # of a video in a terminal
_LONGEST = 40  # letters of an action's name there


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
                told = ", ".join(f"{_short(self.names[n])} {100 * scores[n]:.0f} %" for n in self.best(scores))
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


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
