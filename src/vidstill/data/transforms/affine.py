"""Clips moved on the device, each by a matrix of its own, as PIL's `Image.transform` moves an image (AFFINE, BICUBIC).

PIL weighs the four times four pixels around a place by the cubic whose a is -1, in double precision, and cuts the value
down to a byte. Here the places are sums of two numbers that the host splits in double precision into pixels and what is
left over, and the weighing is in single precision: a value within about 0.0002 of a whole level may come out on its
other side, one level off.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from vidstill.data.transforms.randaugment import AffineMatrix, RGBColor


def moved(
    frames: UInt8[Tensor, "b t 3 h w"], matrices: Sequence[AffineMatrix], fill: RGBColor
) -> UInt8[Tensor, "b t 3 h w"]:
    """Each clip's frames by its matrix; `fill` is seen where a place lies outside of the frame."""
    b, t, _, h, w = frames.shape
    device = frames.device
    xx, xy, x0, yx, yy, y0 = np.array(matrices, dtype=float).T[..., None]
    x, y = np.arange(w) + 0.5, np.arange(h) + 0.5
    column, right, columns = _places(xx * x + x0 - 0.5, xy * y, device)
    row, down, rows = _places(yx * x, yy * y + y0 - 0.5, device)

    pixels = rearrange(frames, "b t c h w -> (b h w) (c t)")
    clip = torch.arange(b, device=device)[:, None, None] * (h * w)

    def line(by: int) -> Float[Tensor, "pixels colours"]:
        start = clip + (row + by).clamp(0, h - 1) * w
        places = [(start + (column + step).clamp(0, w - 1)).flatten() for step in columns]
        return _between([pixels.index_select(0, place).float() for place in places], right.view(-1, 1))

    value = _between([line(by) for by in rows], down.view(-1, 1)).clamp_(0, 255).to(torch.uint8)
    outside = ~(_inside(row, down, h) & _inside(column, right, w)).view(-1, 1)
    colours = torch.tensor(fill, dtype=torch.uint8).repeat_interleave(t).to(device, non_blocking=True)
    return rearrange(torch.where(outside, colours, value), "(b h w) (c t) -> b t c h w", b=b, h=h, t=t)


def _places(
    across: Float64[np.ndarray, "b w"], down: Float64[np.ndarray, "b h"], device: torch.device
) -> tuple[Int64[Tensor, "b h w"], Float[Tensor, "b h w"], Sequence[int]]:
    """Coordinates that are sums of a number for each column and one for each row.

    Returns:
        The last pixel at or before each, how far behind it that is in [0, 1), and the steps from that pixel to those
        which count: four of them, unless every coordinate is on a pixel.
    """
    pixels = [torch.from_numpy(np.floor(part)).long() for part in (across, down)]
    behind = [torch.from_numpy(part - np.floor(part)).float() for part in (across, down)]
    steps = range(-1, 3) if any(part.any() for part in behind) else range(1)
    pixel, rest = (
        one.to(device, non_blocking=True)[:, None, :] + other.to(device, non_blocking=True)[:, :, None]
        for one, other in (pixels, behind)
    )
    next_ = (rest >= 1).long()
    return pixel + next_, rest - next_, steps


def _inside(pixel: Int64[Tensor, "b h w"], behind: Float[Tensor, "b h w"], length: int) -> Tensor:
    """Whether a coordinate lies on the frame, whose pixels have their centres at whole numbers here."""
    nearest = pixel + (behind >= 0.5).long()
    return (nearest >= 0) & (nearest < length)


def _between(values: list[Tensor], behind: Float[Tensor, "n 1"]) -> Tensor:
    """The cubic through the second and the third of four values, `behind` the second; equal values stay as they are."""
    if len(values) == 1:
        return values[0]
    before, value, after, last = values
    square = behind * behind
    cube = square * behind
    return (
        value.addcmul(before - value, 2 * square - behind - cube)
        .addcmul_(after - value, behind + square - cube)
        .addcmul_(last - value, cube - square)
    )
