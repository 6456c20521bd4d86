"""Colour jitter of VideoMAE's detection code: one shift of hue, saturation and value for a whole clip.

Conversions to 8-bit HSV and back use OpenCV's arithmetic, where hue has 180 steps of two degrees.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from vidstill.utils.types import check_range

_HUE_RANGE = 180
_SHIFT = 12  # fractional bits of OpenCV's fixed-point numbers
_ROUNDING = 1 << (_SHIFT - 1)


def _divide_rounded(whole: int, parts: np.ndarray) -> Int32[np.ndarray, "256"]:
    """Return the rounded quotients; 0 for 0 parts."""
    return np.rint(np.divide(whole, parts, out=np.zeros(256), where=parts > 0)).astype(np.int32)


# hue steps per level, by the distance of the largest from the smallest channel, in fixed point
_HUE_TABLE = _divide_rounded(_HUE_RANGE << _SHIFT, 6 * np.arange(256))
# the saturation by the largest channel and, of 256 each, its distance from the smallest
_SATURATION_TABLE = (
    np.outer(_divide_rounded(255 << _SHIFT, np.arange(256)), np.arange(256)) + _ROUNDING
).ravel() >> _SHIFT


@dataclass(frozen=True, kw_only=True)
class HSVJitter:
    """Largest shifts in either direction."""

    hue: int = 10  # largest shift of the hue, of 180 steps around the circle
    saturation: int = 26  # largest shift of the saturation, of 255 levels, clipped at both ends
    value: int = 26  # largest shift of the brightness, of 255 levels, clipped at both ends

    def __post_init__(self) -> None:
        check_range(0, _HUE_RANGE // 2, hue=self.hue)
        check_range(0, 255, saturation=self.saturation, value=self.value)

    def draw_shift(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw a shift of hue, saturation and value."""
        limits = self.hue, self.saturation, self.value
        hue, saturation, value = (int(rng.integers(-limit, limit, endpoint=True)) for limit in limits)
        return hue, saturation, value

    def apply(self, frames: UInt8[np.ndarray, "t h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "t h w 3"]:
        """Shift all frames by one draw."""
        return shift_hsv(frames, self.draw_shift(rng))


def shift_hsv(frames: UInt8[np.ndarray, "t h w 3"], shift: tuple[int, int, int]) -> UInt8[np.ndarray, "t h w 3"]:
    """Shift hue, saturation and value of RGB frames."""
    hue_shift, saturation_shift, value_shift = shift
    saturation = np.clip(_SATURATION_TABLE + saturation_shift, 0, 255).astype(np.float32) / 255
    value = np.clip(np.arange(256, dtype=np.float32) + value_shift, 0, 255)
    # the share of the saturation that each shifted hue takes off red, green and blue; negative hues wrap
    sixths = (np.arange(_HUE_RANGE) + hue_shift) % _HUE_RANGE * (6 / _HUE_RANGE)
    turned = [(start + sixths) % 6 for start in (5, 3, 1)]
    shades = [np.clip(np.minimum(each, 4 - each), 0, 1).astype(np.float32) for each in turned]
    changed = np.empty_like(frames)
    for frame, out in zip(frames, changed, strict=True):  # one frame at a time fits into the processor's cache
        red, green, blue = (np.ascontiguousarray(frame[..., c]).astype(np.int32) for c in range(3))
        most, spread, hue = _compute_hue(red, green, blue)
        scale, grey = value[most], saturation[most * 256 + spread]
        for c in range(3):
            out[..., c] = np.rint(scale * (1 - grey * shades[c][hue]))
    return changed


def _compute_hue(
    red: Int32[np.ndarray, "*n"], green: Int32[np.ndarray, "*n"], blue: Int32[np.ndarray, "*n"]
) -> tuple[Int32[np.ndarray, "*n"], Int32[np.ndarray, "*n"], Int32[np.ndarray, "*n"]]:
    """Return the largest channel, its distance from the smallest, and the hue from -30 to 150."""
    most = np.maximum(np.maximum(red, green), blue)
    spread = most - np.minimum(np.minimum(red, green), blue)
    turned = np.where(most == green, blue - red + 2 * spread, red - green + 4 * spread)
    turned = np.where(most == red, green - blue, turned)
    turned *= _HUE_TABLE[spread]
    turned += _ROUNDING
    turned >>= _SHIFT
    return most, spread, turned
