"""Early stopping: which epoch has the best validation score, and when to stop waiting for a better one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

ValidationFn = Callable[[int], Mapping[str, float]]
"""Scores the task after the given number of epochs, in every process; returns the same numbers in each."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation after every epoch, and its consequences."""

    score_epoch: ValidationFn  # returns the numbers to log
    metric: str = ""  # the one that decides; larger is better
    # Epochs without improvement that end the run, which then has the weights of the best epoch; None: it trains to its
    # end and has the last weights.
    patience: int | None = None


@dataclass(kw_only=True)
class EarlyStoppingState:
    """The validation scores so far: part of a run's state, so that a resumed run decides as it would have."""

    scored_epochs: int = 0
    last_improvement: int = 0  # last epoch that was better than all before, counted from 1; 0: none yet
    best_epoch: int = 0  # last epoch with the best score: of equal ones, the one that was trained longer
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # its, on the CPU; empty: the last weights are kept

    def update(self, epoch: int, score: float, task: nn.Module | None) -> None:
        """Record an epoch's score, and the task's weights if it is the best; NaN is no score."""
        self.scored_epochs = epoch
        if score > self.best_score:
            self.last_improvement, self.best_score = epoch, score
        if task is not None and score == self.best_score:
            self.best_epoch = epoch
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}

    def should_stop(self, patience: int | None) -> bool:
        """Return whether there has been no improvement for `patience` epochs."""
        return patience is not None and self.scored_epochs - self.last_improvement >= patience
