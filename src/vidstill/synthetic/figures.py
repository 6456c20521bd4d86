"""Draws a scene: figures that a head, a trunk, arms and legs make, and balls, before a drifting background."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from vidstill.synthetic.drawing import draw_background, hsv_to_rgb
from vidstill.synthetic.scene import ARM_LENGTH, SHOULDER_OFFSET, Ball, PerFrame, Scene, StickFigure
from vidstill.utils.rng import numpy_rng

BALL_RADIUS = 0.05
"""Its radius, in shorter sides of the frame."""

_MAX_HALF_WIDTH = 0.45  # how far from its middle a figure can be drawn, in its heights
_HAND_RADIUS, _LEG_RADIUS, _HEAD_RADIUS = 0.05, 0.055, 0.13  # radii, in heights

_Window = Float[np.ndarray, "t n m"]
_Grid = Float[np.ndarray, "t #n #m"]
_Point = tuple[Any, Any]  # numbers, or one for each frame
_Colors = Float[np.ndarray, "t n m 3"]


@dataclass(frozen=True)
class _Layer:
    """What covers a window of each frame, whose first row and column may be outside of it."""

    depth: Float[np.ndarray, "t"]
    row: list[int]
    column: list[int]
    cover: _Window
    colors: _Colors


def draw_scene(scene: Scene, seed: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip; looks depend on the seed and a figure's number, and not on what is done."""
    frames = len(scene.figures[0].x)
    canvas = draw_background(numpy_rng(seed, "background"), frames, size)
    layers = _render_layers(scene, seed, size)
    for frame, picture in enumerate(canvas):
        for layer in _sort_back_to_front(layers, frame):
            part, own = _clip_to_frame(layer, frame, size)
            below = picture[part]
            picture[part] = below + (layer.colors[frame][own] - below) * layer.cover[frame][own][..., None]
    return (255 * np.clip(canvas, 0, 1) + 0.5).astype(np.uint8)


def measure_visibility(
    scene: Scene, size: tuple[int, int], frame: int
) -> Iterator[tuple[StickFigure, Float64[np.ndarray, "4"], float]]:
    """Each figure with its box in a frame, and how much of it is to be seen there, in [0, 1].

    A box is x1, y1, x2, y2 in fractions of the frame's width and height; it holds what others hide, and ends where the
    frame does. A figure outside of the frame has an empty one.
    """
    layers = _render_layers(scene, 0, size, only=frame)
    free = np.ones(size, np.float32)
    shares = {}
    for layer in reversed(list(_sort_back_to_front(layers, 0))):
        part, own = _clip_to_frame(layer, 0, size)
        cover = layer.cover[0][own]
        shares[id(layer)] = float((cover * free[part]).sum() / layer.cover[0].sum())
        free[part] *= 1 - cover
    for figure, layer in zip(scene.figures, layers, strict=False):
        part, own = _clip_to_frame(layer, 0, size)
        there = layer.cover[0][own] >= 0.5
        rows, columns = (np.flatnonzero(there.any(axis)) for axis in (1, 0))
        box = np.zeros(4)
        if len(rows):
            top, left = part[0].start, part[1].start
            sides = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
            box = np.array(sides) / [size[1], size[0], size[1], size[0]]
        yield figure, box, shares[id(layer)]


def _render_layers(scene: Scene, seed: int, size: tuple[int, int], *, only: int | None = None) -> list[_Layer]:
    """Of the figures, then of the balls; in all frames, or in one."""
    frames = slice(None) if only is None else slice(only, only + 1)
    looks = numpy_rng(seed, "balls")
    return [
        *(_draw_figure(figure, numpy_rng(seed, f"looks {figure.index}"), size, frames) for figure in scene.figures),
        *(_draw_ball(ball, looks, size, frames) for ball in scene.balls),
    ]


def _sort_back_to_front(layers: list[_Layer], frame: int) -> Iterator[_Layer]:
    there = (layer for layer in layers if not math.isnan(layer.depth[frame]))
    return iter(sorted(there, key=lambda layer: layer.depth[frame]))


def _clip_to_frame(layer: _Layer, frame: int, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Which part of the frame a layer covers, and by which part of its window."""
    part, own = [], []
    for first, length, room in zip((layer.row[frame], layer.column[frame]), layer.cover.shape[1:], size, strict=True):
        start, stop = min(max(first, 0), room), min(max(first + length, 0), room)
        part.append(slice(start, stop))
        own.append(slice(start - first, stop - first))
    return (part[0], part[1]), (own[0], own[1])


class _LayerCanvas:
    """A window of each frame, onto which one shape is laid after another."""

    def __init__(self, x: PerFrame, y: PerFrame, reach: tuple[int, int]):
        """The middle in pixels of the frame; how many rows and columns there are on each side of it."""
        self.row, self.column = (np.floor(at).astype(int) - far for at, far in zip((y, x), reach, strict=True))
        down, right = (np.arange(2 * far + 1) + 0.5 for far in reach)
        self.down = (self.row - y)[:, None, None] + down[:, None]
        self.right = (self.column - x)[:, None, None] + right
        shape = np.broadcast_shapes(self.down.shape, self.right.shape)
        self.cover: _Window = np.zeros(shape, np.float32)
        self.colors: _Colors = np.zeros((*shape, 3), np.float32)

    def add_shape(self, beyond: _Window, colours: Float[np.ndarray, "..."]) -> None:
        """A shape, by each pixel's distance from its edge, below 0 inside of it."""
        own = np.clip(0.5 - beyond, 0, 1)
        self.cover = self.cover + (1 - self.cover) * own
        share = own / np.maximum(self.cover, 1e-6)
        self.colors = self.colors + (colours - self.colors) * share[..., None]

    def to_layer(self, depth: PerFrame) -> _Layer:
        return _Layer(depth, self.row.tolist(), self.column.tolist(), self.cover, self.colors)


def _draw_figure(figure: StickFigure, looks: np.random.Generator, size: tuple[int, int], frames: slice) -> _Layer:
    """Its proportions are the same for all; only the arms can move."""
    tall = figure.height * min(size)  # pixels
    x, y = figure.x[frames] * min(size), figure.y[frames] * min(size)
    painted = _LayerCanvas(x, y - tall / 2, (math.ceil(0.5 * tall) + 1, math.ceil(_MAX_HALF_WIDTH * tall) + 1))
    u, v = painted.right / tall, 0.5 - painted.down / tall  # aside of its middle and above its feet, in heights
    trunk, legs, hair = (hsv_to_rgb(looks.uniform(), looks.uniform(0.6, 1), looks.uniform(0.3, 1)) for _ in range(3))
    skin = hsv_to_rgb(looks.uniform(0.03, 0.1), looks.uniform(0.3, 0.6), looks.uniform(0.35, 1))
    waves, slant, pale = looks.uniform((20, -1, 0.4), (40, 1, 1))
    for side in (-1, 1):
        painted.add_shape(
            tall * _compute_segment_distance(u, v, (0.07 * side, 0.35), (0.09 * side, _LEG_RADIUS), _LEG_RADIUS), legs
        )
    stripes = np.sin(waves * (v + slant * u))[..., None] > 0
    wide = SHOULDER_OFFSET[0]
    painted.add_shape(
        tall * _compute_segment_distance(u, v, (0, 0.4), (0, 0.62), wide), np.where(stripes, pale * trunk, trunk)
    )
    for side, out in enumerate((-1, 1)):
        up = figure.arm_angles[frames, side, None, None]
        reach = ARM_LENGTH - _HAND_RADIUS  # its round end is a hand
        hand = (out * (wide + reach * np.cos(up)), SHOULDER_OFFSET[1] + reach * np.sin(up))
        painted.add_shape(
            tall * _compute_segment_distance(u, v, (out * wide / 2, SHOULDER_OFFSET[1]), hand, _HAND_RADIUS), skin
        )
    painted.add_shape(
        tall * (np.hypot(u, v - (1 - _HEAD_RADIUS)) - _HEAD_RADIUS), np.where(v[..., None] > 0.9, hair, skin)
    )
    return painted.to_layer(figure.depth[frames])


def _draw_ball(ball: Ball, looks: np.random.Generator, size: tuple[int, int], frames: slice) -> _Layer:
    """Of two colours; where there is none in a frame, its depth says so."""
    radius = BALL_RADIUS * min(size)
    x, y = (np.nan_to_num(place[frames]) * min(size) for place in (ball.x, ball.y))
    painted = _LayerCanvas(x, y, (math.ceil(radius) + 1, math.ceil(radius) + 1))
    hue = looks.uniform()
    far = np.hypot(painted.right, painted.down)
    painted.add_shape(far - radius, hsv_to_rgb(hue, 1.0, 0.3))
    painted.add_shape(far - 0.75 * radius, hsv_to_rgb(hue, looks.uniform(0.3, 1), 1.0))
    return painted.to_layer(ball.depth[frames])


def _compute_segment_distance(u: _Grid, v: _Grid, start: _Point, end: _Point, radius: float) -> _Window:
    """How far each pixel is outside of a line with round ends."""
    right, up = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * right + (v - start[1]) * up) / (right**2 + up**2), 0, 1)
    return np.hypot(u - start[0] - along * right, v - start[1] - along * up) - radius
