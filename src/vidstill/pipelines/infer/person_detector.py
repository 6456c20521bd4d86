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

from vidstill.checkpoints.io import read_checkpoint
from vidstill.data.decode.images import ImageArray
from vidstill.data.storage.fetch import format_error
from vidstill.engine.distributed import Runtime
from vidstill.utils.config_io import suggest_names
from vidstill.utils.types import InputError, check_range

DEFAULT_PERSON_DETECTOR = "fasterrcnn_resnet50_fpn_v2"
"""torchvision's best detector of boxes on COCO."""

_COCO_CLASSES = 91  # of COCO's weights, the background among them
_BATCH_NORM_COUNTER = "num_batches_tracked"  # a batch normalisation has it that is not frozen
_ZERO_EPS_MODELS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # whose weights were trained with an eps of 0


class PersonDetections(NamedTuple):
    """Of one picture, the best first; boxes are x1, y1, x2, y2 as fractions of its width and height."""

    boxes: Float64[np.ndarray, "m 4"]
    scores: Float64[np.ndarray, "m"]


@dataclass(frozen=True)
class PersonDetector:
    """Finds persons, in fp32, as torchvision's detectors are trained.

    Args:
        model: as torchvision's are: takes pictures (3, h, w) in RGB and [0, 1], gives boxes in pixels, scores, labels.
        person_label: of a person.
        min_score: persons with more than this are given.
        max_persons: of a picture's persons, those with the highest scores.
        architecture: of the architecture.
        weights_hash: the digest of their file.
    """

    model: nn.Module
    person_label: int = 1
    min_score: float = 0.05
    max_persons: int = 100
    device: torch.device = torch.device("cpu")
    architecture: str = DEFAULT_PERSON_DETECTOR
    weights_hash: str = ""

    @torch.inference_mode()
    def __call__(self, images: Sequence[ImageArray]) -> list[PersonDetections]:
        """The persons of each picture; the pictures may differ in size."""
        taken = [torch.from_numpy(np.ascontiguousarray(each)).to(self.device) for each in images]
        found = self.model([each.permute(2, 0, 1).float() / 255 for each in taken])
        return [self._select_persons(each, *picture.shape[:2]) for each, picture in zip(found, images, strict=True)]

    def _select_persons(self, output: Mapping[str, Tensor], height: int, width: int) -> PersonDetections:
        boxes, scores = output["boxes"].cpu().double(), output["scores"].cpu().double()
        good = (output["labels"].cpu() == self.person_label) & (scores > self.min_score) & boxes.isfinite().all(dim=1)
        boxes, scores = boxes[good], scores[good]
        best = scores.argsort(descending=True, stable=True)[: self.max_persons]
        sizes = torch.tensor([width, height, width, height], dtype=torch.float64)
        return PersonDetections((boxes[best] / sizes).clamp(0, 1).numpy(), scores[best].numpy())


def list_person_detectors() -> list[str]:
    """torchvision's detectors of boxes alone: masks and key points cost much and are not looked at."""
    return [name for name in list_models(module=detection) if not name.startswith(("maskrcnn", "keypointrcnn"))]


def load_person_detector(
    architecture: str = DEFAULT_PERSON_DETECTOR,
    weights: str | Path | None = None,
    *,
    runtime: Runtime,
    min_score: float = 0.05,
    max_persons: int = 100,
) -> PersonDetector:
    """One of torchvision's detectors on this process's device.

    Args:
        weights: a .pth or .safetensors file of its tensors; the classes may be other ones than COCO's: persons are
            class 1, or 0 where there is one class. None: torchvision's of COCO, which are fetched once.

    Raises:
        InputError: there is no such detector, the file is not of it, or the weights cannot be fetched.
    """
    check_range(0, 1, score=min_score, exclusive=True)
    check_range(1, math.inf, most=max_persons)
    if architecture not in (names := list_person_detectors()):
        raise InputError(
            f"torchvision has no detector {architecture}{suggest_names(architecture, names)}; there are {', '.join(names)}"
        )
    path = Path(weights) if weights is not None else _fetch_coco_weights(architecture, runtime)
    read = read_checkpoint(path)
    tensors = read.tensors
    with Path(read.source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with torch.device("meta"):
        classes = _infer_num_classes(architecture, tensors, path)
    model = _build_model(architecture, classes)
    _load_tensors(model, architecture, tensors, path)
    heads: Any = getattr(model, "roi_heads", model)
    heads.score_thresh = min_score
    heads.detections_per_img = _COCO_CLASSES * max(
        max_persons, 100
    )  # of all classes, and things should not push persons out
    return PersonDetector(
        model.eval().requires_grad_(False).to(runtime.device),
        person_label=min(1, classes - 1),
        min_score=min_score,
        max_persons=max_persons,
        device=runtime.device,
        architecture=architecture,
        weights_hash=digest,
    )


def _build_model(architecture: str, num_classes: int) -> nn.Module:
    model: nn.Module = get_model_builder(architecture)(weights=None, weights_backbone=None, num_classes=num_classes)
    return model


def _infer_num_classes(architecture: str, tensors: Mapping[str, Tensor], path: Path) -> int:
    """How many classes a file tells apart: the rows of its last layers, which are as many for each class."""
    for key, ours in _build_model(architecture, _COCO_CLASSES).state_dict().items():
        if ("cls_score" in key or "classification_head" in key) and key in tensors and ours.dim():
            rows = len(tensors[key]) if tensors[key].dim() else 0
            if ours.shape[0] % _COCO_CLASSES == 0 and rows and (rows * _COCO_CLASSES) % ours.shape[0] == 0:
                return rows * _COCO_CLASSES // ours.shape[0]
    raise InputError(
        _format_mismatch(architecture, path, "it has no scores of classes by the names that this one's have")
    )


def _load_tensors(model: nn.Module, architecture: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """
    Raises:
        InputError: the tensors are not this model's.
    """
    wanted = {key: tensor for key, tensor in tensors.items() if not key.endswith(_BATCH_NORM_COUNTER)}
    try:
        missing, unexpected = model.load_state_dict(wanted, strict=False)
    except RuntimeError as error:
        mismatch = re.search(r"size mismatch for (\S+):.*?(\[.*?\]).*?(\[.*?\])", str(error), re.DOTALL)
        why = f"{mismatch[1]} is {mismatch[2]}, not {mismatch[3]}" if mismatch else format_error(error)
        raise InputError(_format_mismatch(architecture, path, why)) from None
    if missing := [key for key in missing if not key.endswith(_BATCH_NORM_COUNTER)]:
        raise InputError(_format_mismatch(architecture, path, f"it lacks {missing[0]}"))
    if unexpected:
        raise InputError(_format_mismatch(architecture, path, f"it has {unexpected[0]} besides"))
    if bad := next((key for key, tensor in wanted.items() if not tensor.isfinite().all()), None):
        raise InputError(f"{path} has numbers in {bad} that are not finite; fetch or write it again")
    if architecture in _ZERO_EPS_MODELS and len(wanted) == len(
        tensors
    ):  # frozen, as torchvision builds them from COCO's weights
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def _format_mismatch(architecture: str, path: Path, reason: str) -> str:
    return f"{path} holds no weights of {architecture} ({reason}); say with --detector what they are of"


def _fetch_coco_weights(architecture: str, runtime: Runtime) -> Path:
    """torchvision's file of COCO weights where torch.hub keeps it; a machine's first process fetches it if it lacks."""
    url = str(get_model_weights(architecture).DEFAULT.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    refusal = ""
    if os.environ.get("LOCAL_RANK", "0") == "0" and not path.exists():
        digest = re.search(r"-([a-f0-9]{8,})\.pth$", url)
        try:
            os.makedirs(path.parent, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:
            inner = getattr(error, "reason", None)  # of urllib's
            why = format_error(inner if isinstance(inner, Exception) else error)
            refusal = f"the weights of {architecture} cannot be fetched ({why}); fetch {url} by hand and give it with --weights"
    if refusal := max(runtime.all_gather(refusal)):
        raise InputError(refusal)
    return path
