"""RandAugment for clips: a few drawn operations on colour and place, the same for every frame."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from vidstill.utils.types import within

Colour = tuple[int, int, int]

Matrix = tuple[float, float, float, float, float, float]
"""Where a place (x, y) of the outcome is looked up: (a x + b y + c, d x + e y + f), pixel centres at halves."""


def factor(m: float, sign: int) -> float:
    """How much of an enhancement: 0 for an image without colour, contrast, light or edges, 1 for what it is."""
    return 1 + sign * 0.9 * m / 10


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, m, sign: kind(image).enhance(factor(m, sign))


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """PIL's own refuses to keep no bits, which is what the highest magnitude keeps: a black image."""
    return image.point([level & (256 - (1 << (8 - bits))) for level in range(256)] * 3)


def _solarize_add(image: Image.Image, m: float) -> Image.Image:
    add = int(m / 10 * 110)
    return image.point([min(255, level + add) if level < 128 else level for level in range(256)] * 3)


def _turned(degrees: float, width: int, height: int) -> Matrix:
    """Anticlockwise about the middle; to the last digit PIL's `rotate`, as values are cut off to bytes."""
    angle, x, y = -math.radians(degrees % 360), width / 2, height / 2
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cos, sin, -cos * x - sin * y + x, -sin, cos, sin * x - cos * y + y


# What changes colours takes an image, a magnitude m in [0, 10] and a sign. These are the operations whose strength
# rises with m ("inc1" in the field's `rand-m7-n4-mstd0.5-inc1`); the first three have no strength.
COLOURS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "AutoContrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, m, sign: ImageOps.equalize(image),
    "Invert": lambda image, m, sign: ImageOps.invert(image),
    "Posterize": lambda image, m, sign: _posterize(image, 4 - int(m / 10 * 4)),
    "Solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(m / 10 * 256)),
    "SolarizeAdd": lambda image, m, sign: _solarize_add(image, m),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
}

# What moves pixels takes sign * m / 10, and a frame's width and height.
MOVES: dict[str, Callable[[float, int, int], Matrix]] = {
    "Rotate": lambda strength, width, height: _turned(30 * strength, width, height),
    "ShearX": lambda strength, width, height: (1.0, 0.3 * strength, 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.3 * strength, 1.0, 0.0),
    "TranslateX": lambda strength, width, height: (1.0, 0.0, 0.45 * strength * width, 0.0, 1.0, 0.0),
    "TranslateY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * strength * height),
}

OPERATIONS = (  # in this order: a seed stands for places in it
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color"),
    *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)


class Drawn(NamedTuple):
    """An operation that was drawn, with its magnitude in [0, 10] and its sign."""

    name: str
    magnitude: float
    sign: int

    def matrix(self, width: int, height: int) -> Matrix:
        """Of an operation that moves pixels."""
        return MOVES[self.name](self.sign * self.magnitude / 10, width, height)

    def apply(self, image: Image.Image, fill: Colour) -> Image.Image:
        """The image after the operation; `fill` is what comes in from outside the frame."""
        if self.name in COLOURS:
            return COLOURS[self.name](image, self.magnitude, self.sign)
        method, filter_ = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, method, self.matrix(*image.size), filter_, fillcolor=fill)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Operations drawn with replacement from 15 (Cubuk et al., arXiv:1909.13719), as the video papers' code sets it.

    The papers say "(9, 0.5)"; every released default is `rand-m7-n4-mstd0.5-inc1`, which these are.

    Args:
        operations: how many are drawn for a clip.
        probability: of each drawn operation to be applied.
        magnitude: the mean of a normal draw, clipped to [0, 10].
        magnitude_std: the deviation of that draw.
        fill: the colour that comes in from outside the frame: grey (the video papers), or ImageNet's mean,
            124 116 104 (the image papers).
    """

    operations: int = 4
    probability: float = 0.5
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    fill: Colour = (128, 128, 128)

    def __post_init__(self) -> None:
        within(0, math.inf, operations=self.operations, magnitude_std=self.magnitude_std)
        within(0, 10, magnitude=self.magnitude)
        within(0, 1, probability=self.probability)
        for level in self.fill:
            within(0, 255, fill=level)

    def draw(self, chance: np.random.Generator) -> list[Drawn]:
        """The operations that will be applied, in their order."""
        names = [OPERATIONS[k] for k in chance.integers(len(OPERATIONS), size=self.operations)]
        applied = chance.random(self.operations) < self.probability
        magnitudes = np.clip(chance.normal(self.magnitude, self.magnitude_std, self.operations), 0, 10)
        signs = np.where(chance.random(self.operations) < 0.5, -1, 1)
        drawn = zip(names, magnitudes, signs, applied, strict=True)
        return [Drawn(name, float(magnitude), int(sign)) for name, magnitude, sign, is_applied in drawn if is_applied]

    def apply(self, frames: UInt8[np.ndarray, "t h w 3"], chance: np.random.Generator) -> UInt8[np.ndarray, "t h w 3"]:
        """Every frame after the drawn operations."""
        images = [Image.fromarray(frame) for frame in frames]
        for drawn in self.draw(chance):
            images = [drawn.apply(image, self.fill) for image in images]
        return np.stack([np.asarray(image) for image in images])
