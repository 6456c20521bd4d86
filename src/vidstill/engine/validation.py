"""Validation after each epoch: which epoch has the best score, and when to stop waiting for a better one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from vidstill.engine.logger import shorten_metric

_NUM_SHOWN_EPOCHS = 8  # in the summary

ValidationFn = Callable[[int], Mapping[str, float]]
"""Scores the task after the given number of epochs, in every process; returns the same numbers in each."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation after every epoch, and its consequences."""

    score_epoch: ValidationFn  # returns the numbers to log
    metric: str  # the one that decides, in percent; larger is better
    keep_best: bool = False  # whether a finished run has the weights of the best epoch, or of the last
    patience: int | None = None  # epochs without improvement that end the run; None: it trains to its end


@dataclass(kw_only=True)
class ValidationHistory:
    """The validation scores so far: part of a run's state, so that a resumed run decides as it would have."""

    scores: list[float] = field(default_factory=list)  # of each epoch; NaN is no score
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # on the CPU; empty: the last weights are kept

    @property
    def best(self) -> tuple[int, float] | None:
        """The best epoch, counted from 1, and its score; of equal ones the last: it was trained longer."""
        epochs = [(epoch, score) for epoch, score in enumerate(self.scores, 1) if not math.isnan(score)]
        return max(epochs, key=lambda epoch_score: epoch_score[::-1], default=None)

    def update(self, score: float, task: nn.Module | None) -> None:
        """Record the next epoch's score, and the task's weights if it is the best."""
        self.scores.append(score)
        if task is not None and self.best == (len(self.scores), score):
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}

    def should_stop(self, patience: int | None) -> bool:
        """Return whether there has been no improvement for `patience` epochs."""
        last_improvement = self.scores.index(self.best[1]) + 1 if self.best else 0
        return patience is not None and len(self.scores) - last_improvement >= patience

    def summarize(self, metric: str) -> str:
        """Return the curve in a line: some epochs from the first to the last, and the best one."""
        last, parts = len(self.scores), _NUM_SHOWN_EPOCHS - 1
        epochs = sorted({1 + round((last - 1) * part / parts) for part in range(parts + 1)})
        curve = ", ".join(f"{epoch} {self.scores[epoch - 1]:.1f}" for epoch in epochs)
        best = f"best {self.best[1]:.1f} at epoch {self.best[0]}" if self.best else "no epoch has a score"
        best += ", whose weights are kept" if self.best_weights else ""
        return f"validation {shorten_metric(metric)}: epoch {curve}; {best}"
