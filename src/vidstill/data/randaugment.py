"""RandAugment for clips: a few drawn operations on colour and place, the same for every frame."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from vidstill.types import within

_GREY = (128, 128, 128)  # what comes in from outside the frame


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, m, sign: kind(image).enhance(1 + sign * 0.9 * m / 10)


def _moved(
    image: Image.Image, *, shear_x: float = 0, shear_y: float = 0, right: float = 0, down: float = 0
) -> Image.Image:
    matrix = (1, shear_x, right * image.width, shear_y, 1, down * image.height)
    method, filter_ = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return image.transform(image.size, method, matrix, filter_, fillcolor=_GREY)


def _solarize_add(image: Image.Image, m: float) -> Image.Image:
    add = int(m / 10 * 110)
    return image.point([min(255, level + add) if level < 128 else level for level in range(256)] * 3)


# Each takes an image, a magnitude m in [0, 10] and a sign. These are the operations whose strength rises with m
# ("inc1" in the field's `rand-m7-n4-mstd0.5-inc1`); the first three have no strength.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "AutoContrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, m, sign: ImageOps.equalize(image),
    "Invert": lambda image, m, sign: ImageOps.invert(image),
    "Rotate": lambda image, m, sign: image.rotate(sign * m / 10 * 30, Image.Resampling.BICUBIC, fillcolor=_GREY),
    "Posterize": lambda image, m, sign: ImageOps.posterize(image, 4 - int(m / 10 * 4)),
    "Solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(m / 10 * 256)),
    "SolarizeAdd": lambda image, m, sign: _solarize_add(image, m),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda image, m, sign: _moved(image, shear_x=sign * m / 10 * 0.3),
    "ShearY": lambda image, m, sign: _moved(image, shear_y=sign * m / 10 * 0.3),
    "TranslateX": lambda image, m, sign: _moved(image, right=sign * m / 10 * 0.45),
    "TranslateY": lambda image, m, sign: _moved(image, down=sign * m / 10 * 0.45),
}


class Drawn(NamedTuple):
    """An operation that was drawn, with its magnitude in [0, 10] and its sign."""

    name: str
    magnitude: float
    sign: int


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Operations drawn with replacement from 15 (Cubuk et al., arXiv:1909.13719), as the video papers' code sets it.

    The papers say "(9, 0.5)"; every released default is `rand-m7-n4-mstd0.5-inc1`, which these are.

    Args:
        operations: how many are drawn for a clip.
        probability: of each drawn operation to be applied.
        magnitude: the mean of a normal draw, clipped to [0, 10].
        magnitude_std: the deviation of that draw.
    """

    operations: int = 4
    probability: float = 0.5
    magnitude: float = 7.0
    magnitude_std: float = 0.5

    def __post_init__(self) -> None:
        within(0, math.inf, operations=self.operations, magnitude_std=self.magnitude_std)
        within(0, 10, magnitude=self.magnitude)
        within(0, 1, probability=self.probability)

    def draw(self, chance: np.random.Generator) -> list[Drawn]:
        """The operations that will be applied, in their order."""
        names = [list(OPERATIONS)[k] for k in chance.integers(len(OPERATIONS), size=self.operations)]
        applied = chance.random(self.operations) < self.probability
        magnitudes = np.clip(chance.normal(self.magnitude, self.magnitude_std, self.operations), 0, 10)
        signs = np.where(chance.random(self.operations) < 0.5, -1, 1)
        drawn = zip(names, magnitudes, signs, applied, strict=True)
        return [Drawn(name, float(magnitude), int(sign)) for name, magnitude, sign, is_applied in drawn if is_applied]

    def apply(self, frames: UInt8[np.ndarray, "t h w 3"], chance: np.random.Generator) -> UInt8[np.ndarray, "t h w 3"]:
        """Every frame after the drawn operations."""
        images = [Image.fromarray(frame) for frame in frames]
        for name, magnitude, sign in self.draw(chance):
            images = [OPERATIONS[name](image, magnitude, sign) for image in images]
        return np.stack([np.asarray(image) for image in images])
