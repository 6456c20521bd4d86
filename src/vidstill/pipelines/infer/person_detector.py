"""Persons in pictures: torchvision's detectors, with its COCO weights or your own."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor, nn

from vidstill.checkpoints.io import read_checkpoint
from vidstill.data.decode.images import ImageArray
from vidstill.data.storage.fetch import format_error
from vidstill.engine.distributed import Runtime
from vidstill.utils.checksums import hash_file
from vidstill.utils.config_io import suggest_names
from vidstill.utils.types import InputError, check_range

DEFAULT_PERSON_DETECTOR = "fasterrcnn_resnet50_fpn_v2"
"""torchvision's best detector of boxes on COCO."""

_COCO_CLASSES = 91  # of COCO's weights, with the background
_BATCH_NORM_COUNTER = "num_batches_tracked"  # only an unfrozen batch norm has it
_ZERO_EPS_MODELS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # weights trained with an eps of 0


class PersonDetections(NamedTuple):
    """The persons in one picture, the best first; boxes are x1, y1, x2, y2 as fractions of its width and height."""

    boxes: Float64[np.ndarray, "m 4"]
    scores: Float64[np.ndarray, "m"]


@dataclass(frozen=True)
class PersonDetector:
    """Finds persons, in fp32, as torchvision's detectors are trained.

    Args:
        model: As torchvision's: pictures (3, h, w) in RGB and [0, 1] → boxes in pixels, scores, labels.
        person_label: The label of a person.
        min_score: Persons with a higher score are returned.
        max_persons: At most so many per picture, those with the highest scores.
        architecture: Name of the model in torchvision.
        weights_hash: SHA-256 of the file of weights.
    """

    model: nn.Module
    person_label: int = 1
    min_score: float = 0.05
    max_persons: int = 100
    device: torch.device = torch.device("cpu")
    architecture: str = DEFAULT_PERSON_DETECTOR
    weights_hash: str = ""

    def __call__(self, images: Sequence[ImageArray]) -> list[PersonDetections]:
        """Return the persons in each picture; the pictures have one size."""
        pixels = torch.from_numpy(np.stack(images)).to(self.device)
        with torch.inference_mode():
            outputs = self.detect(rearrange(pixels, "b h w c -> b c 1 h w").float() / 255)
        persons = zip(outputs["boxes"], outputs["scores"], strict=True)
        return [PersonDetections(boxes.cpu().numpy(), scores.cpu().numpy()) for boxes, scores in persons]

    def detect(self, clip: Float[Tensor, "b 3 1 h w"]) -> dict[str, list[Tensor]]:
        """Return `boxes` (m, 4) and `scores` (m) of the persons in each picture in [0, 1]; a `Model` for `run`."""
        outputs = self.model([each[:, 0] for each in clip])
        persons = [self._select_persons(each, *clip.shape[-2:]) for each in outputs]
        return {"boxes": [boxes for boxes, _ in persons], "scores": [scores for _, scores in persons]}

    def _select_persons(self, output: Mapping[str, Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
        boxes, scores = output["boxes"].cpu().double(), output["scores"].cpu().double()
        valid = (output["labels"].cpu() == self.person_label) & (scores > self.min_score) & boxes.isfinite().all(dim=1)
        boxes, scores = boxes[valid], scores[valid]
        best = scores.argsort(descending=True, stable=True)[: self.max_persons]
        sizes = torch.tensor([width, height, width, height], dtype=torch.float64)
        return (boxes[best] / sizes).clamp(0, 1), scores[best]


def list_person_detectors() -> list[str]:
    """Return torchvision's detectors of boxes; those with masks or keypoints cost more and are left out."""
    from torchvision.models import detection, list_models  # two seconds to import

    return [name for name in list_models(module=detection) if not name.startswith(("maskrcnn", "keypointrcnn"))]


def load_person_detector(
    architecture: str = DEFAULT_PERSON_DETECTOR,
    weights: str | Path | None = None,
    *,
    runtime: Runtime,
    min_score: float = 0.05,
    max_persons: int = 100,
) -> PersonDetector:
    """Load one of torchvision's detectors onto this process's device.

    Args:
        architecture: Name of the model in torchvision.
        weights: A .pth or .safetensors file of its tensors; its classes may differ from COCO's: persons are class 1, or
            0 if there is one class. None: torchvision's COCO weights, downloaded once.
        min_score, max_persons: As in `PersonDetector`.

    Raises:
        InputError: There is no such detector, the weights are not its, or they cannot be downloaded.
    """
    check_range(0, 1, min_person_score=min_score, exclusive=True)
    check_range(1, math.inf, max_persons=max_persons)
    if architecture not in (names := list_person_detectors()):
        raise InputError(
            f"torchvision has no detector {architecture}{suggest_names(architecture, names)}; there are "
            f"{', '.join(names)}"
        )
    path = Path(weights) if weights is not None else _fetch_coco_weights(architecture, runtime)
    checkpoint = read_checkpoint(path)
    with torch.device("meta"):
        classes = _infer_num_classes(architecture, checkpoint.tensors, path)
    model = _build_model(architecture, classes)
    _load_tensors(model, architecture, checkpoint.tensors, path)
    heads: Any = getattr(model, "roi_heads", model)
    heads.score_thresh = min_score
    heads.detections_per_img = _COCO_CLASSES * max(max_persons, 100)  # things must not displace persons
    return PersonDetector(
        model.eval().requires_grad_(False).to(runtime.device),
        person_label=min(1, classes - 1),
        min_score=min_score,
        max_persons=max_persons,
        device=runtime.device,
        architecture=architecture,
        weights_hash=hash_file(Path(checkpoint.source)),
    )


def _build_model(architecture: str, num_classes: int) -> nn.Module:
    from torchvision.models import get_model_builder

    model: nn.Module = get_model_builder(architecture)(weights=None, weights_backbone=None, num_classes=num_classes)
    return model


def _infer_num_classes(architecture: str, tensors: Mapping[str, Tensor], path: Path) -> int:
    """Return the number of classes: the last layers have the same number of rows for each."""
    for key, tensor in _build_model(architecture, _COCO_CLASSES).state_dict().items():
        if ("cls_score" in key or "classification_head" in key) and key in tensors and tensor.dim():
            rows = len(tensors[key]) if tensors[key].dim() else 0
            if tensor.shape[0] % _COCO_CLASSES == 0 and rows and (rows * _COCO_CLASSES) % tensor.shape[0] == 0:
                return rows * _COCO_CLASSES // tensor.shape[0]
    raise InputError(_format_mismatch(architecture, path, "it has no class scores of this model"))


def _load_tensors(model: nn.Module, architecture: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load the tensors; raise an InputError if they are not this model's."""
    state = {key: tensor for key, tensor in tensors.items() if not key.endswith(_BATCH_NORM_COUNTER)}
    expected = {key: each for key, each in model.state_dict().items() if not key.endswith(_BATCH_NORM_COUNTER)}
    if missing := next((key for key in expected if key not in state), None):
        raise InputError(_format_mismatch(architecture, path, f"it lacks {missing}"))
    for key, tensor in state.items():
        if key not in expected:
            raise InputError(_format_mismatch(architecture, path, f"it also has {key}"))
        if tensor.shape != expected[key].shape:
            difference = f"{key} is {list(tensor.shape)}, not {list(expected[key].shape)}"
            raise InputError(_format_mismatch(architecture, path, difference))
        if not tensor.isfinite().all():
            raise InputError(f"{path} has values in {key} that are not finite; download or export it again")
    model.load_state_dict(state, strict=False)  # without the counters
    if architecture in _ZERO_EPS_MODELS and len(state) == len(tensors):  # frozen, as torchvision builds COCO's
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def _format_mismatch(architecture: str, path: Path, reason: str) -> str:
    return f"{path} holds no weights of {architecture} ({reason}); name their model with --person-detector"


def _fetch_coco_weights(architecture: str, runtime: Runtime) -> Path:
    """Return torchvision's COCO weights in torch.hub's cache; the first process of a machine downloads them."""
    from torchvision.models import get_model_weights

    url = str(get_model_weights(architecture).DEFAULT.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    problem = ""
    if os.environ.get("LOCAL_RANK", "0") == "0" and not path.exists():
        digest = re.search(r"-([a-f0-9]{8,})\.pth$", url)
        try:
            os.makedirs(path.parent, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:
            inner = getattr(error, "reason", None)  # of urllib's
            reason = format_error(inner if isinstance(inner, Exception) else error)
            problem = f"the weights of {architecture} cannot be downloaded ({reason}); give {url} with --weights"
    if problem := max(runtime.all_gather(problem)):
        raise InputError(problem)
    return path
