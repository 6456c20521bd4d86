"""Compare a file's outputs with the model's: on noise, on synthetic clips, and on clips of videos."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.open import open_test_manifest
from vidstill.pipelines.export.model import ExportableModel, ExportConfig
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

ClipSource = Literal["random", "synthetic", "real"]
"""Noise; clips as `vidstill data make` draws them; clips of given videos."""

BATCH_SIZES = (1, 3)
"""Other than the two clips that a file is exported with."""


class ComparisonBatch(NamedTuple):
    clip_source: ClipSource
    inputs: tuple[Tensor, ...]  # clips (b, 3, t, h, w), and of a detector boxes (b, m, 4)


@dataclass(frozen=True, kw_only=True)
class OutputComparison:
    """The difference of a file's outputs of one batch from the model's.

    Args:
        max_abs_diff: Largest absolute difference.
        max_rel_diff: That difference divided by the model's largest absolute output.
        location: Clip and channel of that difference.
        min_cosine: Smallest cosine between the outputs of a clip (of a detector, of a box).
        top1_agreement: Share of clips (or boxes) with the same top-1 class; None: no logits.
    """

    clip_source: ClipSource
    batch_size: int
    max_abs_diff: float
    max_rel_diff: float
    location: str
    min_cosine: float
    top1_agreement: float | None

    def is_within(self, tolerance: float) -> bool:
        """Return whether the relative difference and, for logits, the absolute one are within the tolerance."""
        diff = self.max_rel_diff if self.top1_agreement is None else max(self.max_rel_diff, self.max_abs_diff)
        return diff <= tolerance  # False for NaN


def build_comparison_batches(model: ExportableModel, config: ExportConfig) -> list[ComparisonBatch]:
    """Return batches of one and of three clips: noise, synthetic, and of the given videos.

    Raises:
        InputError: No video decodes.
    """
    sources: dict[ClipSource, Tensor] = {"random": draw_noise_clips(model), "synthetic": draw_synthetic_clips(model)}
    if config.data is not None:
        sources["real"] = read_video_clips(model, config)
    return [
        ComparisonBatch(clip_source, add_boxes(model, clips[:count]))
        for clip_source, clips in sources.items()
        for count in sorted({min(count, len(clips)) for count in BATCH_SIZES})
    ]


def draw_noise_clips(model: ExportableModel) -> Float[Tensor, "b 3 t h w"]:
    return torch.rand(max(BATCH_SIZES), 3, *model.clip_shape, generator=torch.Generator().manual_seed(0))


def draw_synthetic_clips(model: ExportableModel, num_clips: int = max(BATCH_SIZES)) -> Float[Tensor, "b 3 t h w"]:
    frames, *size = model.clip_shape
    whole = max(2, frames), (max(16, size[0]), max(16, size[1]))
    clips = [
        draw_clip(MOTION_CLASSES[i % len(MOTION_CLASSES)], derive_sample_seed(0, 0, i), *whole)
        for i in range(num_clips)
    ]
    stacked = torch.stack([torch.from_numpy(clip) for clip in clips])[:, :frames, : size[0], : size[1]]
    return stacked.permute(0, 4, 1, 2, 3).float().div(255).contiguous()


def read_video_clips(model: ExportableModel, config: ExportConfig) -> Float[Tensor, "b 3 t h w"]:
    """Return the first view of each of the first videos, or further views if there are fewer videos."""
    assert model.views is not None
    assert config.data is not None
    manifest = open_test_manifest(config.data, fold=config.fold)
    broken: dict[int, str] = {}
    batches = iter_view_batches(
        ViewClips(manifest, model.views), videos_per_batch=1, broken_videos=broken, device=torch.device("cpu")
    )
    views = [batch.clip[0] for batch in islice(batches, max(BATCH_SIZES))]
    if not views:
        raise InputError(
            f"none of the {len(broken)} videos of {manifest.source} decodes; {next(iter(broken.values()))}"
        )
    return torch.cat([*(each[:1] for each in views), *(each[1:] for each in views)])[: max(BATCH_SIZES)]


def add_boxes(model: ExportableModel, clips: Float[Tensor, "b 3 t h w"]) -> tuple[Tensor, ...]:
    """Return the inputs: clips, and of a detector a large, a medium and a one-pixel box of each."""
    if model.kind != "detector":
        return (clips,)
    rows, columns = clips.shape[-2:]
    shares = torch.tensor([[0.05, 0.1, 0.9, 0.95], [0.4, 0.3, 0.9, 0.6], [0.5, 0.5, 0.5 + 1 / columns, 0.5 + 1 / rows]])
    boxes = shares * torch.tensor([columns, rows, columns, rows])
    return clips, boxes.expand(len(clips), -1, -1).contiguous()


def compare_outputs(
    batches: Sequence[ComparisonBatch],
    expected_outputs: Sequence[Tensor],
    actual_outputs: Sequence[Tensor],
    model: ExportableModel,
) -> tuple[OutputComparison, ...]:
    """Compare the outputs of every batch.

    Args:
        expected_outputs: The model's.
        actual_outputs: The file's.
    """
    return tuple(
        _compare_batch(batch, expected, actual, model)
        for batch, expected, actual in zip(batches, expected_outputs, actual_outputs, strict=True)
    )


def _compare_batch(
    batch: ComparisonBatch, expected: Tensor, actual: Tensor, model: ExportableModel
) -> OutputComparison:
    clips = len(batch.inputs[0])
    if expected.shape != actual.shape:
        return OutputComparison(
            clip_source=batch.clip_source,
            batch_size=clips,
            max_abs_diff=math.inf,
            max_rel_diff=math.inf,
            location=f"in shape, {tuple(actual.shape)} for {tuple(expected.shape)}",
            min_cosine=math.nan,
            top1_agreement=0.0 if model.class_names else None,
        )
    diff = (expected.double() - actual.double()).abs().nan_to_num(nan=math.inf)
    index = torch.unravel_index(diff.argmax(), diff.shape)
    largest, scale = diff.max().item(), expected.double().abs().max().item()
    return OutputComparison(
        clip_source=batch.clip_source,
        batch_size=clips,
        max_abs_diff=largest,
        max_rel_diff=largest / scale if largest and scale else largest,
        location=_format_location([int(each) for each in index], model.class_names),
        min_cosine=F.cosine_similarity(expected.double().flatten(0, -2), actual.double().flatten(0, -2)).min().item(),
        top1_agreement=(expected.argmax(-1) == actual.argmax(-1)).double().mean().item() if model.class_names else None,
    )


def _format_location(index: Sequence[int], class_names: Sequence[str]) -> str:
    clip, *between, last = index
    inside = f", {'box' if class_names else 'token'} {between[0] + 1}" if between else ""
    return f"clip {clip + 1}{inside}, {repr(class_names[last]) if class_names else f'channel {last + 1}'}"


def run_batches(model: Callable[..., Tensor], batches: Sequence[ComparisonBatch]) -> list[Tensor]:
    with torch.no_grad():
        return [model(*batch.inputs) for batch in batches]


def check_outputs(comparisons: Sequence[OutputComparison], tolerance: float, description: str) -> None:
    """Raise an InputError if the outputs of a batch differ too much."""
    failed = [each for each in comparisons if not each.is_within(tolerance)]
    if failed:
        worst = max(failed, key=lambda each: each.max_abs_diff)
        raise InputError(
            f"{description} differs from its model by {worst.max_abs_diff:.2g} ({worst.clip_source} clips, "
            f"{worst.location}), more than {tolerance:.0e}; it was not written, report the model or use another --to"
        )
