"""An exponential moving average (EMA) of a task's weights, scored beside them."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from vidstill.engine.validation import Validation, ValidationHistory

EMA_PREFIX = "ema_"  # of the scores of the average


class WeightAverage:
    """The average of a task's trainable parameters: average = decay · average + (1 − decay) · weights.

    It begins with the initial weights, as timm's ModelEmaV3 does. Buffers are not averaged: those of our models are
    constants. Without a decay it is empty, and nothing changes it.

    Args:
        task: Its parameters are on their device already.
        decay: Share of the average that remains at each step; None: there is no average.
    """

    def __init__(self, task: nn.Module, decay: float | None):
        self.task, self.history = task, ValidationHistory()  # the scores of the average
        trained = [] if decay is None else [(n, p) for n, p in task.named_parameters() if p.requires_grad]
        self.parameters = dict(trained)
        self.tensors = {name: parameter.detach().clone() for name, parameter in trained}
        self._weight = 0.0 if decay is None else 1 - decay  # of the newest weights

    @torch.no_grad()
    def update(self, *, accepted: Bool[Tensor, ""]) -> None:
        """Add the weights after a step, unless the step was discarded, which only the device knows."""
        weight = accepted.float() * self._weight
        for name, average in self.tensors.items():
            average.lerp_(self.parameters[name], weight)

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
    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
