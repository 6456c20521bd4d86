"""Trajectories of actions that differ in motion alone: a single frame has the same distribution for all of them."""

import math
from dataclasses import dataclass, replace

import numpy as np

from vidstill.synthetic.sprites import PerFrame

MOTION_CLASSES = (
    *("left", "right", "up", "down"),
    *("clockwise", "counterclockwise"),
    *("growing", "shrinking"),  # and again from the other end
    "bouncing",
    "circling",  # in either direction
    "shaking",
    "hiding",  # goes behind the bar and comes back out where it went in
)

MIN_RADIUS, MAX_RADIUS = 0.26, 0.42
"""Radii of the moving object, in shorter sides of the frame."""

_FULL_TURN = 2 * math.pi


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """An object's state in each frame and the bar in front of it, in a world that wraps at the edges of the frame.

    Args:
        x: Horizontal centre in [0, 1), in widths of the frame from its left edge.
        y: Vertical centre in [0, 1), in heights of the frame from its upper edge.
        radius: Radius in shorter sides of the frame.
        angle: Clockwise rotation in radians.
        vertical_bar: The bar, which never moves, runs from top to bottom instead of from side to side.
        bar_position: Centre of the bar in [0, 1), in widths (vertical) or heights of the frame.
    """

    x: PerFrame
    y: PerFrame
    radius: PerFrame
    angle: PerFrame
    vertical_bar: bool
    bar_position: float


def draw_trajectory(action: str, rng: np.random.Generator, frames: int) -> Trajectory:
    """Draw how an object moves.

    Each of x, y, angle and log size runs on a circle (the size jumps from one end to the other) and starts uniformly
    distributed there. A rotation keeps it uniform: so in every frame of every action, position, angle, log size and bar
    are independent and uniform, and no single frame tells one action from another. Only `hiding` ties the position to
    the bar, and its distance from the bar is uniform too.

    Args:
        action: One of MOTION_CLASSES.
        rng: Source of the random numbers.
        frames: Number of frames; speeds are relative to the whole clip.
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
    direction = 1.0 if side < 0.5 else -1.0
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
            rotation = _FULL_TURN * (0.4 + 0.4 * tempo) * time
            return replace(start, angle=start.angle + (rotation if action == "clockwise" else -rotation))
        case "growing" | "shrinking":
            growth = (0.5 + 0.4 * tempo) * time
            return replace(start, radius=_compute_radius(size + (growth if action == "growing" else -growth)))
        case "bouncing":
            hop = (phase + (1.5 + tempo) * time) % 1
            return _translate(start, 0, -0.3 * 4 * hop * (1 - hop))  # the parabola of a throw
        case "circling":
            turn = _FULL_TURN * (phase + direction * (0.8 + 0.4 * tempo) * time)
            return _translate(start, 0.17 * np.cos(turn), 0.17 * np.sin(turn))
        case "shaking":
            swing = 0.06 * np.sin(_FULL_TURN * (phase + (2.4 + 0.6 * tempo) * time))
            return _translate(start, swing * math.cos(_FULL_TURN * side), swing * math.sin(_FULL_TURN * side))
        case "hiding":
            distance = np.abs((phase + (0.7 + 0.3 * tempo) * time) % 1 - 0.5)  # to the bar and back, by half the world
            center = (bar + direction * distance) % 1
            return replace(start, x=center) if start.vertical_bar else replace(start, y=center)
    raise ValueError(f"{action} is not an action; take one of {', '.join(MOTION_CLASSES)}")


def _compute_radius(size: PerFrame) -> PerFrame:
    return MIN_RADIUS * (MAX_RADIUS / MIN_RADIUS) ** (size % 1)


def _translate(path: Trajectory, right: PerFrame | int, down: PerFrame | int) -> Trajectory:
    return replace(path, x=(path.x + right) % 1, y=(path.y + down) % 1)
