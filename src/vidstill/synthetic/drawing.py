"""Draws a clip of one action: a textured object that moves, smaller ones, a drifting background, a bar in front.

The actions differ in motion alone: a single frame has the same distribution for all of them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from vidstill.synthetic.sprites import (
    Canvas,
    PerFrame,
    Sprite,
    draw_background,
    hsv_to_rgb,
    make_window,
    paint_sprites,
    to_uint8,
)
from vidstill.utils.rng import numpy_rng

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
_BAR_HALF_WIDTH = 0.11  # in widths of the frame: the moving object all but disappears behind the bar
_OUTLINE_POINTS = 512  # points of an outline


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """An object's state in each frame and the bar in front of it, in a world that wraps at the edges of the frame."""

    x: PerFrame  # of the centre, in [0, 1), in widths of the frame from its left edge
    y: PerFrame  # in heights of the frame from its upper edge
    radius: PerFrame  # in shorter sides of the frame
    angle: PerFrame  # clockwise, in radians
    vertical_bar: bool  # the bar, which never moves, runs from top to bottom instead of from side to side
    bar_position: float  # of its centre, in [0, 1), in widths (vertical) or heights of the frame


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
    far = (0.5 + 0.4 * tempo) * time  # in widths and heights of the frame, or in the range of log sizes
    match action:
        case "left" | "right":
            return _translate(start, far if action == "right" else -far, 0)
        case "up" | "down":
            return _translate(start, 0, far if action == "down" else -far)
        case "clockwise" | "counterclockwise":
            rotation = _FULL_TURN * (0.4 + 0.4 * tempo) * time
            return replace(start, angle=start.angle + (rotation if action == "clockwise" else -rotation))
        case "growing" | "shrinking":
            return replace(start, radius=_compute_radius(size + (far if action == "growing" else -far)))
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


def draw_clip(action: str, seed: int, frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the clip of this seed; all but the path of the largest object is the same for every action.

    One or two smaller objects move in any way. There is no motion blur, which a single frame would show.

    Args:
        action: One of MOTION_CLASSES.
        seed: Decides the clip.
        frames: Number of frames.
        size: Rows and columns.
    """
    path = draw_trajectory(action, numpy_rng(seed, "path"), frames)
    rng = numpy_rng(seed, "looks")
    canvas = draw_background(rng, frames, size)
    objects = []
    for _ in range(rng.integers(1, 3)):
        other = draw_trajectory(str(rng.choice(MOTION_CLASSES)), rng, frames)
        objects.append(_draw_object(replace(other, radius=0.4 * other.radius), rng, size))
    paint_sprites(canvas, [*objects, _draw_object(path, rng, size)], wrap=True)
    _paint_bar(canvas, path, rng)
    return to_uint8(canvas)


def _draw_outline(rng: np.random.Generator) -> Float32[np.ndarray, "n"]:
    """Draw an object's radius at each angle; the largest is 1."""
    angle = np.linspace(0, 2 * math.pi, _OUTLINE_POINTS, endpoint=False)
    match rng.choice(["blob", "polygon", "ellipse", "star"]):
        case "blob":
            waves = [rng.uniform(0.06, 0.3) / m * np.cos(m * angle + rng.uniform(0, 6.3)) for m in range(1, 5)]
            outline = 1 + np.sum(waves, axis=0)
        case "polygon":
            corners = int(rng.integers(3, 6))
            outline = 1 / np.cos(angle % (2 * math.pi / corners) - math.pi / corners)
        case "star":
            points = int(rng.integers(3, 6))
            outline = 1 + 0.3 * np.cos(points * angle)
        case _:
            outline = 1 / np.hypot(np.cos(angle), rng.uniform(1.3, 2.0) * np.sin(angle))
    return (outline / outline.max()).astype(np.float32)


def _draw_object(path: Trajectory, rng: np.random.Generator, size: tuple[int, int]) -> Sprite:
    """Draw an object in all frames at once, in a window around its centre."""
    outline, hue = _draw_outline(rng), rng.uniform()
    pattern, frequency = rng.choice(["stripes", "checks", "spots", "wedges"]), rng.uniform(3.5, 7.0)
    first = hsv_to_rgb(hue, rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.0))
    second = hsv_to_rgb(hue + rng.uniform(0.2, 0.8), rng.uniform(0.3, 1.0), rng.uniform(0.25, 0.6))
    height, width = size
    radius = _expand_per_frame(path.radius * min(size))
    reach = math.ceil(radius.max()) + 1
    row, column, right, down = make_window(path.x * width, path.y * height, (reach, reach))
    right, down = right.astype(np.float32) / radius, down.astype(np.float32) / radius
    cos, sin = _expand_per_frame(np.cos(path.angle)), _expand_per_frame(np.sin(path.angle))
    u, v = cos * right + sin * down, cos * down - sin * right
    outline_index = (np.arctan2(v, u) * (_OUTLINE_POINTS / (2 * math.pi))).astype(int) % _OUTLINE_POINTS
    inside = (outline[outline_index] - np.hypot(u, v)) * radius  # about the pixels to the edge
    shade = (0.8 + 0.3 * u) * (0.45 + 0.55 * np.clip(inside / 1.5, 0, 1))  # lit from one side: every angle differs
    match pattern:
        case "stripes":
            wave = np.sin(frequency * u)
        case "checks":
            wave = np.sin(frequency * u) * np.sin(frequency * v) * 1.5
        case "spots":
            wave = np.cos(frequency * u) + np.cos(frequency * v) - 0.6
        case _:
            wave = np.sin(round(frequency) * np.arctan2(v, u))
    share = 0.5 + 0.5 * np.clip(2.5 * wave, -1, 1)  # of the first colour
    colors = (second + (first - second) * share[..., None]) * shade[..., None]
    return Sprite(row, column, np.clip(inside + 0.5, 0, 1), colors, np.zeros(len(row)))


def _paint_bar(canvas: Canvas, path: Trajectory, rng: np.random.Generator) -> None:
    """Draw a striped bar across the frame, in front of everything."""
    canvas = canvas if path.vertical_bar else canvas.swapaxes(1, 2)
    _, along, across, _ = canvas.shape
    distance = ((np.arange(across) + 0.5) / across - path.bar_position + 0.5) % 1 - 0.5
    cover = np.clip((_BAR_HALF_WIDTH - np.abs(distance)) * across + 0.5, 0, 1)
    columns = np.flatnonzero(cover)
    slant, waves, phase = rng.uniform(-20, 20), rng.integers(2, 5), rng.uniform(0, 6.3)
    position = (np.arange(along)[:, None] + 0.5) / along
    stripes = 0.5 + 0.5 * np.clip(
        2.5 * np.sin(2 * math.pi * waves * position + slant * distance[columns] + phase), -1, 1
    )
    first, second = hsv_to_rgb(rng.uniform(), 0.35, 0.9), hsv_to_rgb(rng.uniform(), 0.35, 0.35)
    colors = second + (first - second) * stripes[..., None].astype(np.float32)
    below = canvas[:, :, columns]
    canvas[:, :, columns] = below + (colors - below) * cover[columns, None].astype(np.float32)


def _expand_per_frame(numbers: PerFrame) -> Float32[np.ndarray, "t 1 1"]:
    return numbers.astype(np.float32)[:, None, None]
