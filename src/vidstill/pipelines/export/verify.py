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
from vidstill.data.loader.loader import view_batches
from vidstill.data.manifest.open import listing_to_test
from vidstill.pipelines.export.model import ExportConfig, Shipped
from vidstill.synthetic.drawing import draw_clip
from vidstill.synthetic.motion import ACTIONS
from vidstill.utils.rng import sample_seed
from vidstill.utils.types import InputError

Kind = Literal["random", "drawn", "real"]
"""Colours drawn one by one; clips as `vidstill data make` draws them; clips of videos that were given."""

BATCHES = (1, 3)
"""A file is exported with clips by twos, so that it is asked for other numbers of them."""


class Batch(NamedTuple):
    kind: Kind
    inputs: tuple[Tensor, ...]  # a clip, (b, 3, t, h, w), and of a detector boxes, (b, m, 4)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a file gives of one batch, beside what our model gives.

    Args:
        largest: difference of two numbers.
        relative: that difference, as a share of the largest number that our model gives.
        where: it is, in words.
        cosine: of the two answers, the smallest of all clips (of a detector, of all boxes).
        same_top1: the share of clips (or boxes) whose largest score is that of the same class; None: no scores.
    """

    kind: Kind
    batch: int
    largest: float
    relative: float
    where: str
    cosine: float
    same_top1: float | None

    def agrees(self, tolerance: float) -> bool:
        """Scores have to be as near as that in themselves; features as a share of their largest."""
        nearest = self.relative if self.same_top1 is None else max(self.relative, self.largest)
        return nearest <= tolerance  # not of what is no number


def batches(shipped: Shipped, asked: ExportConfig) -> list[Batch]:
    """What is compared: noise and drawn clips by one and by three, and as many of the videos that were given.

    Raises:
        InputError: not one of the videos decodes.
    """
    sorts: list[tuple[Kind, Tensor]] = [("random", noise(shipped)), ("drawn", drawn(shipped))]
    if asked.data is not None:
        sorts.append(("real", of_videos(shipped, asked)))
    return [
        Batch(kind, with_boxes(shipped, clips[:count]))
        for kind, clips in sorts
        for count in sorted({min(count, len(clips)) for count in BATCHES})
    ]


def noise(shipped: Shipped) -> Float[Tensor, "b 3 t h w"]:
    return torch.rand(max(BATCHES), 3, *shipped.clip, generator=torch.Generator().manual_seed(0))


def drawn(shipped: Shipped, count: int = max(BATCHES)) -> Float[Tensor, "b 3 t h w"]:
    frames, *size = shipped.clip
    whole = max(2, frames), (max(16, size[0]), max(16, size[1]))
    clips = [draw_clip(ACTIONS[i % len(ACTIONS)], sample_seed(0, 0, i), *whole) for i in range(count)]
    stacked = torch.stack([torch.from_numpy(clip) for clip in clips])[:, :frames, : size[0], : size[1]]
    return stacked.permute(0, 4, 1, 2, 3).float().div(255).contiguous()


def of_videos(shipped: Shipped, asked: ExportConfig) -> Float[Tensor, "b 3 t h w"]:
    """The first view of each of the first videos, or more of them where there are fewer videos."""
    assert shipped.views is not None
    assert asked.data is not None
    listing = listing_to_test(asked.data, fold=asked.fold)
    broken: dict[int, str] = {}
    clips, more = [], []
    for batch in view_batches(
        ViewClips(listing, shipped.views), videos_per_batch=1, broken=broken, device=torch.device("cpu")
    ):
        clips.append(batch.clip[0, :1])
        more.append(batch.clip[0, 1:])
        if len(clips) == max(BATCHES):
            break
    if not clips:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} decodes; {next(iter(broken.values()))}")
    return torch.cat([*clips, *more])[: max(BATCHES)]


def with_boxes(shipped: Shipped, clips: Float[Tensor, "b 3 t h w"]) -> tuple[Tensor, ...]:
    """What goes in: clips, and of a detector as many boxes of each: a large one, half of one, and one of a pixel."""
    if shipped.kind != "detector":
        return (clips,)
    rows, columns = clips.shape[-2:]
    shares = torch.tensor([[0.05, 0.1, 0.9, 0.95], [0.4, 0.3, 0.9, 0.6], [0.5, 0.5, 0.5 + 1 / columns, 0.5 + 1 / rows]])
    boxes = shares * torch.tensor([columns, rows, columns, rows])
    return clips, boxes.expand(len(clips), -1, -1).contiguous()


def compared(
    given: Sequence[Batch], expected: Sequence[Tensor], found: Sequence[Tensor], shipped: Shipped
) -> tuple[Compared, ...]:
    """Every batch's answers beside one another."""
    return tuple(
        _compared(batch, ours, theirs, shipped) for batch, ours, theirs in zip(given, expected, found, strict=True)
    )


def _compared(batch: Batch, ours: Tensor, theirs: Tensor, shipped: Shipped) -> Compared:
    clips = len(batch.inputs[0])
    if ours.shape != theirs.shape:
        return Compared(
            kind=batch.kind,
            batch=clips,
            largest=math.inf,
            relative=math.inf,
            where=f"in the shape, {tuple(theirs.shape)} for {tuple(ours.shape)}",
            cosine=math.nan,
            same_top1=0.0 if shipped.names else None,
        )
    apart = (ours.double() - theirs.double()).abs().nan_to_num(nan=math.inf)
    place = torch.unravel_index(apart.argmax(), apart.shape)
    largest, scale = apart.max().item(), ours.double().abs().max().item()
    return Compared(
        kind=batch.kind,
        batch=clips,
        largest=largest,
        relative=largest / scale if largest and scale else largest,
        where=_where([int(each) for each in place], shipped.names),
        cosine=F.cosine_similarity(ours.double().flatten(0, -2), theirs.double().flatten(0, -2)).min().item(),
        same_top1=(ours.argmax(-1) == theirs.argmax(-1)).double().mean().item() if shipped.names else None,
    )


def _where(place: Sequence[int], names: Sequence[str]) -> str:
    clip, *between, last = place
    inside = f", {'box' if names else 'token'} {between[0] + 1}" if between else ""
    return f"clip {clip + 1}{inside}, {repr(names[last]) if names else f'channel {last + 1}'}"


def answers(model: Callable[..., Tensor], given: Sequence[Batch]) -> list[Tensor]:
    with torch.no_grad():
        return [model(*batch.inputs) for batch in given]


def check(found: Sequence[Compared], tolerance: float, what: str) -> None:
    """Raises an InputError where the answers of a batch are too far apart."""
    wrong = [each for each in found if not each.agrees(tolerance)]
    if wrong:
        worst = max(wrong, key=lambda each: each.largest)
        raise InputError(
            f"{what} does not give what its model gives: {worst.largest:.2g} apart ({worst.kind} clips, {worst.where}; "
            f"{tolerance:.0e} is allowed), so that it is not written; tell us the model, or take another target"
        )
