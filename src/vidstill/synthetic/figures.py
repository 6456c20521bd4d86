"""Figures of persons and balls: what a scene holds in each frame, how it is drawn, and how much of it is visible."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from vidstill.synthetic.sprites import (
    PerFrame,
    Sprite,
    draw_background,
    hsv_to_rgb,
    make_window,
    paint_sprites,
    sort_by_depth,
    to_uint8,
)
from vidstill.utils.rng import numpy_rng

PERSON_ACTIONS = (  # as in AVA: movements, actions with objects, actions with other persons
    *("stand still", "move left", "move right", "jump"),
    *("carry (an object)", "throw (an object)", "catch (an object)"),
    *("follow (a person)", "approach (a person)", "leave (a person)", "circle (a person)", "touch (a person)"),
)
"""Names of the actions, whose numbers in files are 1 to 12."""

FIRST_INTERACTION = 7
"""Index of the first action that needs a second visible person."""

SHOULDER_OFFSET = (0.13, 0.64)
"""Distance of a shoulder from the figure's axis, and its height above the feet, in heights of the figure."""

ARM_LENGTH = 0.2
"""Length of an arm, in heights of the figure."""

_BALL_RADIUS = 0.05  # in shorter sides of the frame
_MAX_HALF_WIDTH = 0.45  # largest distance of a drawn pixel from the figure's axis, in heights of the figure
_HAND_RADIUS, _LEG_RADIUS, _HEAD_RADIUS = 0.05, 0.055, 0.13  # in heights of the figure

_Window = Float[np.ndarray, "t n m"]
_Point = tuple[Any, Any]  # numbers, or one for each frame


@dataclass(kw_only=True)
class StickFigure:
    """A person in each frame. Lengths are in shorter sides of the frame, from its upper left corner."""

    index: int  # among the clip's figures
    height: float  # from feet to head
    x: PerFrame  # of the axis
    y: PerFrame  # of the feet
    depth: PerFrame  # of two figures, the one with the larger depth is in front
    # above the horizontal, of the arms at the picture's left and right, in radians
    arm_angles: Float[np.ndarray, "t 2"]
    actions: Bool[np.ndarray, "t a"]  # which of PERSON_ACTIONS it performs
    partner: int | None = None  # index of the figure with which it interacts

    def locate_hand(self, side: int) -> tuple[PerFrame, PerFrame]:
        """Return x and y of the left (0) or the right (1) hand."""
        aside = SHOULDER_OFFSET[0] + ARM_LENGTH * np.cos(self.arm_angles[:, side])
        above = SHOULDER_OFFSET[1] + ARM_LENGTH * np.sin(self.arm_angles[:, side])
        return self.x + (2 * side - 1) * aside * self.height, self.y - above * self.height


@dataclass(frozen=True)
class Ball:
    """Centre and depth of a ball in each frame, NaN where there is none."""

    x: PerFrame
    y: PerFrame
    depth: PerFrame


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that moves in a clip."""

    figures: tuple[StickFigure, ...]
    balls: tuple[Ball, ...]


def draw_scene(scene: Scene, seed: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the clip; colours depend on the seed and a figure's index, and not on its actions."""
    canvas = draw_background(numpy_rng(seed, "background"), len(scene.figures[0].x), size)
    paint_sprites(canvas, _draw_sprites(scene, seed, size))
    return to_uint8(canvas)


def measure_visibility(
    scene: Scene, size: tuple[int, int], frame: int
) -> Iterator[tuple[StickFigure, Float64[np.ndarray, "4"], float]]:
    """Yield each figure with its box in a frame, as AVA's, and its visible share, 0 to 1.

    A box includes what others hide, and ends at the edge of the frame. That of a figure outside the frame is empty.
    """
    sprites = _draw_sprites(scene, 0, size, slice(frame, frame + 1))
    free = np.ones(size, np.float32)
    visible = {}
    for sprite in reversed(sort_by_depth(sprites, 0)):
        pixels, own = sprite.locate(0, size)
        cover = sprite.cover[0][own]
        visible[id(sprite)] = float((cover * free[pixels]).sum() / sprite.cover[0].sum())
        free[pixels] *= 1 - cover
    min_cover = np.full(size, 0.5)
    min_cover[[0, -1]] = min_cover[:, [0, -1]] = 0.1  # of a limb that the frame cuts, only a thin edge may be left
    for figure, sprite in zip(scene.figures, sprites, strict=False):
        (rows, columns), own = sprite.locate(0, size)
        covered = sprite.cover[0][own] >= min_cover[rows, columns]
        rows, columns = rows.ravel()[covered.any(1)], columns.ravel()[covered.any(0)]
        box = np.zeros(4)
        if len(rows):
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / np.tile(size[::-1], 2)
        yield figure, box, visible[id(sprite)]


def _draw_sprites(scene: Scene, seed: int, size: tuple[int, int], frames: slice = slice(None)) -> list[Sprite]:
    """Draw the figures, then the balls."""
    rng = numpy_rng(seed, "balls")
    return [
        *(_draw_figure(figure, numpy_rng(seed, f"looks {figure.index}"), size, frames) for figure in scene.figures),
        *(_draw_ball(ball, rng, size, frames) for ball in scene.balls),
    ]


class _Painter:
    """A window around a point of each frame, in pixels, onto which one shape is painted after another."""

    def __init__(self, x: PerFrame, y: PerFrame, reach: tuple[int, int]):
        self.row, self.column, self.right, self.down = make_window(x, y, reach)
        shape = np.broadcast_shapes(self.down.shape, self.right.shape)
        self.cover: _Window = np.zeros(shape, np.float32)
        self.colors: Float[np.ndarray, "t n m 3"] = np.zeros((*shape, 3), np.float32)

    def paint(self, distance: _Window, color: Float[np.ndarray, "..."]) -> None:
        """Paint a shape, given by each pixel's distance from its edge, negative inside."""
        own = np.clip(0.5 - distance, 0, 1)
        self.cover = self.cover + (1 - self.cover) * own
        share = own / np.maximum(self.cover, 1e-6)
        self.colors = self.colors + (color - self.colors) * share[..., None]

    def to_sprite(self, depth: PerFrame) -> Sprite:
        return Sprite(self.row, self.column, self.cover, self.colors, depth)


def _draw_figure(figure: StickFigure, rng: np.random.Generator, size: tuple[int, int], frames: slice) -> Sprite:
    """Draw head, trunk, arms and legs, with the same proportions for all figures; only the arms can move."""
    height = figure.height * min(size)  # pixels
    x, y = figure.x[frames] * min(size), figure.y[frames] * min(size)
    painter = _Painter(x, y - height / 2, (math.ceil(0.5 * height) + 1, math.ceil(_MAX_HALF_WIDTH * height) + 1))
    u, v = painter.right / height, 0.5 - painter.down / height  # from the axis and above the feet, in heights
    trunk, legs, hair = (hsv_to_rgb(rng.uniform(), rng.uniform(0.6, 1), rng.uniform(0.3, 1)) for _ in range(3))
    skin = hsv_to_rgb(rng.uniform(0.03, 0.1), rng.uniform(0.3, 0.6), rng.uniform(0.35, 1))
    waves, slant, pale = rng.uniform((20, -1, 0.4), (40, 1, 1))
    half_width, shoulder = SHOULDER_OFFSET

    def paint_limb(start: _Point, end: _Point, radius: float, color: np.ndarray) -> None:
        """Paint a line with round ends."""
        right, up = end[0] - start[0], end[1] - start[1]
        along = np.clip(((u - start[0]) * right + (v - start[1]) * up) / (right**2 + up**2), 0, 1)
        painter.paint(height * (np.hypot(u - start[0] - along * right, v - start[1] - along * up) - radius), color)

    for side in (-1, 1):
        paint_limb((0.07 * side, 0.35), (0.09 * side, _LEG_RADIUS), _LEG_RADIUS, legs)
    stripes = np.sin(waves * (v + slant * u))[..., None] > 0
    paint_limb((0, 0.4), (0, 0.62), half_width, np.where(stripes, pale * trunk, trunk))
    for side, sign in enumerate((-1, 1)):
        angle = figure.arm_angles[frames, side, None, None]
        reach = ARM_LENGTH - _HAND_RADIUS  # the round end is a hand
        end = (sign * (half_width + reach * np.cos(angle)), shoulder + reach * np.sin(angle))
        paint_limb((sign * half_width / 2, shoulder), end, _HAND_RADIUS, skin)
    head = np.hypot(u, v - (1 - _HEAD_RADIUS)) - _HEAD_RADIUS
    painter.paint(height * head, np.where(v[..., None] > 0.9, hair, skin))
    return painter.to_sprite(figure.depth[frames])


def _draw_ball(ball: Ball, rng: np.random.Generator, size: tuple[int, int], frames: slice) -> Sprite:
    """Draw a disc with a dark rim."""
    radius = _BALL_RADIUS * min(size)
    x, y = (np.nan_to_num(center[frames]) * min(size) for center in (ball.x, ball.y))
    painter = _Painter(x, y, (math.ceil(radius) + 1, math.ceil(radius) + 1))
    hue = rng.uniform()
    distance = np.hypot(painter.right, painter.down)
    painter.paint(distance - radius, hsv_to_rgb(hue, 1.0, 0.3))
    painter.paint(distance - 0.75 * radius, hsv_to_rgb(hue, rng.uniform(0.3, 1), 1.0))
    return painter.to_sprite(ball.depth[frames])
