"""What a run does when it is asked to stop: it ends its step first."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any


class Signals:
    """Turns SIGINT and SIGTERM into a wish that is granted between two steps; who insists is obeyed at once."""

    def __enter__(self) -> "Signals":
        self.caught: int | None = None
        self.when = 0.0
        self.former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught, self.when = number, time.monotonic()
        elif time.monotonic() - self.when > 3:  # torchrun passes a terminal's Ctrl-C on: that comes twice, at once
            raise KeyboardInterrupt
