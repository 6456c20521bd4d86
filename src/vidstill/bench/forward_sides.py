"""One forward pass of a classifier: as `vidstill predict` makes it, and by the yardstick."""

from dataclasses import dataclass
from typing import Any

import torch

from vidstill.bench.eager.methods import build_eager
from vidstill.bench.side import Side
from vidstill.bench.training_sides import autocast, draw_normalized_clips, start_plain_process
from vidstill.engine.cpu import set_num_threads
from vidstill.engine.distributed import FixedPrecision, Runtime
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid


@dataclass(frozen=True)
class ForwardWork:
    """A forward pass, as all sides take it."""

    model_config: ClassifierConfig
    clip_size: tuple[int, int, int]  # frames, rows and columns
    batch: int  # clips
    precision: FixedPrecision


class VidstillForward(Side):
    """A forward pass as `vidstill predict` makes it: from uint8 clips in host memory to logits."""

    def __init__(self, work: ForwardWork):
        self.runtime = Runtime(work.precision)
        super().__init__(self.runtime.device)
        set_num_threads(self.device.type, 0)
        torch.manual_seed(0)
        self.model = work.model_config.build().eval().to(self.device)
        self.clips = torch.randint(256, (work.batch, 3, *work.clip_size), dtype=torch.uint8)

    @torch.inference_mode()
    def run(self) -> None:
        with self.runtime.compute(self.model):
            self.model(self.clips.to(self.device).float().div_(255)).float().cpu()


class EagerForward(Side):
    """The yardstick's forward pass."""

    def __init__(self, work: ForwardWork):
        super().__init__(start_plain_process(work.precision))
        self.precision, config = work.precision, work.model_config
        self.clips = draw_normalized_clips(work.batch, work.clip_size, self.device)
        self.model: Any = build_eager(config, Grid.from_clip(self.clips, config.encoder.tubelet)).eval().to(self.device)

    @torch.inference_mode()
    def run(self) -> None:
        with autocast(self.device, self.precision):
            self.model.classify(self.clips).float().cpu()
