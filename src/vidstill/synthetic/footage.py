"""Synthetic videos for benchmarks: larger and longer than clips, encoded as videos of Kinetics are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vidstill.parallel.process import send_heartbeat
from vidstill.synthetic.dataset import encode_h264
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.synthetic.sprites import draw_drifting_noise
from vidstill.utils.rng import derive_sample_seed, numpy_rng

_TEXTURE_LEVELS = 12.0  # standard deviation
_FRAMES_PER_SHOT = 75  # frames that are in memory as real numbers


@dataclass(frozen=True, kw_only=True)
class FootageConfig:
    """Size of a video; the defaults are those of the common copies of Kinetics: ten seconds, short side 256."""

    frames: int = 300
    size: tuple[int, int] = (256, 340)  # rows and columns in pixels, both even
    fps: int = 30  # frames per second


def encode_footage(config: FootageConfig, seed: int) -> bytes:
    """Return an mp4 file in H.264, encoded as a Kinetics video of 340x256 pixels that was measured.

    That is libx264's preset medium at crf 20: B-frames in a pyramid, a key frame every 250 frames and at cuts. At the
    default size a frame takes about 3 kB, and 4 kB packed; a frame of that video took 2.3 and 4.1 kB.
    """
    return encode_h264(render_footage(config, seed), config.fps, {"crf": "20"})


def render_footage(config: FootageConfig, seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Render shots of moving objects, a fine texture that pans, and sensor noise, which differs between videos."""
    rng = numpy_rng(seed, "footage")
    noise = rng.uniform(0.3, 1.6)  # standard deviation in levels
    shots = []
    for index, start in enumerate(range(0, config.frames, _FRAMES_PER_SHOT)):
        frames = min(_FRAMES_PER_SHOT, config.frames - start)
        shot = draw_clip(str(rng.choice(MOTION_CLASSES)), derive_sample_seed(seed, 0, index), frames, config.size)
        time = np.linspace(0, 1, frames)
        grain = _TEXTURE_LEVELS * draw_drifting_noise(rng, time, config.size, roughness=1.0, max_frequency=np.inf)
        grain += noise * rng.standard_normal(grain.shape, dtype=np.float32)
        shots.append((shot + grain[..., None]).clip(0, 255).round().astype(np.uint8))
        send_heartbeat()
    return np.concatenate(shots)
