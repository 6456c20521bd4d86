"""Colour jitter of VideoMAE's detection code: hue, saturation and value, moved by one draw for a whole clip."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HSVJitter:
    """How far each may move, either way.

    Args:
        hue: of 180 half degrees, around the circle.
        saturation, value: of 255 levels, cut off at both ends.
    """

    hue: int = 10
    saturation: int = 26
    value: int = 26
