"""Early stopping: which epoch of a run is the best by its score, and when to wait no longer for a better one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

ValidationFn = Callable[[int], Mapping[str, float]]
"""Tests the task after so many epochs, in every process; gives the same numbers in each."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is scored after every epoch, and what follows from it.

    Args:
        score_epoch: gives the numbers that are logged.
        metric: which of them decides; the larger the better.
        patience: so many epochs without a better one end the run, and it leaves the weights of the best epoch; None:
            it trains to its end and leaves its last weights.
    """

    score_epoch: ValidationFn
    metric: str = ""
    patience: int | None = None


@dataclass(kw_only=True)
class EarlyStoppingState:
    """What has been found so far: part of a run's state, so that a resumed run decides as it would have.

    Args:
        scored_epochs: that have been scored.
        last_improvement: the last epoch whose score was better than all before, counted from 1; 0: there is none yet.
        best_epoch: the last epoch whose score was as good as that: of equal ones the one that has learned longer.
        best_weights: that epoch's, on the CPU; empty where the last ones are left.
    """

    scored_epochs: int = 0
    last_improvement: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def update(self, epoch: int, score: float, task: nn.Module | None) -> None:
        """The score of an epoch; keeps the task's weights, if it is the best. One that is not a number is no score."""
        self.scored_epochs = epoch
        if score > self.best_score:
            self.last_improvement, self.best_score = epoch, score
        if task is not None and score == self.best_score:
            self.best_epoch = epoch
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}

    def should_stop(self, patience: int | None) -> bool:
        """Whether there has been no better score for so many epochs."""
        return patience is not None and self.scored_epochs - self.last_improvement >= patience

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))
