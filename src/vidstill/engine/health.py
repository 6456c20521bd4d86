"""Whether a run is healthy: otherwise its state would replace a good one."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn.utils import get_total_norm

_WINDOW = 100  # losses of which the running median is taken
_MIN_JUDGED = 20  # losses before the first one that is judged
_MIN_LEVEL = 5  # losses before the first median that counts as the loss of an untrained model
_FAR = 10.0  # running medians
_FAR_FROM_UNTRAINED = 3.0  # highest running medians


@dataclass(kw_only=True)
class LossHistory:
    """The losses that a new one is compared with: part of a run's state, so that a resumed run judges as it would have.

    A loss explodes if it lies above the median of the last 100 by more than ten times this median, and by more than
    three times the highest such median of the run. After a warm restart, or of a hard batch, a loss is at most that of
    an untrained model, which is the highest median. Magnitudes are compared: a loss may be negative.
    """

    recent: list[float] = field(default_factory=list)  # the last ones that did not explode
    highest_median: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(map(abs, self.recent))

    def is_exploding(self, loss: float) -> bool:
        """Return whether a finite loss is far above those before it."""
        if len(self.recent) < _MIN_JUDGED:
            return False
        return loss - self.median > max(_FAR * self.median, _FAR_FROM_UNTRAINED * self.highest_median)

    def add(self, loss: float) -> None:
        """Record a loss that does not explode."""
        self.recent = [*self.recent, loss][-_WINDOW:]
        if len(self.recent) >= _MIN_LEVEL:
            self.highest_median = max(self.highest_median, self.median)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers are finite; the host waits for the device once."""
    return bool(get_total_norm([tensor.detach().float() for tensor in tensors]).isfinite())
