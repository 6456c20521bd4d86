"""An exponential moving average (EMA) of a task's weights, scored beside them."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vidstill.engine.validation import Validation, ValidationHistory

EMA_PREFIX = "ema_"  # of the scores of the average


class WeightAverage:
    """The average of a task's trainable parameters: average = decay · average + (1 − decay) · weights.

    It begins with the initial weights, as timm's ModelEmaV3 does, and is updated by torch.optim.swa_utils. Buffers are
    not averaged: those of our models are constants. Without a decay it is empty, and nothing changes it.

    Args:
        task: Its parameters are on their device already.
        decay: Share of the average that remains at each step; None: there is no average.
    """

    def __init__(self, task: nn.Module, decay: float | None):
        self.task, self.history = task, ValidationHistory()  # the scores of the average
        trained = [] if decay is None else [(n, p) for n, p in task.named_parameters() if p.requires_grad]
        self.parameters = dict(trained)
        self.tensors = {name: parameter.detach().clone() for name, parameter in trained}
        self._average: Any = get_ema_multi_avg_fn(0.0 if decay is None else decay)

    def update(self, *, accepted: bool) -> None:
        """Add the weights after a step, unless the step was discarded."""
        if self.tensors and accepted:
            self._average(list(self.tensors.values()), list(self.parameters.values()), None)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Give the task the averaged weights during the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data

    def score_both(self, score: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """Return the scores of the task, and with a prefix those of the average, if there is one."""
        scores = dict(score())
        if self.tensors:
            with self.swap():
                scores |= {f"{EMA_PREFIX}{name}": value for name, value in score().items()}
        return scores

    def record(self, scores: Mapping[str, float], validation: Validation) -> None:
        """Record an epoch's score of the average, and the averaged weights if it is the best one."""
        if self.tensors:
            with self.swap():
                score = scores.get(f"{EMA_PREFIX}{validation.metric}", math.nan)
                self.history.update(score, self.task if validation.keep_best else None)

    def select_best(self) -> None:
        """Take the averaged weights of the best epoch, if they were recorded."""
        self._load({name: self.history.best_weights[name] for name in self.tensors if self.history.best_weights})

    def get_history(self) -> dict[str, Any]:
        return {"ema_validation": vars(self.history)} if self.tensors else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the average from a run's state."""
        if self.tensors:
            self._load({name: state["ema"][name] for name in self.tensors})
            self.history = ValidationHistory(**state["ema_validation"])

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
