"""Actions that differ only in motion: at any one moment, all of them have the same places, sizes and angles."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

ACTIONS = (
    *("left", "right", "up", "down"),
    *("clockwise", "counterclockwise"),
    *("growing", "shrinking"),  # and anew from the other end
    "bouncing",
    "circling",  # either way round
    "shaking",
    "hiding",  # goes behind the bar and comes back out where it went in
)

SMALLEST, LARGEST = 0.26, 0.42
"""Radii of the thing that acts, in shorter sides of the frame."""

_TURN = 2 * math.pi
_Number = Float[np.ndarray, "t"]


@dataclass(frozen=True, kw_only=True)
class Path:
    """A thing's state in each frame, and the bar before it, in a world that wraps at the edges of the frame.

    Args:
        x, y: its centre in [0, 1), in widths and heights of the frame, from the upper left corner.
        radius: in shorter sides of the frame.
        angle: in radians, clockwise.
        upright: whether the bar runs from top to bottom, not from side to side; it never moves.
        bar: the bar's middle in [0, 1), in widths (upright) or heights.
    """

    x: _Number
    y: _Number
    radius: _Number
    angle: _Number
    upright: bool
    bar: float


def trajectory(action: str, chance: np.random.Generator, frames: int) -> Path:
    """How a thing moves that does this.

    Each of x, y, angle and size runs on a circle (the size jumps from one end to the other), where the thing starts
    anywhere, all places being alike. What is uniform stays uniform when it is pushed round: so in every frame of every
    action, place, angle, log size and bar are independent and uniform, and no single frame can tell one action from
    another. Only `hiding` ties the place to the bar, and its distance from the bar is uniform too.

    Speeds are stated for the whole clip: half of its frames in a row show half of the movement.
    """
    x, y, angle, size, tempo, phase, bar, side, upright = chance.random(9)
    start = Path(
        x=np.full(frames, x),
        y=np.full(frames, y),
        radius=_radius(np.full(frames, size)),
        angle=np.full(frames, _TURN * angle),
        upright=bool(upright < 0.5),
        bar=float(bar),
    )
    time = np.linspace(0, 1, frames)
    way = 1.0 if side < 0.5 else -1.0
    far = (0.5 + 0.4 * tempo) * time  # in widths and heights of the frame
    match action:
        case "left":
            return _moved(start, -far, 0)
        case "right":
            return _moved(start, far, 0)
        case "up":
            return _moved(start, 0, -far)
        case "down":
            return _moved(start, 0, far)
        case "clockwise" | "counterclockwise":
            turned = _TURN * (0.4 + 0.4 * tempo) * time
            return replace(start, angle=start.angle + (turned if action == "clockwise" else -turned))
        case "growing" | "shrinking":
            grown = (0.5 + 0.4 * tempo) * time
            return replace(start, radius=_radius(size + (grown if action == "growing" else -grown)))
        case "bouncing":
            hop = (phase + (1.5 + tempo) * time) % 1
            return _moved(start, 0, -0.3 * 4 * hop * (1 - hop))  # a throw's parabola
        case "circling":
            round_ = _TURN * (phase + way * (0.8 + 0.4 * tempo) * time)
            return _moved(start, 0.17 * np.cos(round_), 0.17 * np.sin(round_))
        case "shaking":
            swing = 0.06 * np.sin(_TURN * (phase + (2.4 + 0.6 * tempo) * time))
            return _moved(start, swing * math.cos(_TURN * side), swing * math.sin(_TURN * side))
        case "hiding":
            away = np.abs((phase + (0.7 + 0.3 * tempo) * time) % 1 - 0.5)  # to the bar and back, half the world wide
            place = (bar + way * away) % 1
            return replace(start, x=place) if start.upright else replace(start, y=place)
    raise ValueError(f"{action} is no action; take one of {', '.join(ACTIONS)}")


def _radius(size: _Number) -> _Number:
    return SMALLEST * (LARGEST / SMALLEST) ** (size % 1)


def _moved(path: Path, right: _Number | int, down: _Number | int) -> Path:
    return replace(path, x=(path.x + right) % 1, y=(path.y + down) % 1)
