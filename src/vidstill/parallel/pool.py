"""A pool of worker processes: one that hangs or dies loses the task that it is at, and no other.

A task is not lost where the machine is at fault: short memory and storage that does not answer stop the work.
"""

import atexit
import logging
import pickle
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from vidstill.parallel.process import (
    KILL_TIMEOUT_SECONDS,
    WorkerProcess,
    allocate_slots,
    unpack_result,
)
from vidstill.parallel.stall import find_stalled_read, read_cpu_seconds
from vidstill.utils.signals import delay_signals
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

WORKER_TIMEOUT_SECONDS = 60.0
"""A worker that makes no progress for so long, while its result is waited for, is killed."""

_STARTUP_TIMEOUT_SECONDS = 60.0  # a worker that is not forked imports everything before its first task
_POLL_SECONDS = 0.1
_MEMORY_ADVICE = (
    "(signal 9), most often because memory ran out; use fewer workers or free memory, then run the same command again"
)
_IDLE_FRACTION = 0.01  # of a stall: a process that uses less CPU time waits for something

log = logging.getLogger("vidstill")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class LostTask:
    """Stands for a result that a worker did not return; `reason` is for example "ended its process (signal 11)"."""

    reason: str


def map_in_workers(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    items_per_worker: int = 8,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
    describe: Callable[[T], str] = lambda item: "a task",
) -> Iterator[tuple[int, R | LostTask]]:
    """Yield each item's index and `fn(item)`, computed in other processes, in the order of the items.

    An item whose process hangs or ends is a `LostTask`; one
    whose process was killed from outside (signal 9: most often, memory ran out) is retried once.

    Args:
        fn: Exceptions that it raises are raised here in place of its result. Outside of Linux, `fn` and the items are
            pickled.
        items: The items.
        workers: Processes; at least one.
        items_per_worker: Items per worker that are begun and not yet taken, at most.
        timeout_seconds: A worker without a result or a heartbeat for so long, while it is waited for, is killed.
        describe: Returns what messages call an item.

    Raises:
        InputError: The processes of an item were killed twice from outside, or the storage does not answer.
        RuntimeError: A process ends before it has begun its first item.
    """
    workers = max(1, workers)
    max_pending = items_per_worker * workers
    with WorkerPool(
        partial(_call_on_item, fn, items),
        workers=workers,
        max_pending=max_pending,
        tasks_per_worker=2,
        timeout_seconds=timeout_seconds,
        describe=lambda index: describe(items[index]),
    ) as pool:
        yield from enumerate(map_in_order(pool.submit, pool.get_result, range(len(items)), max_pending))


def map_in_order(
    submit: Callable[[T], Any], get_result: Callable[[Any], R], items: Iterable[T], max_pending: int
) -> Iterator[R]:
    """Yield `get_result(submit(item))` for each item, with up to `max_pending` submitted before one is taken.

    Args:
        submit: Returns a ticket for an item.
        get_result: Returns the result of a ticket.
        items: The items.
        max_pending: Items that are submitted ahead.
    """
    remaining = iter(items)
    tickets = deque(map(submit, islice(remaining, max_pending)))
    while tickets:
        yield get_result(tickets.popleft())
        tickets.extend(map(submit, islice(remaining, 1)))


def _call_on_item(fn: Callable[[T], R], items: Sequence[T], index: int) -> R:
    return fn(items[index])


class _PoolStopped(Exception):
    """Another thread has stopped the pool."""


class WorkerPool(Generic[T, R]):
    """Processes that compute `fn(item)`, started when there is work; to be used by one thread at a time.

    Arrays in a result come through shared memory, the rest through pipes.

    Args:
        fn: What workers compute.
        workers: Processes at most.
        max_pending: Items that may be submitted and not yet taken.
        tasks_per_worker: Items that are sent to a worker ahead: 2 where results are waited for all the time.
        slot_num_bytes: Shared memory for the arrays of one result; arrays that do not fit go through a pipe.
        timeout_seconds: A worker that is waited for and makes no progress for so long is killed.
        describe: Returns what messages call an item.
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
        describe: Callable[[T], str] = lambda item: "a task",
    ):
        self._fn, self._max_workers, self._tasks_per_worker = fn, workers, tasks_per_worker
        self._timeout_seconds, self._describe = timeout_seconds, describe
        self._slots = allocate_slots(max_pending, slot_num_bytes)
        self._free_slots = deque(range(max_pending))
        self._tasks: dict[int, tuple[T, int]] = {}  # ticket → item, slot
        self._queue: deque[int] = deque()
        self._results: dict[int, Any] = {}
        self._retried_tickets: set[int] = set()
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.PollSelector()
        self._num_submitted = 0
        self._is_stopped = False
        atexit.register(self.close)  # at exit multiprocessing would wait for processes that nobody ends

    def submit(self, item: T) -> int:
        """Request `fn(item)` and return the ticket to take it by. The item, a few words, goes through a pipe."""
        ticket = self._num_submitted
        self._num_submitted += 1
        self._tasks[ticket] = item, self._free_slots.popleft()
        self._queue.append(ticket)
        self._dispatch_tasks()
        return ticket

    def get_result(self, ticket: int) -> R | LostTask:
        """Wait for a result; its arrays are valid until the next item is submitted.

        Raises:
            InputError: The processes of an item were killed twice from outside, or the storage does not answer.
            RuntimeError: A process ends before it has begun its first item.
            Exception: Whatever `fn` raises.
        """
        while ticket not in self._results:
            if self._is_stopped:
                raise _PoolStopped
            self._poll_workers()
        _, slot = self._tasks.pop(ticket)
        self._free_slots.append(slot)
        self._retried_tickets.discard(ticket)
        result = self._results.pop(ticket)
        return result if isinstance(result, LostTask) else unpack_result(self._slots[slot], *result)

    def stop(self) -> None:
        """End another thread's wait in `get_result`, which raises there."""
        self._is_stopped = True

    def close(self) -> None:
        """Kill the workers, whatever they are doing."""
        atexit.unregister(self.close)
        while self._workers:
            self._workers.pop().kill()

    def __enter__(self) -> "WorkerPool[T, R]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dispatch_tasks(self) -> None:
        """Send queued tasks to the workers with the fewest; start a worker where all are busy."""
        while self._queue:
            worker = min(self._workers, key=lambda worker: len(worker.tickets), default=None)
            if worker is None or (worker.tickets and len(self._workers) < self._max_workers):
                with delay_signals():
                    worker = WorkerProcess.start(self._fn, self._slots)
                    self._workers.append(worker)  # and it is killed when the pool is closed
                self._selector.register(worker.outbox, selectors.EVENT_READ, worker)
            if len(worker.tickets) >= self._tasks_per_worker:
                return
            ticket = self._queue.popleft()
            worker.tickets.append(ticket)
            item, slot = self._tasks[ticket]
            try:
                worker.inbox.send_bytes(pickle.dumps((ticket, slot, item)))  # `send` takes three times as long
            except BrokenPipeError:
                return  # it is dead, and the next poll replaces it

    def _poll_workers(self) -> None:
        """Wait briefly for results, and kill workers that make no progress."""
        interval = min(_POLL_SECONDS, self._timeout_seconds / 10)
        start = time.monotonic()
        timeout = interval
        while events := self._selector.select(timeout):
            for key, _ in events:
                self._receive_result(key.data)
            timeout = 0.0
        # a program that was suspended for an hour has not waited for an hour
        waited = min(time.monotonic() - start, 2 * interval)
        for worker in list(self._workers):
            beats = worker.beats
            is_stalled = bool(worker.tickets) and beats == worker.last_beats
            worker.stalled_seconds = worker.stalled_seconds + waited if is_stalled else 0.0
            worker.last_beats = beats
            limit = self._timeout_seconds if beats else max(self._timeout_seconds, _STARTUP_TIMEOUT_SECONDS)
            if worker.stalled_seconds <= limit / 2:
                worker.stall_cpu_seconds = None
            elif worker.stall_cpu_seconds is None:
                worker.stall_cpu_seconds = read_cpu_seconds(worker.pid)
            if worker.stalled_seconds > limit:
                self._check_storage(worker, limit / 2)
                self._kill_worker(worker)
        self._dispatch_tasks()

    def _receive_result(self, worker: WorkerProcess) -> None:
        """Receive a result that waits in the pipe, or that the worker is dead."""
        try:
            ticket, *result = pickle.loads(worker.outbox.recv_bytes())
        except (EOFError, OSError):
            self._remove_worker(worker)
            return
        worker.tickets.remove(ticket)
        self._results[ticket] = tuple(result)

    def _check_storage(self, worker: WorkerProcess, seconds: float) -> None:
        """Raise an InputError if a worker has used no CPU time for these seconds and waits for a file."""
        before, now = worker.stall_cpu_seconds, read_cpu_seconds(worker.pid)
        if before is None or now is None or now - before > _IDLE_FRACTION * seconds:
            return
        if (file := find_stalled_read(worker.pid)) is not None:
            name, seconds = self._describe_task(worker.current_ticket), self._timeout_seconds
            raise InputError(
                f"{name} waits for {format_one_line(file)}, whose storage has not answered for {seconds:g} s; once it "
                "does, run the same command again"
            )

    def _describe_task(self, ticket: int) -> str:
        return self._describe(self._tasks[ticket][0]) if ticket in self._tasks else "a worker"

    def _kill_worker(self, worker: WorkerProcess) -> None:
        worker.kill_reason = f"took longer than {self._timeout_seconds:g} s and was killed"
        worker.process.kill()
        worker.process.join(KILL_TIMEOUT_SECONDS)
        while worker in self._workers and worker.outbox.poll():  # it may have sent the result at the last moment
            self._receive_result(worker)
        if worker in self._workers:  # it could not be killed
            self._remove_worker(worker)

    def _remove_worker(self, worker: WorkerProcess) -> None:
        """Give a dead worker's tasks to others, except the one that it died of."""
        self._workers.remove(worker)
        self._selector.unregister(worker.outbox)
        exit_code = worker.kill()
        reason = worker.kill_reason or f"ended its process ({_format_exit_code(exit_code)})"
        was_killed = exit_code == -signal.SIGKILL and not worker.kill_reason
        if not worker.beats and was_killed:
            raise InputError(f"a worker was killed {_MEMORY_ADVICE}")
        if not worker.beats:
            raise RuntimeError(f"a worker {reason} before its first task; if memory is short, use fewer workers")
        ticket = worker.current_ticket
        if ticket in worker.tickets:
            if was_killed and ticket in self._retried_tickets:
                raise InputError(f"the worker of {self._describe_task(ticket)} was killed twice {_MEMORY_ADVICE}")
            if was_killed:
                log.warning("a worker was killed (signal 9), most often because memory ran out; its task is retried")
                self._retried_tickets.add(ticket)
            else:
                worker.tickets.remove(ticket)
                self._results[ticket] = LostTask(reason)
        self._queue.extendleft(reversed(worker.tickets))


def _format_exit_code(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
