"""Whether a file gives what our model gives: on noise, on clips that we draw, and on clips of videos."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.open import open_test_manifest
from vidstill.pipelines.export.model import ExportableModel, ExportConfig
from vidstill.synthetic.drawing import draw_clip
from vidstill.synthetic.motion import MOTION_CLASSES
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

ClipSource = Literal["random", "drawn", "real"]
"""Colours drawn one by one; clips as `vidstill data make` draws them; clips of videos that were given."""

BATCH_SIZES = (1, 3)
"""A file is exported with clips by twos, so that it is asked for other numbers of them."""


class ComparisonBatch(NamedTuple):
    clip_source: ClipSource
    inputs: tuple[Tensor, ...]  # a clip, (b, 3, t, h, w), and of a detector boxes, (b, m, 4)


@dataclass(frozen=True, kw_only=True)
class OutputComparison:
    """What a file gives of one batch, beside what our model gives.

    Args:
        max_abs_diff: difference of two numbers.
        max_rel_diff: that difference, as a share of the largest number that our model gives.
        location: it is, in words.
        min_cosine: of the two answers, the smallest of all clips (of a detector, of all boxes).
        top1_agreement: the share of clips (or boxes) whose largest score is that of the same class; None: no scores.
    """

    clip_source: ClipSource
    batch_size: int
    max_abs_diff: float
    max_rel_diff: float
    location: str
    min_cosine: float
    top1_agreement: float | None

    def is_within(self, tolerance: float) -> bool:
        """Scores have to be as near as that in themselves; features as a share of their largest."""
        nearest = self.max_rel_diff if self.top1_agreement is None else max(self.max_rel_diff, self.max_abs_diff)
        return nearest <= tolerance  # not of what is no number


def build_comparison_batches(model: ExportableModel, config: ExportConfig) -> list[ComparisonBatch]:
    """What is compared: noise and drawn clips by one and by three, and as many of the videos that were given.

    Raises:
        InputError: not one of the videos decodes.
    """
    sorts: list[tuple[ClipSource, Tensor]] = [
        ("random", draw_noise_clips(model)),
        ("drawn", draw_synthetic_clips(model)),
    ]
    if config.data is not None:
        sorts.append(("real", read_video_clips(model, config)))
    return [
        ComparisonBatch(kind, add_boxes(model, clips[:count]))
        for kind, clips in sorts
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
    """The first view of each of the first videos, or more of them where there are fewer videos."""
    assert model.views is not None
    assert config.data is not None
    listing = open_test_manifest(config.data, fold=config.fold)
    broken: dict[int, str] = {}
    clips, more = [], []
    for batch in iter_view_batches(
        ViewClips(listing, model.views), videos_per_batch=1, broken_videos=broken, device=torch.device("cpu")
    ):
        clips.append(batch.clip[0, :1])
        more.append(batch.clip[0, 1:])
        if len(clips) == max(BATCH_SIZES):
            break
    if not clips:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} decodes; {next(iter(broken.values()))}")
    return torch.cat([*clips, *more])[: max(BATCH_SIZES)]


def add_boxes(model: ExportableModel, clips: Float[Tensor, "b 3 t h w"]) -> tuple[Tensor, ...]:
    """What goes in: clips, and of a detector as many boxes of each: a large one, half of one, and one of a pixel."""
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
    """Every batch's answers beside one another."""
    return tuple(
        _compare_batch(batch, ours, theirs, model)
        for batch, ours, theirs in zip(batches, expected_outputs, actual_outputs, strict=True)
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
            location=f"in the shape, {tuple(actual.shape)} for {tuple(expected.shape)}",
            min_cosine=math.nan,
            top1_agreement=0.0 if model.class_names else None,
        )
    apart = (expected.double() - actual.double()).abs().nan_to_num(nan=math.inf)
    place = torch.unravel_index(apart.argmax(), apart.shape)
    largest, scale = apart.max().item(), expected.double().abs().max().item()
    return OutputComparison(
        clip_source=batch.clip_source,
        batch_size=clips,
        max_abs_diff=largest,
        max_rel_diff=largest / scale if largest and scale else largest,
        location=_format_location([int(each) for each in place], model.class_names),
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
    """Raises an InputError where the answers of a batch are too far apart."""
    wrong = [each for each in comparisons if not each.is_within(tolerance)]
    if wrong:
        worst = max(wrong, key=lambda each: each.max_abs_diff)
        raise InputError(
            f"{description} does not give what its model gives: {worst.max_abs_diff:.2g} apart ({worst.clip_source} clips, {worst.location}; "
            f"{tolerance:.0e} is allowed), so that it is not written; tell us the model, or take another target"
        )
