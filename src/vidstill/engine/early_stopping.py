"""Early stopping: which epoch of a run is the best by its score, and when to wait no longer for a better one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Scores = Callable[[int], Mapping[str, float]]
"""Tests the task after so many epochs, in every process; gives the same numbers in each."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is scored after every epoch, and what follows from it.

    Args:
        scores: gives the numbers that are logged.
        by: which of them decides; the larger the better.
        patience: so many epochs without a better one end the run, and it leaves the weights of the best epoch; None:
            it trains to its end and leaves its last weights.
    """

    scores: Scores
    by: str = ""
    patience: int | None = None


@dataclass(kw_only=True)
class Watched:
    """What has been found so far: part of a run's state, so that a resumed run decides as it would have.

    Args:
        epochs: that have been scored.
        better: the last epoch whose score was better than all before, counted from 1; 0: there is none yet.
        best: the last epoch whose score was as good as that: of equal ones the one that has learned longer.
        weights: that epoch's, on the CPU; empty where the last ones are left.
    """

    epochs: int = 0
    better: int = 0
    best: int = 0
    score: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def note(self, epoch: int, score: float, task: nn.Module | None) -> None:
        """The score of an epoch; keeps the task's weights, if it is the best. One that is not a number is no score."""
        self.epochs = epoch
        if score > self.score:
            self.better, self.score = epoch, score
        if task is not None and score == self.score:
            self.best = epoch
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}

    def ended(self, patience: int | None) -> bool:
        """Whether there has been no better score for so many epochs."""
        return patience is not None and self.epochs - self.better >= patience

    def plain(self) -> dict[str, Any]:
        return dict(vars(self))
