"""Draws clips of one action each: a textured object that moves, smaller ones, a drifting background, a bar in front.

The actions differ in motion alone: a single frame has the same distribution for all of them. Everything is drawn with
torch, on the device of the seeds; a clip is decided by its seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Complex, Float, Int64, UInt8
from torch import Tensor

from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import InputError

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
_NUM_OTHERS = 3  # smaller objects, of which one is in front of the moving object
_OTHER_SCALES = 0.3, 0.55  # their smallest and largest radius, in radii of a moving object
_MAX_HARMONIC = 5  # of an outline
_OUTLINE_NUMBERS = 2 * _MAX_HARMONIC + 1  # random ones
_OUTLINE_POINTS = 512  # a power of two
_CLOUD_FREQUENCY, _CLOUD_ROUGHNESS = 2, 1.6  # of the background: highest frequency, in periods per frame; power of 1/f
_GRAIN_FREQUENCY, _GRAIN_ROUGHNESS = 5, 0.6
_NUM_WAVES = 12  # of each of them

Pixels = Float[Tensor, "b t h w"]
"""One number for each pixel of each frame."""


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """An object's state in each frame and the bar in front of it, in a world that wraps at the edges of the frame."""

    x: Float[Tensor, "b t"]  # of the centre, in [0, 1), in widths of the frame from its left edge
    y: Float[Tensor, "b t"]  # in heights of the frame from its upper edge
    radius: Float[Tensor, "b t"]  # in shorter sides of the frame
    angle: Float[Tensor, "b t"]  # clockwise, in radians
    has_vertical_bar: Bool[Tensor, "b"]  # the bar, which never moves, runs from top to bottom, not from side to side
    bar_position: Float[Tensor, "b"]  # of its centre, in [0, 1), in widths (vertical) or heights of the frame


def draw_trajectories(
    actions: Int64[Tensor, "b"], seeds: Int64[Tensor, "b"], purpose: str, frames: int
) -> Trajectories:
    """Draw how an object moves.

    Each of x, y, angle and log size runs on a circle (the size jumps from one end to the other) and starts uniformly
    distributed there. A rotation keeps it uniform: so in every frame of every action, position, angle, log size and bar
    are independent and uniform, and no single frame tells one action from another. Only `hiding` ties the position to
    the bar, and its distance from the bar is uniform too.

    Args:
        actions: Indices into MOTION_CLASSES.
        seeds: Of the clips.
        purpose: Another one draws other trajectories of the same seeds.
        frames: Number of frames; speeds are relative to the whole clip.
    """
    x, y, angle, size, tempo, phase, bar, side, upright = draw_uniform(seeds, purpose, 9)[..., None].unbind(1)
    time = torch.linspace(0, 1, frames, device=seeds.device)
    is_action = {name: (actions == index).float()[:, None] for index, name in enumerate(MOTION_CLASSES)}
    direction = torch.where(side < 0.5, 1.0, -1.0)
    far = (0.5 + 0.4 * tempo) * time  # in widths and heights of the frame, or in the range of log sizes
    rotation = _FULL_TURN * (0.4 + 0.4 * tempo) * time
    hop = (phase + (1.5 + tempo) * time) % 1
    turn = _FULL_TURN * (phase + direction * (0.8 + 0.4 * tempo) * time)
    swing = 0.06 * torch.sin(_FULL_TURN * (phase + (2.4 + 0.6 * tempo) * time))
    right = far * (is_action["right"] - is_action["left"])
    right = right + is_action["circling"] * 0.17 * torch.cos(turn)
    right = right + is_action["shaking"] * swing * torch.cos(_FULL_TURN * side)
    down = far * (is_action["down"] - is_action["up"])
    down = down + is_action["circling"] * 0.17 * torch.sin(turn)
    down = down + is_action["shaking"] * swing * torch.sin(_FULL_TURN * side)
    down = down - is_action["bouncing"] * 0.3 * 4 * hop * (1 - hop)  # the parabola of a throw
    x, y = (x + right) % 1, (y + down) % 1
    distance = ((phase + (0.7 + 0.3 * tempo) * time) % 1 - 0.5).abs()  # to the bar and back, by half the world
    hidden, is_vertical = (bar + direction * distance) % 1, upright < 0.5
    is_hiding = is_action["hiding"] > 0
    log_size = (size + far * (is_action["growing"] - is_action["shrinking"])) % 1
    return Trajectories(
        x=torch.where(is_hiding & is_vertical, hidden, x),
        y=torch.where(is_hiding & ~is_vertical, hidden, y),
        radius=MIN_RADIUS * (MAX_RADIUS / MIN_RADIUS) ** log_size,
        angle=_FULL_TURN * angle + rotation * (is_action["clockwise"] - is_action["counterclockwise"]),
        has_vertical_bar=is_vertical[:, 0],
        bar_position=bar[:, 0],
    )


def draw_clip(action: str, seed: int, frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the clip of this seed, see `draw_clips`."""
    clips = draw_clips([action], torch.tensor([seed]), frames, size)
    return np.ascontiguousarray(rearrange(clips[0].numpy(), "c t h w -> t h w c"))


def draw_clips(
    actions: Sequence[str], seeds: Int64[Tensor, "b"], frames: int, size: tuple[int, int]
) -> UInt8[Tensor, "b 3 t h w"]:
    """Draw clips; all but the path of the largest object is the same for every action.

    Three smaller objects move in any way. There is no motion blur, which a single frame would show.

    Args:
        actions: Of MOTION_CLASSES, one for each clip.
        seeds: They decide the clips, and are on the device that draws.
        frames: Number of frames.
        size: Rows and columns.

    Raises:
        InputError: An action is unknown.
    """
    if unknown := set(actions).difference(MOTION_CLASSES):
        raise InputError(f"{min(unknown)} is not an action; take one of {', '.join(MOTION_CLASSES)}")
    indices = torch.tensor([MOTION_CLASSES.index(action) for action in actions], device=seeds.device)
    path = draw_trajectories(indices, seeds, "path", frames)
    canvas = _draw_background(seeds, frames, size)
    for number in range(_NUM_OTHERS):
        if number == _NUM_OTHERS - 1:  # the last one is in front
            _paint_object(canvas, path, seeds, "object")
        name = f"other {number}"
        kind, scale = draw_uniform(seeds, name, 2).unbind(1)
        other = draw_trajectories((kind * len(MOTION_CLASSES)).long(), seeds, f"{name} path", frames)
        smallest, largest = _OTHER_SCALES
        radius = other.radius * (smallest + (largest - smallest) * scale)[:, None]
        _paint_object(canvas, replace(other, radius=radius), seeds, name)
    _paint_bar(canvas, path, seeds)
    return canvas.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)


def _draw_background(seeds: Int64[Tensor, "b"], frames: int, size: tuple[int, int]) -> Float[Tensor, "b 3 t h w"]:
    """Draw clouds between two colours and a finer grain that drift, each in its own direction."""
    clouds = _draw_drifting_noise(seeds, "clouds", frames, size, _CLOUD_FREQUENCY, _CLOUD_ROUGHNESS)
    grain = _draw_drifting_noise(seeds, "grain", frames, size, _GRAIN_FREQUENCY, _GRAIN_ROUGHNESS)
    first, second = _draw_colors(draw_uniform(seeds, "background", 6), saturation=(0.0, 0.45), value=(0.25, 0.85))
    canvas = _mix_colors(first, second, clouds.mul_(2).tanh_().mul_(0.5).add_(0.5), torch.ones_like(clouds))
    return canvas.add_(grain.tanh_().mul_(0.1)[:, None])


def _draw_drifting_noise(
    seeds: Int64[Tensor, "b"], purpose: str, frames: int, size: tuple[int, int], max_frequency: int, roughness: float
) -> Pixels:
    """Draw a sum of waves, of unit variance, that pans by a tenth to a third of the frame and wraps at its edges."""
    numbers = draw_uniform(seeds, purpose, 3 * _NUM_WAVES + 2)
    heading, speed = numbers[:, -2:, None].unbind(1)
    columns, rows, phase = numbers[:, :-2].unflatten(1, (3, _NUM_WAVES)).unbind(1)
    fx, fy = (torch.floor((2 * max_frequency + 1) * each) - max_frequency for each in (columns, rows))
    strength = torch.hypot(fx, fy).clamp(min=1) ** -roughness
    strength = strength * (2 / strength.square().sum(1, keepdim=True)).sqrt()
    angle, speed = _FULL_TURN * heading, 0.1 + 0.23 * speed
    drift = fx * speed * torch.cos(angle) + fy * speed * torch.sin(angle)

    def make_wave(frequency: Float[Tensor, "b k"], at: Float[Tensor, "n"]) -> Complex[Tensor, "b k n"]:
        turn = _FULL_TURN * frequency[..., None] * at
        return torch.polar(torch.ones_like(turn), turn)

    time = torch.linspace(0, 1, frames, device=seeds.device)
    at_time = make_wave(-drift, time) * torch.polar(strength, _FULL_TURN * phase)[..., None]
    planes = torch.einsum("bkt,bkh->bthk", at_time, make_wave(fy, _list_centers(size[0], seeds)))
    return (planes.flatten(1, 2) @ make_wave(fx, _list_centers(size[1], seeds))).real.unflatten(1, (frames, size[0]))


def _paint_object(
    canvas: Float[Tensor, "b 3 t h w"], path: Trajectories, seeds: Int64[Tensor, "b"], purpose: str
) -> None:
    """Paint an object in all frames, lit from one side of its own: every angle looks different."""
    height, width = canvas.shape[-2:]
    short = min(height, width)
    radius = path.radius[..., None]
    right = _wrap(_list_centers(width, seeds) - path.x[..., None]) * (width / short) / radius
    down = _wrap(_list_centers(height, seeds) - path.y[..., None]) * (height / short) / radius
    cos, sin = path.angle.cos()[..., None], path.angle.sin()[..., None]
    u = (cos * right)[..., None, :] + (sin * down)[..., None]
    v = (cos * down)[..., None] - (sin * right)[..., None, :]
    numbers = draw_uniform(seeds, purpose, _OUTLINE_NUMBERS + 14)
    outline, texture, colors = numbers.split((_OUTLINE_NUMBERS, 8, 6), dim=1)
    inside = _evaluate_outline(outline, u, v).sub_(torch.hypot(u, v)).mul_(radius[..., None] * short)  # in pixels
    first, second = _draw_colors(colors, saturation=(0.3, 1.0), value=(0.25, 1.0))
    share = _evaluate_texture(texture, u, v).mul_(1.25).add_(0.5).clamp_(0, 1)
    shade = u.mul_(0.3).add_(0.8).mul_((inside / 1.5).clamp_(0, 1).mul_(0.55).add_(0.45))
    canvas.lerp_(_mix_colors(first, second, share, shade), inside.add_(0.5).clamp_(0, 1)[:, None])


def _evaluate_outline(numbers: Float[Tensor, "b n"], u: Pixels, v: Pixels) -> Pixels:
    """Return an outline's radius in the direction of each pixel, about 0.8 in the mean: blobs, ellipses, stars."""
    harmonics = torch.arange(1, _MAX_HARMONIC + 1, device=u.device)
    main = 2 + torch.floor((_MAX_HARMONIC - 1) * numbers[:, -1:])  # the strongest harmonic, from 2 on
    strength = 0.12 * numbers[:, :_MAX_HARMONIC] / harmonics + 0.16 * (harmonics == main)
    angle = _FULL_TURN * torch.arange(_OUTLINE_POINTS, device=u.device) / _OUTLINE_POINTS
    turn = harmonics[:, None] * angle + _FULL_TURN * numbers[:, _MAX_HARMONIC:-1, None]
    outline = 0.8 + (strength[..., None] * torch.cos(turn)).sum(1)
    index = torch.atan2(v, u).mul_(_OUTLINE_POINTS / _FULL_TURN).round_().long().bitwise_and_(_OUTLINE_POINTS - 1)
    return outline.gather(1, index.flatten(1)).view_as(u)


def _evaluate_texture(numbers: Float[Tensor, "b 8"], u: Pixels, v: Pixels) -> Pixels:
    """Return a pattern at each point of an object: stripes, checks, spots or something between them."""
    angle, cross, frequency, second_frequency, strength, phase, second_phase, offset = (
        each[:, None, None, None] for each in numbers.unbind(1)
    )

    def make_wave(turn: Tensor, frequency: Tensor, phase: Tensor) -> Pixels:
        pitch, turn = 3.5 + 3.5 * frequency, _FULL_TURN * turn  # 3.5 to 7 radians in an object's radius
        return (u * (pitch * torch.cos(turn))).add_(v * (pitch * torch.sin(turn))).add_(_FULL_TURN * phase).sin_()

    second = make_wave(angle + 0.15 + 0.2 * cross, second_frequency, second_phase)
    return make_wave(angle, frequency, phase).add_(second.mul_(1.2 * strength)).add_(0.8 * offset - 0.4)


def _paint_bar(canvas: Float[Tensor, "b 3 t h w"], path: Trajectories, seeds: Int64[Tensor, "b"]) -> None:
    """Paint a striped bar across the frame, in front of everything."""
    numbers = draw_uniform(seeds, "bar", 9)
    first, second = _draw_colors(numbers[:, :6], saturation=(0.35, 0.35), value=(0.35, 0.9))
    slant, waves, phase = numbers[:, 6:, None, None].unbind(1)
    for is_vertical, view in ((True, canvas), (False, canvas.transpose(-1, -2))):
        along, across = (_list_centers(length, seeds) for length in view.shape[-2:])
        distance = _wrap(across - path.bar_position[:, None])
        cover = ((_BAR_HALF_WIDTH - distance.abs()) * len(across) + 0.5).clamp(0, 1)
        cover = cover * (path.has_vertical_bar == is_vertical)[:, None]
        turn = (
            _FULL_TURN * ((2 + torch.floor(3 * waves)) * along[:, None] + phase) + (40 * slant - 20) * distance[:, None]
        )
        stripes = 0.5 + 0.5 * (2.5 * torch.sin(turn)).clamp(-1, 1)
        colors = _mix_colors(first, second, stripes[:, None], torch.ones_like(stripes[:, None]))
        view.lerp_(colors, cover[:, None, None, None])


def _draw_colors(
    numbers: Float[Tensor, "b 6"], *, saturation: tuple[float, float], value: tuple[float, float]
) -> list[Float[Tensor, "b 3"]]:
    """Return two colours of any hue, with saturation and value between these limits."""
    colors = []
    for hue, colorful, bright in (each.unbind(2) for each in numbers.unflatten(1, (2, 1, 3)).unbind(1)):
        colorful, bright = (
            low + (high - low) * share for (low, high), share in ((saturation, colorful), (value, bright))
        )
        wheel = ((hue + hue.new_tensor([0, 2 / 3, 1 / 3])) % 1 * 6 - 3).abs().sub(1).clamp(0, 1)
        colors.append(bright * (1 - colorful * (1 - wheel)))
    return colors


def _mix_colors(
    first: Float[Tensor, "b 3"],
    second: Float[Tensor, "b 3"],
    share: Float[Tensor, "b t h w"],
    shade: Float[Tensor, "b t h w"],
) -> Float[Tensor, "b 3 t h w"]:
    """Return shade · (first + share · (second − first)); as a product of matrices it is ten times as fast."""
    numbers = torch.stack([shade, shade * share], dim=1)
    return (torch.stack([first, second - first], dim=2) @ numbers.flatten(2)).unflatten(2, share.shape[1:])


def _list_centers(length: int, like: Tensor) -> Float[Tensor, "n"]:
    """Return the centres of pixels along a side, as fractions of it."""
    return (torch.arange(length, device=like.device) + 0.5) / length


def _wrap(distance: Tensor) -> Tensor:
    """Return a distance on a circle of length 1, from -1/2 to 1/2."""
    return (distance + 0.5) % 1 - 0.5
