"""Persons in pictures: torchvision's detectors, with its weights of COCO or one's own."""

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torchvision.models import detection, get_model_builder, get_model_weights, list_models

from vidstill.checkpoints.io import read_weights
from vidstill.data.decode.images import Picture
from vidstill.data.storage.fetch import reason
from vidstill.engine.distributed import Runtime
from vidstill.utils.config_io import near
from vidstill.utils.types import InputError, within

USUAL = "fasterrcnn_resnet50_fpn_v2"
"""torchvision's best detector of boxes on COCO."""

_CLASSES = 91  # of COCO's weights, the background among them
_UNFROZEN = "num_batches_tracked"  # a batch normalisation has it that is not frozen
_NO_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # whose weights were trained with an eps of 0


class Persons(NamedTuple):
    """Of one picture, the best first; boxes are x1, y1, x2, y2 as fractions of its width and height."""

    boxes: Float64[np.ndarray, "m 4"]
    scores: Float64[np.ndarray, "m"]


@dataclass(frozen=True)
class PersonDetector:
    """Finds persons, in fp32, as torchvision's detectors are trained.

    Args:
        model: as torchvision's are: takes pictures (3, h, w) in RGB and [0, 1], gives boxes in pixels, scores, labels.
        label: of a person.
        score: persons with more than this are given.
        most: of a picture's persons, those with the highest scores.
        name: of the architecture.
        weights: the digest of their file.
    """

    model: nn.Module
    label: int = 1
    score: float = 0.05
    most: int = 100
    device: torch.device = torch.device("cpu")
    name: str = USUAL
    weights: str = ""

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Picture]) -> list[Persons]:
        """The persons of each picture; the pictures may differ in size."""
        taken = [torch.from_numpy(np.ascontiguousarray(each)).to(self.device) for each in pictures]
        found = self.model([each.permute(2, 0, 1).float() / 255 for each in taken])
        return [self._persons(each, *picture.shape[:2]) for each, picture in zip(found, pictures, strict=True)]

    def _persons(self, found: Mapping[str, Tensor], rows: int, columns: int) -> Persons:
        boxes, scores = found["boxes"].cpu().double(), found["scores"].cpu().double()
        good = (found["labels"].cpu() == self.label) & (scores > self.score) & boxes.isfinite().all(dim=1)
        boxes, scores = boxes[good], scores[good]
        best = scores.argsort(descending=True, stable=True)[: self.most]
        sizes = torch.tensor([columns, rows, columns, rows], dtype=torch.float64)
        return Persons((boxes[best] / sizes).clamp(0, 1).numpy(), scores[best].numpy())


def detector_names() -> list[str]:
    """torchvision's detectors of boxes alone: masks and key points cost much and are not looked at."""
    return [name for name in list_models(module=detection) if not name.startswith(("maskrcnn", "keypointrcnn"))]


def load_persons(
    name: str = USUAL, weights: str | Path | None = None, *, runtime: Runtime, score: float = 0.05, most: int = 100
) -> PersonDetector:
    """One of torchvision's detectors on this process's device.

    Args:
        weights: a .pth or .safetensors file of its tensors; the classes may be other ones than COCO's: persons are
            class 1, or 0 where there is one class. None: torchvision's of COCO, which are fetched once.

    Raises:
        InputError: there is no such detector, the file is not of it, or the weights cannot be fetched.
    """
    within(0, 1, score=score, below=True)
    within(1, math.inf, most=most)
    if name not in (names := detector_names()):
        raise InputError(f"torchvision has no detector {name}{near(name, names)}; there are {', '.join(names)}")
    path = Path(weights) if weights is not None else _cocos(name, runtime)
    read = read_weights(path)
    tensors = read.tensors
    with Path(read.source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with torch.device("meta"):
        classes = _classes(name, tensors, path)
    model = _built(name, classes)
    _fill(model, name, tensors, path)
    heads: Any = getattr(model, "roi_heads", model)
    heads.score_thresh = score
    heads.detections_per_img = _CLASSES * max(most, 100)  # of all classes, and things should not push persons out
    return PersonDetector(
        model.eval().requires_grad_(False).to(runtime.device),
        label=min(1, classes - 1),
        score=score,
        most=most,
        device=runtime.device,
        name=name,
        weights=digest,
    )


def _built(name: str, classes: int) -> nn.Module:
    model: nn.Module = get_model_builder(name)(weights=None, weights_backbone=None, num_classes=classes)
    return model


def _classes(name: str, tensors: Mapping[str, Tensor], path: Path) -> int:
    """How many classes a file tells apart: the rows of its last layers, which are as many for each class."""
    for key, ours in _built(name, _CLASSES).state_dict().items():
        if ("cls_score" in key or "classification_head" in key) and key in tensors and ours.dim():
            rows = len(tensors[key]) if tensors[key].dim() else 0
            if ours.shape[0] % _CLASSES == 0 and rows and (rows * _CLASSES) % ours.shape[0] == 0:
                return rows * _CLASSES // ours.shape[0]
    raise InputError(_refusal(name, path, "it has no scores of classes by the names that this one's have"))


def _fill(model: nn.Module, name: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """
    Raises:
        InputError: the tensors are not this model's.
    """
    wanted = {key: tensor for key, tensor in tensors.items() if not key.endswith(_UNFROZEN)}
    try:
        missing, unexpected = model.load_state_dict(wanted, strict=False)
    except RuntimeError as error:
        mismatch = re.search(r"size mismatch for (\S+):.*?(\[.*?\]).*?(\[.*?\])", str(error), re.DOTALL)
        why = f"{mismatch[1]} is {mismatch[2]}, not {mismatch[3]}" if mismatch else reason(error)
        raise InputError(_refusal(name, path, why)) from None
    if missing := [key for key in missing if not key.endswith(_UNFROZEN)]:
        raise InputError(_refusal(name, path, f"it lacks {missing[0]}"))
    if unexpected:
        raise InputError(_refusal(name, path, f"it has {unexpected[0]} besides"))
    if bad := next((key for key, tensor in wanted.items() if not tensor.isfinite().all()), None):
        raise InputError(f"{path} has numbers in {bad} that are not finite; fetch or write it again")
    if name in _NO_EPS and len(wanted) == len(tensors):  # frozen, as torchvision builds them from COCO's weights
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def _refusal(name: str, path: Path, why: str) -> str:
    return f"{path} holds no weights of {name} ({why}); say with --detector what they are of"


def _cocos(name: str, runtime: Runtime) -> Path:
    """torchvision's file of COCO weights where torch.hub keeps it; a machine's first process fetches it if it lacks."""
    url = str(get_model_weights(name).DEFAULT.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    refusal = ""
    if os.environ.get("LOCAL_RANK", "0") == "0" and not path.exists():
        digest = re.search(r"-([a-f0-9]{8,})\.pth$", url)
        try:
            os.makedirs(path.parent, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:
            inner = getattr(error, "reason", None)  # of urllib's
            why = reason(inner if isinstance(inner, Exception) else error)
            refusal = f"the weights of {name} cannot be fetched ({why}); fetch {url} by hand and give it with --weights"
    if refusal := max(runtime.gathered(refusal)):
        raise InputError(refusal)
    return path
