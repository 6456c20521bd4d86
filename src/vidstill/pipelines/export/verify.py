"""Compare a file's outputs with the model's: on noise, on synthetic clips, and on clips of videos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.open import open_test_manifest
from vidstill.pipelines.export.model import ExportableModel, ExportConfig
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clip
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

ClipSource = Literal["random", "synthetic", "real"]
"""Noise; clips as `vidstill data make` draws them; clips of given videos."""

_BATCH_SIZES = (1, 3)  # other than the two clips that a file is exported with


class ComparisonBatch(NamedTuple):
    clip_source: ClipSource
    inputs: tuple[Tensor, ...]  # clips (b, 3, t, h, w), and of a detector boxes (b, m, 4)
    expected: Tensor  # the model's output


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
    location: str
    max_abs_diff: float = math.inf
    max_rel_diff: float = math.inf
    min_cosine: float = math.nan
    top1_agreement: float | None = None

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
        sources["real"] = _read_video_clips(model, config)
    batches = [
        (clip_source, add_boxes(model, clips[:count]))
        for clip_source, clips in sources.items()
        for count in sorted({min(count, len(clips)) for count in _BATCH_SIZES})
    ]
    outputs = run_batches(model.module, [inputs for _, inputs in batches])
    return [ComparisonBatch(*batch, expected) for batch, expected in zip(batches, outputs, strict=True)]


def run_batches(module: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    with torch.no_grad():
        return [module(*inputs) for inputs in batches]


def draw_noise_clips(model: ExportableModel) -> Float[Tensor, "b 3 t h w"]:
    return torch.rand(max(_BATCH_SIZES), 3, *model.clip_shape, generator=torch.Generator().manual_seed(0))


def draw_synthetic_clips(model: ExportableModel, num_clips: int = max(_BATCH_SIZES)) -> Float[Tensor, "b 3 t h w"]:
    frames, rows, columns = model.clip_shape
    drawn_shape = max(2, frames), (max(16, rows), max(16, columns))
    motions = [MOTION_CLASSES[i % len(MOTION_CLASSES)] for i in range(num_clips)]
    clips = [draw_clip(motion, derive_sample_seed(0, 0, i), *drawn_shape) for i, motion in enumerate(motions)]
    pixels = torch.from_numpy(np.stack(clips))[:, :frames, :rows, :columns]
    return rearrange(pixels, "b t h w c -> b c t h w").float().div(255).contiguous()


def _read_video_clips(model: ExportableModel, config: ExportConfig) -> Float[Tensor, "b 3 t h w"]:
    """Return the first view of each of the first videos, or further views if there are fewer videos."""
    assert model.views is not None
    assert config.data is not None
    manifest = open_test_manifest(config.data, fold=config.fold)
    broken: dict[int, str] = {}
    batches = iter_view_batches(
        ViewClips(manifest, model.views), videos_per_batch=1, broken_videos=broken, device=torch.device("cpu")
    )
    views = [batch.clip[0] for batch in islice(batches, max(_BATCH_SIZES))]
    if not views:
        raise InputError(
            f"none of the {len(broken)} {manifest.noun}s of {manifest.source} decodes; {next(iter(broken.values()))}"
        )
    return torch.cat([*(each[:1] for each in views), *(each[1:] for each in views)])[: max(_BATCH_SIZES)]


def add_boxes(model: ExportableModel, clips: Float[Tensor, "b 3 t h w"]) -> tuple[Tensor, ...]:
    """Return the inputs: clips, and of a detector a large, a medium and a one-pixel box of each."""
    if model.kind != "detector":
        return (clips,)
    rows, columns = clips.shape[-2:]
    shares = torch.tensor([[0.05, 0.1, 0.9, 0.95], [0.4, 0.3, 0.9, 0.6], [0.5, 0.5, 0.5 + 1 / columns, 0.5 + 1 / rows]])
    boxes = shares * torch.tensor([columns, rows, columns, rows])
    return clips, boxes.expand(len(clips), -1, -1).contiguous()


def compare_outputs(
    batches: Sequence[ComparisonBatch], outputs: Sequence[Tensor], class_names: Sequence[str]
) -> tuple[OutputComparison, ...]:
    """Compare the outputs of every batch.

    Args:
        outputs: The file's.
        class_names: Of logits.
    """
    return tuple(_compare_batch(*pair, class_names) for pair in zip(batches, outputs, strict=True))


def _compare_batch(batch: ComparisonBatch, actual: Tensor, class_names: Sequence[str]) -> OutputComparison:
    clip_source, (clips, *_), expected = batch
    if expected.shape != actual.shape:
        location = f"in shape, {tuple(actual.shape)} for {tuple(expected.shape)}"
        return OutputComparison(clip_source=clip_source, batch_size=len(clips), location=location)
    diff = (expected.double() - actual.double()).abs().nan_to_num(nan=math.inf)
    clip, *between, last = (int(each) for each in torch.unravel_index(diff.argmax(), diff.shape))
    inside = f", {'box' if class_names else 'token'} {between[0] + 1}" if between else ""
    largest, scale = diff.max().item(), expected.double().abs().max().item()
    return OutputComparison(
        clip_source=clip_source,
        batch_size=len(clips),
        location=f"clip {clip + 1}{inside}, {repr(class_names[last]) if class_names else f'channel {last + 1}'}",
        max_abs_diff=largest,
        max_rel_diff=largest / scale if largest and scale else largest,
        min_cosine=F.cosine_similarity(expected.double().flatten(0, -2), actual.double().flatten(0, -2)).min().item(),
        top1_agreement=(expected.argmax(-1) == actual.argmax(-1)).double().mean().item() if class_names else None,
    )


def check_outputs(comparisons: Sequence[OutputComparison], tolerance: float, description: str) -> None:
    """Raise an InputError if the outputs of a batch differ too much."""
    if failed := [each for each in comparisons if not each.is_within(tolerance)]:
        worst = max(failed, key=lambda each: each.max_abs_diff)
        raise InputError(
            f"{description} differs from its model by {worst.max_abs_diff:.2g} ({worst.clip_source} clips, "
            f"{worst.location}), more than {tolerance:.0e}; it was not written, report the model or use another --to"
        )
