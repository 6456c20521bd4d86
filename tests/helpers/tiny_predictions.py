"""A classifier that nobody has trained, and films for it, for tests of what is predicted."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_models import ENCODER, built
from tiny_videos import write_images

from vidstill.checkpoints.io import write_checkpoint
from vidstill.data.datasets.base import FrameSampling
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict

CLASSES = ("jump, high", "run", "wave")
RATE = 25


def write_classifier(
    path: Path,
    *,
    sampling: FrameSampling = DenseSampling(num_frames=4, stride=2),  # noqa: B008  # it is frozen
    classes: Sequence[str] = CLASSES,
    multi_label: bool = False,
    views: int = 2,
) -> Path:
    """A file of weights whose answers differ from clip to clip; of a model of images, if it looks at one frame."""
    images = sampling.num_frames == 1
    encoder = replace(ENCODER, tubelet=(1, 4, 4)) if images else ENCODER
    config = ClassifierConfig(encoder=encoder, num_classes=len(classes), multi_label=multi_label)
    model = built(config)
    with torch.no_grad():
        model.head.weight.mul_(20)
    test_views = ViewsConfig(
        sampling=sampling, temporal_clips=views, spatial_crops=1 if images else 3, short_side=16, size=(16, 16)
    )
    about = {
        "kind": "classifier",
        "encoder": to_dict(encoder),
        "classifier": to_dict(config),
        "classes": list(classes),
        "views": to_dict(test_views),
    }
    write_checkpoint(path, model.state_dict(), about)
    return path


def film(
    path: Path,
    frames: int = 20,
    *,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
    codec: str = "libx264",
    ticks: Sequence[int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """A video at 25 frames a second whose left side shines, and the brightness of whose right side changes.

    Args:
        size: rows and columns.
        ticks: when each frame is shown, in twenty-fifths of a second; None: one after another.
        aspect: how many times as wide as high a pixel is to be shown.
    """
    rng, images = np.random.default_rng(seed), np.full((frames, *size, 3), 230, np.uint8)
    for image in images:
        image[:, size[1] // 2 :] = rng.integers(20, 200, 3)
    attributes = {} if aspect is None else {"sample_aspect_ratio": aspect}
    return write_images(path, images, codec, RATE, ticks=ticks or range(frames), **attributes)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path
