"""RandAugment for clips: a few drawn operations on colour and place, the same for every frame."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from vidstill.utils.types import check_range

RGBColor = tuple[int, int, int]

AffineMatrix = tuple[float, float, float, float, float, float]
"""Where a place (x, y) of the outcome is looked up: (a x + b y + c, d x + e y + f), pixel centres at halves."""


def compute_enhance_factor(magnitude: float, sign: int) -> float:
    """How much of an enhancement: 0 for an image without colour, contrast, light or edges, 1 for what it is."""
    return 1 + sign * 0.9 * magnitude / 10


def _make_enhance_op(
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, m, sign: enhancer(image).enhance(compute_enhance_factor(m, sign))


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """PIL's own refuses to keep no bits, which is what the highest magnitude keeps: a black image."""
    return image.point([level & (256 - (1 << (8 - bits))) for level in range(256)] * 3)


def _solarize_add(image: Image.Image, magnitude: float) -> Image.Image:
    add = int(magnitude / 10 * 110)
    return image.point([min(255, level + add) if level < 128 else level for level in range(256)] * 3)


def _make_rotation_matrix(degrees: float, width: int, height: int) -> AffineMatrix:
    """Anticlockwise about the middle; to the last digit PIL's `rotate`, as values are cut off to bytes."""
    angle, x, y = -math.radians(degrees % 360), width / 2, height / 2
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cos, sin, -cos * x - sin * y + x, -sin, cos, sin * x - cos * y + y


# What changes colours takes an image, a magnitude m in [0, 10] and a sign. These are the operations whose strength
# rises with m ("inc1" in the field's `rand-m7-n4-mstd0.5-inc1`); the first three have no strength.
COLOR_OPS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "AutoContrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, m, sign: ImageOps.equalize(image),
    "Invert": lambda image, m, sign: ImageOps.invert(image),
    "Posterize": lambda image, m, sign: _posterize(image, 4 - int(m / 10 * 4)),
    "Solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(m / 10 * 256)),
    "SolarizeAdd": lambda image, m, sign: _solarize_add(image, m),
    "Color": _make_enhance_op(ImageEnhance.Color),
    "Contrast": _make_enhance_op(ImageEnhance.Contrast),
    "Brightness": _make_enhance_op(ImageEnhance.Brightness),
    "Sharpness": _make_enhance_op(ImageEnhance.Sharpness),
}

# What moves pixels takes sign * m / 10, and a frame's width and height.
GEOMETRIC_OPS: dict[str, Callable[[float, int, int], AffineMatrix]] = {
    "Rotate": lambda strength, width, height: _make_rotation_matrix(30 * strength, width, height),
    "ShearX": lambda strength, width, height: (1.0, 0.3 * strength, 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.3 * strength, 1.0, 0.0),
    "TranslateX": lambda strength, width, height: (1.0, 0.0, 0.45 * strength * width, 0.0, 1.0, 0.0),
    "TranslateY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * strength * height),
}

OP_NAMES = (  # in this order: a seed stands for places in it
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color"),
    *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)


class RandAugmentOp(NamedTuple):
    """An operation that was drawn, with its magnitude in [0, 10] and its sign."""

    name: str
    magnitude: float
    sign: int

    def build_affine_matrix(self, width: int, height: int) -> AffineMatrix:
        """Of an operation that moves pixels."""
        return GEOMETRIC_OPS[self.name](self.sign * self.magnitude / 10, width, height)

    def apply(self, image: Image.Image, fill: RGBColor) -> Image.Image:
        """The image after the operation; `fill` is what comes in from outside the frame."""
        if self.name in COLOR_OPS:
            return COLOR_OPS[self.name](image, self.magnitude, self.sign)
        method, filter_ = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, method, self.build_affine_matrix(*image.size), filter_, fillcolor=fill)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Operations drawn with replacement from 15 (Cubuk et al., arXiv:1909.13719), as the video papers' code sets it.

    The papers say "(9, 0.5)"; every released default is `rand-m7-n4-mstd0.5-inc1`, which these are.

    Args:
        num_ops: how many are drawn for a clip.
        probability: of each drawn operation to be applied.
        magnitude: the mean of a normal draw, clipped to [0, 10].
        magnitude_std: the deviation of that draw.
        fill: the colour that comes in from outside the frame: grey (the video papers), or ImageNet's mean,
            124 116 104 (the image papers).
    """

    num_ops: int = 4
    probability: float = 0.5
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    fill: RGBColor = (128, 128, 128)

    def __post_init__(self) -> None:
        check_range(0, math.inf, operations=self.num_ops, magnitude_std=self.magnitude_std)
        check_range(0, 10, magnitude=self.magnitude)
        check_range(0, 1, probability=self.probability)
        for level in self.fill:
            check_range(0, 255, fill=level)

    def draw_ops(self, rng: np.random.Generator) -> list[RandAugmentOp]:
        """The operations that will be applied, in their order."""
        names = [OP_NAMES[k] for k in rng.integers(len(OP_NAMES), size=self.num_ops)]
        applied = rng.random(self.num_ops) < self.probability
        magnitudes = np.clip(rng.normal(self.magnitude, self.magnitude_std, self.num_ops), 0, 10)
        signs = np.where(rng.random(self.num_ops) < 0.5, -1, 1)
        drawn = zip(names, magnitudes, signs, applied, strict=True)
        return [
            RandAugmentOp(name, float(magnitude), int(sign))
            for name, magnitude, sign, is_applied in drawn
            if is_applied
        ]

    def apply(self, frames: UInt8[np.ndarray, "t h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "t h w 3"]:
        """Every frame after the drawn operations."""
        images = [Image.fromarray(frame) for frame in frames]
        for drawn in self.draw_ops(rng):
            images = [drawn.apply(image, self.fill) for image in images]
        return np.stack([np.asarray(image) for image in images])
