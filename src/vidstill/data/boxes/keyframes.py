"""Key frames: the moments of videos at which persons have boxes, and what they do there."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from vidstill.data.boxes.actions import Actions
from vidstill.data.boxes.films import Film
from vidstill.data.sources import Place


@dataclass(frozen=True)
class KeyFrame:
    """One of them.

    Args:
        boxes: x1, y1, x2, y2 as fractions of the frame's width and height.
        labels: what each person does, by the actions' places.
        scores: of whoever found the boxes; 1 where they are annotated.
    """

    film: Film
    second: int
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]

    @property
    def name(self) -> str:
        """The key by which AVA's files know it."""
        return f"{self.film.name},{self.second:04d}"


@dataclass(frozen=True)
class KeyFrames:
    """Key frames in the order of their videos and seconds, as columns.

    Args:
        film: whose each is, a place among the films.
        ends: where each one's boxes end among all of them, after a 0.
        kind: in words, what the data were taken for.
        fingerprint: of all that is here, and of the films' paths.
    """

    films: tuple[Film, ...]
    film: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    ends: Int64[np.ndarray, "n+1"]
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]
    actions: Actions
    source: Place
    kind: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.film)

    def __getitem__(self, place: int) -> KeyFrame:
        own = slice(self.ends[place], self.ends[place + 1])
        return KeyFrame(
            self.films[self.film[place]],
            int(self.second[place]),
            self.boxes[own],
            self.labels[own],
            self.scores[own],
        )

    @property
    def most_boxes(self) -> int:
        """That one of them has."""
        return int(np.diff(self.ends).max(initial=0))
