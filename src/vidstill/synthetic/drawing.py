"""Draws a clip: a textured thing that acts, smaller ones that do anything, a drifting background, a bar in front."""

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from vidstill.synthetic.motion import MOTION_CLASSES, Trajectory, draw_trajectory
from vidstill.utils.rng import numpy_rng

_Canvas = Float32[np.ndarray, "t h w 3"]
_Color = Float32[np.ndarray, "3"]
_Patch = Float32[np.ndarray, "t n n"]

_BAR_HALF_WIDTH = 0.11  # half the bar's width, in widths of the frame: the acting thing all but disappears behind it
_OUTLINE_POINTS = 512  # points of an outline


def draw_clip(action: str, seed: int, frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip of this seed, size in rows and columns; its looks (all but the path) do not depend on the action.

    The thing that acts is the largest; one or two smaller ones do anything. Nothing is blurred by its motion, for
    that would show in a single frame.
    """
    path = draw_trajectory(action, numpy_rng(seed, "path"), frames)
    looks = numpy_rng(seed, "looks")
    canvas = draw_background(looks, frames, size)
    for _ in range(looks.integers(1, 3)):
        other = draw_trajectory(str(looks.choice(MOTION_CLASSES)), looks, frames)
        _paint_object(canvas, replace(other, radius=0.4 * other.radius), _draw_appearance(looks))
    _paint_object(canvas, path, _draw_appearance(looks))
    _paint_bar(canvas, path, looks)
    return (255 * np.clip(canvas, 0, 1) + 0.5).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Appearance:
    """A thing's outline, the largest radius at each of its angles being 1, and what it is covered with."""

    outline: Float[np.ndarray, "n"]
    pattern: str
    frequency: float
    colors: tuple[_Color, _Color]


def _draw_appearance(chance: np.random.Generator) -> _Appearance:
    angle = np.linspace(0, 2 * math.pi, _OUTLINE_POINTS, endpoint=False)
    match chance.choice(["blob", "polygon", "ellipse", "star"]):
        case "blob":
            waves = [chance.uniform(0.06, 0.3) / m * np.cos(m * angle + chance.uniform(0, 6.3)) for m in range(1, 5)]
            outline = 1 + np.sum(waves, axis=0)
        case "polygon":
            corners = int(chance.integers(3, 6))
            outline = 1 / np.cos(angle % (2 * math.pi / corners) - math.pi / corners)
        case "star":
            points = int(chance.integers(3, 6))
            outline = 1 + 0.3 * np.cos(points * angle)
        case _:
            outline = 1 / np.hypot(np.cos(angle), chance.uniform(1.3, 2.0) * np.sin(angle))
    hue = chance.uniform()
    return _Appearance(
        outline=(outline / outline.max()).astype(np.float32),
        pattern=str(chance.choice(["stripes", "checks", "spots", "wedges"])),
        frequency=chance.uniform(3.5, 7.0),
        colors=(
            hsv_to_rgb(hue, chance.uniform(0.7, 1.0), chance.uniform(0.8, 1.0)),
            hsv_to_rgb(hue + chance.uniform(0.2, 0.8), chance.uniform(0.3, 1.0), chance.uniform(0.25, 0.6)),
        ),
    )


def _paint_object(canvas: _Canvas, path: Trajectory, look: _Appearance) -> None:
    """Lays a thing over all frames at once, in a box around its centre that wraps at the edges."""
    frames, height, width, _ = canvas.shape
    radius = _expand_per_frame(path.radius * min(height, width))
    reach = math.ceil(radius.max()) + 1
    box = np.arange(-reach, reach + 1)
    x, y = path.x * width, path.y * height
    columns = np.floor(x).astype(int)[:, None] + box
    rows = np.floor(y).astype(int)[:, None] + box
    right = (columns + 0.5 - x[:, None]).astype(np.float32)[:, None, :] / radius
    down = (rows + 0.5 - y[:, None]).astype(np.float32)[:, :, None] / radius
    cos, sin = _expand_per_frame(np.cos(path.angle)), _expand_per_frame(np.sin(path.angle))
    u, v = cos * right + sin * down, cos * down - sin * right
    rim = look.outline[(np.arctan2(v, u) * (_OUTLINE_POINTS / (2 * math.pi))).astype(int) % _OUTLINE_POINTS]
    inside = (rim - np.hypot(u, v)) * radius  # in pixels, nearly: enough for a smooth edge
    shade = (0.8 + 0.3 * u) * (0.45 + 0.55 * np.clip(inside / 1.5, 0, 1))  # lit from its own right: no turn looks alike
    first, second = look.colors
    mixed = _compute_pattern(look, u, v)[..., None]
    colour = (second + (first - second) * mixed) * shade[..., None]
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    place = (np.arange(frames)[:, None, None], rows[:, :, None] % height, columns[:, None, :] % width)
    below = canvas[place]
    canvas[place] = below + (colour - below) * cover


def _compute_pattern(look: _Appearance, u: _Patch, v: _Patch) -> _Patch:
    """How much of the first colour there is, in [0, 1], at each place of the thing's own plane."""
    k = look.frequency
    match look.pattern:
        case "stripes":
            wave = np.sin(k * u)
        case "checks":
            wave = np.sin(k * u) * np.sin(k * v) * 1.5
        case "spots":
            wave = np.cos(k * u) + np.cos(k * v) - 0.6
        case _:
            wave = np.sin(round(k) * np.arctan2(v, u))
    return 0.5 + 0.5 * np.clip(2.5 * wave, -1, 1)


def draw_background(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> _Canvas:
    """Two cloudy textures that drift, each its own way; the world wraps, so they are shifted by their spectra."""
    time = np.linspace(0, 1, frames)
    base, other = (hsv_to_rgb(rng.uniform(), 0.45 * rng.uniform(), rng.uniform(0.25, 0.85)) for _ in range(2))
    hills = np.tanh(2 * _draw_drifting_noise(rng, time, size, rough=1.6))
    grain = np.tanh(_draw_drifting_noise(rng, time, size, rough=0.6))
    return np.stack([a + (b - a) / 2 * (1 + hills) + 0.09 * grain for a, b in zip(base, other, strict=True)], axis=-1)


def _draw_drifting_noise(
    chance: np.random.Generator, time: Float[np.ndarray, "t"], size: tuple[int, int], *, rough: float
) -> Float[np.ndarray, "t h w"]:
    """Noise of unit variance, no finer than a sixth of the frame, that pans by a tenth to a third of it."""
    height, width = size
    fy, fx = np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width)
    far = np.hypot(fy, fx)
    strength = np.where((far > 0) & (far <= 2), np.maximum(far, 1) ** -rough, 0)
    noise = np.fft.rfft2(chance.standard_normal(size)) * strength
    noise /= np.fft.irfft2(noise, s=size).std()
    angle, speed = chance.uniform(0, 2 * math.pi), chance.uniform(0.1, 0.33)
    right, down = time * speed * math.cos(angle), time * speed * math.sin(angle)
    turn_y, turn_x = np.exp(-2j * math.pi * down[:, None, None] * fy), np.exp(-2j * math.pi * right[:, None, None] * fx)
    return np.fft.irfft2(noise * turn_y * turn_x, s=size, axes=(1, 2)).astype(np.float32)


def _paint_bar(canvas: _Canvas, path: Trajectory, chance: np.random.Generator) -> None:
    """A striped bar across the frame, before everything else."""
    canvas = canvas if path.vertical_bar else canvas.swapaxes(1, 2)
    _, along, across, _ = canvas.shape
    away = ((np.arange(across) + 0.5) / across - path.bar_position + 0.5) % 1 - 0.5
    cover = np.clip((_BAR_HALF_WIDTH - np.abs(away)) * across + 0.5, 0, 1)
    columns = np.flatnonzero(cover)
    slant, waves, phase = chance.uniform(-20, 20), chance.integers(2, 5), chance.uniform(0, 6.3)
    place = (np.arange(along)[:, None] + 0.5) / along
    mixed = 0.5 + 0.5 * np.clip(2.5 * np.sin(2 * math.pi * waves * place + slant * away[columns] + phase), -1, 1)
    first, second = hsv_to_rgb(chance.uniform(), 0.35, 0.9), hsv_to_rgb(chance.uniform(), 0.35, 0.35)
    colour = second + (first - second) * mixed[..., None].astype(np.float32)
    below = canvas[:, :, columns]
    canvas[:, :, columns] = below + (colour - below) * cover[columns, None].astype(np.float32)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> _Color:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _expand_per_frame(numbers: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t 1 1"]:
    return numbers.astype(np.float32)[:, None, None]
