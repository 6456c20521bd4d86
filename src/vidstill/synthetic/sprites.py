"""Draws sprites, small textured images that move over a background, onto all frames of a clip."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

Canvas = Float32[np.ndarray, "t h w 3"]
"""Frames while they are drawn, in [0, 1]."""

PerFrame = Float[np.ndarray, "t"]
"""One number for each frame."""


@dataclass(frozen=True)
class Sprite:
    """A small image in each frame, whose first row and column may lie outside the frame."""

    row: Int[np.ndarray, "t"]
    column: Int[np.ndarray, "t"]
    cover: Float[np.ndarray, "t n m"]  # opacity, 0 to 1
    colors: Float[np.ndarray, "t n m 3"]
    depth: PerFrame  # a larger number is in front; NaN where the sprite is absent

    def locate(self, frame: int, size: tuple[int, int]) -> tuple[Sequence, Sequence]:
        """Return the indices of a frame's pixels that the sprite covers, and those of its own pixels there."""
        pixels, own = [], []
        starts = self.row[frame], self.column[frame]
        for start, length, limit in zip(starts, self.cover.shape[1:], size, strict=True):
            index = start + np.arange(length)
            visible = np.flatnonzero((index >= 0) & (index < limit))
            pixels.append(index[visible])
            own.append(visible)
        return np.ix_(*pixels), np.ix_(*own)


def make_window(
    x: PerFrame, y: PerFrame, reach: tuple[int, int]
) -> tuple[Int[np.ndarray, "t"], Int[np.ndarray, "t"], Float[np.ndarray, "t 1 m"], Float[np.ndarray, "t n 1"]]:
    """Return a sprite's first row and column in each frame, and how far right of and below a point its pixels are.

    Args:
        x, y: The point in pixels, in the middle of the sprite.
        reach: Whole pixels above and below the point's own, and left and right of it.
    """
    columns, rows = (
        np.floor(at).astype(int)[:, None] + np.arange(-far, far + 1) for at, far in ((x, reach[1]), (y, reach[0]))
    )
    right, down = columns + 0.5 - x[:, None], rows + 0.5 - y[:, None]
    return rows[:, 0], columns[:, 0], right[:, None, :], down[:, :, None]


def paint_sprites(canvas: Canvas, sprites: Sequence[Sprite]) -> None:
    """Draw sprites over all frames, those behind first; of equal depth, the first of the sequence is behind."""
    for frame, picture in enumerate(canvas):
        for sprite in sort_by_depth(sprites, frame):
            pixels, own = sprite.locate(frame, picture.shape[:2])
            below = picture[pixels]
            picture[pixels] = below + (sprite.colors[frame][own] - below) * sprite.cover[frame][own][..., None]


def sort_by_depth(sprites: Sequence[Sprite], frame: int) -> list[Sprite]:
    """Return the sprites that a frame has, those behind first."""
    present = (sprite for sprite in sprites if not math.isnan(sprite.depth[frame]))
    return sorted(present, key=lambda sprite: float(sprite.depth[frame]))


def draw_background(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> Canvas:
    """Draw two cloudy textures that drift, each in its own direction; what leaves the frame comes back."""
    time = np.linspace(0, 1, frames)
    base, other = (hsv_to_rgb(rng.uniform(), 0.45 * rng.uniform(), rng.uniform(0.25, 0.85)) for _ in range(2))
    hills = np.tanh(2 * draw_drifting_noise(rng, time, size, roughness=1.6))
    grain = np.tanh(draw_drifting_noise(rng, time, size, roughness=0.6))
    return np.stack([a + (b - a) / 2 * (1 + hills) + 0.09 * grain for a, b in zip(base, other, strict=True)], axis=-1)


def draw_drifting_noise(
    rng: np.random.Generator, time: PerFrame, size: tuple[int, int], *, roughness: float, max_frequency: float = 2
) -> Float[np.ndarray, "t h w"]:
    """Draw noise of unit variance that pans by a tenth to a third of the frame and wraps at its edges.

    Args:
        rng: Source of the random numbers.
        time: Time of each frame, 0 to 1.
        size: Rows and columns.
        roughness: The amplitude is inverse to the frequency to this power.
        max_frequency: Highest frequency, in periods per frame.
    """
    height, width = size
    fy, fx = np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width)
    frequency = np.hypot(fy, fx)
    strength = np.where((frequency > 0) & (frequency <= max_frequency), np.maximum(frequency, 1) ** -roughness, 0)
    noise = np.fft.rfft2(rng.standard_normal(size)) * strength
    noise /= np.fft.irfft2(noise, s=size).std()
    angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.33)
    right, down = time * speed * math.cos(angle), time * speed * math.sin(angle)
    turn_y, turn_x = np.exp(-2j * math.pi * down[:, None, None] * fy), np.exp(-2j * math.pi * right[:, None, None] * fx)
    return np.fft.irfft2(noise * turn_y * turn_x, s=size, axes=(1, 2)).astype(np.float32)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> Float32[np.ndarray, "3"]:
    """Return a colour in [0, 1]; hues differ by whole numbers if they are equal."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def to_uint8(canvas: Canvas) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the frames as bytes."""
    return (255 * np.clip(canvas, 0, 1) + 0.5).astype(np.uint8)
