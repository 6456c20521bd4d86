"""What tests of ST-MAE's numbers share: clips in our colours, and what the decoder makes of every token."""

import torch
from torch import Tensor

from vidstill.methods.stmae import STMAE
from vidstill.pretext.masks import Mask
from vidstill.types import take


def colours(video: Tensor) -> Tensor:
    """The clip before the authors' mean and deviation were taken off."""
    return video * 0.225 + 0.45


def predictions(method: STMAE, clip: Tensor, mask: Mask) -> Tensor:
    """What the decoder makes of every token, of the seen ones too, in grid order."""
    decoder, seen = method.decoder, method.encoder(clip, mask.visible).tokens
    joined = decoder.infill.joined(decoder.project(seen), mask.visible, mask.masked, method.encoder.grid(clip))
    rows = decoder.head(decoder.norm(decoder.infill.through(joined)))
    rows = rows[:, rows.shape[1] - mask.visible.shape[1] - mask.masked.shape[1] :]
    return take(rows, torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1))
