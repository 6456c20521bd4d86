"""Actions that differ only in motion: at any one moment, all of them have the same places, sizes and angles."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

MOTION_CLASSES = (
    *("left", "right", "up", "down"),
    *("clockwise", "counterclockwise"),
    *("growing", "shrinking"),  # and anew from the other end
    "bouncing",
    "circling",  # either way round
    "shaking",
    "hiding",  # goes behind the bar and comes back out where it went in
)

MIN_RADIUS, MAX_RADIUS = 0.26, 0.42
"""Radii of the thing that acts, in shorter sides of the frame."""

_FULL_TURN = 2 * math.pi
_PerFrame = Float[np.ndarray, "t"]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A thing's state in each frame, and the bar before it, in a world that wraps at the edges of the frame.

    Args:
        x, y: its centre in [0, 1), in widths and heights of the frame, from the upper left corner.
        radius: in shorter sides of the frame.
        angle: in radians, clockwise.
        vertical_bar: whether the bar runs from top to bottom, not from side to side; it never moves.
        bar_position: the bar's middle in [0, 1), in widths (upright) or heights.
    """

    x: _PerFrame
    y: _PerFrame
    radius: _PerFrame
    angle: _PerFrame
    vertical_bar: bool
    bar_position: float


def draw_trajectory(action: str, rng: np.random.Generator, frames: int) -> Trajectory:
    """How a thing moves that does this.

    Each of x, y, angle and size runs on a circle (the size jumps from one end to the other), where the thing starts
    anywhere, all places being alike. What is uniform stays uniform when it is pushed round: so in every frame of every
    action, place, angle, log size and bar are independent and uniform, and no single frame can tell one action from
    another. Only `hiding` ties the place to the bar, and its distance from the bar is uniform too.

    Speeds are stated for the whole clip: half of its frames in a row show half of the movement.
    """
    x, y, angle, size, tempo, phase, bar, side, upright = rng.random(9)
    start = Trajectory(
        x=np.full(frames, x),
        y=np.full(frames, y),
        radius=_compute_radius(np.full(frames, size)),
        angle=np.full(frames, _FULL_TURN * angle),
        vertical_bar=bool(upright < 0.5),
        bar_position=float(bar),
    )
    time = np.linspace(0, 1, frames)
    way = 1.0 if side < 0.5 else -1.0
    far = (0.5 + 0.4 * tempo) * time  # in widths and heights of the frame
    match action:
        case "left":
            return _translate(start, -far, 0)
        case "right":
            return _translate(start, far, 0)
        case "up":
            return _translate(start, 0, -far)
        case "down":
            return _translate(start, 0, far)
        case "clockwise" | "counterclockwise":
            turned = _FULL_TURN * (0.4 + 0.4 * tempo) * time
            return replace(start, angle=start.angle + (turned if action == "clockwise" else -turned))
        case "growing" | "shrinking":
            grown = (0.5 + 0.4 * tempo) * time
            return replace(start, radius=_compute_radius(size + (grown if action == "growing" else -grown)))
        case "bouncing":
            hop = (phase + (1.5 + tempo) * time) % 1
            return _translate(start, 0, -0.3 * 4 * hop * (1 - hop))  # a throw's parabola
        case "circling":
            round_ = _FULL_TURN * (phase + way * (0.8 + 0.4 * tempo) * time)
            return _translate(start, 0.17 * np.cos(round_), 0.17 * np.sin(round_))
        case "shaking":
            swing = 0.06 * np.sin(_FULL_TURN * (phase + (2.4 + 0.6 * tempo) * time))
            return _translate(start, swing * math.cos(_FULL_TURN * side), swing * math.sin(_FULL_TURN * side))
        case "hiding":
            away = np.abs((phase + (0.7 + 0.3 * tempo) * time) % 1 - 0.5)  # to the bar and back, half the world wide
            place = (bar + way * away) % 1
            return replace(start, x=place) if start.vertical_bar else replace(start, y=place)
    raise ValueError(f"{action} is no action; take one of {', '.join(MOTION_CLASSES)}")


def _compute_radius(size: _PerFrame) -> _PerFrame:
    return MIN_RADIUS * (MAX_RADIUS / MIN_RADIUS) ** (size % 1)


def _translate(path: Trajectory, right: _PerFrame | int, down: _PerFrame | int) -> Trajectory:
    return replace(path, x=(path.x + right) % 1, y=(path.y + down) % 1)
