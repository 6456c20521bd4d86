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

from vidstill.parallel.heartbeat import beat
from vidstill.parallel.process import END_SECONDS, Hand, Shared, unpacked

__all__ = ["STUCK_SECONDS", "Crew", "Lost", "beat", "in_order", "in_workers"]

STUCK_SECONDS = 60.0
"""A process that makes no progress for so long, while its result is waited for, is ended."""

_BEGIN_SECONDS = 60.0  # may pass before a process has begun: one that is not forked imports everything first
_LOOK_SECONDS = 0.1  # between two looks at the processes

log = logging.getLogger("vidstill")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Lost:
    """In place of a result: why there is none, such as "ended its process (signal 11)"."""

    why: str


def in_workers(
    work: Callable[[T], R], items: Sequence[T], *, workers: int, stuck_seconds: float = STUCK_SECONDS
) -> Iterator[tuple[int, R | Lost]]:
    """Each item's place and `work(item)`, done in other processes, in the order of the items.

    At most eight items a worker are begun and not yet taken. An item whose process ends or is stuck is `Lost`; one
    whose process is killed from outside (signal 9: most often, memory ran out) is tried once more before.

    Args:
        work: what it raises is raised here, in place of its result. Outside of Linux it and the items are pickled.
        workers: processes; at least one.
        stuck_seconds: without a result or a `beat()`, while results are waited for.

    Raises:
        RuntimeError: a process ends before it has begun anything.
    """
    workers = max(1, workers)
    ahead = 8 * workers
    with Crew(partial(_at, work, items), workers=workers, ahead=ahead, depth=2, stuck_seconds=stuck_seconds) as crew:
        yield from enumerate(in_order(crew.give, crew.take, range(len(items)), ahead))


def in_order(give: Callable[[T], Any], take: Callable[[Any], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """What `take` makes of `give(item)` for each item, `ahead` of them given before the first is taken."""
    coming = iter(items)
    given = deque(map(give, islice(coming, ahead)))
    while given:
        yield take(given.popleft())
        given.extend(map(give, islice(coming, 1)))


def _at(work: Callable[[T], R], items: Sequence[T], place: int) -> R:
    return work(items[place])


class _Stopped(Exception):
    """Nobody wants the results any more."""


class Crew(Generic[T, R]):
    """Processes that do `work(item)`, begun when there is work for them; for one thread at a time.

    Arrays in a result come through memory that all share, the rest through pipes.

    Args:
        ahead: items that may be given and not yet taken.
        depth: items that a process is handed at once: 2 where results are waited for all the time.
        room: bytes of shared memory for the arrays of each of the items ahead; what does not fit goes through a pipe.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        *,
        workers: int,
        ahead: int,
        depth: int,
        room: int = 0,
        stuck_seconds: float = STUCK_SECONDS,
    ):
        self._work, self._workers, self._depth, self._stuck_seconds = work, workers, depth, stuck_seconds
        self._shared = Shared(ahead, room)
        self._free = deque(range(ahead))
        self._given: dict[int, tuple[T, int]] = {}  # by ticket, the item and its room
        self._queue: deque[int] = deque()
        self._results: dict[int, Any] = {}
        self._killed: set[int] = set()
        self._hands: list[Hand] = []
        self._selector = selectors.PollSelector()
        self._tickets = 0
        self._stopped = False
        atexit.register(self.close)  # multiprocessing would wait there for processes that nobody ends

    def give(self, item: T) -> int:
        """Asks for `work(item)`; gives the ticket to take it by. The item, a few words, goes through a pipe."""
        ticket = self._tickets
        self._tickets += 1
        self._given[ticket] = item, self._free.popleft()
        self._queue.append(ticket)
        self._hand_out()
        return ticket

    def take(self, ticket: int) -> R | Lost:
        """The result, once it is there; its arrays are gone when the next item is given.

        Raises:
            RuntimeError: a process ends before it has begun anything.
            Exception: whatever `work` raises.
        """
        while ticket not in self._results:
            if self._stopped:
                raise _Stopped
            self._look()
        _, room = self._given.pop(ticket)
        self._free.append(room)
        self._killed.discard(ticket)
        result = self._results.pop(ticket)
        return result if isinstance(result, Lost) else unpacked(self._shared.room(room), *result)

    def stop(self) -> None:
        """Lets another thread go that waits in `take`: it raises there."""
        self._stopped = True

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        atexit.unregister(self.close)
        while self._hands:
            self._hands.pop().end()

    def __enter__(self) -> "Crew[T, R]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _hand_out(self) -> None:
        while self._queue:
            hand = min(self._hands, key=lambda hand: len(hand.tickets), default=None)
            if hand is None or (hand.tickets and len(self._hands) < self._workers):
                hand = Hand.begin(self._work, self._shared)
                self._hands.append(hand)
                self._selector.register(hand.outbox, selectors.EVENT_READ, hand)
            if len(hand.tickets) >= self._depth:
                return
            ticket = self._queue.popleft()
            hand.tickets.append(ticket)
            item, room = self._given[ticket]
            try:
                hand.inbox.send((ticket, room, item))
            except BrokenPipeError:
                return  # it is gone, as the next look finds

    def _look(self) -> None:
        """Waits a little for results, and sees what has become of the processes: nothing else does."""
        step = min(_LOOK_SECONDS, self._stuck_seconds / 10)
        begun = time.monotonic()
        for key, _ in self._selector.select(step):
            self._receive(key.data)
        passed = min(time.monotonic() - begun, 2 * step)  # a program that was halted for an hour has not waited for one
        for hand in list(self._hands):
            beats = hand.beats
            hand.waited = hand.waited + passed if hand.tickets and beats == hand.seen else 0.0
            hand.seen = beats
            if hand.waited > (self._stuck_seconds if beats else max(self._stuck_seconds, _BEGIN_SECONDS)):
                self._end(hand)
        self._hand_out()

    def _receive(self, hand: Hand) -> None:
        try:
            while hand.outbox.poll():
                ticket, *result = hand.outbox.recv()
                hand.tickets.remove(ticket)
                self._results[ticket] = tuple(result)
        except (EOFError, OSError):
            self._bury(hand)

    def _end(self, hand: Hand) -> None:
        hand.why = f"took longer than {self._stuck_seconds:g} s and was ended"
        hand.process.kill()
        hand.process.join(END_SECONDS)
        self._receive(hand)  # it may have given the result at the last moment
        if hand in self._hands:  # it could not be killed
            self._bury(hand)

    def _bury(self, hand: Hand) -> None:
        """Others take over what a dead process had been handed, but for what it died of."""
        self._hands.remove(hand)
        self._selector.unregister(hand.outbox)
        code = hand.end()
        why = hand.why or f"ended its process ({_said(code)})"
        if not hand.beats:
            raise RuntimeError(
                f"a worker {why} before it had begun anything; where memory is short, take fewer workers"
            )
        ticket = hand.ticket
        if ticket in hand.tickets:
            if code == -signal.SIGKILL and not hand.why and ticket not in self._killed:
                log.warning(
                    "a worker was killed (signal 9), most often for want of memory; its work is tried once more"
                )
                self._killed.add(ticket)
            else:
                hand.tickets.remove(ticket)
                self._results[ticket] = Lost(why)
        self._queue.extendleft(reversed(hand.tickets))


def _said(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
