"""Draws a clip of one action: a textured object that moves, smaller ones, a drifting background, a bar in front."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from vidstill.synthetic.motion import MOTION_CLASSES, Trajectory, draw_trajectory
from vidstill.synthetic.sprites import (
    Canvas,
    PerFrame,
    Sprite,
    draw_background,
    hsv_to_rgb,
    paint_sprites,
    to_uint8,
)
from vidstill.utils.rng import numpy_rng

_Patch = Float32[np.ndarray, "t n n"]

_BAR_HALF_WIDTH = 0.11  # in widths of the frame: the moving object all but disappears behind the bar
_OUTLINE_POINTS = 512  # points of an outline


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
        objects.append(_draw_object(replace(other, radius=0.4 * other.radius), _draw_appearance(rng), size))
    paint_sprites(canvas, [*objects, _draw_object(path, _draw_appearance(rng), size)], wrap=True)
    _paint_bar(canvas, path, rng)
    return to_uint8(canvas)


@dataclass(frozen=True, kw_only=True)
class _Appearance:
    """An object's outline (its radius at each angle; the largest is 1) and its texture."""

    outline: Float[np.ndarray, "n"]
    pattern: str
    frequency: float
    colors: tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]


def _draw_appearance(rng: np.random.Generator) -> _Appearance:
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
    hue = rng.uniform()
    return _Appearance(
        outline=(outline / outline.max()).astype(np.float32),
        pattern=str(rng.choice(["stripes", "checks", "spots", "wedges"])),
        frequency=rng.uniform(3.5, 7.0),
        colors=(
            hsv_to_rgb(hue, rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.0)),
            hsv_to_rgb(hue + rng.uniform(0.2, 0.8), rng.uniform(0.3, 1.0), rng.uniform(0.25, 0.6)),
        ),
    )


def _draw_object(path: Trajectory, appearance: _Appearance, size: tuple[int, int]) -> Sprite:
    """Draw an object in all frames at once, in a window around its centre."""
    height, width = size
    radius = _expand_per_frame(path.radius * min(size))
    reach = math.ceil(radius.max()) + 1
    offsets = np.arange(-reach, reach + 1)
    x, y = path.x * width, path.y * height
    columns, rows = (np.floor(center).astype(int)[:, None] + offsets for center in (x, y))
    right = (columns + 0.5 - x[:, None]).astype(np.float32)[:, None, :] / radius
    down = (rows + 0.5 - y[:, None]).astype(np.float32)[:, :, None] / radius
    cos, sin = _expand_per_frame(np.cos(path.angle)), _expand_per_frame(np.sin(path.angle))
    u, v = cos * right + sin * down, cos * down - sin * right
    outline_index = (np.arctan2(v, u) * (_OUTLINE_POINTS / (2 * math.pi))).astype(int) % _OUTLINE_POINTS
    inside = (appearance.outline[outline_index] - np.hypot(u, v)) * radius  # about the pixels to the edge
    shade = (0.8 + 0.3 * u) * (0.45 + 0.55 * np.clip(inside / 1.5, 0, 1))  # lit from one side: every angle differs
    first, second = appearance.colors
    colors = (second + (first - second) * _compute_pattern(appearance, u, v)[..., None]) * shade[..., None]
    return Sprite(rows[:, 0], columns[:, 0], np.clip(inside + 0.5, 0, 1), colors, np.zeros(len(x)))


def _compute_pattern(appearance: _Appearance, u: _Patch, v: _Patch) -> _Patch:
    """Return the share of the first colour, 0 to 1, at each point of the object's own plane."""
    k = appearance.frequency
    match appearance.pattern:
        case "stripes":
            wave = np.sin(k * u)
        case "checks":
            wave = np.sin(k * u) * np.sin(k * v) * 1.5
        case "spots":
            wave = np.cos(k * u) + np.cos(k * v) - 0.6
        case _:
            wave = np.sin(round(k) * np.arctan2(v, u))
    return 0.5 + 0.5 * np.clip(2.5 * wave, -1, 1)


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
