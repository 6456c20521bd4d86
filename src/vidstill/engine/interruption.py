"""How a run ends before its last step: by an error that a person mends, or by SIGINT or SIGTERM."""

import signal
import threading
import time
from types import FrameType
from typing import Any


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why, and the same command resumes it."""

    exit_code = 1


class RunInterrupted(RunStopped):
    """The run was ended by SIGINT or SIGTERM."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SignalHandler:
    """Records SIGINT and SIGTERM, so that the run ends after the current step; a second one ends it at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.signal_time = 0.0
        self.previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "SignalHandler":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous_handlers[number] = signal.signal(number, self._handle_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def build_interruption(self, completed_steps: int) -> RunInterrupted:
        number = self.signal_number or signal.SIGTERM  # another rank may have got the signal
        return RunInterrupted(f"interrupted after step {completed_steps}; the same command resumes the run", number)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number, self.signal_time = number, time.monotonic()
        elif time.monotonic() - self.signal_time > 3:  # torchrun forwards a terminal's Ctrl-C: it comes twice, at once
            raise KeyboardInterrupt
