"""From chosen to applied: the state machine, the callers that wait, the subscribers.

One :class:`Applier` per node takes what the reactor publishes, in slot order, and does with each slot: note
it in the local log, feed the state machine, resolve the futures of the callers that proposed it here.
Usually the apply thread does that; a blocking ``propose`` may do it itself instead of waiting for that
thread to be scheduled (combining), so any number of threads may call :meth:`Applier.drain`.

Outcomes are found by ticket. The batcher numbers the commands of this node 1, 2, 3 ... in the order in which
they were appended, and :class:`Pending` keeps the callers in that same order, so a batch that was applied
settles a run of callers at the front.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from paxos._core.failpoint import reach
from paxos.errors import ApplyFailed, Closed, InvariantViolation, PaxosError
from paxos.futures import Future, RunOutcome
from paxos.state_machine import FAILED_AT, StateMachine
from paxos.types import ApplyContext, Outcome

TAKE_ITEMS_MAX = 4096


class ChosenItem(Protocol):
    """One slot that became known here to be chosen."""

    @property
    def slot(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def origin(self) -> int: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def first_ticket(self) -> int: ...
    @property
    def commands(self) -> Sequence[bytes]: ...


class ChosenSource(Protocol):
    """Where chosen slots come from: the reactor."""

    def wait_unapplied(self, timeout_s: float | None) -> bool | None:
        """Wait until there is something to take; ``None`` when it has ended and nothing is left."""

    def take_chosen(self, timeout_s: float | None, limit: int) -> Sequence[ChosenItem] | None:
        """Return chosen slots in order, each once. Whoever takes must apply before anybody else takes."""


class Run:
    """A caller that waits for several commands: collects its parts until all are there."""

    __slots__ = ("future", "parts")

    def __init__(self, future: Future[RunOutcome]) -> None:
        self.future = future
        self.parts: list[tuple[int, int, int, Sequence[Any] | None]] = []


class Pending:
    """The callers of this node that wait for an outcome, in ticket order.

    ``lock`` is held by whoever appends to the batcher until the caller is registered here, so that ticket
    order is the order of registration; nothing else may be done under it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._waiting: deque[tuple[int, int, Future[Outcome] | Run]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def register(self, first_ticket: int, count: int, caller: Future[Outcome] | Run) -> None:
        """Add the caller of tickets ``first_ticket`` .. ``first_ticket + count - 1``. Call under ``lock``."""
        self._waiting.append((first_ticket, count, caller))

    def settle(self, item: ChosenItem, results: Sequence[Any] | None) -> None:
        """Resolve the callers of a batch of this node that was applied here."""
        first, index, slot = item.first_ticket, item.index, item.slot
        for ticket, count, caller in self._take_due(first + item.count):
            if type(caller) is Run:
                begin, stop = max(ticket, first), min(ticket + count, first + item.count)
                part = None if results is None else results[begin - first : stop - first]
                caller.parts.append((index + begin - first, stop - begin, slot, part))
                if stop == ticket + count:
                    caller.future.resolve(RunOutcome(caller.parts))
                continue
            if ticket < first:
                raise InvariantViolation(f"ticket {ticket} was passed over: slot {slot} begins with {first}")
            offset = ticket - first
            outcome = Outcome(index + offset, slot, None if results is None else results[offset])
            caller.resolve(outcome)  # type: ignore[union-attr]

    def _take_due(self, end: int) -> list[tuple[int, int, Future[Outcome] | Run]]:
        """Remove the callers of tickets below ``end``; a run that reaches beyond it is returned and kept."""
        due = []
        waiting = self._waiting
        # Whoever appended one of these commands has registered it by the time the lock is free.
        with self.lock:
            while waiting and waiting[0][0] < end:
                first = waiting[0]
                due.append(first)
                if first[0] + first[1] > end:
                    break
                waiting.popleft()
        return due

    def fail(self, error_for: Callable[[int], BaseException]) -> None:
        """Give every caller an exception; ``error_for(ticket)`` builds the one for a ticket."""
        with self.lock:
            taken = list(self._waiting)
            self._waiting.clear()
        for ticket, _count, caller in taken:
            # A run is as uncertain as its first command, which has gone furthest.
            (caller.future if isinstance(caller, Run) else caller).fail(error_for(ticket))


class Applier:
    """Applies chosen slots in order; see the head of this file.

    Args:
        source: the reactor.
        log: told of every chosen slot before it is applied.
        machine: the state machine, or ``None``.
        pending: the callers of this node.
        node_id: of this node.
        incarnation: of this start of this node: batches of earlier starts have no callers any more.
        on_failure: called once, with the exception, when applying cannot go on.
        first_slot: the first slot that the source will give.
    """

    def __init__(
        self,
        source: ChosenSource,
        log: Any,
        machine: Any,
        pending: Pending,
        *,
        node_id: int,
        incarnation: int,
        on_failure: Callable[[BaseException], None],
        first_slot: int = 1,
    ) -> None:
        self._source = source
        self._log = log
        self._pending = pending
        self._node_id = node_id
        self._incarnation = incarnation
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._applying_thread = 0
        self._stopping = False
        self._machine = machine
        self._apply = _batch_function(machine)
        self.failure: BaseException | None = None
        self.applied_slot = first_slot - 1
        self.applied_index = 0
        self._moved = threading.Condition()
        self._moved_waiters = 0
        self._watchers: tuple[Callable[[], None], ...] = ()

    def wait(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for something to apply; False when nothing will come any more."""
        return not self._stopping and self._source.wait_unapplied(timeout_s) is not None

    def drain(self, until: Future[Any] | None = None, wait_s: float = -1) -> None:
        """Apply what is chosen, until there is no more or ``until`` is done.

        Taking and applying happen under one lock, which is what keeps the order. ``wait_s`` is how long to wait
        for it while another thread is at it: the apply thread waits until it is free (-1), or it would look in
        vain again and again.
        """
        while self._lock.acquire(timeout=wait_s):
            try:
                if self._stopping or (until is not None and until.done()):
                    return
                items = self._source.take_chosen(0.0, TAKE_ITEMS_MAX)
                if not items:
                    return
                self._applying_thread = threading.get_ident()
                self._apply_items(items)
            finally:
                self._applying_thread = 0
                self._lock.release()

    def run_between(self, function: Callable[[Any], Any] | None, timeout_s: float) -> tuple[bool, Any]:
        """Run ``function(machine)`` while nothing is applied (R6); return ``(False, None)`` if its turn does not come
        within ``timeout_s``.

        Without a function the result is the index of the last command that is applied.

        Raises:
            Closed: the state machine has failed, perhaps half-way through a command, or the node has ended.
        """
        if not self._lock.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            return False, None
        try:
            if self.failure is not None:
                raise Closed(f"this node has stopped and serves no reads: {self.failure}") from self.failure
            if self.ended:
                raise Closed("the replica was closed before the read was served; nothing was read")
            self._applying_thread = threading.get_ident()
            return True, self.applied_index if function is None else function(self._machine)
        finally:
            self._applying_thread = 0
            self._lock.release()

    def wait_readers(self, timeout_s: float) -> None:
        """After :meth:`end`: wait for a reader's function that still runs, unless it is the one that calls."""
        if not self.is_applying_here and self._lock.acquire(timeout=timeout_s):
            self._lock.release()

    @property
    def is_applying_here(self) -> bool:
        """True inside the state machine, a reader's function or a callback of a future, on its thread."""
        return self._applying_thread == threading.get_ident()

    def _apply_items(self, items: Sequence[ChosenItem]) -> None:
        try:
            reach("apply.take")
            self._log.append(items, flush=False)
            for item in items:
                if self._stopping:
                    break  # closing: what is left is applied after the next start
                self._apply_item(item)
        except Exception as error:
            self._stopping = True
            self.failure = error
            self._on_failure(error)
        self._announce()

    def _apply_item(self, item: ChosenItem) -> None:
        index = item.index
        if index:
            results = None
            if self._apply is not None:
                context = ApplyContext(index, item.slot, item.origin)
                try:
                    reach("apply.before")
                    results = self._apply(item.commands, context)
                except PaxosError:
                    raise
                except Exception as error:
                    where = getattr(error, FAILED_AT, f"commands {index} to {index + item.count - 1}")
                    raise ApplyFailed(
                        f"the state machine raised {type(error).__name__}: {error} in slot {item.slot} "
                        f"({where}); this node has stopped there. Every "
                        "replica with the same state machine stops at this slot: correct apply and restart"
                    ) from error
                if results is not None and len(results) != item.count:
                    raise ApplyFailed(
                        f"apply_batch returned {len(results)} results for {item.count} commands in slot "
                        f"{item.slot}; return one for each, or None; this node has stopped there"
                    )
            reach("apply.after")
            self.applied_index = index + item.count - 1
            self.applied_slot = item.slot
            if item.origin == self._node_id and item.incarnation == self._incarnation:
                self._pending.settle(item, results)
                reach("apply.settled")
        else:
            self.applied_slot = item.slot

    # -- whoever follows the log ---------------------------------------------------------------------------

    def _announce(self) -> None:
        if self._moved_waiters:
            with self._moved:
                self._moved.notify_all()
        for watcher in self._watchers:
            watcher()

    def wait_index(self, index: int, timeout_s: float | None) -> bool:
        """Wait until command ``index`` is applied; False after the timeout or when applying has ended."""
        return self._wait(lambda: self.applied_index >= index, timeout_s)

    def wait_slot(self, slot: int, timeout_s: float | None) -> bool:
        """Wait until every slot up to ``slot`` is applied; False after the timeout or when applying has ended."""
        return self._wait(lambda: self.applied_slot >= slot, timeout_s)

    def _wait(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        if reached():
            return True
        with self._moved:
            # Announced before the look: the applier looks at the count after it has moved its marks.
            self._moved_waiters += 1
            try:
                self._moved.wait_for(lambda: reached() or self.ended, timeout_s)
            finally:
                self._moved_waiters -= 1
        return reached()

    ended = False
    """True once nothing will be applied any more."""

    def stop(self) -> None:
        """Apply nothing after the slot that is being applied."""
        self._stopping = True

    def end(self) -> None:
        """Say that nothing will be applied any more: everybody who waits is woken."""
        self.ended = True
        with self._moved:
            self._moved.notify_all()
        for watcher in self._watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher()`` after every step, on the applying thread; it must be quick and not raise."""
        with self._moved:
            self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling ``watcher``."""
        with self._moved:
            self._watchers = tuple(other for other in self._watchers if other is not watcher)


def _batch_function(machine: Any) -> Callable[[Sequence[bytes], ApplyContext], Sequence[Any] | None] | None:
    """Return the machine's ``apply_batch``, built from ``apply`` where it has none of its own."""
    if machine is None:
        return None
    if callable(getattr(machine, "apply_batch", None)):
        return machine.apply_batch  # type: ignore[no-any-return]

    def apply_batch(commands: Sequence[bytes], context: ApplyContext) -> Sequence[Any] | None:
        return StateMachine.apply_batch(machine, commands, context)

    return apply_batch
