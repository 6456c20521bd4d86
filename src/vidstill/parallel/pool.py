"""Work in other processes, taken back in order: one that is stuck or dies loses the item in its hand, no other."""

import atexit
import logging
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

from vidstill.parallel.process import KILL_TIMEOUT_SECONDS, SharedSlots, WorkerProcess, unpack_result

WORKER_TIMEOUT_SECONDS = 60.0
"""A process that makes no progress for so long, while its result is waited for, is ended."""

_STARTUP_TIMEOUT_SECONDS = 60.0  # may pass before a process has begun: one that is not forked imports everything first
_POLL_SECONDS = 0.1  # between two looks at the processes

log = logging.getLogger("vidstill")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class LostTask:
    """In place of a result: why there is none, such as "ended its process (signal 11)"."""

    reason: str


def map_in_workers(
    fn: Callable[[T], R], items: Sequence[T], *, workers: int, timeout_seconds: float = WORKER_TIMEOUT_SECONDS
) -> Iterator[tuple[int, R | LostTask]]:
    """Each item's place and `work(item)`, done in other processes, in the order of the items.

    At most eight items a worker are begun and not yet taken. An item whose process ends or is stuck is `LostTask`; one
    whose process is killed from outside (signal 9: most often, memory ran out) is tried once more before.

    Args:
        fn: what it raises is raised here, in place of its result. Outside of Linux it and the items are pickled.
        workers: processes; at least one.
        timeout_seconds: without a result or a `beat()`, while results are waited for.

    Raises:
        RuntimeError: a process ends before it has begun anything.
    """
    workers = max(1, workers)
    ahead = 8 * workers
    with WorkerPool(
        partial(_call_on_item, fn, items),
        workers=workers,
        max_pending=ahead,
        tasks_per_worker=2,
        timeout_seconds=timeout_seconds,
    ) as crew:
        yield from enumerate(map_in_order(crew.submit, crew.get_result, range(len(items)), ahead))


def map_in_order(
    submit: Callable[[T], Any], get_result: Callable[[Any], R], items: Iterable[T], max_pending: int
) -> Iterator[R]:
    """What `gather_tokens` makes of `give(item)` for each item, `ahead` of them given before the first is taken."""
    coming = iter(items)
    given = deque(map(submit, islice(coming, max_pending)))
    while given:
        yield get_result(given.popleft())
        given.extend(map(submit, islice(coming, 1)))


def _call_on_item(fn: Callable[[T], R], items: Sequence[T], index: int) -> R:
    return fn(items[index])


class _PoolStopped(Exception):
    """Nobody wants the results any more."""


class WorkerPool(Generic[T, R]):
    """Processes that do `work(item)`, begun when there is work for them; for one thread at a time.

    Arrays in a result come through memory that all share, the rest through pipes.

    Args:
        ahead: items that may be given and not yet taken.
        depth: items that a process is handed at once: 2 where results are waited for all the time.
        room: bytes of shared memory for the arrays of each of the items ahead; what does not fit goes through a pipe.
    """

    def __init__(
        self,
        fn: Callable[[T], R],
        *,
        workers: int,
        max_pending: int,
        tasks_per_worker: int,
        slot_num_bytes: int = 0,
        timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
    ):
        self._fn, self._max_workers, self._tasks_per_worker, self._timeout_seconds = (
            fn,
            workers,
            tasks_per_worker,
            timeout_seconds,
        )
        self._shared_slots = SharedSlots(max_pending, slot_num_bytes)
        self._free_slots = deque(range(max_pending))
        self._tasks: dict[int, tuple[T, int]] = {}  # by ticket, the item and its room
        self._queue: deque[int] = deque()
        self._results: dict[int, Any] = {}
        self._retried_tickets: set[int] = set()
        self._worker_processes: list[WorkerProcess] = []
        self._selector = selectors.PollSelector()
        self._next_ticket = 0
        self._is_stopped = False
        atexit.register(self.close)  # multiprocessing would wait there for processes that nobody ends

    def submit(self, item: T) -> int:
        """Asks for `work(item)`; gives the ticket to take it by. The item, a few words, goes through a pipe."""
        ticket = self._next_ticket
        self._next_ticket += 1
        self._tasks[ticket] = item, self._free_slots.popleft()
        self._queue.append(ticket)
        self._dispatch_tasks()
        return ticket

    def get_result(self, ticket: int) -> R | LostTask:
        """The result, once it is there; its arrays are gone when the next item is given.

        Raises:
            RuntimeError: a process ends before it has begun anything.
            Exception: whatever `work` raises.
        """
        while ticket not in self._results:
            if self._is_stopped:
                raise _PoolStopped
            self._poll_workers()
        _, room = self._tasks.pop(ticket)
        self._free_slots.append(room)
        self._retried_tickets.discard(ticket)
        result = self._results.pop(ticket)
        return result if isinstance(result, LostTask) else unpack_result(self._shared_slots.get_slot(room), *result)

    def stop(self) -> None:
        """Lets another thread go that waits in `gather_tokens`: it raises there."""
        self._is_stopped = True

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        atexit.unregister(self.close)
        while self._worker_processes:
            self._worker_processes.pop().kill()

    def __enter__(self) -> "WorkerPool[T, R]":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _dispatch_tasks(self) -> None:
        while self._queue:
            hand = min(self._worker_processes, key=lambda hand: len(hand.tickets), default=None)
            if hand is None or (hand.tickets and len(self._worker_processes) < self._max_workers):
                hand = WorkerProcess.start(self._fn, self._shared_slots)
                self._worker_processes.append(hand)
                self._selector.register(hand.outbox, selectors.EVENT_READ, hand)
            if len(hand.tickets) >= self._tasks_per_worker:
                return
            ticket = self._queue.popleft()
            hand.tickets.append(ticket)
            item, room = self._tasks[ticket]
            try:
                hand.inbox.send((ticket, room, item))
            except BrokenPipeError:
                return  # it is gone, as the next look finds

    def _poll_workers(self) -> None:
        """Waits a little for results, and sees what has become of the processes: nothing else does."""
        step = min(_POLL_SECONDS, self._timeout_seconds / 10)
        begun = time.monotonic()
        for key, _ in self._selector.select(step):
            self._receive_results(key.data)
        passed = min(time.monotonic() - begun, 2 * step)  # a program that was halted for an hour has not waited for one
        for hand in list(self._worker_processes):
            beats = hand.beats
            hand.stalled_seconds = hand.stalled_seconds + passed if hand.tickets and beats == hand.last_beats else 0.0
            hand.last_beats = beats
            if hand.stalled_seconds > (
                self._timeout_seconds if beats else max(self._timeout_seconds, _STARTUP_TIMEOUT_SECONDS)
            ):
                self._kill_worker(hand)
        self._dispatch_tasks()

    def _receive_results(self, worker: WorkerProcess) -> None:
        try:
            while worker.outbox.poll():
                ticket, *result = worker.outbox.recv()
                worker.tickets.remove(ticket)
                self._results[ticket] = tuple(result)
        except (EOFError, OSError):
            self._remove_worker(worker)

    def _kill_worker(self, worker: WorkerProcess) -> None:
        worker.kill_reason = f"took longer than {self._timeout_seconds:g} s and was ended"
        worker.process.kill()
        worker.process.join(KILL_TIMEOUT_SECONDS)
        self._receive_results(worker)  # it may have given the result at the last moment
        if worker in self._worker_processes:  # it could not be killed
            self._remove_worker(worker)

    def _remove_worker(self, worker: WorkerProcess) -> None:
        """Others take over what a dead process had been handed, but for what it died of."""
        self._worker_processes.remove(worker)
        self._selector.unregister(worker.outbox)
        code = worker.kill()
        why = worker.kill_reason or f"ended its process ({_format_exit_code(code)})"
        if not worker.beats:
            raise RuntimeError(
                f"a worker {why} before it had begun anything; where memory is short, take fewer workers"
            )
        ticket = worker.current_ticket
        if ticket in worker.tickets:
            if code == -signal.SIGKILL and not worker.kill_reason and ticket not in self._retried_tickets:
                log.warning(
                    "a worker was killed (signal 9), most often for want of memory; its work is tried once more"
                )
                self._retried_tickets.add(ticket)
            else:
                worker.tickets.remove(ticket)
                self._results[ticket] = LostTask(why)
        self._queue.extendleft(reversed(worker.tickets))


def _format_exit_code(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
