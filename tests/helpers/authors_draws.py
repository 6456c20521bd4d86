"""What timm's mixing and erasing draw, in their order, from NumPy's and Python's generators; fed to our transforms."""

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidstill.data.transforms.mixup import MixupCutmix, compute_cutmix_box, make_box_mask
from vidstill.data.transforms.random_erasing import RandomErasing, fill_boxes


class Mixing(NamedTuple):
    """One lambda, and perhaps one box (first row, row behind the last, the same columns), for each draw of a group."""

    lam: list[float]
    boxes: list[Tensor | None]


def build_mixup(config: dict[str, Any]) -> MixupCutmix:
    """Our mixing with the settings of a case."""
    return MixupCutmix(
        mixup_alpha=config["mixup_alpha"],
        cutmix_alpha=config["cutmix_alpha"],
        probability=config.get("mix_prob", config.get("prob", 1.0)),
        switch_probability=config["switch_prob"],
        mode=config.get("mode", "batch"),
    )


def shape_of(config: dict[str, Any]) -> tuple[int, int, int]:
    """Clips, rows and columns of a case's batch."""
    clips, *_, height, width = config["shape"]
    return clips, height, width


def replay_mixing(mixing: MixupCutmix, rng: np.random.RandomState, clips: int, height: int, width: int) -> Mixing:
    """Draw what timm draws for a batch: once (mode batch), for each pair, or for each clip (elem)."""
    mixup, cutmix = mixing.mixup_alpha, mixing.cutmix_alpha
    if mixing.mode == "batch":
        mixes = rng.rand() < mixing.probability
        cuts = [bool(mixes and cutmix and (not mixup or rng.rand() < mixing.switch_probability))]
        lam = [rng.beta(*[cutmix if cuts[0] else mixup] * 2) if mixes else 1.0]
    else:
        count = clips // 2 if mixing.mode == "pair" else clips
        cuts = [bool(cutmix)] * count
        if mixup and cutmix:
            cuts = (rng.rand(count) < mixing.switch_probability).tolist()
        cut_lam, mix_lam = (
            rng.beta(alpha, alpha, size=count) if alpha else np.ones(count) for alpha in (cutmix, mixup)
        )
        drawn = np.where(cuts, cut_lam, mix_lam).astype(np.float32)
        lam = np.where(rng.rand(count) < mixing.probability, drawn, np.float32(1)).tolist()
    boxes = []
    for share, cut in zip(lam, cuts, strict=True):
        if not cut or share == 1:
            boxes.append(None)
            continue
        center = torch.tensor([[rng.randint(height)], [rng.randint(width)]]).float()
        boxes.append(compute_cutmix_box(torch.tensor([share]), center, height, width)[:, 0])
    return Mixing(lam, boxes)


def build_weights(mixing: Mixing, mode: str, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the weights of each clip's own pixels and label, as `mix_pairs` takes them."""
    whole = torch.ones(1, height, width)
    planes = torch.cat(
        [
            whole * lam if box is None else make_box_mask(box[:, None], height, width)
            for lam, box in zip(mixing.lam, mixing.boxes, strict=True)
        ]
    )
    planes = torch.cat([planes, planes.flip(0)]) if mode == "pair" else planes
    return planes[:, None], planes.double().mean(dim=(1, 2)).float()


def replay_erasing(erasing: RandomErasing, clip: Tensor, seed: int, tries: int = 100) -> tuple[Tensor, list[list[int]]]:
    """Erase a normalized clip (3, t, h, w) as the authors do, and return it with its boxes (top, left, height, width).

    Args:
        erasing: Its probability and settings.
        clip: Is not changed.
        seed: Of Python's generator, for the boxes, and of torch's, for the noise.
        tries: Of each box; timm's images have 10, the authors' clips 100.
    """
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    _, t, height, width = clip.shape
    if rng.random() > erasing.probability:
        return clip, []
    count, boxes = 1 if erasing.max_count == 1 else rng.randint(1, erasing.max_count), []
    for _ in range(count):
        for _ in range(tries):
            draws = torch.tensor([rng.random()]), torch.tensor([rng.random()])
            high, wide = (int(side) for side in erasing.compute_box_sides(*draws, height, width, count))
            if high < height and wide < width:
                break
        else:
            continue
        boxes.append([rng.randint(0, height - high), rng.randint(0, width - wide), high, wide])
        size = (3, high, wide) if erasing.mode == "pixel" else (3, 1, 1)
        is_const = erasing.mode == "const"
        colors = [torch.zeros(size) if is_const else torch.randn(size, generator=noise) for _ in range(t)]
        colors = torch.stack(colors, dim=1).flatten(2)[None]
        clip = fill_boxes(clip[None], torch.tensor(boxes[-1])[:, None], colors)[0]
    return clip, boxes
