"""What comes after a crop, on the device: flips, and RandAugment of crops, from the draws that the workers would make.

RandAugment of whole frames, before they are cropped (the video papers' place), stays with the workers: a device never
sees whole frames.

A clip looks as the workers would have made it: what reads a table of levels reads PIL's own, and the rest is PIL's
arithmetic on bytes. Each operation is at most one level from PIL's, and in few pixels: autocontrast, as PIL rounds its
scale and this divides whole numbers, and what moves pixels (`affine`). A later operation may make more of that level.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Int64, UInt8
from PIL import Image
from torch import Tensor

from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.transforms.affine import moved
from vidstill.data.transforms.randaugment import GEOMETRIC_OPS, RandAugmentOp, RGBColor, compute_enhance_factor
from vidstill.utils.rng import numpy_rng

Frames = UInt8[Tensor, "b t 3 h w"]

_LEVELS = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))


def augmented(
    clip: UInt8[Tensor, "b 3 t h w"], seeds: Int64[Tensor, "b"], config: ClipsConfig
) -> UInt8[Tensor, "b 3 t h w"]:
    """Cropped clips after their flips, and after RandAugment where that is of the crop.

    Args:
        seeds: of the samples. Best left on the CPU, where chance is drawn: else the device is waited for.
    """
    numbers: list[int] = seeds.tolist()
    flipped = [k for k, seed in enumerate(numbers) if numpy_rng(seed, "flip").random() < config.flip_probability]
    clip = _changed(clip.clone(), flipped, lambda part: part.flip(-1))
    augment = config.randaugment
    if augment is None or config.randaugment_stage == "frame":
        return clip
    return operated(clip, [augment.draw_ops(numpy_rng(seed, "randaugment")) for seed in numbers], augment.fill)


def operated(
    clip: UInt8[Tensor, "b 3 t h w"], draws: Sequence[Sequence[RandAugmentOp]], fill: RGBColor
) -> UInt8[Tensor, "b 3 t h w"]:
    """Each clip after its operations: the first ones of all clips, then the second ones; equal ones in one go."""
    frames = rearrange(clip, "b c t h w -> b t c h w").clone()
    for turn in zip_longest(*draws):
        alike: dict[str, dict[int, RandAugmentOp]] = defaultdict(dict)
        for k, drawn in enumerate(turn):
            if drawn is not None:
                alike[drawn.name][k] = drawn
        for name, drawn_for in alike.items():
            operation = partial(_OPERATIONS[name], draws=list(drawn_for.values()), fill=fill)
            frames = _changed(frames, list(drawn_for), operation)
    return rearrange(frames, "b t c h w -> b c t h w").contiguous()


def _changed(clips: Tensor, places: list[int], operation: Callable[[Tensor], Tensor]) -> Tensor:
    """The same memory with some of the clips in it changed."""
    if not places:
        return clips
    index = _sent(places, clips.device)
    return clips.index_copy_(0, index, operation(clips.index_select(0, index)))


def _sent(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """Numbers on the device, which is not waited for."""
    return torch.tensor(numbers).to(device, non_blocking=True)


def _moved(frames: Frames, draws: list[RandAugmentOp], fill: RGBColor) -> Frames:
    height, width = frames.shape[-2:]
    return moved(frames, [drawn.build_affine_matrix(width, height) for drawn in draws], fill)


def _looked_up(frames: Frames, draws: list[RandAugmentOp], fill: RGBColor) -> Frames:
    """Each level in its clip's table, which is what PIL makes of all levels."""
    images = [drawn.apply(_LEVELS, fill) for drawn in draws]
    tables = torch.from_numpy(np.stack([np.asarray(image)[0, :, 0] for image in images]))
    level = frames.int() + 256 * rearrange(torch.arange(len(frames), device=frames.device), "b -> b 1 1 1 1")
    looked_up = tables.to(frames.device, non_blocking=True).flatten().index_select(0, level.flatten())
    return looked_up.view_as(frames)


def _stretched(frames: Frames) -> Frames:
    """Each colour of each frame from its darkest and lightest level to 0 and 255, unless it has but one."""
    low, high = frames.amin((-2, -1), keepdim=True).int(), frames.amax((-2, -1), keepdim=True).int()
    stretched = 255 * (frames - low) // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, frames).to(torch.uint8)


def _blended(dull: Callable[[Frames], Tensor]) -> Callable[..., Frames]:
    """Away from or towards a clip that lacks something, as PIL blends: in single precision, cut off to bytes."""

    def operation(frames: Frames, draws: list[RandAugmentOp], fill: RGBColor) -> Frames:
        factors = _sent([compute_enhance_factor(drawn.magnitude, drawn.sign) for drawn in draws], frames.device)
        less = dull(frames).float()
        return (less + rearrange(factors, "b -> b 1 1 1 1") * (frames - less)).clamp_(0, 255).to(torch.uint8)

    return operation


def _grey(frames: Frames) -> Int[Tensor, "b t 1 h w"]:
    """Without colour, by PIL's whole numbers for ITU-R 601-2."""
    red, green, blue = frames.int().unbind(2)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)[:, :, None]


def _even(frames: Frames) -> Int[Tensor, "b t 1 1 1"]:
    """Without contrast: each frame's mean grey, rounded to a level."""
    grey = _grey(frames)
    pixels = grey.shape[-2] * grey.shape[-1]
    return (2 * grey.sum((-2, -1), keepdim=True) + pixels) // (2 * pixels)


def _smooth(frames: Frames) -> Float[Tensor, "b t 3 h w"]:
    """Without edges: each pixel's mean with its eight neighbours, itself five times; a frame's rim stays."""
    smooth = frames.float()
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * smooth[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = (sums / 13).round_()  # thirteenths are never halves
    return smooth


_OPERATIONS: dict[str, Callable[..., Frames]] = {
    **dict.fromkeys(GEOMETRIC_OPS, _moved),
    **dict.fromkeys(("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness"), _looked_up),
    "AutoContrast": lambda frames, draws, fill: _stretched(frames),
    "Equalize": lambda frames, draws, fill: F.equalize(frames),
    "Color": _blended(_grey),
    "Contrast": _blended(_even),
    "Sharpness": _blended(_smooth),
}
