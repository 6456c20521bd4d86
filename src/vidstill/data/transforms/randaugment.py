"""RandAugment of clips with PIL: a few drawn operations on colours and geometry, the same for every frame."""

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
"""Where the pixel (x, y) of the result is taken from: (a x + b y + c, d x + e y + f), pixel centres at halves."""


def _make_enhance_op(
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Callable[[Image.Image, float, int], Image.Image]:
    """Build an enhancement whose factor is 1 for the image itself and 0 without colour, contrast, light or edges."""
    return lambda image, magnitude, sign: enhancer(image).enhance(1 + sign * 0.9 * magnitude / 10)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keep the highest bits of each level; PIL's own refuses to keep none, which the highest magnitude asks for."""
    return image.point([level & (256 - (1 << (8 - bits))) for level in range(256)] * 3)


def _solarize_add(image: Image.Image, magnitude: float) -> Image.Image:
    add = int(magnitude / 10 * 110)
    return image.point([min(255, level + add) if level < 128 else level for level in range(256)] * 3)


def _make_rotation_matrix(degrees: float, width: int, height: int) -> AffineMatrix:
    """Rotate counter-clockwise about the centre, exactly as PIL's `rotate`, since values are truncated to bytes."""
    angle, x, y = -math.radians(degrees % 360), width / 2, height / 2
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cos, sin, -cos * x - sin * y + x, -sin, cos, sin * x - cos * y + y


# Colour operations take an image, a magnitude m in [0, 10] and a sign. Their strength rises with m ("inc1" in the
# field's `rand-m7-n4-mstd0.5-inc1`); the first three have no strength.
_COLOR_OPS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
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

# Geometric operations take sign * m / 10, and a frame's width and height.
_GEOMETRIC_OPS: dict[str, Callable[[float, int, int], AffineMatrix]] = {
    "Rotate": lambda strength, width, height: _make_rotation_matrix(30 * strength, width, height),
    "ShearX": lambda strength, width, height: (1.0, 0.3 * strength, 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.3 * strength, 1.0, 0.0),
    "TranslateX": lambda strength, width, height: (1.0, 0.0, 0.45 * strength * width, 0.0, 1.0, 0.0),
    "TranslateY": lambda strength, width, height: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * strength * height),
}

OP_NAMES = (  # a seed draws positions in this order
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color"),
    *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)


class RandAugmentOp(NamedTuple):
    """A drawn operation with its magnitude in [0, 10] and its sign."""

    name: str
    magnitude: float
    sign: int

    def apply(self, image: Image.Image, fill: RGBColor) -> Image.Image:
        """Apply the operation; `fill` is the colour of what comes in from outside the frame."""
        if self.name in _COLOR_OPS:
            return _COLOR_OPS[self.name](image, self.magnitude, self.sign)
        matrix = _GEOMETRIC_OPS[self.name](self.sign * self.magnitude / 10, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Operations drawn with replacement from 15 (Cubuk et al., arXiv:1909.13719), as the video papers' code sets them.

    The papers say "(9, 0.5)"; every released default is `rand-m7-n4-mstd0.5-inc1`, which are the defaults here.
    """

    num_ops: int = 4  # operations that are drawn for a clip
    probability: float = 0.5  # probability that a drawn operation is applied
    magnitude: float = 7.0  # mean of a normal distribution, whose draws are clipped to [0, 10]
    magnitude_std: float = 0.5  # its standard deviation
    # colour of what comes in from outside the frame: grey (the video papers), or ImageNet's mean, 124 116 104 (the
    # image papers)
    fill: RGBColor = (128, 128, 128)

    def __post_init__(self) -> None:
        check_range(0, math.inf, num_ops=self.num_ops, magnitude_std=self.magnitude_std)
        check_range(0, 10, magnitude=self.magnitude)
        check_range(0, 1, probability=self.probability)
        for level in self.fill:
            check_range(0, 255, fill=level)

    def draw_ops(self, rng: np.random.Generator) -> list[RandAugmentOp]:
        """Draw the operations that are applied, in order."""
        names = [OP_NAMES[k] for k in rng.integers(len(OP_NAMES), size=self.num_ops)]
        is_applied = rng.random(self.num_ops) < self.probability
        magnitudes = np.clip(rng.normal(self.magnitude, self.magnitude_std, self.num_ops), 0, 10)
        signs = np.where(rng.random(self.num_ops) < 0.5, -1, 1)
        ops = map(RandAugmentOp, names, magnitudes.tolist(), signs.tolist())
        return [op for op, applied in zip(ops, is_applied, strict=True) if applied]

    def apply(self, frames: UInt8[np.ndarray, "t h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "t h w 3"]:
        """Apply the same drawn operations to every frame."""
        images = [Image.fromarray(frame) for frame in frames]
        for op in self.draw_ops(rng):
            images = [op.apply(image, self.fill) for image in images]
        return np.stack([np.asarray(image) for image in images])
