"""When the state is saved, and whether it may be: a run that is not healthy replaces no good state."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from vidstill.engine.health import LossHistory, are_finite
from vidstill.engine.interruption import RunStopped
from vidstill.engine.logger import TrainingLogger
from vidstill.engine.state_writer import StateWriter


class StateSaver:
    """Saves a run's state in time, unless its last step or its weights show that training has failed.

    Args:
        writer: None: another process writes.
        save_seconds: Seconds between two states.
        save_steps: Steps between two states, if that is sooner.
        keep_every: A state is saved after each so many steps.
        advice: What a user can do about a run that fails.
    """

    def __init__(
        self,
        writer: StateWriter | None,
        save_seconds: float,
        save_steps: int | None,
        keep_every: int | None,
        advice: str,
    ):
        self.writer, self.advice = writer, advice
        self.save_seconds, self.save_steps, self.keep_every = save_seconds, save_steps, keep_every
        self.losses = LossHistory()
        self.problem = ""  # with the last step
        self.has_warned = False  # since the last state
        self.progress, self.time = (0, 0), time.monotonic()  # of the last state: steps, validated epochs

    def begin(self, step: int, num_epochs: int, losses: LossHistory) -> None:
        """Begin with a state that is on the disk, of this step, after this many validated epochs."""
        self.progress, self.losses = (step, num_epochs), losses
        if self.writer:
            self.writer.saved_step = step

    def reserve(self, gather: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Begin to allocate memory for what is saved."""
        if self.writer:
            self.writer.reserve(gather()[0])

    @property
    def saved_step(self) -> int:
        """The completed steps of the newest state that is on the disk; 0: there is none."""
        return self.writer.saved_step if self.writer else self.progress[0]

    @property
    def remains(self) -> str:
        """What a run that ends now can be resumed from."""
        return f"the state of step {self.saved_step} remains" if self.saved_step else "no state has been saved"

    def build_stop(self, reason: str) -> RunStopped:
        """Return the error that ends a run which has failed."""
        return RunStopped(f"{reason}; {self.advice}; {self.remains}")

    def judge_step(self, step: int, loss: float, *, is_accepted: bool, is_failure: bool) -> None:
        """Record the loss of a step.

        Args:
            step: Completed steps.
            loss: Its loss.
            is_accepted: Whether it has changed the weights.
            is_failure: Whether its loss or gradient is not finite, and no search for a loss scale explains it.
        """
        self.problem = ""
        if is_failure:
            self.problem = f"loss or gradient are not finite in step {step}"
        elif math.isfinite(loss) and self.losses.is_exploding(loss):
            self.problem = f"the loss of step {step} ({loss:.4g}) is far above its median ({self.losses.median:.4g})"
        elif is_accepted:
            self.losses.add(loss)

    def is_due(self, step: int) -> bool:
        is_overdue = time.monotonic() - self.time >= self.save_seconds
        is_multiple = self.keep_every is not None and step % self.keep_every == 0
        return is_overdue or is_multiple or step - self.progress[0] >= (self.save_steps or math.inf)

    def save(
        self,
        step: int,
        num_epochs: int,
        task: nn.Module,
        gather: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]],
        logger: TrainingLogger,
        *,
        is_last: bool,
    ) -> None:
        """Begin to save the state, unless the run is not healthy; the last one is on the disk afterwards.

        Args:
            step: Completed steps.
            num_epochs: Validated epochs.
            task: Its parameters must be finite.
            gather: Returns the entries of the state that training changes, and the others.
            logger: Its position is saved too.
            is_last: Whether the process ends now.

        Raises:
            OSError: This state, or the one before, could not be written.
        """
        problem = self.problem
        if not problem and not are_finite(task.parameters()):
            problem = f"a weight is not finite after step {step}"
        if not problem and (step, num_epochs) != self.progress:
            if self.writer:
                changing, constants = gather()
                entries = {"losses": vars(self.losses), "log": logger.position}
                self.writer.save(step, {**changing, **entries}, constants, logger.log_file.fileno())
            self.progress, self.time, self.has_warned = (step, num_epochs), time.monotonic(), False
        must_warn = problem and (is_last or not self.has_warned)
        if is_last or must_warn:
            self.wait()
        if must_warn:
            self.has_warned = True
            logger.print_message(f"{problem}: no state is saved, {self.remains}; if it stays so, {self.advice}")

    def write(self, write: Callable[..., None], *args: Any) -> None:
        """Call a function that writes to the run directory; a full disk ends the run.

        Raises:
            RunStopped: It raised an OSError.
        """
        try:
            write(*args)
        except OSError as error:
            raise RunStopped(f"{error}; {self.remains}: free disk space and run the same command again") from error

    def check_weights(self, task: nn.Module) -> None:
        """Raise RunStopped if the weights that training ends with are not finite."""
        if not are_finite(task.parameters()):
            raise self.build_stop("a weight is not finite after the last step")

    def check(self) -> None:
        """Raise an OSError if a state could not be written, without waiting."""
        if self.writer:
            self.writer.check()

    def wait(self) -> None:
        """Wait until the newest state is on the disk.

        Raises:
            OSError: It could not be written.
        """
        if self.writer:
            self.writer.wait()

    def close(self) -> None:
        """Wait for what is being written; an error has been reported, or is less than the one that ends the run."""
        if self.writer:
            self.writer.close()
