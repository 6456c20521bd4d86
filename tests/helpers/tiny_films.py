"""Films whose frames show their own number, as a file, a folder of frames, or files of one second each; key frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tiny_videos
from PIL import Image

from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.ava.label_map import LabelMap

BITS = 10
ACTIONS = LabelMap({1: "stands", 3: "sits", 7: "waves"}, frozenset({1, 3, 7}))


def numbered(number: int) -> np.ndarray:
    """Return an image `(32, 80, 3)` that shows a number."""
    return tiny_videos.numbered(number, bits=BITS)


def numbers_of(frames: np.ndarray) -> list[int]:
    """Return the numbers that frames `(t, h, w, 3)` show; they may have been resized."""
    return [tiny_videos.number_of(frame, BITS) for frame in frames]


def write_video(path: Path, images: Sequence[np.ndarray], rate: int = 25) -> Path:
    return tiny_videos.write_images(path, images, rate=rate, gop_size=12, max_b_frames=2)


def file_film(folder: Path, frames: int, rate: int, start: int = 0) -> KeyframeVideo:
    path = write_video(folder / "film.mp4", [numbered(n) for n in range(frames)], rate)
    return KeyframeVideo("film", path, "file", float(start))


def frames_film(folder: Path, frames: int, rate: int, start: int = 0) -> KeyframeVideo:
    (folder / "film").mkdir(parents=True)
    for n in range(frames):
        Image.fromarray(numbered(n)).save(folder / "film" / f"film_{n + 1:06d}.png")
    return KeyframeVideo("film", folder / "film", "frames", float(start), float(rate))


def seconds_film(folder: Path, counts: Mapping[int, int], rate: int = 25) -> KeyframeVideo:
    """Numbered through all seconds, so many frames in each."""
    first = 0
    for second, count in counts.items():
        pictures = [numbered(n) for n in range(first, first + count)]
        write_video(folder / "film" / f"{second}.mp4", pictures, rate)
        first += count
    return KeyframeVideo("film", folder / "film", "seconds")


def key_frames(
    films: Sequence[KeyframeVideo],
    moments: Sequence[tuple[int, int]],
    boxes: Sequence[Sequence[tuple[float, ...]]],
    source: Path,
) -> Keyframes:
    """
    Args:
        moments: a film's place and a second.
        boxes: of each moment, as fractions; the person in a box that stands at place p does what is at place p mod 3.
    """
    counts = [len(some) for some in boxes]
    flat = np.array([box for some in boxes for box in some], np.float64).reshape(-1, 4)
    labels = np.zeros((len(flat), 3), bool)
    labels[np.arange(len(flat)), np.concatenate([np.arange(n) for n in counts]) % 3] = True
    return Keyframes(
        tuple(films),
        np.array([film for film, _ in moments], np.int32),
        np.array([second for _, second in moments], np.int32),
        np.cumsum([0, *counts]),
        flat,
        labels,
        np.ones(len(flat)),
        ACTIONS,
        source,
        "made",
    )
