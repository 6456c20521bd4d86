"""How a run ends before its last step: by an error that a person mends, or by a signal."""

import signal
from contextlib import ExitStack

from vidstill.utils.signals import StopSignal, get_exit_code, handle_signals


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why, and the same command resumes it."""

    exit_code = 1


class RunInterrupted(RunStopped):
    """The run was ended by a signal."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = get_exit_code(signal_number, resumable=True)


class SignalHandler:
    """Records one of STOP_SIGNALS, so that the run ends after the current step; the same again, or SIGINT, ends it."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._handlers = ExitStack()

    def __enter__(self) -> "SignalHandler":
        self._handlers.enter_context(handle_signals(self._handle_signal))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def build_interruption(self, completed_steps: int) -> RunInterrupted:
        number = self.signal_number or signal.SIGTERM  # another rank may have got the signal
        return RunInterrupted(f"interrupted after step {completed_steps}; the same command resumes the run", number)

    def _handle_signal(self, number: int) -> None:
        if self.signal_number is None:
            self.signal_number = number
        elif number in (signal.SIGINT, self.signal_number):
            raise StopSignal(number)
