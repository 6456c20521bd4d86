"""Films videos for benchmarks: a camera that moves before things that move, coded as videos of Kinetics are."""

import io
from dataclasses import dataclass

import av
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vidstill.parallel.heartbeat import send_heartbeat
from vidstill.utils.rng import numpy_rng

_FRAMES_PER_CHUNK = 30  # frames that are in memory as real numbers


@dataclass(frozen=True, kw_only=True)
class FootageConfig:
    """What is filmed; by default as the common copies of Kinetics are: ten seconds, the short side 256.

    Args:
        frames: of a video.
        size: rows and columns in pixels, both even.
        fps: frames per second.
    """

    frames: int = 300
    size: tuple[int, int] = (256, 340)
    fps: int = 30


def encode_footage(config: FootageConfig, seed: int) -> bytes:
    """An mp4 file in H.264, coded as a Kinetics video of 340x256 that was at hand.

    That is libx264's preset medium at crf 20: B-frames in a pyramid, a key frame in 250 and at cuts. At the default
    size a frame takes 2.2 kB, packed 4.2; that video's took 2.3 and 4.1.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=config.fps)
        stream.height, stream.width = config.size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "threads": "1"}  # the bytes depend on the number of threads
        for frame in render_footage(config, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def render_footage(config: FootageConfig, seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Two shots, each of a world of discs of every size that cover one another.

    Such "dead leaves" have the edges and the plain areas of photographs (Lee, Mumford and Huang, IJCV 41, 2001). What
    is near moves apart from what is far, both turn, swell and ripple, and the light changes a little. How much the
    camera moves and its sensor errs differs from video to video, so that some are calm and some are not.
    """
    chance = numpy_rng(seed, "footage")
    pan, noise = 0.3 * 10 ** chance.random(), chance.uniform(0.5, 2.5)  # pixels a frame; levels
    cut = config.frames // 3 + int(chance.integers(config.frames // 3 + 1))
    return np.concatenate([_render_shot(config, n, pan, noise, chance) for n in (cut, config.frames - cut)])


def _render_shot(
    footage: FootageConfig, frames: int, pan: float, noise: float, chance: np.random.Generator
) -> UInt8[np.ndarray, "t h w 3"]:
    height, width = footage.size
    far, near = (_draw_layer(2 * height, 2 * width, covers, chance) for covers in (True, False))
    far_path, near_path = (_CameraPath(footage, frames, speed * pan, chance) for speed in (1, 2))
    light = 1 + 0.03 * _draw_smooth_path(frames, chance)
    shown = []
    for when in torch.arange(frames).split(_FRAMES_PER_CHUNK):
        behind, before = (
            _sample_layer(far, far_path.sampling_grid(when)),
            _sample_layer(near, near_path.sampling_grid(when)),
        )
        picture = torch.lerp(behind[:, :3], before[:, :3], before[:, 3:]) * rearrange(light[when], "t -> t 1 1 1")
        grain = torch.from_numpy(chance.standard_normal((len(when), 1, height, width), dtype=np.float32))
        levels = (picture + noise * grain).clamp_(0, 255).round_().byte()
        shown.append(rearrange(levels, "t c h w -> t h w c").numpy())
        send_heartbeat()
    return np.concatenate(shown)


def _sample_layer(layer: Float[Tensor, "4 rows cols"], places: Float[Tensor, "t h w 2"]) -> Float[Tensor, "t 4 h w"]:
    many = layer.expand(len(places), -1, -1, -1)
    return F.grid_sample(many, places, padding_mode="reflection", align_corners=False)


def _draw_layer(height: int, width: int, covers: bool, chance: np.random.Generator) -> Float[Tensor, "4 h w"]:
    """Discs before one another in red, green, blue, and how far they cover: all of the layer, or the discs alone."""
    picture = np.full((4, height, width), 128, np.float32)
    picture[3] = covers
    sides = np.array((height, width))
    if covers:  # radii whose numbers fall with their third power look the same from near and far
        small = (1 - chance.random(800) * (1 - (16 / height) ** 2)) ** -0.5
        radii = np.concatenate([np.full(150, height / 8), 4 * small])
    else:
        radii = chance.uniform(height / 24, height / 8, 10)
    for radius in radii:
        centre = chance.uniform(0, sides)
        top, left = np.maximum(0, (centre - radius).astype(int))
        down = np.arange(top, min(height, int(centre[0] + radius) + 2))[:, None] - centre[0]
        right = np.arange(left, min(width, int(centre[1] + radius) + 2))[None] - centre[1]
        cover = np.clip(radius + 0.5 - np.hypot(down, right), 0, 1)
        colour = chance.uniform(30, 220) + chance.normal(0, 18, (3, 1, 1))
        shade = chance.normal(0, 15) * down / radius + chance.normal(0, 15) * right / radius
        part = picture[:, top : top + down.size, left : left + right.size]
        part[:3] += cover * (colour + shade - part[:3])
        part[3] = np.maximum(part[3], cover)
    picture[:3] += 5 * _draw_grain(height, width, chance)
    return torch.from_numpy(picture)


def _draw_grain(height: int, width: int, chance: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """A fine texture of unit deviation, whose amplitude falls with the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    grain = np.fft.irfft2(np.exp(2j * np.pi * chance.random(frequency.shape)) / frequency, s=(height, width))
    return (grain / grain.std()).astype(np.float32)


class _CameraPath:
    """How a layer moves before the camera."""

    def __init__(self, footage: FootageConfig, frames: int, pan: float, chance: np.random.Generator):
        height, width = footage.size
        self._size, self._fps = footage.size, footage.fps
        self._rotation, self._zoom = (
            0.05 * _draw_smooth_path(frames, chance),
            1 + 0.08 * _draw_smooth_path(frames, chance),
        )
        self._right, self._down = (pan * _draw_smooth_path(frames, chance).cumsum(0) / side for side in (width, height))
        self._waves = chance.uniform(2, 5)

    def sampling_grid(self, when: Tensor) -> Float[Tensor, "t h w 2"]:
        """Where in the layer, in [-1, 1], the pixels of some of the frames lie."""
        height, width = self._size
        down, right = torch.linspace(-0.5, 0.5, height)[:, None], torch.linspace(-0.5, 0.5, width)
        turn, swell, shift_right, shift_down = (
            rearrange(each[when], "t -> t 1 1") for each in (self._rotation, self._zoom, self._right, self._down)
        )
        phase = rearrange(when / self._fps, "t -> t 1 1")
        ripple_right, ripple_down = (
            0.005 * torch.sin(2 * torch.pi * (self._waves * side + phase)) for side in (down, right)
        )
        across, along = swell * torch.cos(turn), swell * torch.sin(turn)
        x = across * right - along * down + (shift_right + ripple_right)
        y = along * right + across * down + (shift_down + ripple_down)
        return torch.stack([x, y], dim=-1)


def _draw_smooth_path(frames: int, chance: np.random.Generator) -> Float[Tensor, "t"]:
    """A path around 0 of about unit size that turns every one or two seconds."""
    knots = chance.normal(size=frames // 40 + 2)
    return torch.from_numpy(np.interp(np.arange(frames) / 40, np.arange(len(knots)), knots)).float()
